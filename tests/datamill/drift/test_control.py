"""The allowance of false alarms over time."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from datamill.drift.control import MONTH, Control, advance, charged, window_level
from tests.datamill.drift.made import params

NOW = datetime(2026, 3, 1, tzinfo=UTC)
MONTHLY = params(false_alarms_per_month=1.0, windows_per_month=100)


def spent_in_a_month(num_windows: int) -> Control:
    control = advance(Control(), now=NOW)
    for _ in range(num_windows):
        control = charged(control, level=window_level(control, params=MONTHLY), is_drift=False)
    return control


def test_without_a_monthly_number_every_window_has_the_level() -> None:
    assert window_level(Control(num_windows=10_000), params=params()) == 0.05


def test_the_allowance_is_exceeded_in_one_month_of_twenty_at_most() -> None:
    spent = spent_in_a_month(100).spent / 0.9
    assert spent == pytest.approx(0.35536, abs=1e-4)
    assert stats.poisson.sf(1, spent) == pytest.approx(0.05, abs=1e-6)


@pytest.mark.parametrize("num_windows", [1, 100, 101, 500])
def test_more_windows_than_planned_do_not_exceed_the_allowance(num_windows: int) -> None:
    assert spent_in_a_month(num_windows).spent < 0.35537
    assert window_level(spent_in_a_month(num_windows), params=MONTHLY) > 0


def test_the_level_of_a_window_is_never_above_that_of_one_alone() -> None:
    assert window_level(Control(), params=params(false_alarms_per_month=31.0, windows_per_month=1)) == 0.05


def test_a_month_later_the_allowance_is_back() -> None:
    control = spent_in_a_month(100)
    assert advance(control, now=NOW + MONTH - timedelta(seconds=1)).num_windows == 100
    assert advance(control, now=NOW + MONTH) == Control(month_start=NOW + MONTH, last=NOW + MONTH)


def test_a_clock_set_back_gives_nothing_back_and_time_goes_on_from_there() -> None:
    later = advance(spent_in_a_month(100), now=NOW + timedelta(days=20))
    back = advance(later, now=NOW - timedelta(days=365))
    assert (back.num_windows, back.spent) == (later.num_windows, later.spent)
    assert back.month_start == NOW - timedelta(days=385)
    assert advance(back, now=NOW - timedelta(days=365) + timedelta(days=11)).num_windows == 0


@given(st.lists(st.floats(-40, 40), max_size=30))
def test_time_within_the_month_never_shrinks(days: list[float]) -> None:
    control, now, before = advance(Control(), now=NOW), NOW, timedelta(0)
    for step in days:
        now += timedelta(days=step)
        control = advance(control, now=now)
        assert control.month_start is not None
        passed = now - control.month_start
        assert timedelta(0) <= passed < MONTH
        assert passed >= before or passed == timedelta(0)
        before = passed


def test_it_goes_through_json_unchanged() -> None:
    control = charged(spent_in_a_month(3), level=0.01, is_drift=True)
    assert Control.model_validate_json(control.model_dump_json()) == control
    assert control.num_drifted == 1
