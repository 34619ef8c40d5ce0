"""The part of the reference of the same seasons."""

import numpy as np

from datamill.drift.seasons import matched_rows, season


def test_hours_and_weekdays_are_those_of_utc() -> None:
    times = np.array(["2026-01-05T13:59", "2026-01-11T00:00", "1969-12-31T23:00", "NaT"], "datetime64[us]")
    assert season(times, kind="hour").tolist() == [13, 0, 23, -1]
    assert season(times, kind="weekday").tolist() == [0, 6, 2, -1]  # Monday, Sunday, Wednesday
    assert season(times, kind="hour_and_weekday").tolist() == [13, 6 * 24, 2 * 24 + 23, -1]


def test_matched_rows_have_the_windows_mixture() -> None:
    reference, window = np.repeat([0, 1, 2], [100, 40, 500]), np.repeat([0, 1], [30, 10])
    rows = matched_rows(reference, window, 0)
    assert np.bincount(reference[rows]).tolist() == [100, 33]
    assert rows.tolist() == sorted(set(rows.tolist()))


def test_a_season_that_the_reference_lacks_leaves_nothing() -> None:
    assert len(matched_rows(np.zeros(100, int), np.array([0, 5]), 0)) == 0
    assert len(matched_rows(np.zeros(100, int), np.full(3, -1), 0)) == 0
