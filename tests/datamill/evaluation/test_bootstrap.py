"""Bootstrap intervals."""

import numpy as np
import pytest

from datamill.evaluation import bootstrap


def test_each_resample_draws_as_many_samples_as_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "MAX_CELLS", 35)  # three columns at a time
    chunks = list(bootstrap.resampled_weights(np.arange(10), num_resamples=8, rng=np.random.default_rng(0)))
    assert [chunk.shape for chunk in chunks] == [(10, 3), (10, 3), (10, 2)]
    assert np.concatenate(chunks, axis=1).sum(axis=0).tolist() == [10] * 8


def test_resamples_do_not_depend_on_the_size_of_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(bootstrap.resampled_weights(np.arange(10), num_resamples=8, rng=np.random.default_rng(0)))
    monkeypatch.setattr(bootstrap, "MAX_CELLS", 1)
    pieces = list(bootstrap.resampled_weights(np.arange(10), num_resamples=8, rng=np.random.default_rng(0)))
    assert np.array_equal(np.concatenate(whole, axis=1), np.concatenate(pieces, axis=1))


def test_samples_of_a_group_are_drawn_together() -> None:
    drawn, unit = bootstrap.units([f"g{row // 3}" for row in range(36)])
    assert unit == "group"
    (weights,) = bootstrap.resampled_weights(drawn, num_resamples=5, rng=np.random.default_rng(0))
    assert np.array_equal(weights[0::3], weights[1::3])


@pytest.mark.parametrize("groups", [["a"] * 20, [None] * 20, [f"g{row}" for row in range(9)] * 2])
def test_too_few_groups_draw_single_samples(groups: list[str | None]) -> None:
    drawn, unit = bootstrap.units(groups)
    assert unit == "sample"
    assert drawn.tolist() == list(range(len(groups)))


def test_the_interval_of_a_share_is_as_wide_as_theory_says() -> None:
    correct = np.repeat([1.0, 0.0], [90, 10])
    values = bootstrap.resample(
        lambda weights: {"share": correct @ weights / weights.sum(axis=0)},
        unit_N=np.arange(100),
        num_resamples=4000,
        rng=np.random.default_rng(0),
    )
    low, high = bootstrap.percentile_interval(values["share"], level=0.95) or (0.0, 0.0)
    assert low == pytest.approx(0.9 - 1.96 * 0.03, abs=0.015)
    assert high == pytest.approx(0.9 + 1.96 * 0.03, abs=0.015)


def test_a_mostly_undefined_metric_has_no_interval() -> None:
    assert bootstrap.percentile_interval(np.array([np.nan, np.nan, 1.0]), level=0.9) is None
    assert bootstrap.percentile_interval(np.array([np.nan, 1.0, 1.0]), level=0.9) == (1.0, 1.0)
