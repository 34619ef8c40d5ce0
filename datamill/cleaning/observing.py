"""What cleaning needs to know of each sample's payload, read once and batch by batch."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamill.modalities import modality_of
from datamill.samples import Dataset


@dataclass(frozen=True)
class Observed:
    """Facts about samples, in the order they were read.

    Attributes:
        fingerprints: Shape ``(N,)``.
        thumbnails: Grey pixels, shape ``(N, D)``; ``None`` where the modality has none.
        is_constant: Whether all pixels are equal, shape ``(N,)``; false for tables.
    """

    fingerprints: NDArray[np.uint64]
    thumbnails: NDArray[np.uint8] | None
    is_constant: NDArray[np.bool_]


def observe(tables: Iterable[pa.Table], *, dataset: Dataset) -> Observed:
    """Fingerprint, thumbnail and constancy of every sample; memory holds one batch of payloads at a time."""
    modality = modality_of(dataset)
    has_pictures = dataset.modality == "image"
    prints, thumbnails, constant = [np.empty(0, np.uint64)], [], [np.empty(0, bool)]
    for table in tables:
        prints.append(modality.fingerprints(table, dataset=dataset))
        constant.append(np.zeros(table.num_rows, bool))
        if has_pictures:
            pixels = modality.observations(table, dataset=dataset)
            thumbnails.append(np.rint(pixels * 255).astype(np.uint8))
            flat = np.flatnonzero(np.ptp(thumbnails[-1], axis=1) == 0)  # a constant image has a constant thumbnail
            spread = modality.properties(table.take(pa.array(flat)), dataset=dataset)["pixel_std"] if len(flat) else []
            constant[-1][flat] = np.asarray(spread, float) == 0
    return Observed(
        fingerprints=np.concatenate(prints),
        thumbnails=np.concatenate(thumbnails) if thumbnails else None,
        is_constant=np.concatenate(constant),
    )
