import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamill import extracting, features, parts
from datamill.engine import Engine
from datamill.errors import DataError
from datamill.extracting import Outcome
from datamill.modalities import image, modality_of
from datamill.samples import Dataset, Feature
from tests import builders
from tests.builders import image_table, tabular_table, write_parts
from tests.datamill.sources.rerun import TravellingEngine
from tests.fakes import InlineEngine

NUM_SAMPLES = 300


@pytest.fixture(autouse=True)
def all_work_is_worth_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extracting, "WORTH_BYTES", 0)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of 5 to 40 samples of 100 bytes."""
    builders.small_parts(monkeypatch, target_bytes=20_000, least_row_bytes=1_000)
    for module in (parts, parts.parquet):
        monkeypatch.setattr(module, "READ_ROWS", 16)


@pytest.fixture(scope="module")
def pictures() -> tuple[Dataset, pa.Table]:
    return image_table(num_samples=NUM_SAMPLES)


def extract(
    folder: Path, dataset: Dataset, table: pa.Table, *, former: Path | None = None
) -> tuple[Path, Outcome, int]:
    """The features folder of these samples, how it was come by, and how many requests that took."""
    engine = InlineEngine()
    samples = write_parts(folder / "samples", dataset, table)
    outcome = extracting.extract(samples, folder=folder / "features", engine=engine, former=former)
    return folder / "features", outcome, engine.num_items


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def read(folder: Path) -> pa.Table:
    return pa.concat_tables(features.iter_tables(folder))


@pytest.mark.parametrize("channels", [1, 3])
def test_features_of_an_image_are_those_of_its_pixels(channels: int) -> None:
    dataset, table = image_table(num_samples=9, size=11, channels=channels)
    arrays = image.decode_column(table)
    found = image.features(table, dataset=dataset)
    assert found["height"].to_pylist() == [11] * 9
    assert found["channels"].to_pylist() == [channels] * 9
    assert found["size_bytes"].to_pylist() == [len(one["bytes"]) for one in table["image"].to_pylist()]
    np.testing.assert_allclose(found["pixel_mean"], [one.mean() for one in arrays], rtol=1e-12)
    np.testing.assert_allclose(found["pixel_std"], [one.std() for one in arrays], rtol=1e-12)
    thumbnails = np.frombuffer(b"".join(found["thumbnail"].to_pylist()), np.uint8).reshape(9, -1)
    np.testing.assert_array_equal(thumbnails / np.float32(255), image.observations(table, dataset=dataset))
    moments = np.array(found["moments"].to_pylist())
    colours = [one.reshape(-1, channels) / 255 for one in arrays]
    np.testing.assert_allclose(moments[:, :3], [np.broadcast_to(one.mean(axis=0), 3) for one in colours], rtol=1e-12)
    np.testing.assert_allclose(
        moments[:, 4:7], [np.broadcast_to((one**2).mean(axis=0), 3) for one in colours], rtol=1e-12
    )
    greys = [image.resize(one, height=11, width=11, channels=1) / 255 for one in arrays]
    np.testing.assert_allclose(moments[:, 3], [one.mean() for one in greys], rtol=1e-12)


def test_the_fingerprint_says_where_an_image_is_brighter_than_to_the_right() -> None:
    falling = np.repeat(np.arange(90, 0, -10, dtype=np.uint8)[None], 8, axis=0)[..., None]
    table = pa.table({"image": image.payload([falling, falling[:, ::-1]])})
    dataset = Dataset(name="ramps", modality="image", classes=("0",))
    assert image.features(table, dataset=dataset)["fingerprint"].to_pylist() == [2**64 - 1, 0]


def test_images_of_many_shapes_keep_their_order() -> None:
    shapes = [(3, 5, 1), (3, 5, 1), (4, 4, 3), (3, 5, 1), (3, 5, 3)]
    table = pa.table({"image": image.payload([np.full(shape, 7, np.uint8) for shape in shapes])})
    found = image.features(table, dataset=Dataset(name="shapes", modality="image", classes=("0",)))
    assert list(zip(*(found[name].to_pylist() for name in ("height", "width", "channels")), strict=True)) == shapes
    assert found["pixel_std"].to_pylist() == [0.0] * 5


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 40),
    height=st.integers(1, 90),
    width=st.integers(1, 40),
    side=st.sampled_from([(8, 9), (16, 16)]),
    seed=st.integers(0, 99),
)
def test_images_shrink_together_as_they_do_alone(
    count: int, height: int, width: int, side: tuple[int, int], seed: int
) -> None:
    greys = np.random.default_rng(seed).integers(0, 256, (count, height, width), np.uint8)
    found = image._shrunk(greys, height=side[0], width=side[1])
    alone = [image.resize(grey[..., None], height=side[0], width=side[1], channels=1)[..., 0] for grey in greys]
    np.testing.assert_array_equal(found, np.stack(alone))


@pytest.mark.parametrize("height", [17, 28, 30, 99, 1000])
def test_images_shrink_together_however_many_there_are(height: int) -> None:
    count = 40_000 // height  # rows of pixels beyond what 16 bits count
    greys = np.random.default_rng(0).integers(0, 256, (count, height, 18), np.uint8)
    for side in ((8, 9), (16, 16)):
        found = image._shrunk(greys, height=side[0], width=side[1])
        for row in (0, 1, count // 2, count - 1):
            alone = image.resize(greys[row][..., None], height=side[0], width=side[1], channels=1)[..., 0]
            np.testing.assert_array_equal(found[row], alone)


NUMBERS = [1.0, 1.00001, 1.0002, 1.001, -1.0, 9999.6, 10000.0, 0.0, -0.0, np.inf, -np.inf, None, 1e308, 5e-324, 1e-300]
SHOWN = [0, 0, 0, 1, 2, 3, 3, 4, 4, 5, 6, 7, 8, 9, 10]  # which of them agree to four digits


def fingerprints(values: dict[str, pa.Array]) -> Any:
    kinds: Any = {name: "number" if column.type == pa.float64() else "category" for name, column in values.items()}
    named = tuple(Feature(name=name, kind=kind) for name, kind in kinds.items())
    dataset = Dataset(name="rows", modality="tabular", classes=("0",), features=named)
    table = pa.table({f"feature:{name}": column for name, column in values.items()})
    return modality_of(dataset).features(table, dataset=dataset)["fingerprint"].to_pylist()


def test_rows_share_a_fingerprint_where_their_numbers_agree_to_four_digits() -> None:
    prints = fingerprints({"x": pa.array(NUMBERS, pa.float64())})
    assert [prints.index(one) for one in prints] == [SHOWN.index(one) for one in SHOWN]


def test_a_fingerprint_tells_columns_words_and_missing_ones_apart() -> None:
    prints = fingerprints({"a": pa.array(["x", "y", "x", None, ""]), "b": pa.array(["y", "x", "y", "y", "y"])})
    assert [prints.index(one) for one in prints] == [0, 1, 0, 3, 4]


def test_every_file_belongs_to_a_part_of_the_samples_and_keeps_its_order(tmp_path: Path, pictures: Any) -> None:
    folder, outcome, num_requests = extract(tmp_path, *pictures)
    manifest, of_samples = features.read_manifest(folder), parts.read_manifest(tmp_path / "samples")
    assert [(part.key, part.num_rows) for part in manifest.parts] == [(p.key, p.num_rows) for p in of_samples.parts]
    assert read(folder)["sample_id"].equals(parts.read_table(tmp_path / "samples")["sample_id"])
    assert read(folder).column_names == [*features.IDENTITY, *image.FEATURES.names]
    assert outcome == Outcome(linked=0, copied=0, looked_at=NUM_SAMPLES)
    assert num_requests == len(manifest.parts) > 8
    assert parts.verify(folder).num_rows == NUM_SAMPLES


def test_some_columns_can_be_read_alone(tmp_path: Path) -> None:
    folder, _, _ = extract(tmp_path, *tabular_table())
    tables = list(features.iter_tables(folder, columns=["fingerprint"], rows=3))
    assert {tuple(table.column_names) for table in tables} == {("fingerprint",)}
    assert max(table.num_rows for table in tables) == 3


@pytest.mark.parametrize("num_workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_number_of_workers_does_not_matter(tmp_path: Path, num_workers: int) -> None:
    dataset, table = tabular_table(num_samples=120)
    expected, _, _ = extract(tmp_path / "inline", dataset, table)
    engine = Engine(num_workers=num_workers)
    extracting.extract(tmp_path / "inline" / "samples", folder=tmp_path / "features", engine=engine)
    assert content(tmp_path / "features") == content(expected)


def test_features_that_came_from_another_process_have_the_same_bytes(tmp_path: Path, pictures: Any) -> None:
    expected, _, _ = extract(tmp_path / "here", *pictures)
    extracting.extract(tmp_path / "here/samples", folder=tmp_path / "there", engine=TravellingEngine())
    assert content(tmp_path / "there") == content(expected)
    (tmp_path / "there" / features.read_manifest(expected).parts[1].name).write_bytes(b"damaged")
    extracting.extract(
        tmp_path / "here/samples", folder=tmp_path / "mended", engine=InlineEngine(), former=tmp_path / "there"
    )
    assert content(tmp_path / "mended") == content(expected)


@pytest.mark.parametrize("rows", [1, 7])
def test_samples_are_looked_at_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pictures: Any, rows: int
) -> None:
    expected, _, _ = extract(tmp_path / "whole", *pictures)
    monkeypatch.setattr(extracting, "LOOK_ROWS", rows)
    folder, outcome, num_requests = extract(tmp_path / "few", *pictures)
    assert content(folder) == content(expected)
    assert outcome.looked_at == NUM_SAMPLES
    assert num_requests == sum(-(-part.num_rows // rows) for part in features.read_manifest(folder).parts)


def test_a_part_that_travels_travels_once_and_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pictures: Any
) -> None:
    expected, _, _ = extract(tmp_path / "here", *pictures)
    monkeypatch.setattr(extracting, "LOOK_ROWS", 3)
    asked: list[str] = []
    fetch = extracting.engines.fetch
    monkeypatch.setattr(extracting.engines, "fetch", lambda url, folder: asked.append(url) or fetch(url, folder))
    engine = Engine(storage=str(tmp_path / "storage"))
    extracting.extract(tmp_path / "here/samples", folder=tmp_path / "there", engine=engine)
    assert content(tmp_path / "there") == content(expected)
    assert len(asked) == len(set(asked)) == len(features.read_manifest(expected).parts)
    (stored, *_) = (path for path in (tmp_path / "storage").rglob("*") if path.is_file())
    bent = bytearray(stored.read_bytes())
    bent[len(bent) // 2] ^= 1
    stored.write_bytes(bent)
    with pytest.raises(DataError):
        extracting.extract(tmp_path / "here/samples", folder=tmp_path / "again", engine=engine)


def test_a_file_that_only_a_few_rows_come_from_is_taken_over_as_well(tmp_path: Path, pictures: Any) -> None:
    dataset, table = pictures
    former, _, _ = extract(tmp_path / "former", dataset, table)
    shuffled = table.take(pa.array(np.random.default_rng(3).permutation(NUM_SAMPLES)))
    folder, outcome, _ = extract(tmp_path / "after", dataset, shuffled, former=former)
    fresh, _, _ = extract(tmp_path / "fresh", dataset, shuffled)
    assert outcome == Outcome(linked=0, copied=NUM_SAMPLES, looked_at=0)
    assert content(folder) == content(fresh)


def test_unchanged_samples_are_linked_without_a_look(tmp_path: Path, pictures: Any) -> None:
    former, _, _ = extract(tmp_path / "former", *pictures)
    folder, outcome, num_requests = extract(tmp_path / "again", *pictures, former=former)
    assert outcome == Outcome(linked=NUM_SAMPLES, copied=0, looked_at=0)
    assert num_requests == 0
    assert content(folder) == content(former)
    assert all((folder / part.name).samefile(former / part.name) for part in features.read_manifest(folder).parts)


def test_only_new_content_is_looked_at(tmp_path: Path, pictures: Any) -> None:
    dataset, table = pictures
    former, _, _ = extract(tmp_path / "former", dataset, table)
    changed = pa.concat_tables([table.slice(0, 100), image_table(num_samples=3, seed=9)[1], table.slice(102)])
    _, outcome, num_requests = extract(tmp_path / "after", dataset, changed, former=former)
    assert outcome.looked_at == 3
    assert outcome.linked > 200
    assert 1 <= num_requests <= 2


@settings(max_examples=12, deadline=None)
@given(data=st.data(), builder=st.sampled_from([image_table, tabular_table]))
def test_taking_over_gives_the_bytes_of_a_fresh_start(
    tmp_path_factory: pytest.TempPathFactory, data: Any, builder: Any
) -> None:
    folder = tmp_path_factory.mktemp("edits")
    dataset, table = builder(num_samples=120)
    _, other = builder(num_samples=40, seed=1)
    former, _, _ = extract(folder / "former", dataset, table)
    start, stop = sorted(data.draw(st.tuples(st.integers(0, 120), st.integers(0, 120)), label="removed"))
    rows = data.draw(st.lists(st.integers(0, 39), max_size=12, unique=True), label="inserted")
    inserted = other.take(pa.array(rows, pa.int64()))
    moved = table.slice(0, data.draw(st.integers(0, 20), label="moved to the end"))
    edited = pa.concat_tables(
        [table.slice(moved.num_rows, start), inserted, table.slice(max(stop, moved.num_rows)), moved]
    )
    after, outcome, _ = extract(folder / "after", dataset, edited, former=former)
    fresh, _, _ = extract(folder / "fresh", dataset, edited)
    assert content(after) == content(fresh)
    assert outcome.looked_at <= inserted.num_rows + start  # rows that come twice may have been linked once already


@pytest.mark.parametrize("num_threads", [0, 2])
def test_a_few_new_samples_take_no_engine_and_threads_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pictures: Any, num_threads: int
) -> None:
    dataset, table = pictures
    former, _, _ = extract(tmp_path / "former", dataset, table)
    changed = table.take(pa.array([*range(5, 90), 2, *range(95, NUM_SAMPLES)]))
    changed = pa.concat_tables([changed.slice(0, 50), image_table(num_samples=7, seed=9)[1], changed.slice(57)])
    fresh, _, _ = extract(tmp_path / "fresh", dataset, changed)
    monkeypatch.setattr(extracting, "WORTH_BYTES", 2**27)
    engine = InlineEngine()
    outcome = extracting.extract(
        tmp_path / "fresh/samples", folder=tmp_path / "after", engine=engine, former=former, num_threads=num_threads
    )
    assert outcome.looked_at == 7
    assert outcome.copied > 20
    assert engine.num_items == 0
    assert content(tmp_path / "after") == content(fresh)


def test_what_is_damaged_is_not_taken_over(tmp_path: Path, pictures: Any) -> None:
    former, _, _ = extract(tmp_path / "former", *pictures)
    expected = content(former)
    damaged = features.read_manifest(former).parts[1]
    bent = bytearray(expected[damaged.name])
    bent[len(bent) // 2] ^= 1
    (former / damaged.name).write_bytes(bent)
    folder, outcome, _ = extract(tmp_path / "again", *pictures, former=former)
    assert content(folder) == expected
    assert outcome.looked_at == damaged.num_rows


@pytest.mark.parametrize("change", [{"code": "other"}, {"version": 1}, None])
def test_what_other_code_made_is_not_taken_over(tmp_path: Path, change: Any) -> None:
    former, _, _ = extract(tmp_path / "former", *tabular_table())
    path = former / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change) if change else "{")
    _, outcome, _ = extract(tmp_path / "again", *tabular_table(), former=former)
    assert outcome == Outcome(linked=0, copied=0, looked_at=64)


def test_other_columns_are_looked_at_anew(tmp_path: Path) -> None:
    dataset, table = tabular_table()
    former, _, _ = extract(tmp_path / "former", dataset, table)
    fewer = dataset.model_copy(update={"features": dataset.features[:2]})
    narrow = table.drop_columns([feature.column for feature in dataset.features[2:]])
    _, outcome, _ = extract(tmp_path / "again", fewer, narrow, former=former)
    assert outcome.looked_at == 64


def test_no_sample_has_no_features(tmp_path: Path) -> None:
    dataset, table = image_table()
    folder, outcome, _ = extract(tmp_path, dataset, table.slice(0, 0))
    assert outcome == Outcome(0, 0, 0)
    assert list(features.iter_tables(folder)) == []


def test_memory_does_not_grow_with_the_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builders.small_parts(monkeypatch, target_bytes=200_000, least_row_bytes=1_000)
    peaks = []
    for count in (400, 4_000):
        dataset, table = tabular_table(num_samples=count)
        samples = write_parts(tmp_path / str(count) / "samples", dataset, table)
        del table
        tracemalloc.start()
        before = pa.total_allocated_bytes()
        extracting.extract(samples, folder=tmp_path / str(count) / "features", engine=InlineEngine())
        peaks.append(tracemalloc.get_traced_memory()[1] + pa.total_allocated_bytes() - before)
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 4_000 * 60


def test_a_samples_folder_is_no_features_folder(tmp_path: Path) -> None:
    samples = write_parts(tmp_path / "samples", *image_table())
    with pytest.raises(DataError, match="is not that of a features folder; run extract again"):
        features.read_manifest(samples)
