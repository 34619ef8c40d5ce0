"""Entries of packed files as columns, and what becomes of them: samples and rejects."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from datamill import hashes
from datamill.samples import IMAGE_TYPE
from datamill.shards.exchange.records import Columns, Label
from datamill.sources.batches import Reject, sample_table
from datamill.sources.image_folder import IMAGES
from datamill.sources.integrity import Fault, find_faults

ENTRIES = pa.schema(
    [
        pa.field("place", pa.string()),
        pa.field("payload", pa.binary()),
        pa.field("label", pa.string()),
        pa.field("reason", pa.string()),  # why it is no sample; null for what may be one
        pa.field("message", pa.string()),
    ]
)
EMPTY = pa.RecordBatch.from_pylist([], ENTRIES)


class Checked(NamedTuple):
    """What a look at encoded images found: their content hashes, shape ``(N, 2)``, and the faults of some of them."""

    contents: NDArray[np.uint64]
    faults: dict[int, Fault]


class Hashes(NamedTuple):
    """Content hash and sample id of each entry, shape ``(N, 2)`` each; zeros where they are not known."""

    contents: NDArray[np.uint64]
    identities: NDArray[np.uint64]

    @classmethod
    def nothing(cls, count: int) -> "Hashes":
        """Of so many entries."""
        return cls(*np.zeros((2, count, 2), np.uint64))


class Settled(NamedTuple):
    """What became of some entries: samples, rejects, and the hashes of each, zeros where it is no sample."""

    table: pa.Table
    rejects: list[Reject]
    hashes: Hashes


def entries_of(columns: Columns, *, name_of: Callable[[Label], str | None], named: str = "known") -> pa.RecordBatch:
    """Entries with the names of their classes, as ``ENTRIES``.

    Args:
        columns: Entries as they were read.
        name_of: Name of a class, ``None`` for one that there is not.
        named: What a class must be, for the reject of one that is not.
    """
    names = [name_of(label) for label in columns.labels]
    faults = dict(columns.faults)
    is_unknown = np.array([name is None for name in names] + [False])[columns.codes]
    for row in np.flatnonzero(is_unknown).tolist():
        faults[row] = "unknown_class", f"class {columns.labels[columns.codes[row]]!r} is not {named}"
    labels = pa.array(names, pa.string()).take(pa.array(columns.codes, mask=columns.codes < 0))
    reasons, messages = _texts(faults, count=len(columns.codes))
    return pa.RecordBatch.from_arrays([columns.places, columns.payloads, labels, reasons, messages], schema=ENTRIES)


def is_candidate(entries: pa.RecordBatch) -> NDArray[np.bool_]:
    """Which entries may be samples."""
    return np.asarray(pc.is_null(entries["reason"]).to_numpy(zero_copy_only=False), bool)


def check_payloads(payloads: pa.Array, *, max_pixels: int) -> Checked:
    """Hashes and faults of encoded images; in a worker."""
    return Checked(hashes.hash_each(payloads), find_faults(payloads, max_pixels=max_pixels))


def check_images(entries: pa.RecordBatch, *, max_pixels: int) -> tuple[pa.Table, list[Reject]]:
    """The samples among some entries, and the rejects."""
    rows = np.flatnonzero(is_candidate(entries))
    checked = check_payloads(entries["payload"].take(pa.array(rows)), max_pixels=max_pixels)
    settled = settle(entries, rows=rows, checked=checked, known=Hashes.nothing(len(entries)))
    return settled.table, settled.rejects


def settle(entries: pa.RecordBatch, *, rows: NDArray[np.int64], checked: Checked, known: Hashes) -> Settled:
    """Samples and rejects.

    Args:
        entries: As ``ENTRIES``.
        rows: Those that were checked; all candidates but those whose contents are known.
        checked: What was found of these.
        known: Of the others.
    """
    contents, identities = known.contents.copy(), known.identities.copy()
    contents[rows] = checked.contents
    faults = {int(rows[place]): fault for place, fault in checked.faults.items()}
    for row in np.flatnonzero(~is_candidate(entries)).tolist():
        faults[row] = entries["reason"][row].as_py(), entries["message"][row].as_py()
    rejects = [Reject(entries["place"][row].as_py(), *faults[row]) for row in sorted(faults)]
    is_good = np.ones(len(entries), bool)
    is_good[list(faults)] = False
    new = is_good & ~identities.any(axis=1)
    identities[new] = hashes.identities(entries["place"].filter(pa.array(new)), hashes.digits(contents[new]))
    contents[~is_good], identities[~is_good] = 0, 0
    good = entries.filter(pa.array(is_good)) if faults else entries
    return Settled(_table(good, contents[is_good], identities[is_good]), rejects, Hashes(contents, identities))


def _table(entries: pa.RecordBatch, contents: NDArray[np.uint64], identities: NDArray[np.uint64]) -> pa.Table:
    paths = pa.nulls(len(entries), pa.string())
    images: Any = pa.StructArray.from_arrays([entries["payload"], paths], fields=list(IMAGE_TYPE))
    return sample_table(
        dataset=IMAGES,
        sources=entries["place"],
        contents=hashes.digits(contents),
        labels=entries["label"],
        payload={"image": images},
        sample_ids=hashes.digits(identities),
    )


def _texts(faults: Mapping[int, Fault], *, count: int) -> list[pa.Array]:
    """Reasons and messages of faults, null where there is none."""
    if not faults:
        return [pa.nulls(count, pa.string())] * 2
    return [pa.array([faults[row][part] if row in faults else None for row in range(count)]) for part in (0, 1)]
