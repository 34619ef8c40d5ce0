"""Whether a challenger takes the champion's place: a pure function of the evidence; every reason has its numbers."""

from collections.abc import Iterator
from typing import Literal

from datamill.evaluation.metrics import LOWER_IS_BETTER, scores
from datamill.promotion.evidence import NUM_BINS, Evidence
from datamill.promotion.gains import gain_of, measure_gain
from datamill.promotion.pairing import Pair, match
from datamill.promotion.params import PromoteParams
from datamill.promotion.reasons import Decision, Reason
from datamill.promotion.shadow import Shadow, check_recent, check_shadow
from datamill.promotion.slicing import check_slices


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
        lately = check_recent(shadow, policy=policy)
        is_better_lately = any(reason.passes for reason in lately)
        measured = [*_measured(champion, challenger, policy=policy, is_better_lately=is_better_lately)]
        is_needed = any(reason.check == "headline" and not reason.passes for reason in measured)
        reasons = [*measured, *(lately if is_needed or is_better_lately else [])]
        reasons += _speed(champion, challenger, policy=policy)
        reasons += check_shadow(shadow, pair=(champion, challenger), limits=policy.shadow)
    return Decision(all(reason.passes for reason in reasons), tuple(reasons))


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
    passes = floor is None or gain_of(floor, value, metric=metric) >= 0
    yield Reason("headline", passes, f"{metric} {value:.4f} on {samples} test samples", needed, {"challenger": value})


def _measured(
    champion: Evidence, challenger: Evidence, *, policy: PromoteParams, is_better_lately: bool
) -> Iterator[Reason]:
    pair = match(champion, challenger)
    reason = _test_set(pair, before=len(champion.sample_ids), now=len(challenger.sample_ids), policy=policy)
    yield reason
    if pair is not None and reason.passes:
        yield _headline(pair, policy=policy, is_better_lately=is_better_lately)
        yield from check_slices(pair, limits=policy.slices)


def _test_set(pair: Pair | None, *, before: int, now: int, policy: PromoteParams) -> Reason:
    common = 0 if pair is None else pair.champion.num_samples
    passes = common >= policy.min_common and common >= policy.min_common_share * before
    found = f"{common} test samples in common, of the champion's {before} and the challenger's {now}"
    if pair is not None and pair.num_relabelled:
        found += f"; {pair.num_relabelled} have another label now, which holds for both"
    needed = f"at least {policy.min_common} and {policy.min_common_share:.0%} of the champion's"
    return Reason("test set", passes, found, needed, {"common": common, "champion": before, "challenger": now})


def _headline(pair: Pair, *, policy: PromoteParams, is_better_lately: bool) -> Reason:
    """Whether the test set shows a gain; where recent windows do, whether it shows no loss."""
    metric, count = policy.metric, pair.champion.num_samples
    needed = f"{metric} better, the {policy.level:.0%} interval of the difference excluding zero"
    if policy.margin is not None:
        needed += f", or better by {policy.margin:g}"
    if policy.recent is not None:
        needed += f"; or better on recent windows, and here surely no loss of more than {policy.recent.max_loss:g}"
    gain = measure_gain(pair.champion, pair.challenger, unit_N=pair.unit_N, policy=policy)
    if gain is None:
        return Reason("headline", False, f"{metric} is not defined on {count} common test samples", needed)
    is_enough = gain.is_sure or (policy.margin is not None and gain.value >= policy.margin)
    if policy.recent is not None and is_better_lately:
        is_enough = is_enough or gain.low >= -policy.recent.max_loss
    over = f"{count} common samples"
    if pair.unit == "group":
        over = f"{count} samples in {pair.unit_N.max() + 1} groups"
    return Reason("headline", is_enough, f"{gain} over {over}", needed, gain.numbers)


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
