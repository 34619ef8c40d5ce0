"""What a source gives: batches of samples and rejects, and the sum that shows that nothing was lost."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from datamill import samples
from datamill.errors import DataError, StageError
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
    batches: Iterator[Batch]


def sample_table(
    *,
    dataset: Dataset,
    sources: Sequence[str],
    contents: Sequence[str],
    labels: Sequence[str],
    payload: Mapping[str, pa.Array],
    groups: pa.Array | None = None,
    times: pa.Array | None = None,
) -> pa.Table:
    """Samples with these source keys, content hashes and payload columns, ready for a parts folder."""
    columns: dict[str, Any] = {
        "sample_id": pa.array([samples.sample_id(s, c) for s, c in zip(sources, contents, strict=True)], pa.string()),
        "source": pa.array(sources, pa.string()),
        "content_hash": pa.array(contents, pa.string()),
        "label": pa.array(labels, pa.string()),
        "origin": pa.array(["source"] * len(sources), pa.string()),
        "parents": pa.array([[]] * len(sources), pa.list_(pa.string())),
        **({} if groups is None else {"group": groups}),
        **({} if times is None else {"time": times}),
        **payload,
    }
    return conform(pa.table(columns), schema=dataset.arrow_schema())


@dataclass
class Tally:
    """Counts what a reading gave, apart from the reading's own count."""

    dataset: Dataset
    num_items: int
    num_samples: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    rejects: list[Reject] = field(default_factory=list)

    def add(self, batch: Batch) -> None:
        """Count one batch."""
        self.num_samples += batch.table.num_rows
        self.labels.update(
            {pair["values"]: pair["counts"] for pair in pc.value_counts(batch.table["label"]).to_pylist()}
        )
        self.rejects += batch.rejects

    def check(self) -> None:
        """Refuse a reading that lost an item or left nothing to learn from.

        Raises:
            StageError: Samples and rejects do not add up to the items listed.
            DataError: No item, or no item of some class, became a sample.
        """
        if self.num_samples + len(self.rejects) != self.num_items:
            raise StageError(
                f"ingest: {self.num_items} items were listed, but {self.num_samples} became samples and "
                f"{len(self.rejects)} rejects; the source changed or a reader lost some, run ingest again"
            )
        if not self.num_samples:
            raise DataError(
                f"none of the {self.num_items} items of {self.dataset.name!r} could be read: {self._reasons()}"
            )
        bare = [name for name in self.dataset.classes if not self.labels[name]]
        if bare:
            raise DataError(
                f"{self.dataset.name!r}: no item of class {', '.join(map(repr, bare))} could be read; repair its items "
                f"or take the class out of the source. Rejects: {self._reasons()}"
            )

    def metrics(self) -> dict[str, Any]:
        """Items, samples, rejects by reason, and samples by class."""
        return {
            "num_items": self.num_items,
            "num_samples": self.num_samples,
            "num_rejects": len(self.rejects),
            "rejects": dict(sorted(Counter(reject.reason for reject in self.rejects).items())),
            "num_classes": len(self.dataset.classes),
            "classes": {name: self.labels[name] for name in self.dataset.classes},
        }

    def _reasons(self) -> str:
        first = self.rejects[0]
        counts = Counter(reject.reason for reject in self.rejects)
        told = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
        return f"{told}; first {first.source}: {first.message}"


def require_classes(dataset: Dataset) -> None:
    """Refuse a data set in which there is nothing to tell apart.

    Raises:
        DataError: There are fewer than two classes.
    """
    if len(dataset.classes) < 2:
        only = f"only class {dataset.classes[0]!r}" if dataset.classes else "no class"
        raise DataError(f"{dataset.name!r} has {only}; classification needs two at least, add items of another class")
