"""Stage audit: which labels are probably wrong, and what is done about them in the training split."""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveInt

from datamill import catalog
from datamill.stage import Account, Context, Metrics, Params, Stage

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from datamill.auditing.judging import Judgement
    from datamill.auditing.roster import Roster
    from datamill.samples import Dataset

MAX_SUSPECTS = 200  # more than a person will look at
OUTCOMES = {  # fate and reason of each action
    "": ("kept", ""),
    "off": ("kept", ""),
    "flag": ("kept", "label_issue"),
    "drop": ("dropped", "label_issue"),
    "relabel": ("repaired", "relabelled"),
    "down_weight": ("kept", "down_weighted"),
}


class AuditParams(Params):
    """Section ``audit``."""

    policy: Literal["off", "flag", "drop", "relabel", "down_weight"]
    """What happens to training samples whose label is probably wrong: off, flag, drop, relabel or down_weight.

    ``flag`` keeps them and says so, ``drop`` removes them, ``relabel`` gives them the most probable class,
    ``down_weight`` lets them count less, ``off`` skips the audit. Validation and test samples are only ever flagged.
    """
    method: Literal["prune_by_noise_rate", "prune_by_class", "both", "confident_learning", "predicted_neq_given"]
    """cleanlab's rule for which labels are issues."""
    min_quality: float = Field(gt=0, le=1)
    """Labels whose out-of-sample probability is at least this are left alone, whatever the rule says."""
    max_share: float = Field(ge=0, le=1)
    """Largest share of the training samples the policy may touch, worst labels first; the others are flagged."""
    weight: float = Field(ge=0, lt=1)
    """Weight in the loss of a down-weighted sample; the others weigh 1."""
    max_rows: PositiveInt
    """Training samples the models are fitted on, chosen at random (count); all samples are judged."""


def audit(
    *,
    samples: Path,
    repairs: Path,
    features: Path,
    assignments: Path,
    ledger: Path,
    suspects: Path,
    params: AuditParams,
    context: Context,
) -> Metrics:
    """Judge every label by models that have not seen it, and treat the doubtful ones of train.

    The models are softmax regressions on thumbnails of images, or on the features of a table, one per fold of the
    split, so that near-duplicates and groups are never on both sides.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from datamill import ledger as ledgers
    from datamill import parts
    from datamill.auditing.judging import unjudged
    from datamill.auditing.roster import read_roster
    from datamill.auditing.treating import choose_actions, is_suspect, iter_audited, write_suspects

    dataset = parts.read_manifest(samples).dataset
    roster = read_roster(
        samples, assignments=assignments, classes=dataset.classes, max_rows=params.max_rows, key="audit"
    )
    judgement = unjudged(len(roster.labels))
    if params.policy != "off" and roster.is_taught.any():
        read = partial(_read, samples=samples, repairs=repairs, features=features, dataset=dataset)
        judgement = _judge(read, roster=roster, dataset=dataset, params=params, context=context)
    actions = choose_actions(judgement, is_train=roster.splits == 0, max_share=params.max_share)
    worst_rows = is_suspect(judgement, actions=actions, limit=MAX_SUSPECTS)

    outcomes = [OUTCOMES[name] for name in ("", "flag", params.policy)]
    fates, reasons = (pa.array(texts) for texts in zip(*outcomes, strict=True))
    worst: list[pa.Table] = []
    with ledgers.Writer(ledger) as writer:
        for rows, audited in iter_audited(
            assignments,
            roster=roster,
            judgement=judgement,
            actions=actions,
            policy=params.policy,
            classes=dataset.classes,
        ):
            is_relabelled, is_light = (pc.equal(audited["action"], name) for name in ("relabel", "down_weight"))
            writer.write(
                sample_ids=audited["sample_id"],
                fates=fates.take(pa.array(actions[rows])),
                reasons=reasons.take(pa.array(actions[rows])),
                details=audited["detail"],
                extra={
                    "split": audited["split"],
                    "label": pc.if_else(is_relabelled, audited["suggestion"], audited["label"]),
                    "weight": pc.if_else(is_light, params.weight, 1.0).cast(pa.float32()),
                    "quality": audited["quality"],
                    "suggestion": audited["suggestion"],
                },
            )
            worst.append(audited.filter(pa.array(worst_rows[rows])))
    write_suspects(suspects, suspects=pa.concat_tables(worst), samples=samples, limit=MAX_SUSPECTS)
    return _numbers(roster, judgement=judgement, actions=actions, policy=params.policy)


def _read(*, samples: Path, repairs: Path, features: Path, dataset: "Dataset") -> "Iterator[pa.Table]":
    """Start reading what observations are made of: thumbnails of images, or a table's features."""
    from datamill import reading
    from datamill.auditing.roster import OBSERVED_ROWS
    from datamill.features import iter_tables

    if dataset.modality == "image":
        return iter_tables(features, columns=["thumbnail"], rows=OBSERVED_ROWS)
    columns = ["sample_id", *(feature.column for feature in dataset.features)]
    return reading.iter_samples([samples], repairs=repairs, columns=columns)


def _judge(
    read: "Callable[[], Iterator[pa.Table]]",
    *,
    roster: "Roster",
    dataset: "Dataset",
    params: AuditParams,
    context: Context,
) -> "Judgement":
    """Fit the models on some samples of train, then ask them about all samples."""
    from datamill.auditing import judging
    from datamill.auditing import roster as rosters

    observe = partial(rosters.observe, roster=roster, dataset=dataset)
    models = judging.fit_models(
        rosters.join(observe(read(), wanted=roster.is_taught)),
        labels=roster.labels[roster.is_taught],
        folds=roster.folds[roster.is_taught],
        build=partial(judging.build_model, dataset=dataset),
        num_workers=context.num_workers,
    )
    observed = observe(context.progress(read(), total=None, label="judging"), wanted=roster.splits >= 0)
    num_classes = len(dataset.classes)
    found = judging.out_of_sample(
        observed, models=models, folds=roster.folds, num_classes=num_classes, num_workers=context.num_workers
    )
    probabilities = judging.ProbabilityFile(context.scratch / "probabilities.bin", found, num_classes=num_classes)
    return judging.judge_labels(
        probabilities,
        labels=roster.labels,
        folds=roster.folds,
        is_taught=roster.is_taught,
        num_classes=num_classes,
        method=params.method,
        min_quality=params.min_quality,
    )


def _numbers(roster: "Roster", *, judgement: "Judgement", actions: "NDArray[np.int8]", policy: str) -> Metrics:
    """Labels judged and found doubtful per split, and what was done."""
    import numpy as np

    from datamill.splitting import SPLITS

    def by_split(mask: "NDArray[np.bool_]") -> dict[str, int]:
        return {name: int(np.count_nonzero(mask & (roster.splits == place))) for place, name in enumerate(SPLITS)}

    judged, doubtful = by_split(~np.isnan(judgement.quality)), by_split(actions > 0)
    taken = Counter({"flag": int((actions == 1).sum())}) + Counter({policy: int((actions == 2).sum())})
    return {
        "judged": judged,
        "issues": doubtful,
        "issue_share_train": doubtful["train"] / max(1, judged["train"]),
        "actions": dict(sorted(taken.items())),
    }


STAGE = Stage(
    run=audit,
    params=AuditParams,
    inputs={
        "samples": catalog.INGEST_SAMPLES,
        "repairs": catalog.CLEAN_REPAIRS,
        "features": catalog.EXTRACT_FEATURES,
        "assignments": catalog.SPLIT_ASSIGNMENTS,
    },
    outputs={"ledger": catalog.AUDIT_LEDGER, "suspects": catalog.AUDIT_SUSPECTS},
    account=Account(ledger="ledger", population=("assignments",)),
)
