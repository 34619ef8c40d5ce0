"""What the stages decide otherwise about samples that both runs have, and where each difference began."""

# Shapes: N samples of run A.

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from datamill.lineage.explanation import Followed
from datamill.lineage.pairing import Pairs
from datamill.lineage.roster import NOWHERE, Roster

MAX_SHOWN = 4  # transitions per stage
Rows = NDArray[np.int64]


def follow(
    a: Roster, b: Roster, *, pairs: Pairs, touched: Rows, known: Sequence[Mapping[str, str]]
) -> tuple[dict[str, Rows], list[Followed]]:
    """Where decisions began to differ.

    Args:
        a: Samples of the run before.
        b: Samples of the run after.
        pairs: Who is who.
        touched: Samples of A that the source changed itself; what became of them began there.
        known: What each decision's number stands for, by column.

    Returns:
        By stage, places in A of the samples that came to it unchanged and about which it decides otherwise; and what
        each stage decides otherwise, without stages that agree.
    """
    rows_a, rows_b = pairs.both
    has_begun = np.isin(rows_a, touched)
    origins: dict[str, Rows] = {}
    found: list[Followed] = []
    for stage in (name for name in a.decisions if name in b.decisions):
        old, new = a.decisions[stage][rows_a], b.decisions[stage][rows_b]
        is_other = old != new
        origins[stage] = rows_a[is_other & ~has_begun]
        has_begun |= is_other
        if is_other.any():
            shown = _transitions(old[is_other], new[is_other], known=known)
            found.append(Followed(stage, int(is_other.sum()), len(origins[stage]), shown))
    return origins, found


def _transitions(old: Rows, new: Rows, *, known: Sequence[Mapping[str, str]]) -> tuple[tuple[str, str, int], ...]:
    """The most frequent changes of mind, in words."""
    counts: Counter[tuple[str, str]] = Counter()
    for (before, after), count in Counter(zip(old.tolist(), new.tolist(), strict=True)).items():
        counts[_told(before, after, known=known)] += count
    return tuple((*words, count) for words, count in counts.most_common(MAX_SHOWN))


def _told(old: int, new: int, *, known: Sequence[Mapping[str, str]]) -> tuple[str, str]:
    """Two decisions in words, only as far as they differ."""
    if NOWHERE in (old, new):
        before, after = ("not reached" if number == NOWHERE else known[number]["fate"] for number in (old, new))
        return before, after
    names = [name for name in {**known[old], **known[new]} if known[old].get(name) != known[new].get(name)]
    return _words(known[old], names=names), _words(known[new], names=names)


def _words(decision: Mapping[str, str], *, names: Sequence[str]) -> str:
    told = {name: decision.get(name, "") for name in names}
    return ", ".join(
        value or "no reason" if name in ("fate", "reason") else f"{name} {value}" for name, value in told.items()
    )
