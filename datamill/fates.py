"""Gathers what is decided about every sample of a stage before its ledger is written."""

from collections import Counter
from collections.abc import Iterable
from typing import final

import numpy as np
from numpy.typing import NDArray

from datamill.ledger import SURVIVING, Fate

WEIGHT: dict[Fate, int] = {"kept": 0, "repaired": 1, "quarantined": 2, "dropped": 2}


@final
class Fates:
    """One decision per sample: the heaviest names fate and reason, lighter or later ones are added to the detail.

    Attributes:
        fates: Fate of each sample; ``kept`` at first.
        reasons: Code of the heaviest decision; empty where nothing was decided.
        details: Its particulars, then those of the other decisions, each with its code.
        counts: How often each reason was given, also where it did not become the sample's reason.
    """

    def __init__(self, num_samples: int) -> None:
        """Keep every sample until something else is decided."""
        self.fates: list[Fate] = ["kept"] * num_samples
        self.reasons = [""] * num_samples
        self.details = [""] * num_samples
        self.counts: Counter[str] = Counter()

    def decide(self, rows: Iterable[int], *, fate: Fate, reason: str, details: Iterable[str]) -> None:
        """Give each of ``rows`` a fate for a reason; samples that are out already keep theirs and are not counted."""
        for row, detail in zip(rows, details, strict=True):
            if self.fates[row] not in SURVIVING:
                continue
            self.counts[reason] += 1
            if not self.reasons[row] or WEIGHT[fate] > WEIGHT[self.fates[row]]:
                earlier = _coded(self.reasons[row], self.details[row])
                self.fates[row], self.reasons[row] = fate, reason
                self.details[row] = _joined(detail, earlier)
            else:
                self.details[row] = _joined(self.details[row], _coded(reason, detail))

    @property
    def surviving(self) -> NDArray[np.bool_]:
        """Which samples are still kept or repaired, shape ``(N,)``."""
        return np.array([fate in SURVIVING for fate in self.fates], bool)


def _coded(reason: str, detail: str) -> str:
    return f"{reason}: {detail}" if reason and detail else reason


def _joined(first: str, second: str) -> str:
    return "; ".join(text for text in (first, second) if text)
