"""Stage augment: the augmentation policy of training, checked on real samples; offline copies where asked."""

from pathlib import Path
from typing import Any

from pydantic import Field, NonNegativeInt

from datamill import catalog
from datamill.errors import ParamsError
from datamill.stage import Context, Metrics, Params, Stage


class TransformParams(Params):
    """One step of the policy."""

    name: str
    """An albumentations class for images (Affine, HorizontalFlip, ...); jitter for tables."""
    probability: float = Field(ge=0, le=1)
    """Chance that the step is applied to a sample in an epoch."""
    arguments: dict[str, Any]
    """Its own arguments; for jitter {share: s}, noise of s standard deviations of each feature."""


class AugmentParams(Params):
    """Section ``augment``."""

    seed: NonNegativeInt
    """Seeds every draw; a sample's augmentation depends on it, the epoch and the sample's id."""
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
    import numpy as np

    from datamill import derived, parts, reading
    from datamill.augmentation import copies as copying
    from datamill.augmentation import policy as policies
    from datamill.augmentation.preview import choose_across_classes, write_preview

    dataset = parts.read_manifest(samples).dataset
    if params.copies_per_sample and not params.transforms:
        raise ParamsError(
            f"augment.copies_per_sample was {params.copies_per_sample} with no transform; add one or set it to 0"
        )
    chosen = policies.Policy.model_validate(
        {"kind": dataset.modality, "seed": params.seed, "transforms": params.model_dump()["transforms"]}
    )
    labels = derived.train_labels(audited)
    light = ["sample_id", *copying.numeric_columns(dataset)]
    train = reading.read_samples([samples], wanted=labels, repairs=repairs, columns=light)
    augmenter = copying.source_augmenter(chosen, train=train, dataset=dataset)

    rng = np.random.default_rng([params.seed, 0])
    shown = reading.read_in_order(
        [samples],
        wanted=choose_across_classes(labels, classes=dataset.classes, count=params.preview_samples, rng=rng),
        repairs=repairs,
    )
    copying.check_on_images(augmenter, table=shown)
    policies.save_policy(policy, policy=chosen)
    write_preview(preview, shown=shown, labels=labels, policy=chosen, augmenter=augmenter, dataset=dataset, train=train)

    num_copies = 0
    with parts.PartsWriter(copies, dataset=dataset) as writer:
        tables = reading.iter_samples([samples], wanted=labels, repairs=repairs) if params.copies_per_sample else ()
        for table in context.progress(tables, total=None, label="copying"):
            for copied in copying.copies_of(
                table, augmenter=augmenter, dataset=dataset, labels=labels, num_copies=params.copies_per_sample
            ):
                writer.write(copied)
                num_copies += copied.num_rows
    asked = params.copies_per_sample * len(labels)
    return {
        "train_samples": len(labels),
        "transforms": len(params.transforms),
        "copies": {"written": num_copies, "unchanged": asked - num_copies},
    }


STAGE = Stage(
    run=augment,
    params=AugmentParams,
    inputs={"samples": catalog.INGEST_SAMPLES, "repairs": catalog.CLEAN_REPAIRS, "audited": catalog.AUDIT_LEDGER},
    outputs={"policy": catalog.AUGMENT_POLICY, "copies": catalog.AUGMENT_COPIES, "preview": catalog.AUGMENT_PREVIEW},
)
