"""What a source gives: batches of samples and rejects, and the sum that shows that nothing was lost."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from datamill import ledger, parts
from datamill.errors import DataError, StageError
from datamill.hashes import digits, identities
from datamill.parts import conform
from datamill.samples import Dataset

BATCH_ROWS = 4_096
BATCH_BYTES = 16 * 2**20  # payload read at a time; bounds memory, not results


class Reject(NamedTuple):
    """An item that could not become a sample."""

    source: str
    reason: str
    message: str


@dataclass(frozen=True)
class Batch:
    """Some items of a source, in its order: the good ones as a table of samples, the others as rejects."""

    table: pa.Table
    rejects: Sequence[Reject] = ()


class Known(NamedTuple):
    """Some items of a source, in its order, as the last ingest made them: rows of its samples and of its rejects."""

    samples: range
    rejects: range


@dataclass(frozen=True)
class Reading:
    """A source that was opened and listed.

    Attributes:
        dataset: What holds for every sample; its classes are those the listing found.
        num_items: Items the listing found; each becomes a sample or a reject.
        batches: The items, read as the iterator advances; it raises ``DataError`` when the source changes meanwhile.
    """

    dataset: Dataset
    num_items: int
    batches: Iterator[Batch | Known]


def sample_table(
    *,
    dataset: Dataset,
    sources: Sequence[str] | pa.Array,
    contents: Sequence[str] | pa.Array,
    labels: Sequence[str] | pa.Array | pa.ChunkedArray,
    payload: Mapping[str, pa.Array],
    groups: pa.Array | None = None,
    times: pa.Array | None = None,
    sample_ids: pa.Array | None = None,
) -> pa.Table:
    """Samples with these source keys, content hashes and payload columns, ready for a parts folder.

    Their ids are made of source keys and content hashes, unless they are known.
    """
    sources, contents = pa.array(sources, pa.string()), pa.array(contents, pa.string())
    columns: dict[str, Any] = {
        "sample_id": digits(identities(sources, contents)) if sample_ids is None else sample_ids,
        "source": sources,
        "content_hash": contents,
        "label": labels if isinstance(labels, pa.ChunkedArray) else pa.array(labels, pa.string()),
        "origin": pa.repeat(pa.scalar("source"), len(sources)),
        "parents": pa.ListArray.from_arrays(np.zeros(len(sources) + 1, np.int32), pa.array([], pa.string())),
        **({} if groups is None else {"group": groups}),
        **({} if times is None else {"time": times}),
        **payload,
    }
    return conform(pa.table(columns), schema=dataset.arrow_schema())


@dataclass(frozen=True)
class Tally:
    """What was written, counted apart from the reading's own count.

    Attributes:
        dataset: The reading's data set.
        num_items: Items the reading listed.
        labels: Samples of each class.
        reasons: Rejects by reason.
        first_reject: The first of them.
    """

    dataset: Dataset
    num_items: int
    labels: Counter[str]
    reasons: Counter[str]
    first_reject: Reject | None

    @classmethod
    def of(cls, reading: Reading, *, samples: Path, rejects: Path) -> "Tally":
        """Count the samples and rejects that were written."""
        labels: Counter[str] = Counter()
        for table in parts.iter_tables(samples, columns=["label"], rows=parts.MAX_ROWS):
            labels.update(ledger.count_values(table["label"]))
        reasons: Counter[str] = Counter()
        first = None
        for table in ledger.iter_tables(rejects):
            reasons.update(ledger.count_values(table["reason"]))
            first = first or next((Reject(**row) for row in table.slice(0, 1).to_pylist()), None)
        return cls(reading.dataset, reading.num_items, labels, reasons, first)

    def check(self) -> None:
        """Refuse a reading that lost an item or left nothing to learn from.

        Raises:
            StageError: Samples and rejects do not add up to the items listed.
            DataError: No item, or no item of some class, became a sample.
        """
        num_samples, num_rejects = self.labels.total(), self.reasons.total()
        if num_samples + num_rejects != self.num_items:
            raise StageError(
                f"ingest: {self.num_items} items were listed, but {num_samples} became samples and "
                f"{num_rejects} rejects; the source changed or a reader lost some, run ingest again"
            )
        if not num_samples:
            raise DataError(
                f"none of the {self.num_items} items of {self.dataset.name!r} could be read: {self._told()}"
            )
        bare = [name for name in self.dataset.classes if not self.labels[name]]
        if bare:
            raise DataError(
                f"{self.dataset.name!r}: no item of class {', '.join(map(repr, bare))} could be read; repair its items "
                f"or take the class out of the source. Rejects: {self._told()}"
            )

    def metrics(self) -> dict[str, Any]:
        """Items, samples, rejects by reason, and samples by class."""
        return {
            "num_items": self.num_items,
            "num_samples": self.labels.total(),
            "num_rejects": self.reasons.total(),
            "rejects": dict(sorted(self.reasons.items())),
            "num_classes": len(self.dataset.classes),
            "classes": {name: self.labels[name] for name in self.dataset.classes},
        }

    def _told(self) -> str:
        assert self.first_reject is not None
        counts = ", ".join(f"{count} {reason}" for reason, count in sorted(self.reasons.items()))
        return f"{counts}; first {self.first_reject.source}: {self.first_reject.message}"


def require_classes(dataset: Dataset) -> None:
    """Refuse a data set in which there is nothing to tell apart.

    Raises:
        DataError: There are fewer than two classes.
    """
    if len(dataset.classes) < 2:
        only = f"only class {dataset.classes[0]!r}" if dataset.classes else "no class"
        raise DataError(f"{dataset.name!r} has {only}; classification needs two at least, add items of another class")
