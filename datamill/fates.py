"""Gathers what is decided about every sample of a stage before its ledger is written: 3 bytes for an untouched one."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple, final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamill.ledger import FATES, SURVIVING, Fate

WEIGHT: dict[Fate, int] = {"kept": 0, "repaired": 1, "quarantined": 2, "dropped": 2}
WEIGHTS = np.array([WEIGHT[fate] for fate in FATES], np.int8)
IS_SURVIVING = np.array([fate in SURVIVING for fate in FATES], bool)

Rows = NDArray[np.int64]
Details = str | Callable[[Rows], Iterable[str]]
"""One text for all rows, or a function that gives each of some rows its text when the ledger is written."""


class _Decision(NamedTuple):
    rows: Rows
    weight: int
    reason: str
    details: Details


@final
class Fates:
    """One decision per sample: the heaviest names fate and reason, lighter or later ones are added to the detail.

    Attributes:
        counts: How often each reason was given, also where it did not become the sample's reason.
    """

    def __init__(self, num_samples: int) -> None:
        """Keep every sample until something else is decided."""
        self.counts: Counter[str] = Counter()
        self._fates = np.zeros(num_samples, np.int8)  # places in FATES
        self._reasons = np.zeros(num_samples, np.int16)  # places in self._names
        self._names = [""]
        self._decisions: list[_Decision] = []

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self._fates)

    def decide(self, rows: Rows, *, fate: Fate, reason: str, details: Details = "") -> None:
        """Give samples a fate for a reason; those that are out already keep theirs and are not counted.

        Args:
            rows: Which ones, ascending.
            fate: What becomes of them.
            reason: Short code.
            details: Particulars; a function is asked when the ledger is written, so it must not change its mind.
        """
        rows = rows[IS_SURVIVING[self._fates[rows]]]
        if not len(rows):
            return
        if reason not in self._names:
            self._names.append(reason)
        self.counts[reason] += len(rows)
        is_heaviest = (self._reasons[rows] == 0) | (WEIGHT[fate] > WEIGHTS[self._fates[rows]])
        self._fates[rows[is_heaviest]] = FATES.index(fate)
        self._reasons[rows[is_heaviest]] = self._names.index(reason)
        self._decisions.append(_Decision(rows, WEIGHT[fate], reason, details))

    @property
    def surviving(self) -> NDArray[np.bool_]:
        """Which samples are still kept or repaired, shape ``(N,)``."""
        return np.asarray(IS_SURVIVING[self._fates], bool)

    def survive(self, rows: Rows) -> NDArray[np.bool_]:
        """Which of some samples are still kept or repaired, shape ``(N,)``."""
        return np.asarray(IS_SURVIVING[self._fates[rows]], bool)

    def count(self, fate: Fate) -> int:
        """How many samples have this fate."""
        return int(np.count_nonzero(self._fates == FATES.index(fate)))

    def columns(self, start: int, stop: int) -> dict[str, pa.Array]:
        """What ``ledger.Writer.write`` takes besides the ids, for the samples from ``start`` up to ``stop``."""
        return {
            "fates": pa.array(FATES).take(pa.array(self._fates[start:stop])),
            "reasons": pa.array(self._names).take(pa.array(self._reasons[start:stop])),
            "details": pa.array(self._details(start, stop), pa.string()),
        }

    def _details(self, start: int, stop: int) -> NDArray[np.object_]:
        """Detail of every sample of a range, from the decisions about it in order."""
        details = np.full(stop - start, "", object)
        heaviest = np.full(stop - start, -1)  # the decision that names each one's reason
        for number, decision in enumerate(self._decisions):
            low, high = np.searchsorted(decision.rows, [start, stop])
            rows, places = decision.rows[low:high], decision.rows[low:high] - start
            texts = [decision.details] * len(rows) if isinstance(decision.details, str) else decision.details(rows)
            told = np.array([*texts, None], object)[:-1]
            is_first = heaviest[places] < 0
            details[places[is_first]] = told[is_first]
            heaviest[places[is_first]] = number
            for place, text in zip(places[~is_first].tolist(), told[~is_first], strict=True):
                former = self._decisions[heaviest[place]]
                if decision.weight > former.weight:
                    heaviest[place] = number
                    details[place] = _joined(text, _coded(former.reason, details[place]))
                else:
                    details[place] = _joined(details[place], _coded(decision.reason, text))
        return details


def _coded(reason: str, detail: str) -> str:
    return f"{reason}: {detail}" if reason and detail else reason


def _joined(first: str, second: str) -> str:
    return "; ".join(text for text in (first, second) if text)
