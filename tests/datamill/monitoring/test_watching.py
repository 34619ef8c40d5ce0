"""Passes of the watch: every item is judged once, whatever comes in and whatever happens."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datamill import catalog
from datamill.drift.verdict import Outcome
from datamill.errors import DataError, ParamsError, StageError
from datamill.files import publish
from datamill.monitoring import watching
from datamill.monitoring.cursor import Cursor
from datamill.monitoring.reference import read_reference
from datamill.monitoring.verdicts import read_verdict, recent
from datamill.monitoring.watching import mark_told, untold, watch_once, window_metrics
from tests.watched import (
    NOON,
    QUIET,
    accuracy_of,
    change_watch,
    drop_images,
    look,
    new_rows,
    rejects_of,
    sources_of,
    write_csv,
    write_parquet,
)


def outcomes_of(root: Path, window: str, *, detector: str) -> list[Outcome]:
    """Outcomes of one detector in a stored verdict."""
    verdict = read_verdict(root / "reports/windows" / window).verdict
    return [outcome for outcome in verdict.outcomes if outcome.detector == detector]


def test_new_images_are_judged_once_and_a_pass_without_any_writes_nothing(images: Path) -> None:
    first = drop_images(images / "incoming", count=6)
    found = look(images)
    assert found.judged is not None
    assert (found.judged.window, found.judged.verdict.num_samples) == ("000001", 6)
    assert found.judged.verdict.num_reference == 30
    assert look(images, minutes=1).judged is None
    second = drop_images(images / "incoming", count=3, seed=2)
    assert look(images, minutes=2).judged is not None
    assert sources_of(images) == [*sorted(first), *sorted(second)]
    assert [path.name for path in sorted((images / "reports/windows").iterdir())] == ["000001", "000002"]


def test_a_window_keeps_predictions_inputs_verdict_and_report(images: Path) -> None:
    drop_images(images / "incoming", count=9)
    look(images)
    folder = images / "reports/windows/000001"
    assert {path.name for path in folder.iterdir()} == {
        "verdict.json", "report.html", "observations.parquet", "answers.parquet", "rejects.parquet", "sample",
    }  # fmt: skip
    table = pq.read_table(folder / "observations.parquet")
    assert table.column_names == ["sample_id", "source", "label", "time", "predicted", "confidence"]
    assert set(table["predicted"].to_pylist()) <= {"0", "1", "2"}
    kept = read_reference(folder / "sample")
    assert kept.description.splits == {"window": 9}
    assert kept.rows["sample_id"].to_pylist() == table["sample_id"].to_pylist()
    assert kept.inputs.shape == (9, 8, 8, 1)
    content = json.loads((folder / "verdict.json").read_text())
    assert (content["window"], content["is_drift"], content["judged_at"]) == (
        "000001", False, "2030-01-01T12:00:00+00:00",
    )  # fmt: skip


def test_folders_name_classes_where_they_are_said_to(images: Path) -> None:
    change_watch(images, source__data__labels="folder")
    drop_images(images / "incoming", count=9, labelled=True)
    drop_images(images / "incoming", count=2, seed=2)
    look(images)
    labels = Counter(pq.read_table(images / "reports/windows/000001/observations.parquet")["label"].to_pylist())
    assert labels == {"0": 3, "1": 3, "2": 3, "": 2}
    assert accuracy_of(images, "000001") == 1.0


def test_a_class_the_model_does_not_know_is_told_not_rejected(images: Path) -> None:
    change_watch(images, source__data__labels="folder")
    drop_images(images / "incoming" / "giraffe", count=30)
    found = look(images)
    assert found.judged is not None
    assert found.judged.num_rejects == 0
    kept = read_reference(images / "reports/windows/000001/sample")
    assert set(kept.rows["label"].to_pylist()) == {-2}
    (unknown,) = outcomes_of(images, "000001", detector="unknown_class")
    assert unknown.is_drift


def test_a_young_file_waits_until_it_has_settled(images: Path) -> None:
    (key,) = drop_images(images / "incoming", count=1)
    modified = (images / "incoming" / key).stat().st_mtime
    just_then = NOON - timedelta(seconds=NOON.timestamp() - modified - 5)
    found = watch_once(images, now=just_then, settings=QUIET)
    assert (found.judged, found.num_waiting) == (None, 1)
    found = watch_once(images, now=just_then + timedelta(seconds=6), settings=QUIET)
    assert found.judged is not None
    assert found.num_waiting == 0


def test_a_half_written_image_waits_and_is_judged_when_it_is_whole(images: Path) -> None:
    keys = drop_images(images / "incoming", count=2)
    half = images / "incoming" / keys[0]
    content = half.read_bytes()
    half.write_bytes(content[: len(content) // 2])
    found = look(images)
    assert found.judged is not None
    assert (found.judged.verdict.num_samples, found.judged.num_rejects, found.num_waiting) == (1, 0, 1)
    half.write_bytes(content)
    look(images, minutes=1)
    assert sorted(sources_of(images)) == sorted(keys)
    assert rejects_of(images) == []


def test_a_file_that_stays_damaged_becomes_a_reject_once(images: Path) -> None:
    drop_images(images / "incoming", count=5)
    (images / "incoming" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    for minutes in range(4):
        look(images, minutes=minutes)
    assert [source for source, _ in rejects_of(images)] == ["broken.png"]
    assert len(sources_of(images)) == 5


def test_a_single_reject_is_no_drift_and_many_are(images: Path) -> None:
    (images / "incoming" / "one.png").write_bytes(b"no image")
    look(images)
    look(images, minutes=1)
    (share,) = outcomes_of(images, "000001", detector="reject_share")
    assert (share.effect, share.is_drift) == (1.0, False)
    for number in range(8):
        (images / "incoming" / f"more{number}.png").write_bytes(b"no image")
    look(images, minutes=2)
    look(images, minutes=3)
    (share,) = outcomes_of(images, "000002", detector="reject_share")
    assert (share.effect, share.is_drift) == (1.0, True)
    assert share.detail["first"]["source"] == "more0.png"


def test_a_changed_image_is_a_new_item_and_a_touched_one_is_not(images: Path) -> None:
    keys = drop_images(images / "incoming", count=3)
    look(images)
    os.utime(images / "incoming" / keys[0], (1e9, 1e9))
    (images / "incoming" / keys[1]).write_bytes((images / "incoming" / keys[2]).read_bytes())
    look(images, minutes=1)
    assert sources_of(images) == [*keys, keys[1]]


def test_an_image_that_comes_back_after_it_was_deleted_is_not_judged_again(images: Path) -> None:
    (key,) = drop_images(images / "incoming", count=1)
    content = (images / "incoming" / key).read_bytes()
    look(images)
    (images / "incoming" / key).unlink()
    look(images, minutes=1)
    (images / "incoming" / key).write_bytes(content)
    assert look(images, minutes=2).judged is None


def test_a_full_window_leaves_the_rest_to_the_next(images: Path) -> None:
    change_watch(images, source__max_items=4)
    keys = drop_images(images / "incoming", count=10)
    sizes = []
    for minutes in range(4):
        found = look(images, minutes=minutes)
        sizes.append(None if found.judged is None else found.judged.verdict.num_samples)
    assert sizes == [4, 4, 2, None]
    assert sources_of(images) == keys


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_rows_added_to_a_table_are_the_only_new_ones(tables: Path, form: str) -> None:
    change_watch(tables, source__data__format=form)
    write = write_csv if form == "csv" else write_parquet
    path = tables / "incoming" / f"rows.{form}"
    write(path, new_rows(count=10))
    look(tables)
    write(path, new_rows(count=25))
    look(tables, minutes=1)
    sizes = [judged.verdict.num_samples for judged in recent(tables, count=9)]
    assert sum(sizes) == len(set(sources_of(tables)))
    assert len(sizes) == 2


def test_a_column_named_as_target_gives_labels_and_empty_cells_none(tables: Path) -> None:
    change_watch(tables, source__data__target="kind")
    table = new_rows(count=12, labelled=True).to_pandas()
    table.loc[3, "kind"] = None
    table.to_csv(tables / "incoming/a.csv", index=False)
    look(tables)
    labels = Counter(pq.read_table(tables / "reports/windows/000001/observations.parquet")["label"].to_pylist())
    assert labels == {"0": 3, "1": 4, "2": 4, "": 1}


def test_a_label_that_comes_later_does_not_make_a_row_new(tables: Path) -> None:
    change_watch(tables, source__data__target="kind")
    table = new_rows(count=6, labelled=True).to_pandas()
    table.assign(kind=None).to_csv(tables / "incoming/a.csv", index=False)
    look(tables)
    table.to_csv(tables / "incoming/a.csv", index=False)
    assert look(tables, minutes=1).judged is None


def test_a_new_schema_is_read_as_far_as_it_goes_and_told(tables: Path) -> None:
    table = new_rows(count=40).drop_columns(["width"]).append_column("weight", [list(range(40))])
    write_csv(tables / "incoming/a.csv", table)
    found = look(tables)
    assert found.judged is not None
    assert found.judged.verdict.num_samples == 40
    (missing,) = outcomes_of(tables, "000001", detector="missing_column")
    assert (missing.subject, missing.effect, missing.is_drift) == ("width", 1.0, True)
    (unknown,) = outcomes_of(tables, "000001", detector="unknown_column")
    assert (unknown.subject, unknown.is_drift) == ("weight", False)
    notes = found.judged.verdict.notes
    assert "new data lacks the columns ['width']; their values count as missing" in notes


def test_a_file_of_another_table_altogether_is_one_reject(tables: Path) -> None:
    (tables / "incoming/other.csv").write_text("a,b\n1,2\n")
    assert look(tables).num_waiting == 1
    look(tables, minutes=1)
    assert rejects_of(tables) == [("other.csv", "damaged_file")]


def test_a_half_written_parquet_file_waits(tables: Path) -> None:
    change_watch(tables, source__data__format="parquet")
    path = tables / "incoming/rows.parquet"
    write_parquet(path, new_rows(count=10))
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    assert (look(tables).judged, look(tables, minutes=0.05).num_waiting) == (None, 1)
    path.write_bytes(content)
    found = look(tables, minutes=1)
    assert found.judged is not None
    assert (found.judged.verdict.num_samples, found.judged.num_rejects) == (10, 0)


def test_a_file_that_breaks_off_is_taken_back_whole_and_then_read_as_far_as_it_goes(tables: Path) -> None:
    long = new_rows(count=5000).drop_columns(["width"])
    write_csv(tables / "incoming/a.csv", long)
    with (tables / "incoming/a.csv").open("a") as file:
        file.write('"never closed,1,red\n')
    write_csv(tables / "incoming/b.csv", new_rows(count=8, seed=2))
    found = look(tables)
    assert found.judged is not None
    assert (found.judged.verdict.num_samples, found.num_waiting) == (8, 1)
    assert outcomes_of(tables, "000001", detector="missing_column") == []
    look(tables, minutes=1)
    assert rejects_of(tables) == [("a.csv", "damaged_file")]
    assert len(sources_of(tables)) == 8 + 4096  # what came before the damage, in whole pieces
    write_csv(tables / "incoming/a.csv", long)
    look(tables, minutes=2)
    assert len(sources_of(tables)) == len(set(sources_of(tables))) == 8 + 5000


def test_a_row_that_cannot_be_read_is_a_reject_with_its_place(tables: Path) -> None:
    table = new_rows(count=5).to_pandas().astype({"height": object})
    table.loc[2, "height"] = "tall"
    table.to_csv(tables / "incoming/a.csv", index=False)
    look(tables)
    look(tables, minutes=1)
    assert rejects_of(tables) == [("a.csv:4", "not_a_number")]
    assert len(sources_of(tables)) == 4


def test_only_nan_is_judged_and_found_missing(tables: Path) -> None:
    table = new_rows(count=50).to_pandas()
    table[:] = np.nan
    table.to_csv(tables / "incoming/a.csv", index=False)
    found = look(tables)
    assert found.judged is not None
    assert found.judged.verdict.num_samples == 50
    assert {one.subject for one in outcomes_of(tables, "000001", detector="null_share") if one.is_drift} >= {"height"}


def test_one_row_is_judged_and_calls_nothing_drift(tables: Path) -> None:
    write_csv(tables / "incoming/a.csv", new_rows(count=1))
    found = look(tables)
    assert found.judged is not None
    assert found.judged.verdict.num_samples == 1
    assert not found.judged.verdict.is_drift
    assert found.judged.verdict.notes


def test_an_empty_folder_and_an_empty_table_are_no_window(images: Path, tables: Path) -> None:
    assert look(images).judged is None
    write_csv(tables / "incoming/a.csv", new_rows(count=0))
    assert look(tables).judged is None
    assert not (tables / "reports/windows").exists()


def test_a_missing_folder_says_what_to_correct(images: Path) -> None:
    (images / "incoming").rmdir()
    with pytest.raises(DataError, match=r"incoming does not exist; make it, or correct source.data.path in watch.yaml"):
        look(images)


def test_another_kind_of_data_than_the_models_is_refused(images: Path, tables: Path) -> None:
    (images / "watch.yaml").write_text((tables / "watch.yaml").read_text())
    with pytest.raises(ParamsError, match="'table', which holds tabular data, and the model was trained on image data"):
        look(images)


def test_another_folder_can_be_read_instead(images: Path) -> None:
    keys = drop_images(images / "elsewhere", count=2)
    assert look(images, source="elsewhere").judged is not None
    assert sources_of(images) == keys
    drop_images(images / "incoming", count=2)  # the same names and contents, and yet other items
    assert look(images, minutes=1).judged is not None


def test_a_workspace_that_never_ran_says_so(images: Path) -> None:
    for name in ("train", "evaluate"):
        (images / "models" / name).rename(images / name)
    with pytest.raises(StageError, match=r"has no model to watch: there is neither models/champion nor .*datamill run"):
        look(images)


def test_a_reference_of_another_model_stops_the_watch_before_anything_is_judged(images: Path) -> None:
    drop_images(images / "incoming", count=2)
    weights = images / catalog.TRAIN_BEST.path
    good = weights.read_bytes()
    weights.write_bytes(b"x" + good)
    with pytest.raises(DataError, match="the reference belongs to another model"):
        look(images)
    weights.write_bytes(good)
    assert look(images, minutes=1).judged is not None


def test_the_champion_is_watched_where_there_is_one(images: Path) -> None:
    drop_images(images / "incoming", count=2)
    found = look(images)
    assert "no champion yet: the model that was trained last is watched" in found.notes
    folder = images / "models/champions/abc123"
    folder.mkdir(parents=True)
    for artifact in (catalog.TRAIN_NETWORK, catalog.TRAIN_BEST, catalog.PREPROCESS_STATE, catalog.EVALUATE_REFERENCE):
        path = images / artifact.path
        path.rename(folder / path.name)
    (images / "models/champion").symlink_to("champions/abc123")
    drop_images(images / "incoming", count=2, seed=5)
    found = look(images, minutes=1)
    assert found.judged is not None
    assert (found.judged.model, found.notes) == ("abc123", ())


def test_a_clock_that_was_set_back_skips_nothing_and_is_noted(images: Path) -> None:
    first = drop_images(images / "incoming", count=2)
    look(images, minutes=60)
    second = drop_images(images / "incoming", count=2, seed=2)
    for key in second:  # from before the clock was set back: they seem to come from the future
        future = (NOON + timedelta(days=1)).timestamp()
        os.utime(images / "incoming" / key, (future, future))
    assert (look(images).judged, look(images, minutes=0.1).num_waiting) == (None, 2)
    found = look(images, minutes=1)
    assert found.judged is not None
    assert sources_of(images) == [*first, *second]
    assert "the clock went back by 0:59:00 since window 000001; order goes by number" in found.judged.verdict.notes


def test_a_window_is_told_until_somebody_says_that_it_was(images: Path) -> None:
    assert untold(images) == []
    drop_images(images / "incoming", count=2)
    found = look(images)
    assert found.judged is not None
    assert [judged.window for judged in untold(images)] == ["000001"]
    mark_told(images, found.judged)
    assert untold(images) == []


def test_kept_inputs_of_old_windows_are_deleted_and_their_verdicts_stay(images: Path) -> None:
    change_watch(images, source__keep_windows=2)
    for seed in range(1, 5):
        drop_images(images / "incoming", count=2, seed=seed)
        look(images, minutes=seed)
    kept = [path.parent.name for path in sorted((images / "reports/windows").glob("*/sample"))]
    assert kept == ["000003", "000004"]
    assert len(recent(images, count=9)) == 4


def test_folders_of_old_windows_are_deleted_once_they_were_told_and_wait_for_no_label(images: Path) -> None:
    change_watch(images, source__keep_reports=2, source__labels__wait_days=0)
    for seed in range(1, 6):
        drop_images(images / "incoming", count=2, seed=seed)
        found = look(images, minutes=seed)
        assert found.judged is not None
        if seed != 2:
            mark_told(images, found.judged)
    left = [path.name for path in sorted((images / "reports/windows").iterdir())]
    assert left == ["000002", "000004", "000005"]
    assert [judged.window for judged in untold(images)] == ["000002"]


def test_an_item_that_is_seen_again_in_time_stays_known(tables: Path) -> None:
    change_watch(tables, source__remember_days=30)
    day = 24 * 60
    for number, count in enumerate((10, 15, 20)):  # the same file, which has grown every three weeks
        write_csv(tables / "incoming/rows.csv", new_rows(count=20).slice(0, count))
        look(tables, minutes=number * 21 * day)
    assert len(sources_of(tables)) == len(set(sources_of(tables))) == 20


def test_numbers_of_a_window_go_to_the_tracker_by_name(images: Path) -> None:
    drop_images(images / "incoming", count=30)
    found = look(images)
    assert found.judged is not None
    metrics = window_metrics(found.judged)
    assert (metrics["samples"], metrics["rejects"], metrics["is_at_risk"]) == (30, 0, 0)
    assert "quality.reject_share.share" in metrics
    assert any(name.startswith("input.ks.brightness.") for name in metrics)
    assert all(np.isfinite(value) for value in metrics.values())


WATCHER = """
import sys
from pathlib import Path
from tests.watched import look
root, start = Path(sys.argv[1]), float(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for minutes in range(int(sys.argv[3])):
    look(root, minutes=start + minutes)
"""


def start_watcher(root: Path, *, minutes: float, passes: int) -> subprocess.Popen[str]:
    """A process of its own that watches, once it is told to."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    process = subprocess.Popen(
        [sys.executable, "-c", WATCHER, str(root), str(minutes), str(passes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    """Let a watcher begin."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def end(process: subprocess.Popen[str]) -> int:
    """Wait for a watcher; its exit status."""
    process.communicate(timeout=120)
    return process.returncode


@pytest.mark.slow
def test_two_watchers_of_one_folder_judge_every_item_once(images: Path) -> None:
    change_watch(images, source__max_items=5)
    keys = drop_images(images / "incoming", count=30)
    watchers = [start_watcher(images, minutes=0, passes=5) for _ in range(2)]
    for watcher in watchers:
        go(watcher)
    assert [end(watcher) for watcher in watchers] == [0, 0]
    assert sorted(sources_of(images)) == sorted(keys)
    assert [len(pq.read_table(path)) for path in sorted(images.glob("reports/windows/*/observations.parquet"))] == [
        5
    ] * 6


@pytest.mark.slow
def test_a_watcher_that_is_killed_at_any_moment_neither_skips_nor_repeats(images: Path) -> None:
    change_watch(images, source__max_items=7)
    rng = np.random.default_rng(0)
    keys = drop_images(images / "incoming", count=60)
    for number in range(8):
        watcher = start_watcher(images, minutes=number, passes=3)
        go(watcher)
        time.sleep(float(rng.uniform(0.02, 0.9)))
        watcher.send_signal(signal.SIGKILL)
        assert end(watcher) in {0, -signal.SIGKILL}
    for minutes in range(100, 112):
        look(images, minutes=minutes)
    assert sorted(sources_of(images)) == sorted(keys)
    assert not list((images / "reports/windows").glob(".*"))
    numbers = [judged.number for judged in recent(images, count=99)]
    assert numbers == list(range(1, len(numbers) + 1))


MILLION = """
import resource, sys
from pathlib import Path
from tests.watched import look
found = look(Path(sys.argv[1]))
print(found.judged.verdict.num_samples, found.judged.has_more, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_window_of_a_million_rows_is_judged_in_two_gibibytes(tables: Path) -> None:
    change_watch(tables, source__data__format="parquet", source__batch_size=8192)
    rows = pa.concat_tables([new_rows(count=1000, seed=seed) for seed in range(20)])
    rng = np.random.default_rng(0)
    count = 1_000_000
    many = rows.take(pa.array(np.arange(count) % len(rows)))
    many = many.set_column(0, "height", pa.array(many["height"].to_numpy() + rng.normal(0, 0.01, count)))
    pq.write_table(many, tables / "incoming/many.parquet")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", MILLION, str(tables)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    num_samples, has_more, peak_kib = done.stdout.split()
    assert (num_samples, has_more) == ("1000000", "False")
    assert int(peak_kib) < 2 * 2**20
    assert look(tables, minutes=1).judged is None


class KilledError(BaseException):
    """Stands for the end of the process."""


def die(*_: object, **__: object) -> None:
    """End."""
    raise KilledError


def publish_files_alone(path: Path) -> None:
    """As ``files.publish``, but the process ends when a window's folder is to get its name."""
    die() if path.parent.name == "windows" else publish(path)


MOMENTS = {  # what is replaced, by what, and whether the window was judged by then
    "before the cursor": (Cursor, "commit", die, False),
    "before the folder": (watching.files, "publish", publish_files_alone, True),
    "before the mark": (Cursor, "mark_published", die, True),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_pass_that_ends_in_the_middle_is_finished_by_the_next(
    images: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name, instead, is_judged = MOMENTS[moment]
    keys = drop_images(images / "incoming", count=4)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, instead)
        with pytest.raises(KilledError):
            look(images)
    more = drop_images(images / "incoming", count=2, seed=3)
    look(images, minutes=1)
    assert sorted(sources_of(images)) == sorted([*keys, *more])
    windows = [judged.verdict.num_samples for judged in recent(images, count=9)]
    assert windows == ([4, 2] if is_judged else [6])
    assert [judged.window for judged in untold(images)] == ["000001", "000002"][: len(windows)]
