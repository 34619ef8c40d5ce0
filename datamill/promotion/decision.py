"""Whether a challenger takes the champion's place: a pure function of the evidence; every reason has its numbers."""

# Shapes: N common test samples, R resamples.

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from datamill.evaluation import bootstrap
from datamill.evaluation.metrics import LOWER_IS_BETTER, Predictions, scores, weighted_scores
from datamill.promotion.evidence import NUM_BINS, Evidence, Slicing, aligned
from datamill.promotion.params import PromoteParams, SliceParams
from datamill.promotion.shadow import Shadow, estimated_accuracy

Check = Literal["champion", "model", "test set", "headline", "slice", "latency", "size", "shadow", "person"]

MAX_NAMED = 5  # slices told one by one


@dataclass(frozen=True)
class Reason:
    """What one check found.

    Attributes:
        check: What was looked at.
        passes: Whether it lets the challenger through.
        found: What was seen, with its numbers.
        needed: What would have let it through.
        numbers: The same numbers, to be read by machines.
    """

    check: Check
    passes: bool
    found: str
    needed: str
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """Whether the challenger is promoted, and why."""

    promotes: bool
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class Pair:
    """Two models' answers to the same samples, class numbers shared.

    Attributes:
        champion: Its predictions, N rows.
        challenger: Its predictions, N rows.
        unit_N: What a resample draws together; see ``bootstrap.units``.
        unit: ``group`` or ``sample``.
        slicings: Ways to cut the N samples.
        num_relabelled: Samples whose true class was another one when the champion was measured.
    """

    champion: Predictions
    challenger: Predictions
    unit_N: NDArray[np.int64]
    unit: str
    slicings: tuple[Slicing, ...]
    num_relabelled: int


def decide(
    champion: Evidence | None, challenger: Evidence, *, policy: PromoteParams, shadow: Shadow | None = None
) -> Decision:
    """Whether ``challenger`` becomes champion; every check is made, so that a refusal names all that is missing.

    Both models are measured on the test samples that both have, so none of these taught either, and under the
    challenger's labels, the newest ones. Equal models are no reason to change.

    Args:
        champion: The model in use; ``None`` when there is none yet.
        challenger: The model to judge.
        policy: What it must show.
        shadow: Both models' answers to recent inputs; ``None`` when there are none.
    """
    if champion is None:
        reasons = [*_first(challenger, policy=policy), *_speed(None, challenger, policy=policy)]
    elif champion.version == challenger.version:
        found = f"the challenger is the champion {champion.version}, to the byte"
        reasons = [Reason("model", False, found, "another model")]
    else:
        reasons = [*_measured(champion, challenger, policy=policy), *_speed(champion, challenger, policy=policy)]
        reasons += _shadowed(shadow, pair=(champion, challenger), policy=policy)
    return Decision(all(reason.passes for reason in reasons), tuple(reasons))


def match(champion: Evidence, challenger: Evidence) -> Pair | None:
    """The samples that both were tested on, in the challenger's order; ``None`` without any."""
    place = {key: row for row, key in enumerate(champion.sample_ids)}
    ours = np.array([row for row, key in enumerate(challenger.sample_ids) if key in place], np.int64)
    if not len(ours):
        return None
    theirs = np.array([place[challenger.sample_ids[row]] for row in ours], np.int64)
    classes = tuple(dict.fromkeys([*challenger.classes, *champion.classes]))
    label = challenger.predictions.label[ours]
    was = np.array([classes.index(name) for name in champion.classes], np.int64)[champion.predictions.label[theirs]]
    answers = [
        aligned(one.predictions.probabilities[rows], classes=one.classes, onto=classes)
        for one, rows in ((champion, theirs), (challenger, ours))
    ]
    groups = [challenger.groups[row] for row in ours] if challenger.groups else [None] * len(ours)
    unit_N, unit = bootstrap.units(groups)
    cuts: list[Slicing] = [("class", tuple(challenger.labels)), *challenger.slicings]
    slicings = tuple((name, tuple(values[row] for row in ours)) for name, values in cuts)
    before, now = (Predictions(label, probabilities) for probabilities in answers)
    return Pair(before, now, unit_N, unit, slicings, num_relabelled=int((was != label).sum()))


def _first(challenger: Evidence, *, policy: PromoteParams) -> Iterator[Reason]:
    yield Reason("champion", True, "no champion", "none: the first model needs no better one")
    metric, floor = policy.metric, policy.floor
    value = scores(challenger.predictions, num_bins=NUM_BINS).get(metric)
    samples = challenger.predictions.num_samples
    if value is None:
        found = f"{metric} is not defined on these {samples} test samples"
        yield Reason("headline", floor is None, found, f"a value of {metric}", {"samples": samples})
        return
    worst = "most" if metric in LOWER_IS_BETTER else "least"
    needed = f"any {metric}" if floor is None else f"{metric} of at {worst} {floor:g}"
    passes = floor is None or _gain(floor, value, metric=metric) >= 0
    yield Reason("headline", passes, f"{metric} {value:.4f} on {samples} test samples", needed, {"challenger": value})


def _measured(champion: Evidence, challenger: Evidence, *, policy: PromoteParams) -> Iterator[Reason]:
    pair = match(champion, challenger)
    reason = _test_set(pair, before=len(champion.sample_ids), now=len(challenger.sample_ids), policy=policy)
    yield reason
    if pair is not None and reason.passes:
        yield _headline(pair, policy=policy)
        yield from _slices(pair, limits=policy.slices)


def _test_set(pair: Pair | None, *, before: int, now: int, policy: PromoteParams) -> Reason:
    common = 0 if pair is None else pair.champion.num_samples
    passes = common >= policy.min_common and common >= policy.min_common_share * before
    found = f"{common} test samples in common, of the champion's {before} and the challenger's {now}"
    if pair is not None and pair.num_relabelled:
        found += f"; {pair.num_relabelled} have another label now, which holds for both"
    needed = f"at least {policy.min_common} and {policy.min_common_share:.0%} of the champion's"
    return Reason("test set", passes, found, needed, {"common": common, "champion": before, "challenger": now})


def _headline(pair: Pair, *, policy: PromoteParams) -> Reason:
    metric, count = policy.metric, pair.champion.num_samples
    values = [scores(one, num_bins=NUM_BINS).get(metric) for one in (pair.champion, pair.challenger)]
    before, now = values
    needed = f"{metric} better, the {policy.level:.0%} interval of the difference excluding zero"
    if policy.margin is not None:
        needed += f", or better by {policy.margin:g}"
    if before is None or now is None:
        return Reason("headline", False, f"{metric} is not defined on {count} common test samples", needed)
    gain = _gain(before, now, metric=metric)
    low, high = _interval(pair, policy=policy) or (-np.inf, np.inf)
    is_enough = policy.margin is not None and gain >= policy.margin
    numbers = {"champion": before, "challenger": now, "gain": gain}
    ends = "undefined"
    if np.isfinite(low):
        numbers |= {"low": low, "high": high}
        ends = f"{low:+.4f} to {high:+.4f}"
    found = f"{metric} {now:.4f} against {before:.4f}, gain {gain:+.4f} ({ends}) over {count} common {pair.unit}s"
    if pair.unit == "group":
        found = found.replace(f"{count} common groups", f"{count} samples in {pair.unit_N.max() + 1} groups")
    return Reason("headline", bool(gain > 0 and (low > 0 or is_enough)), found, needed, numbers)


def _interval(pair: Pair, *, policy: PromoteParams) -> tuple[float, float] | None:
    """Ends of the interval of the gain, positive where the challenger is better, over paired resamples."""
    before_R, now_R = (
        bootstrap.resample(
            lambda weight_NR, one=one: weighted_scores(one, weight_NR=weight_NR, num_bins=NUM_BINS),  # type: ignore[misc]
            unit_N=pair.unit_N,
            num_resamples=policy.num_resamples,
            rng=np.random.default_rng([policy.seed, 3]),
        )[policy.metric]
        for one in (pair.champion, pair.challenger)
    )
    gain_R = before_R - now_R if policy.metric in LOWER_IS_BETTER else now_R - before_R
    return bootstrap.percentile_interval(gain_R, level=policy.level)


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


def _slices(pair: Pair, *, limits: SliceParams) -> Iterator[Reason]:
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
    return float(stats.binom.sf(cut.lost - 1, cut.lost + cut.won, 0.5))


def _told(cut: _Cut, *, passes: bool, needed: str) -> Reason:
    changed = f"{cut.lost} lost, {cut.won} won, chance {_chance(cut):.3f}"
    found = f"{cut.name}: accuracy {-cut.loss:+.4f} over {cut.count} samples ({changed})"
    return Reason("slice", passes, found, needed, {"loss": cut.loss, "count": cut.count, "chance": _chance(cut)})


def _worst_first(cuts: Iterable[_Cut]) -> list[_Cut]:
    return sorted(cuts, key=lambda cut: (-cut.loss, -cut.count))


def _speed(champion: Evidence | None, challenger: Evidence, *, policy: PromoteParams) -> Iterator[Reason]:
    limits = policy.speed
    before = None if champion is None else champion.latency_ms
    most = (limits.max_latency_ms, limits.max_latency_ratio)
    yield _limited("latency", before, challenger.latency_ms, limits=most, unit="ms")
    before = None if champion is None else champion.size_bytes
    yield _limited("size", before, challenger.size_bytes, limits=(limits.max_size_bytes, limits.max_size_ratio))


def _limited(
    check: Literal["latency", "size"],
    before: float | None,
    now: float,
    *,
    limits: tuple[float | None, float | None],
    unit: str = "bytes",
) -> Reason:
    most, ratio = limits
    bounds = [] if most is None else [(most, f"at most {most:g} {unit}")]
    if ratio is not None and before is not None:
        bounds.append((ratio * before, f"at most {ratio:g} times the champion's"))
    found = f"{now:.4g} {unit}" if unit == "ms" else f"{now:,.0f} {unit}"
    numbers = {"challenger": now}
    if before is not None:
        found += f" against {before:.4g}" if unit == "ms" else f" against {before:,.0f}"
        numbers["champion"] = before
    needed = " and ".join(text for _, text in bounds) or "no limit set"
    return Reason(check, all(now <= bound for bound, _ in bounds), found, needed, numbers)


def _shadowed(shadow: Shadow | None, *, pair: tuple[Evidence, Evidence], policy: PromoteParams) -> list[Reason]:
    limits = policy.shadow
    if not limits.num_windows:
        return []
    count = 0 if shadow is None else len(shadow.label)
    needed = f"at least {limits.min_rows} recent inputs to compare on"
    if shadow is None or count < limits.min_rows:
        found = f"{count} recent inputs, too few to compare"
        if shadow is not None and shadow.num_taught:
            found += f"; {shadow.num_taught} more are among those it was trained on"
        return [Reason("shadow", not limits.is_required, found, needed, {"inputs": count})]
    is_known = shadow.label >= 0
    if int(is_known.sum()) >= limits.min_rows:
        return [_with_labels(shadow, is_known=is_known, max_loss=limits.max_loss)]
    return _without_labels(shadow, pair=pair, policy=policy)


def _with_labels(shadow: Shadow, *, is_known: NDArray[np.bool_], max_loss: float) -> Reason:
    label = shadow.label[is_known]
    before, now = (
        float((probabilities[is_known].argmax(axis=1) == label).mean())
        for probabilities in (shadow.champion, shadow.challenger)
    )
    found = f"accuracy {now:.4f} against {before:.4f} on {len(label)} labelled inputs of {len(shadow.windows)} windows"
    numbers = {"champion": before, "challenger": now, "labelled": len(label)}
    return Reason("shadow", now - before >= -max_loss, found, f"a loss of at most {max_loss:g}", numbers)


def _without_labels(shadow: Shadow, *, pair: tuple[Evidence, Evidence], policy: PromoteParams) -> list[Reason]:
    limits, count = policy.shadow, len(shadow.label)
    same = float((shadow.champion.argmax(axis=1) == shadow.challenger.argmax(axis=1)).mean())
    found = f"both name the same class for {same:.1%} of {count} recent inputs"
    needed = f"at least {limits.min_agreement:.0%}, for want of labels"
    agreement = Reason("shadow", same >= limits.min_agreement, found, needed, {"agreement": same, "inputs": count})
    before, now = (
        estimated_accuracy(answers, predictions=evidence.predictions)
        for answers, evidence in zip((shadow.champion, shadow.challenger), pair, strict=True)
    )
    found = f"estimated accuracy {now:.4f} against {before:.4f} on {count} inputs without labels"
    needed = f"a loss of at most {limits.max_loss:g}"
    numbers = {"champion": before, "challenger": now, "inputs": count}
    return [agreement, Reason("shadow", now - before >= -limits.max_loss, found, needed, numbers)]


def _gain(before: float, now: float, *, metric: str) -> float:
    """How much better ``now`` is, whichever way the metric points."""
    return before - now if metric in LOWER_IS_BETTER else now - before
