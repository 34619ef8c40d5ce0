"""Rosters of a few samples, for tests."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamill.auditing.roster import Roster


def roster_of(table: pa.Table, *, folds: NDArray[np.int8]) -> Roster:
    """All samples of a table; those with a fold are taught."""
    return Roster(
        is_left=np.ones(table.num_rows, bool),
        labels=np.array([int(label) for label in table["label"].to_pylist()], np.int32),
        splits=np.where(folds < 0, 2, 0).astype(np.int8),
        folds=folds,
        is_taught=folds >= 0,
    )
