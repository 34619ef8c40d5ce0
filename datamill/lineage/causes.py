"""What can be behind a difference: changes of the source, of parameters, of code and of libraries.

The pipeline gives equal bytes for equal inputs, parameters and code. So whatever differs between two runs goes back to
one of these, and everything else (fates, splits, weights) followed from them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from datamill.lineage import grouping
from datamill.lineage.grouping import Group, Property
from datamill.lineage.pairing import ALONE, Pairs
from datamill.lineage.roster import Roster

Kind = Literal[
    "relabelled", "content", "regrouped", "renamed", "removed", "added", "rejected", "parameters", "code", "libraries"
]
Rows = NDArray[np.int64]
MAX_PAIRS = 20  # of old and new label that are looked at one by one
MAX_NAMED = 3


def nobody() -> Rows:
    """No samples."""
    return np.zeros(0, np.int64)


@dataclass(frozen=True)
class Cause:
    """One thing that differs at the root.

    Attributes:
        kind: What sort of thing.
        title: What changed, on one line.
        detail: Particulars.
        rows_a: Samples of A it touches, places in A's roster.
        rows_b: Samples of B it touches, places in B's roster.
        is_everywhere: It touches every sample: a parameter of training, say.
    """

    kind: Kind
    title: str
    detail: str = ""
    rows_a: Rows = field(default_factory=nobody)
    rows_b: Rows = field(default_factory=nobody)
    is_everywhere: bool = False


def source_changes(a: Roster, b: Roster, *, pairs: Pairs) -> list[Cause]:
    """What became of the source's rows, taken apart by what the touched ones share; each row is in one cause."""
    rows_a, rows_b = pairs.both
    shared_a, shared_b = _Side(a), _Side(b)
    is_new_label = _differ(a.labels, b.labels, rows_a, rows_b)
    is_new_content = _differ(a.contents, b.contents, rows_a, rows_b) & ~is_new_label
    is_new_group = _differ(a.groups, b.groups, rows_a, rows_b) & ~is_new_label & ~is_new_content
    is_renamed = pairs.is_renamed[rows_a] & ~is_new_label & ~is_new_content & ~is_new_group
    found = _relabelled(a, b, pairs=pairs, rows=rows_a[is_new_label], side=shared_a)
    for kind, mask in (("content", is_new_content), ("regrouped", is_new_group), ("renamed", is_renamed)):
        for group in grouping.groups(_mask(rows_a[mask], count=len(a)), shared_a.properties):
            title = f"{_count(group)} {_DONE[kind]}{_where(group)}"
            found.append(Cause(kind, title, _extent(group), group.rows, pairs.of_a[group.rows]))  # type: ignore[arg-type]
    found += _removed(a, b, is_gone=pairs.of_a == ALONE, side=shared_a)
    found += _added(a, b, is_new=pairs.of_b == ALONE, side=shared_b)
    return found


class _Side:
    """What the samples of one run may share, found out when it is asked for."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self._found: list[Property] | None = None

    @property
    def properties(self) -> list[Property]:
        if self._found is None:
            one = self._roster
            self._found = [
                *grouping.texts("class", one.labels),
                *grouping.folders(one.sources),
                *grouping.texts("group", one.groups),
            ]
        return self._found


_DONE = {
    "content": "with other content",
    "regrouped": "in another group",
    "renamed": "under another source key, with equal content",
    "removed": "removed",
    "added": "added",
}


def _relabelled(a: Roster, b: Roster, *, pairs: Pairs, rows: Rows, side: _Side) -> list[Cause]:
    if not len(rows):
        return []
    old, new = a.labels.take(pa.array(rows)), b.labels.take(pa.array(pairs.of_a[rows]))
    encoded = pc.binary_join_element_wise(old, new, " -> ").dictionary_encode()
    names = encoded.dictionary.to_pylist()
    codes = np.full(len(a), -1, np.int64)
    codes[rows] = encoded.indices.to_numpy()
    still_there = a.labels.filter(pa.array(pairs.of_a != ALONE))
    sizes = {pair["values"]: pair["counts"] for pair in pc.value_counts(still_there).to_pylist()}
    found, is_told = [], np.zeros(len(a), bool)
    for number, name in enumerate(names):
        before, _, after = name.partition(" -> ")
        chosen = np.flatnonzero(codes == number)
        if len(chosen) == sizes[before] >= grouping.MIN_ROWS:
            what = f"was merged into {after}" if after in sizes else f"is called {after} now"
            found.append(_relabelling(f"class {before} {what}", f"all its {len(chosen):,} rows", chosen, pairs))
            is_told[chosen] = True
    shared = [*_label_pairs(a.labels, codes=codes, names=names), *side.properties]
    for group in grouping.groups((codes >= 0) & ~is_told, shared):
        kinds = np.unique(codes[group.rows])
        where = _where(group) or (f": {names[kinds[0]]}" if len(kinds) == 1 else "")
        more = f" and {len(kinds) - MAX_NAMED} other ways" if len(kinds) > MAX_NAMED else ""
        told = ", ".join(names[number] for number in kinds[:MAX_NAMED]) + more if len(kinds) > 1 else ""
        detail = "; ".join(filter(None, [_extent(group), told]))
        found.append(_relabelling(f"{_count(group)} labelled otherwise{where}", detail, group.rows, pairs))
    return found


def _relabelling(title: str, detail: str, rows: Rows, pairs: Pairs) -> Cause:
    return Cause("relabelled", title, detail, rows, pairs.of_a[rows])


def _label_pairs(labels: pa.Array, *, codes: Rows, names: Sequence[str]) -> Iterator[Property]:
    """The most frequent pairs of old and new label as properties, each beside the rows that kept the old one."""
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    for number in np.argsort(-counts, kind="stable")[:MAX_PAIRS]:
        name = names[number]
        is_class = pc.equal(labels, name.partition(" -> ")[0]).to_numpy(zero_copy_only=False)
        is_member = is_class & ((codes == number) | (codes == -1))
        yield Property(f"labels {name}", np.where(is_member, 0, -1), [name])


def _removed(a: Roster, b: Roster, *, is_gone: NDArray[np.bool_], side: _Side) -> Iterator[Cause]:
    refused = pc.is_in(a.sources, pa.array(list(b.rejects), pa.string())).to_numpy(zero_copy_only=False)
    is_refused = is_gone & refused
    rows = np.flatnonzero(is_refused)
    reasons = np.array([b.rejects[source] for source in a.sources.take(pa.array(rows)).to_pylist()], object)
    for reason in sorted(set(reasons)):
        chosen = rows[reasons == reason]
        yield Cause("rejected", f"{_rows(len(chosen))} can no longer be read: {reason}", "", chosen)
    for group in grouping.groups(is_gone & ~is_refused, side.properties if is_gone.any() else []):
        yield Cause("removed", f"{_count(group)} removed{_where(group)}", _extent(group), group.rows)


def _added(a: Roster, b: Roster, *, is_new: NDArray[np.bool_], side: _Side) -> Iterator[Cause]:
    if not is_new.any():
        return
    readable = is_new & pc.is_in(b.sources, pa.array(list(a.rejects), pa.string())).to_numpy(zero_copy_only=False)
    if readable.any():
        rows = np.flatnonzero(readable)
        yield Cause("added", f"{_rows(len(rows))} can be read that were rejects", "", nobody(), rows)
    known = pc.is_in(b.contents, a.contents).to_numpy(zero_copy_only=False)
    copies = Property("copies", np.where(known & is_new, 0, 1), ["exact copies of rows that were there", "new"])
    for group in grouping.groups(is_new & ~readable, [copies, *side.properties]):
        where = f": {group.value}" if group.name == "copies" else _where(group)
        yield Cause("added", f"{_count(group)} added{where}", _extent(group), nobody(), group.rows)


def _differ(a: pa.Array, b: pa.Array, rows_a: Rows, rows_b: Rows) -> NDArray[np.bool_]:
    old, new = (pc.fill_null(one.take(pa.array(rows)), "") for one, rows in ((a, rows_a), (b, rows_b)))
    return np.asarray(pc.not_equal(old, new).to_numpy(zero_copy_only=False), bool)


def _mask(rows: Rows, *, count: int) -> NDArray[np.bool_]:
    mask = np.zeros(count, bool)
    mask[rows] = True
    return mask


def _count(group: Group) -> str:
    return _rows(len(group.rows))


def _rows(count: int) -> str:
    return f"{count:,} row{'s' * (count != 1)}"


def _where(group: Group) -> str:
    if not group.name:
        return ""
    if group.name.startswith("labels "):
        return f": {group.value}"
    return f" in {'folder' if group.name.startswith('folder') else group.name} {group.value}"


def _extent(group: Group) -> str:
    return f"{len(group.rows) / max(1, group.num_members):.1%} of {group.num_members:,} there" if group.name else ""


def union(rows: Iterable[Rows]) -> Rows:
    """All of these places, ascending, each once."""
    return np.asarray(np.unique(np.concatenate([nobody(), *rows])))
