"""Stage audit: which labels are probably wrong, and what is done about them in the training split."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from datamill import catalog
from datamill.stage import Account, Context, Metrics, Params, Stage

if TYPE_CHECKING:
    import pyarrow as pa

MAX_SUSPECTS = 200  # more than a person will look at
OUTCOMES = {  # fate and reason of each action
    "": ("kept", ""),
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


def audit(
    *,
    samples: Path,
    repairs: Path,
    assignments: Path,
    ledger: Path,
    suspects: Path,
    params: AuditParams,
    context: Context,
) -> Metrics:
    """Judge every label by models that have not seen it, and treat the doubtful ones of train.

    The models are logistic regressions on the modality's features, one per fold of the split, so that near-duplicates
    and groups are never on both sides.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from datamill import auditing, parts, reading
    from datamill import ledger as ledgers

    dataset = parts.read_manifest(samples).dataset
    placed = ledgers.read(assignments, columns=["sample_id", "fate", "split", "fold"])
    placed = placed.filter(pc.is_in(placed["fate"], pa.array(ledgers.SURVIVING)))
    wanted = set(placed["sample_id"].to_pylist())
    rows = reading.read_samples([samples], wanted=wanted, repairs=repairs, columns=["sample_id", "source", "label"])
    assert rows["sample_id"].equals(placed["sample_id"]), "ledgers are in sample order"

    judgement = auditing.unjudged(rows.num_rows)
    if params.policy != "off":
        tables = reading.iter_samples([samples], wanted=wanted, repairs=repairs)
        judgement = auditing.audit_labels(
            context.progress(tables, total=None, label=f"observing {rows.num_rows} samples, block"),
            dataset=dataset,
            labels=rows["label"].to_pylist(),
            folds=placed["fold"].to_numpy(),
            method=params.method,
            min_quality=params.min_quality,
            num_workers=context.num_workers,
        )
    is_train = pc.equal(placed["split"], "train").to_numpy()
    actions = auditing.choose_actions(judgement, is_train=is_train, policy=params.policy, max_share=params.max_share)

    audited = auditing.tabulate(judgement, actions=actions, rows=rows, splits=placed["split"], classes=dataset.classes)
    fates, reasons = zip(*(OUTCOMES[action] for action in actions), strict=True)
    ledgers.write(
        ledger,
        sample_ids=rows["sample_id"],
        fates=fates,
        reasons=reasons,
        details=audited["detail"].to_pylist(),
        extra={
            "split": placed["split"],
            "label": pc.if_else(pc.equal(audited["action"], "relabel"), audited["suggestion"], audited["label"]),
            "weight": pc.if_else(pc.equal(audited["action"], "down_weight"), params.weight, 1.0).cast(pa.float32()),
            "quality": audited["quality"],
            "suggestion": audited["suggestion"],
        },
    )
    auditing.write_suspects(suspects, audited=audited, limit=MAX_SUSPECTS)
    return _numbers(audited)


def _numbers(audited: "pa.Table") -> Metrics:
    """Labels judged and found doubtful per split, and what was done."""
    splits, actions = audited["split"].to_pylist(), audited["action"].to_pylist()
    is_judged = audited["quality"].is_valid().to_pylist()
    judged = Counter(split for split, was in zip(splits, is_judged, strict=True) if was)
    doubtful = Counter(split for split, action in zip(splits, actions, strict=True) if action)
    taken = Counter(action for action in actions if action)
    return {
        "judged": {split: judged[split] for split in ("train", "validation", "test")},
        "issues": {split: doubtful[split] for split in ("train", "validation", "test")},
        "issue_share_train": doubtful["train"] / max(1, judged["train"]),
        "actions": dict(sorted(taken.items())),
    }


STAGE = Stage(
    run=audit,
    params=AuditParams,
    inputs={
        "samples": catalog.INGEST_SAMPLES,
        "repairs": catalog.CLEAN_REPAIRS,
        "assignments": catalog.SPLIT_ASSIGNMENTS,
    },
    outputs={"ledger": catalog.AUDIT_LEDGER, "suspects": catalog.AUDIT_SUSPECTS},
    account=Account(ledger="ledger", population=("assignments",)),
)
