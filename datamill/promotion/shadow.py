"""Both models on what came in lately: they answer side by side, and only the champion's answer was ever used."""

# Shapes: N recent inputs, K classes of either model.

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamill.evaluation.metrics import Predictions
from datamill.promotion.evidence import Evidence
from datamill.promotion.gains import measure_gain
from datamill.promotion.params import PromoteParams, ShadowParams
from datamill.promotion.reasons import Reason

UNKNOWN = -1


@dataclass(frozen=True)
class Shadow:
    """Two models' answers to the same recent inputs.

    Attributes:
        windows: Names of the windows the inputs are from.
        champion: Probability of every class, shape ``(N, K)``.
        challenger: The same of the other model.
        label: Number of each true class, ``UNKNOWN`` where it is not known, shape ``(N,)``.
        num_taught: Inputs that were left out, because the challenger has been trained on them.
    """

    windows: tuple[str, ...]
    champion: NDArray[np.float64]
    challenger: NDArray[np.float64]
    label: NDArray[np.int64]
    num_taught: int = 0


def check_shadow(shadow: Shadow | None, *, pair: tuple[Evidence, Evidence], limits: ShadowParams) -> list[Reason]:
    """Whether the challenger holds up on recent inputs: by accuracy where there are labels, else by what is likely.

    Args:
        shadow: Both models' answers; ``None`` when there are none.
        pair: Champion and challenger.
        limits: What may be lost.
    """
    if not limits.num_windows:
        return []
    count = 0 if shadow is None else len(shadow.label)
    needed = f"at least {limits.min_rows} recent inputs to compare on"
    if shadow is None or count < limits.min_rows:
        found = f"{count} recent inputs, too few to compare"
        if shadow is not None and shadow.num_taught:
            found += f"; {shadow.num_taught} more are among those it was trained on"
        return [Reason("shadow", not limits.is_required, found, needed, {"inputs": count})]
    is_known = shadow.label != UNKNOWN
    if int(is_known.sum()) >= limits.min_rows:
        return [_with_labels(shadow, is_known=is_known, max_loss=limits.max_loss)]
    return _without_labels(shadow, pair=pair, limits=limits)


def check_recent(shadow: Shadow | None, *, policy: PromoteParams) -> list[Reason]:
    """Whether the challenger is surely better on recent inputs with labels; nothing where that is not asked for.

    Inputs that the challenger was trained on are not among them; those of a class that neither model has are left out.
    """
    if policy.recent is None:
        return []
    is_known = np.zeros(0, bool) if shadow is None else shadow.label != UNKNOWN
    count, least = int(is_known.sum()), policy.recent.min_labels
    needed = f"at least {least} labelled inputs of recent windows, {policy.metric} better on them, "
    needed += f"the {policy.level:.0%} interval of the difference excluding zero"
    if shadow is None or count < least:
        found = f"{count} labelled recent inputs, too few to prefer the challenger for"
        return [Reason("recent", False, found, needed, {"labelled": count})]
    label = shadow.label[is_known]
    before, now = (Predictions(label, side[is_known]) for side in (shadow.champion, shadow.challenger))
    gain = measure_gain(before, now, unit_N=np.arange(count), policy=policy)
    if gain is None:
        found = f"{policy.metric} is not defined on {count} labelled recent inputs"
        return [Reason("recent", False, found, needed, {"labelled": count})]
    found = f"{gain} over {count} labelled inputs of {len(shadow.windows)} windows"
    return [Reason("recent", gain.is_sure, found, needed, {**gain.numbers, "labelled": count})]


def estimated_accuracy(answers: NDArray[np.float64], *, predictions: Predictions) -> float:
    """Accuracy to expect on inputs without labels: the test split's, moved by the change of mean confidence, in [0, 1].

    Source: D. Guillory et al., "Predicting with confidence on unseen distributions", ICCV 2021 (difference of
    confidences).
    """
    change = float(answers.max(axis=1).mean() - predictions.confidence.mean())
    return min(1.0, max(0.0, float(predictions.is_correct.mean()) + change))


def _with_labels(shadow: Shadow, *, is_known: NDArray[np.bool_], max_loss: float) -> Reason:
    label = shadow.label[is_known]
    before, now = (
        float((probabilities[is_known].argmax(axis=1) == label).mean())
        for probabilities in (shadow.champion, shadow.challenger)
    )
    found = f"accuracy {now:.4f} against {before:.4f} on {len(label)} labelled inputs of {len(shadow.windows)} windows"
    numbers = {"champion": before, "challenger": now, "labelled": len(label)}
    return Reason("shadow", now - before >= -max_loss, found, f"a loss of at most {max_loss:g}", numbers)


def _without_labels(shadow: Shadow, *, pair: tuple[Evidence, Evidence], limits: ShadowParams) -> list[Reason]:
    count = len(shadow.label)
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
