"""The part of the reference that was taken at the same times of the day or week as a window."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from datamill.drift.observations import Observations, take
from datamill.drift.params import DriftParams, Seasonality

Times = NDArray[np.datetime64]
HOURS = 24


def matched(reference: Observations, window: Observations, *, params: DriftParams) -> tuple[Observations, str]:
    """Reference samples in the window's mixture of seasons, and a note where there are too few; else the note is empty.

    Of every season that occurs in the window, the reference gives the share that the window has of it, as many as the
    scarcest season allows.
    """
    if params.seasonality == "none":
        return reference, ""
    if reference.times is None or window.times is None or np.isnat(window.times).all():
        return reference, "no times, so that seasons cannot be matched; compared with the whole reference"
    rows = matched_rows(
        season(reference.times, kind=params.seasonality), season(window.times, kind=params.seasonality), params.seed
    )
    if len(rows) < params.min_matched:
        return reference, (
            f"the reference has {len(rows)} samples in the window's seasons ({params.seasonality}) and in its mixture, "
            f"fewer than {params.min_matched}; compared with the whole reference"
        )
    return take(reference, rows), ""


def season(times: Times, *, kind: Seasonality) -> NDArray[np.int64]:
    """Number of each time's season, shape ``(N,)``; -1 where the time is not known."""
    known = np.where(np.isnat(times), np.datetime64(0, "us"), times)
    hours = known.astype("datetime64[h]").astype(np.int64)
    hour, weekday = hours % HOURS, (hours // HOURS + 3) % 7  # 1970 began on a Thursday
    number = {"hour": hour, "weekday": weekday, "hour_and_weekday": weekday * HOURS + hour}[kind]
    return np.where(np.isnat(times), -1, number)


def matched_rows(reference: NDArray[np.int64], window: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Rows of the reference whose seasons are mixed as the window's, ascending."""
    seasons, counts = np.unique(window[window >= 0], return_counts=True)
    there = np.array([(reference == one).sum() for one in seasons])
    num = int(np.min(there * counts.sum() / counts)) if len(seasons) else 0
    wanted = np.minimum(np.round(num * counts / max(counts.sum(), 1)).astype(np.int64), there)
    return _drawn(reference, seasons.tolist(), wanted=wanted.tolist(), rng=np.random.default_rng(seed))


def _drawn(
    reference: NDArray[np.int64], seasons: Sequence[int], *, wanted: Sequence[int], rng: np.random.Generator
) -> NDArray[np.int64]:
    pieces = [
        rng.choice(np.flatnonzero(reference == one), count, replace=False)
        for one, count in zip(seasons, wanted, strict=True)
    ]
    return np.sort(np.concatenate([np.empty(0, np.int64), *pieces]))
