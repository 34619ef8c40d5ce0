"""What is wrong with a training run, the numbers behind it, and what to do next.

Every check is a function of the run's history (or its durations) and returns one finding, also when all is well: a
report that shows what was looked at can be trusted when it says nothing is wrong.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat

from datamill.stage import Params
from datamill.training.history import EpochResult, best_epoch

Severity = Literal["ok", "note", "warning", "critical"]
SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "note", "ok")  # worst first
MIN_EPOCHS = 5  # fewer make no curve to judge
LOSS_FLOOR = 1e-3  # nats; shares of a loss below it would be shares of nothing
NORM_FLOOR = 1e-9
TAIL_SHARE = 0.2  # share of the epochs at the end that says whether a run was still improving

Share = Annotated[float, Field(ge=0, le=1)]


class Thresholds(Params):
    """From where on a number is a finding."""

    max_accuracy_gap: Share
    """Overfitting: training accuracy minus validation accuracy at the last epoch, at most."""
    max_loss_rise: PositiveFloat
    """Overfitting: rise of the validation loss from its lowest to the last epoch, as a share of the lowest, at most."""
    min_train_accuracy: Share
    """Underfitting: training accuracy at the best epoch, at least."""
    min_gradient_norm: PositiveFloat
    """Vanishing gradients: median of the epochs' gradient norms, at least, while the network underfits."""
    max_gradient_growth: PositiveFloat
    """Exploding gradients: largest epoch's gradient norm as a multiple of the median epoch's, at most."""
    max_halfway_share: Share
    """Slow convergence: share of the epochs until the training loss is half-way down, at most."""
    max_validation_noise: PositiveFloat
    """Noisy validation: typical zigzag of the validation loss in the second half, as a share of its mean, at most."""
    max_late_improvement: Share
    """Stopped too early: fall of the lowest validation loss in the last fifth of the epochs, as a share, at most."""
    max_loading_share: Share
    """Share of training time spent waiting for batches, at most."""


@dataclass(frozen=True)
class Finding:
    """What one check saw.

    Attributes:
        name: The check.
        severity: ``ok`` when nothing is wrong.
        summary: What was seen, with its numbers, in a sentence.
        evidence: The numbers, by name; finite.
        action: What to do next; empty when nothing is wrong.
        is_timing: Comes from durations, and so may differ between equal runs.
    """

    name: str
    severity: Severity
    summary: str
    evidence: dict[str, float]
    action: str = ""
    is_timing: bool = False


def diagnose_run(
    history: Sequence[EpochResult], *, times: Mapping[str, float] | None, thresholds: Thresholds
) -> list[Finding]:
    """The findings of every check that the run has the numbers for, worst first.

    Args:
        history: The epochs in order; at least one.
        times: ``seconds``, ``loading_share`` and ``step_ms_median``; ``None`` when they were not kept.
        thresholds: From where on a number is a finding.
    """
    broken = check_finite(history)
    if broken.severity != "ok":
        return [broken]
    findings = [broken, check_underfitting(history, thresholds=thresholds)]
    findings += check_gradients(history, thresholds=thresholds)
    if len(history) >= MIN_EPOCHS:
        findings.append(check_convergence(history, thresholds=thresholds))
    losses = [result.validation_loss for result in history if result.validation_loss is not None]
    if len(losses) < len(history):
        findings.append(_without_validation())
    else:
        findings.append(check_overfitting(history, losses=losses, thresholds=thresholds))
        if len(losses) >= MIN_EPOCHS:
            findings.append(check_noise(losses, thresholds=thresholds))
            findings.append(check_late_improvement(losses, thresholds=thresholds))
    if times is not None:
        findings.append(check_loading(times, thresholds=thresholds))
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def check_finite(history: Sequence[EpochResult]) -> Finding:
    """Whether every number of every epoch is finite."""
    broken = [result for result in history if not all(math.isfinite(value) for value in result.numbers().values())]
    if not broken:
        return Finding("non_finite", "ok", f"all numbers of {len(history)} epochs are finite", {"epochs": len(history)})
    first = broken[0]
    names = [name for name, value in first.numbers().items() if not math.isfinite(value)]
    return Finding(
        "non_finite",
        "critical",
        f"{', '.join(names)} is not finite from epoch {first.epoch} on",
        {"first_epoch": first.epoch, "epochs": len(broken)},
        "Lower train.peak_lr, lengthen train.warmup_share, set train.max_gradient_norm; look for extreme features.",
    )


def check_underfitting(history: Sequence[EpochResult], *, thresholds: Thresholds) -> Finding:
    """Whether the network cannot even fit what it learns from."""
    accuracy = history[best_epoch(history) - 1].train_accuracy
    evidence = {"train_accuracy": accuracy, "limit": thresholds.min_train_accuracy}
    summary = f"training accuracy {accuracy:.3f} at the best epoch, at least {thresholds.min_train_accuracy:g} expected"
    return _found(
        "underfitting",
        "warning" if accuracy < thresholds.min_train_accuracy else "ok",
        summary,
        evidence,
        "Raise train.network.width or train.epochs, weaken augmentation, dropout or weight decay; check the labels.",
    )


def check_gradients(history: Sequence[EpochResult], *, thresholds: Thresholds) -> list[Finding]:
    """Whether gradients vanish (small while there is much to learn) or explode (an epoch far above the others)."""
    norms = [result.gradient_norm for result in history]
    median, largest = statistics.median(norms), max(norms)
    is_learning = history[-1].train_accuracy < thresholds.min_train_accuracy
    growth = largest / max(median, NORM_FLOOR)
    vanishing = _found(
        "vanishing_gradients",
        "warning" if is_learning and median < thresholds.min_gradient_norm else "ok",
        f"median gradient norm {median:.3g}, at least {thresholds.min_gradient_norm:g} expected while accuracy is low",
        {"median_norm": median, "limit": thresholds.min_gradient_norm},
        "Raise train.peak_lr, reduce train.network.depth, and check that the features are normalised.",
    )
    exploding = _found(
        "exploding_gradients",
        "warning" if growth > thresholds.max_gradient_growth else "ok",
        f"largest gradient norm of an epoch {largest:.3g} is {growth:.1f} times the median epoch's, "
        f"at most {thresholds.max_gradient_growth:g} expected",
        {"largest_norm": largest, "growth": growth, "limit": thresholds.max_gradient_growth},
        "Lower train.max_gradient_norm or train.peak_lr, lengthen train.warmup_share.",
    )
    return [vanishing, exploding]


def check_convergence(history: Sequence[EpochResult], *, thresholds: Thresholds) -> Finding:
    """Whether the training loss took long to get half-way from its first to its lowest value."""
    losses = [result.train_loss for result in history]
    middle = (losses[0] + min(losses)) / 2
    halfway = next(epoch for epoch, loss in enumerate(losses, start=1) if loss <= middle)
    share = halfway / len(losses)
    return _found(
        "slow_convergence",
        "note" if share > thresholds.max_halfway_share else "ok",
        f"training loss was half-way down at epoch {halfway} of {len(losses)}, "
        f"expected within {thresholds.max_halfway_share:.0%} of the epochs",
        {"halfway_epoch": halfway, "share": share, "limit": thresholds.max_halfway_share},
        "Raise train.peak_lr, shorten train.warmup_share, or use a smaller train.batch_size.",
    )


def check_overfitting(history: Sequence[EpochResult], *, losses: Sequence[float], thresholds: Thresholds) -> Finding:
    """Whether the network ended up much better on training than on validation rows, or was getting worse there."""
    last = history[-1]
    gap = last.train_accuracy - (last.validation_accuracy or 0.0)
    lowest = min(losses)
    rise = (losses[-1] - lowest) / max(lowest, LOSS_FLOOR)
    evidence = {
        "accuracy_gap": gap,
        "gap_limit": thresholds.max_accuracy_gap,
        "loss_rise": rise,
        "rise_limit": thresholds.max_loss_rise,
    }
    summary = (
        f"accuracy is {gap:.3f} higher on training than on validation rows (at most {thresholds.max_accuracy_gap:g} "
        f"expected); validation loss ended {rise:.1%} above its lowest (at most {thresholds.max_loss_rise:.0%})"
    )
    is_over = gap > thresholds.max_accuracy_gap or rise > thresholds.max_loss_rise
    return _found(
        "overfitting",
        "warning" if is_over else "ok",
        summary,
        evidence,
        "Add data or augmentation, raise train.network.dropout or train.weight_decay, lower train.network.width, "
        "or set train.patience lower.",
    )


def check_noise(losses: Sequence[float], *, thresholds: Thresholds) -> Finding:
    """Whether the validation loss zigzags in the second half: its mean second difference, which no trend moves."""
    late = losses[-max(3, len(losses) // 2) :]
    bends = [abs(after - 2 * here + before) / 2 for before, here, after in zip(late, late[1:], late[2:], strict=False)]
    noise = statistics.fmean(bends) / max(statistics.fmean(late), LOSS_FLOOR)
    return _found(
        "noisy_validation",
        "note" if noise > thresholds.max_validation_noise else "ok",
        f"validation loss zigzags by {noise:.1%} of its mean in the second half, "
        f"at most {thresholds.max_validation_noise:.0%} expected",
        {"noise": noise, "limit": thresholds.max_validation_noise},
        "Give validation more rows (split.fractions), use a larger train.batch_size or a lower train.peak_lr.",
    )


def check_late_improvement(losses: Sequence[float], *, thresholds: Thresholds) -> Finding:
    """Whether the validation loss was still falling when the run ended."""
    tail = max(1, round(TAIL_SHARE * len(losses)))
    before, overall = min(losses[:-tail]), min(losses)
    fall = (before - overall) / max(before, LOSS_FLOOR)
    return _found(
        "stopped_too_early",
        "note" if fall > thresholds.max_late_improvement else "ok",
        f"the lowest validation loss fell by {fall:.1%} in the last {tail} epochs, "
        f"at most {thresholds.max_late_improvement:.0%} expected of a finished run",
        {"late_improvement": fall, "limit": thresholds.max_late_improvement},
        "Raise train.epochs; raise train.patience if early stopping ended the run.",
    )


def check_loading(times: Mapping[str, float], *, thresholds: Thresholds) -> Finding:
    """Whether training waited for data."""
    share = times["loading_share"]
    return _found(
        "slow_loading",
        "note" if share > thresholds.max_loading_share else "ok",
        f"{share:.0%} of training time was spent waiting for batches, at most {thresholds.max_loading_share:.0%} "
        f"expected; a step took {times['step_ms_median']:.1f} ms (median)",
        {"loading_share": share, "limit": thresholds.max_loading_share, "step_ms_median": times["step_ms_median"]},
        "Use fewer or cheaper augmentations, or make offline copies in augment.",
        is_timing=True,
    )


def _without_validation() -> Finding:
    return Finding(
        "no_validation",
        "note",
        "there is no validation split, so overfitting was not looked for and the last epoch is taken for the best",
        {},
        "Give validation a share in split.fractions.",
    )


def _found(
    name: str, severity: Severity, summary: str, evidence: dict[str, float], action: str, *, is_timing: bool = False
) -> Finding:
    """A finding whose action is left out when nothing is wrong."""
    return Finding(name, severity, summary, evidence, action if severity != "ok" else "", is_timing=is_timing)
