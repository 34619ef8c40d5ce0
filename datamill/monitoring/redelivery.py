"""Items that were judged and come again with a label: under their name, or moved into the folder of a class."""

from pathlib import Path
from typing import NamedTuple, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from datamill.monitoring.answers import ANSWERS, LABELS, read_rows
from datamill.monitoring.cursor import Cursor
from datamill.monitoring.params import SourceParams, WatchedImages
from datamill.monitoring.verdicts import window_folder


class Again(NamedTuple):
    """Rows of a feed that are no new items.

    Attributes:
        is_known: Which rows were judged before, shape ``(N,)``.
        is_moved: Which of them came under another name.
        labels: Key and label of those that brought one.
    """

    is_known: NDArray[np.bool_]
    is_moved: NDArray[np.bool_]
    labels: pa.Table


@final
class Redelivery:
    """Finds them among the items of a feed."""

    def __init__(self, root: Path, *, cursor: Cursor, params: SourceParams) -> None:
        """Look among the windows of a workspace."""
        self._root = root
        self._cursor = cursor
        self._is_on = params.labels.wait_days > 0
        self._can_move = isinstance(params.data, WatchedImages) and params.data.labels == "folder"
        self._bare: dict[str, str] | None = None

    def find(self, table: pa.Table, *, is_known: NDArray[np.bool_]) -> Again:
        """Which of a feed's samples were judged before, and their labels."""
        is_moved = np.zeros(table.num_rows, bool)
        if not self._is_on:
            return Again(is_known, is_moved, LABELS.empty_table())
        has_label = np.asarray(pc.not_equal(table["label"], "").to_numpy(), bool)
        keys = table["sample_id"].to_pylist()
        for row in np.flatnonzero(has_label & ~is_known).tolist() if self._can_move else ():
            first = self._waiting().get(_name(table["content_hash"][row].as_py(), table["source"][row].as_py()))
            if first is not None:
                keys[row], is_moved[row] = first, True
        is_known = is_known | is_moved
        labels = pa.table([pa.array(keys, pa.string()), table["label"]], schema=LABELS)
        return Again(is_known, is_moved, labels.filter(pa.array(is_known & has_label)))

    def _waiting(self) -> dict[str, str]:
        """Sample id by content and name of the images that wait for a label."""
        if self._bare is None:
            self._bare = {}
            for one in self._cursor.labelled():
                folder = window_folder(self._root, f"{one.number:06d}")
                if one.num_labels < one.num_samples and (folder / ANSWERS).exists():
                    rows = read_rows(folder, columns=("sample_id", "source", "label", "content_hash"))
                    for row in rows.filter(pc.equal(rows["label"], "")).to_pylist():
                        self._bare[_name(row["content_hash"], row["source"])] = row["sample_id"]
        return self._bare


def _name(content: str, source: str) -> str:
    """What an image keeps when it is moved into another folder."""
    return f"{content}/{source.rpartition('/')[2]}"
