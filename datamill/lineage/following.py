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
    a: Roster, b: Roster, *, pairs: Pairs, touched: Rows, names: Sequence[tuple[str, ...]]
) -> tuple[dict[str, Rows], list[Followed]]:
    """Where decisions began to differ.

    Args:
        a: Samples of the run before.
        b: Samples of the run after.
        pairs: Who is who.
        touched: Samples of A that the source changed itself; what became of them began there.
        names: What each decision's number stands for.

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
            counts = Counter(zip(old[is_other].tolist(), new[is_other].tolist(), strict=True))
            shown = tuple((*_told(*pair, names=names), count) for pair, count in counts.most_common(MAX_SHOWN))
            found.append(Followed(stage, int(is_other.sum()), len(origins[stage]), shown))
    return origins, found


def fates(roster: Roster, rows: Rows, *, names: Sequence[tuple[str, ...]]) -> Mapping[str, int]:
    """How many of some samples ended where: in a split, or dropped by a stage for a reason."""
    counts: Counter[str] = Counter()
    for stage, decided in roster.decisions.items():
        for number, count in zip(*np.unique(decided[rows], return_counts=True), strict=True):
            if number != NOWHERE and names[number][0] in {"dropped", "quarantined"}:
                counts[f"{names[number][0]} by {stage}: {names[number][1]}"] += int(count)
    return dict(counts)


def _told(old: int, new: int, *, names: Sequence[tuple[str, ...]]) -> tuple[str, str]:
    """Two decisions in words, only as far as they differ."""
    if NOWHERE in (old, new):
        return tuple("not reached" if number == NOWHERE else _words(names[number]) for number in (old, new))  # type: ignore[return-value]
    before, after = names[old], names[new]
    if len(before) != len(after):
        return _words(before), _words(after)
    differing = [place for place in range(len(before)) if before[place] != after[place]]
    return _words([before[place] for place in differing]), _words([after[place] for place in differing])


def _words(values: Sequence[str]) -> str:
    return ", ".join(value or "no reason" for value in values)
