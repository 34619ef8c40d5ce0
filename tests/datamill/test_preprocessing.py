from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from datamill import features
from datamill.errors import DataError
from datamill.modalities import image as images
from datamill.preprocessing import (
    CategoryColumn,
    ImagePreprocessor,
    NumberColumn,
    TabularPreprocessor,
    fitting,
    load_preprocessor,
    save_preprocessor,
)
from datamill.preprocessing.moments import ExactSums, Moments
from datamill.samples import Dataset, Feature, content_hash
from tests.builders import image_table, tabular_table

FEATURES = (
    Feature(name="size", kind="number"),
    Feature(name="age", kind="number"),
    Feature(name="hue", kind="category"),
)
DATASET = Dataset(name="rows", modality="tabular", classes=("a", "b"), features=FEATURES)
IMAGES = Dataset(name="pictures", modality="image", classes=("a", "b"))
BATCH_ROWS = 3  # read at a time
TABLE_PARAMS = {
    "dataset": DATASET,
    "numeric": "standardise",
    "categorical": "one_hot",
    "impute": "mean",
    "num_neighbors": 1,
    "max_reference": 100,
    "max_categories": 10,
    "seed": 0,
}


def rows(*, size: list[float | None], age: list[float | None], hue: list[str | None]) -> pa.Table:
    return pa.table(
        {
            "sample_id": pa.array([content_hash(str(row).encode()) for row in range(len(size))], pa.string()),
            "feature:size": pa.array(size, pa.float64()),
            "feature:age": pa.array(age, pa.float64()),
            "feature:hue": pa.array(hue, pa.string()),
        }
    )


TRAIN = rows(size=[0.0, 2.0, 4.0, 6.0], age=[10.0, 10.0, 10.0, 10.0], hue=["red", "blue", "red", None])


def fit(table: pa.Table = TRAIN, **changes: object) -> TabularPreprocessor:
    def read(columns: Sequence[str]) -> Iterator[pa.Table]:
        for start in range(0, table.num_rows, BATCH_ROWS):
            yield table.slice(start, BATCH_ROWS).select(["sample_id", *columns])

    return fitting.fit_tabular(read, **{**TABLE_PARAMS, **changes})  # type: ignore[arg-type]


def pictures(*pixels: NDArray[np.uint8]) -> pa.Table:
    return pa.table({"image": images.payload(list(pixels))})


def fit_pictures(*tables: pa.Table, **changes: object) -> ImagePreprocessor:
    params = {"height": None, "width": None, "channels": "auto", "normalise": "standardise", **changes}
    return fitting.fit_images((features.look(table, dataset=IMAGES) for table in tables), **params)  # type: ignore[arg-type]


def grey(value: int, *, height: int = 2, width: int = 2) -> NDArray[np.uint8]:
    return np.full((height, width, 1), value, np.uint8)


def test_standardised_numbers_have_mean_zero_and_deviation_one() -> None:
    size = fit().arrays(TRAIN)[:, 0]
    assert size.tolist() == pytest.approx([-1.3416408, -0.4472136, 0.4472136, 1.3416408])


@pytest.mark.parametrize(
    ("numeric", "expected"), [("minmax", [0, 1 / 3, 2 / 3, 1]), ("symmetric", [-1, -1 / 3, 1 / 3, 1])]
)
def test_numbers_are_scaled_to_the_range_asked_for(numeric: str, expected: list[float]) -> None:
    assert fit(numeric=numeric).arrays(TRAIN)[:, 0].tolist() == pytest.approx(expected)


def test_a_constant_number_becomes_zero() -> None:
    assert fit().arrays(TRAIN)[:, 1].tolist() == [0, 0, 0, 0]


def test_a_number_missing_in_all_of_training_becomes_zero() -> None:
    table = rows(size=[None, None], age=[1.0, 2.0], hue=["red", "red"])
    assert fit(table).arrays(table)[:, 0].tolist() == [0, 0]


def test_categories_are_one_hot_in_alphabetical_order_with_missing_as_the_last() -> None:
    assert fit().arrays(TRAIN)[:, 2:].tolist() == [[0, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_a_category_unknown_in_training_is_all_zero() -> None:
    table = rows(size=[0.0], age=[10.0], hue=["green"])
    assert fit().arrays(table)[0, 2:].tolist() == [0, 0, 0]


def test_ordinal_codes_follow_the_alphabet_and_unknown_is_minus_one() -> None:
    table = rows(size=[0.0] * 4, age=[1.0] * 4, hue=["blue", "red", None, "green"])
    assert fit(categorical="ordinal").arrays(table)[:, 2].tolist() == [0, 1, 2, -1]


def test_only_the_most_frequent_categories_are_encoded() -> None:
    fitted = fit(max_categories=1)
    assert fitted.categories == (CategoryColumn(name="hue", values=("red",)),)
    assert fitted.arrays(TRAIN)[:, 2].tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize(("impute", "expected"), [("mean", 4.0), ("median", 2.0), ("mode", 1.0)])
def test_a_missing_number_becomes_the_statistic_asked_for(impute: str, expected: float) -> None:
    table = rows(size=[1.0, 1.0, 3.0, 11.0], age=[0.0] * 4, hue=["red"] * 4)
    hole = rows(size=[None], age=[0.0], hue=["red"])
    fitted = fit(table, impute=impute)
    assert fitted.restore(fitted.matrix(hole))["feature:size"].to_pylist() == pytest.approx([expected])


def test_knn_takes_the_value_of_the_nearest_training_row() -> None:
    table = rows(size=[100.0, 200.0, 300.0], age=[1.0, 5.0, 9.0], hue=["red"] * 3)
    hole = rows(size=[None], age=[8.7], hue=["red"])
    fitted = fit(table, impute="knn")
    assert fitted.restore(fitted.matrix(hole))["feature:size"].to_pylist() == pytest.approx([300.0])


def test_knn_uses_the_column_mean_where_no_reference_row_has_the_value() -> None:
    table = rows(size=[7.0, *[None] * 9], age=[float(row) for row in range(10)], hue=["red"] * 10)
    hole = rows(size=[None], age=[9.0], hue=["red"])
    fitted = fit(table, impute="knn", max_reference=1, seed=1)
    assert fitted.restore(fitted.matrix(hole))["feature:size"].to_pylist() == pytest.approx([7.0])


@pytest.mark.parametrize("impute", ["median", "mode"])
def test_more_rows_than_are_held_are_stood_for_by_some(monkeypatch: pytest.MonkeyPatch, impute: str) -> None:
    table = rows(
        size=[float(row % 10 > 2) for row in range(400)], age=[float(row) for row in range(400)], hue=[None] * 400
    )
    exact = fit(table, impute=impute)
    monkeypatch.setattr(fitting, "EXACT_ROWS", 300)
    monkeypatch.setattr(fitting, "SAMPLED_ROWS", 100)
    some = fit(table, impute=impute)
    assert some.numbers[0] == exact.numbers[0]
    assert (some.numbers[1].offset, some.numbers[1].scale) == (exact.numbers[1].offset, exact.numbers[1].scale)
    if impute == "median":
        assert 0 < abs(some.numbers[1].fill - 199.5) < 60


def test_statistics_of_a_column_do_not_depend_on_how_many_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    together = fit(impute="median")
    monkeypatch.setattr(fitting, "HELD_VALUES", 1)
    assert fit(impute="median") == together


def test_knn_keeps_a_bounded_reference_that_depends_on_the_seed_alone() -> None:
    table = rows(size=[float(row) for row in range(50)], age=[1.0] * 50, hue=["red"] * 50)
    first, again, other = (fit(table, impute="knn", max_reference=5, seed=seed) for seed in (3, 3, 4))
    assert len(first.reference) == 5
    assert first == again
    assert first != other


def test_non_finite_and_huge_numbers_never_become_non_finite_features() -> None:
    table = rows(size=[1e308, -1e308, float("inf"), float("nan")], age=[1e-300, 2e-300, 3e-300, None], hue=["red"] * 4)
    for impute in ("mean", "median", "mode", "knn"):
        for numeric in ("standardise", "minmax", "symmetric"):
            for fitted in (fit(table, impute=impute, numeric=numeric), fit(impute=impute, numeric=numeric)):
                assert np.isfinite(fitted.arrays(table)).all()


def test_no_rows_give_no_features() -> None:
    assert fit().arrays(TRAIN.slice(0, 0)).shape == (0, 5)


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(
        st.tuples(st.floats(-1e6, 1e6), st.floats(-1e-3, 1e-3), st.sampled_from(["red", "blue", None])),
        min_size=1,
        max_size=12,
    ),
    numeric=st.sampled_from(["standardise", "minmax", "symmetric"]),
    categorical=st.sampled_from(["one_hot", "ordinal"]),
)
def test_restore_leads_back_to_the_rows_fitted_on(
    values: list[tuple[float, float, str | None]], numeric: str, categorical: str
) -> None:
    size, age, hue = (list(column) for column in zip(*values, strict=True))
    table = rows(size=size, age=age, hue=hue)
    fitted = fit(table, numeric=numeric, categorical=categorical)
    restored = fitted.restore(fitted.matrix(table))
    assert restored["feature:hue"].to_pylist() == hue
    spread = max(size) - min(size)
    assert restored["feature:size"].to_pylist() == pytest.approx(size, rel=1e-6, abs=1e-6 * spread + 1e-9)
    again = fitted.matrix(pa.table(restored))
    assert np.allclose(again, fitted.matrix(table), rtol=1e-5, atol=1e-5)


def test_restore_takes_the_largest_category_and_null_where_none_was_seen() -> None:
    fitted = fit()
    matrix = np.array([[0, 0, 0.2, 0.7, 0.1], [0, 0, 0, 0, 0]], np.float32)
    assert fitted.restore(matrix)["feature:hue"].to_pylist() == ["red", None]


def test_statistics_are_those_of_all_pixels() -> None:
    fitted = fit_pictures(pictures(grey(0), grey(255)), pictures(grey(255), grey(255)))
    assert fitted.mean == pytest.approx((0.75,))
    assert fitted.std == pytest.approx((0.4330127,))


@pytest.mark.parametrize("channels", [1, 3])
def test_statistics_of_images_of_one_size_are_those_of_their_pixels(channels: int) -> None:
    _, table = image_table(num_samples=30, channels=channels)
    fitted = fit_pictures(table.slice(0, 11), table.slice(11))
    pixels = fitted.arrays(table) / 255
    assert fitted.mean == pytest.approx(pixels.mean(axis=(0, 1, 2)), abs=1e-9)
    assert fitted.std == pytest.approx(pixels.std(axis=(0, 1, 2)), abs=1e-9)
    assert fit_pictures(table) == fitted


def test_each_image_counts_alike_whatever_its_size() -> None:
    fitted = fit_pictures(pictures(grey(0, height=30, width=30), grey(255)))
    assert (fitted.mean, fitted.std) == ((0.5,), (0.5,))


def test_colour_counts_as_grey_where_one_channel_is_asked_for() -> None:
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 200
    fitted = fit_pictures(pictures(red), channels=1)
    assert fitted.mean == pytest.approx((fitted.arrays(pictures(red)).mean() / 255,))
    assert fit_pictures(pictures(red, grey(200))).mean == pytest.approx((200 / 255, 100 / 255, 100 / 255))


@pytest.mark.parametrize(("normalise", "mean", "std"), [("unit", 0.0, 1.0), ("symmetric", 0.5, 0.5)])
def test_fixed_ranges_need_no_statistics(normalise: str, mean: float, std: float) -> None:
    fitted = fit_pictures(pictures(grey(9)), normalise=normalise)
    assert (fitted.mean, fitted.std) == ((mean,), (std,))


def test_a_constant_channel_is_not_divided_by_zero() -> None:
    assert fit_pictures(pictures(grey(9))).std == (1.0,)


def test_null_size_takes_the_most_common_one() -> None:
    table = pictures(grey(1, height=4, width=6), grey(2, height=4, width=6), grey(3, height=9, width=9))
    assert fit_pictures(table).shape == (4, 6, 1)
    assert fit_pictures(table, height=5).shape == (5, 6, 1)


def test_one_colour_image_makes_all_of_them_rgb() -> None:
    table = pictures(grey(1), np.full((2, 2, 3), 7, np.uint8))
    assert fit_pictures(table).shape == (2, 2, 3)
    assert fit_pictures(table, channels=1).shape == (2, 2, 1)


def test_images_of_any_size_come_out_in_one() -> None:
    fitted = fit_pictures(pictures(grey(7)))
    arrays = fitted.arrays(pictures(grey(1, height=8, width=8), np.full((2, 2, 3), 9, np.uint8)))
    assert arrays.dtype == np.uint8
    assert arrays.tolist() == [grey(1).tolist(), grey(9).tolist()]


def test_restored_images_are_the_images() -> None:
    _, table = image_table(num_samples=6, channels=3)
    fitted = fit_pictures(table)
    matrix = fitted.matrix(table)
    assert matrix.shape == (6, 192)
    assert (float(matrix.min()) >= 0, float(matrix.max()) <= 1) == (True, True)
    assert np.array_equal(fitted.arrays(pa.table(fitted.restore(matrix))), fitted.arrays(table))


def test_restore_clips_pixels() -> None:
    fitted = fit_pictures(pictures(grey(7)))
    restored = pa.table(fitted.restore(np.array([[-0.3, 0.5, 1.0, 7.0]], np.float32)))
    assert fitted.arrays(restored).ravel().tolist() == [0, 128, 255, 255]


def test_a_saved_preprocessor_computes_the_same(tmp_path: Path) -> None:
    dataset, table = tabular_table()
    tabular = fit(table, dataset=dataset, impute="knn")
    _, shown = image_table()
    for fitted, samples in ((tabular, table), (fit_pictures(shown), shown)):
        save_preprocessor(fitted, tmp_path / "state.json")
        loaded = load_preprocessor(tmp_path / "state.json")
        assert loaded == fitted
        assert np.array_equal(loaded.arrays(samples), fitted.arrays(samples))


@settings(max_examples=30, deadline=None)
@given(values=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40), cut=st.integers(0, 40))
def test_moments_of_pieces_are_those_of_the_whole(values: list[float], cut: int) -> None:
    moments = Moments(1)
    for piece in (values[:cut], values[cut:]):
        moments.add(np.array(piece, np.float64)[:, None])
    assert (moments.low[0], moments.high[0], moments.count[0]) == (min(values), max(values), len(values))
    assert moments.mean[0] == pytest.approx(np.mean(values), abs=1e-9)
    assert moments.std[0] == pytest.approx(np.std(values), abs=1e-6)


def test_moments_leave_missing_values_out() -> None:
    moments = Moments(3)
    moments.add(np.array([[1.0, np.nan, np.inf], [3.0, np.nan, 5.0]]))
    assert (moments.mean.tolist(), moments.std.tolist()) == ([2, 0, 5], [1, 0, 0])


@settings(max_examples=30, deadline=None)
@given(values=st.lists(st.floats(0, 1), min_size=2, max_size=40), order=st.randoms(use_true_random=False))
def test_exact_sums_depend_on_no_order_and_no_batch(values: list[float], order: Random) -> None:
    found = []
    for _ in range(2):
        sums = ExactSums(1)
        cut = order.randrange(len(values))
        for piece in (values[:cut], values[cut:]):
            sums.add(np.array(piece, np.float64)[:, None])
        found.append(sums.means(len(values))[0])
        order.shuffle(values)
    assert found[0] == found[1] == pytest.approx(np.mean(values), abs=1e-12)


def test_fitting_on_nothing_is_refused() -> None:
    with pytest.raises(DataError, match=r"no training row to fit on; give split\.fractions\.train a larger share"):
        fit(TRAIN.slice(0, 0))
    with pytest.raises(DataError, match="no training image to fit on"):
        fit_pictures()


def test_a_missing_or_damaged_state_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"state.json is missing; run the stage preprocess"):
        load_preprocessor(tmp_path / "state.json")
    (tmp_path / "state.json").write_text('{"kind": "image", "height": "tall"}')
    with pytest.raises(DataError, match=r"state.json is damaged \(5 faults\)"):
        load_preprocessor(tmp_path / "state.json")


def test_number_columns_are_plain_arithmetic() -> None:
    column = NumberColumn(name="size", fill=3.0, offset=1.0, scale=2.0)
    fitted = TabularPreprocessor(numbers=(column,), categories=(), encoding="one_hot", num_neighbors=None, reference=())
    table = pa.table({"feature:size": pa.array([None, 1.0, 5.0], pa.float64())})
    assert fitted.arrays(table).tolist() == [[1.0], [0.0], [2.0]]
