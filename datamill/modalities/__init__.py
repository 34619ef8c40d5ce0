"""What a kind of data can do: one module each, all with the functions of ``Modality``."""

from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamill.samples import Dataset

__all__ = ["Modality", "modality_of"]


class Modality(Protocol):
    """The functions every modality module offers; ``table`` holds samples with their payload."""

    def properties(self, table: pa.Table, *, dataset: Dataset) -> pa.Table:
        """Cheap facts about each sample, one row each, for schemas and expectations (height, mean, a column)."""

    def features(self, table: pa.Table, *, dataset: Dataset) -> pa.Table:
        """What later stages ask of each sample again and again, one row each, so that no payload is read twice.

        At least ``fingerprint``: 64 bits in which near-duplicates differ in few or none.
        """

    def observations(self, table: pa.Table, *, dataset: Dataset) -> Any:
        """What ``vectorizer`` takes: an array or data frame with one row per sample."""

    def vectorizer(self, *, dataset: Dataset) -> Any:
        """An unfitted scikit-learn transformer from ``observations`` to finite float features, shape ``(N, D)``."""

    def pictures(self, table: pa.Table, *, dataset: Dataset) -> list[NDArray[np.uint8]]:
        """Each sample as an RGB picture for sheets and cards, shape ``(H, W, 3)``."""


def modality_of(dataset: Dataset) -> Modality:
    """The modality module of a data set."""
    if dataset.modality == "image":
        from datamill.modalities import image

        return image
    from datamill.modalities import tabular

    return tabular
