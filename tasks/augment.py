"""Stage augment: the augmentation policy of training, checked on real samples; offline copies where asked."""

from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeInt

from datamill import catalog
from datamill.errors import ParamsError
from datamill.stage import Context, Metrics, Params, Stage


class TransformParams(Params):
    """One step of the policy."""

    name: str
    """A transform of the engine for images (Affine, HorizontalFlip, ...); jitter for tables."""
    probability: float = Field(ge=0, le=1)
    """Chance that the step is applied to a sample in an epoch."""
    arguments: dict[str, Any]
    """Its own arguments; for jitter {share: s}, noise of s standard deviations of each feature."""


class AugmentParams(Params):
    """Section ``augment``."""

    seed: NonNegativeInt
    """Seeds every draw; a sample's augmentation depends on it, the epoch and the sample's id."""
    engine: Literal["albumentations", "torch"]
    """What changes images: ``albumentations`` one after the other, or ``torch`` whole batches on the training device.

    torch has Affine, Erasing, HorizontalFlip, RandomBrightnessContrast and VerticalFlip.

    Without effect on tables.
    """
    transforms: list[TransformParams]
    """Steps in order, applied to every training sample in every epoch; [] trains on the samples as they are."""
    copies_per_sample: NonNegativeInt
    """Augmented copies of each training sample written to disk (count); 0 leaves augmentation to training."""
    preview_samples: int = Field(ge=1, le=64)
    """Real training samples shown on the preview sheet (count)."""


def augment(
    *,
    samples: Path,
    repairs: Path,
    audited: Path,
    policy: Path,
    copies: Path,
    preview: Path,
    params: AugmentParams,
    context: Context,
) -> Metrics:
    """Check the augmentation policy on real training samples, preview it, and write copies where asked.

    A policy is checked by running it, so that a misspelt or unfit one stops here and not in training.

    Raises:
        ParamsError: A transform or an argument is unknown or wrong, changes the shape or type of a real sample, or
            copies are asked for without any transform.
    """
    from datamill import derived, parts, reading
    from datamill.augmentation import copies as copying
    from datamill.augmentation import policy as policies
    from datamill.augmentation.preview import choose_across_classes, write_preview
    from datamill.preprocessing.moments import Moments

    dataset = parts.read_manifest(samples).dataset
    if params.copies_per_sample and not params.transforms:
        raise ParamsError(
            f"augment.copies_per_sample was {params.copies_per_sample} with no transform; add one or set it to 0"
        )
    chosen = policies.Policy.model_validate(
        {"kind": dataset.modality, **params.model_dump(include={"seed", "engine", "transforms"})}
    )
    read_train = partial(
        reading.iter_decided,
        [samples],
        decisions=audited,
        repairs=repairs,
        decided=["label", "split"],
        where=reading.in_split("train"),
    )
    moments = Moments(len(dataset.columns("number")))
    for table, _ in read_train(columns=dataset.columns("number")) if dataset.modality == "tabular" else ():
        moments.add(copying.numeric_values(table, dataset=dataset))
    recipe = copying.Recipe(
        policy=chosen, scales=tuple(moments.std.tolist()), num_copies=params.copies_per_sample, dataset=dataset
    )
    augmenter = recipe.augmenter()

    members = derived.choose_by_class(
        audited, classes=dataset.classes, size=params.preview_samples, key=f"preview {params.seed}"
    )
    labels = choose_across_classes(members, count=params.preview_samples)
    shown = derived.read_in_order(samples, wanted=list(labels), repairs=repairs)
    copying.check_on_images(augmenter, table=shown)
    policies.save_policy(policy, policy=chosen)
    write_preview(
        preview, shown=shown, labels=labels, policy=chosen, augmenter=augmenter, dataset=dataset, moments=moments
    )

    train = (
        table.set_column(table.column_names.index("label"), "label", decided["label"])
        for table, decided in (read_train() if params.copies_per_sample else ())
    )
    num_copies = copying.write_copies(
        context.progress(train, total=None, label="copying"),
        folder=copies,
        recipe=recipe,
        engine=context.engine,
        former=context.previous.get("copies"),
    )
    num_train = sum(its.size for its in members.values())
    return {
        "train_samples": num_train,
        "transforms": len(params.transforms),
        "copies": {"written": num_copies, "unchanged": params.copies_per_sample * num_train - num_copies},
    }


STAGE = Stage(
    run=augment,
    params=AugmentParams,
    inputs={"samples": catalog.INGEST_SAMPLES, "repairs": catalog.CLEAN_REPAIRS, "audited": catalog.AUDIT_LEDGER},
    outputs={"policy": catalog.AUGMENT_POLICY, "copies": catalog.AUGMENT_COPIES, "preview": catalog.AUGMENT_PREVIEW},
    by_part=True,
)
