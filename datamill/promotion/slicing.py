"""Whether a challenger fails a part of the test split that the champion serves: an average hides it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import special

from datamill.promotion.evidence import Slicing
from datamill.promotion.pairing import Pair
from datamill.promotion.params import SliceParams
from datamill.promotion.reasons import Reason

MAX_NAMED = 5  # slices told one by one


@dataclass(frozen=True)
class _Cut:
    """One slice under both models."""

    name: str
    count: int
    lost: int
    won: int

    @property
    def loss(self) -> float:
        """Accuracy lost, negative where it was won."""
        return (self.lost - self.won) / self.count


def check_slices(pair: Pair, *, limits: SliceParams) -> Iterator[Reason]:
    """One reason per slice that is surely worse than allowed, or one that names the worst of the others.

    Deliberately not corrected for the number of slices: a false refusal costs one more training run, a loss that goes
    unseen is shipped.
    """
    cuts = [cut for slicing in pair.slicings for cut in _cut(slicing, pair=pair)]
    judged = [cut for cut in cuts if cut.count >= limits.min_count]
    needed = (
        f"no slice of {limits.min_count} samples or more surely ({limits.level:.0%}) loses over {limits.allowance:g}"
    )
    worse = [cut for cut in judged if cut.loss > limits.allowance and _chance(cut) <= 1 - limits.level]
    yield from (_told(cut, passes=False, needed=needed) for cut in _worst_first(worse)[:MAX_NAMED])
    if len(worse) > MAX_NAMED:
        rest = len(worse) - MAX_NAMED
        yield Reason("slice", False, f"{rest} more slices lose too much", needed, {"more": rest})
    if worse:
        return
    small = len(cuts) - len(judged)
    if not judged:
        yield Reason("slice", True, f"none of {small} slices is large enough to be judged", needed, {"small": small})
        return
    worst = _told(_worst_first(judged)[0], passes=True, needed=needed)
    found = f"worst of {len(judged)} slices: {worst.found}; {small} too small to judge"
    yield Reason("slice", True, found, needed, {**worst.numbers, "judged": len(judged), "small": small})


def _cut(slicing: Slicing, *, pair: Pair) -> Iterator[_Cut]:
    name, values = slicing
    members = np.array(["" if value is None else value for value in values], dtype=object)
    before, now = pair.champion.is_correct, pair.challenger.is_correct
    for value in sorted({value for value in values if value is not None}):
        rows = members == value
        lost, won = (before & ~now)[rows], (now & ~before)[rows]
        yield _Cut(f"{name} {value}", int(rows.sum()), lost=int(lost.sum()), won=int(won.sum()))


def _chance(cut: _Cut) -> float:
    """Chance of at least so many losses among the samples that changed sides, were both sides alike.

    Source: Q. McNemar, "Note on the sampling error of the difference between correlated proportions", 1947 (exact
    form).
    """
    return float(special.bdtrc(cut.lost - 1, cut.lost + cut.won, 0.5))


def _told(cut: _Cut, *, passes: bool, needed: str) -> Reason:
    changed = f"{cut.lost} lost, {cut.won} won, chance {_chance(cut):.3f}"
    found = f"{cut.name}: accuracy {-cut.loss:+.4f} over {cut.count} samples ({changed})"
    return Reason("slice", passes, found, needed, {"loss": cut.loss, "count": cut.count, "chance": _chance(cut)})


def _worst_first(cuts: Iterable[_Cut]) -> list[_Cut]:
    return sorted(cuts, key=lambda cut: (-cut.loss, -cut.count))
