import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from datamill.errors import ParamsError, StageError
from datamill.execute import dvc_digest, execute, load_metrics, show_number
from datamill.stage import Stage
from tests import toys

MAKE, CHOOSE, TOTAL = toys.PIPELINE


def run(stage, root):
    return execute(stage, root=root, pipeline=toys.PIPELINE)


@pytest.fixture
def root(tmp_path):
    toys.write_params(tmp_path)
    return tmp_path


def test_metrics_are_returned_and_stored(root):
    assert run(MAKE, root) == {"num_rows": 10, "kind": "toy"}
    assert load_metrics("make", root=root) == {"num_rows": 10, "kind": "toy"}


def test_a_ledger_that_loses_a_sample_fails_the_stage_and_writes_nothing(root):
    run(MAKE, root)
    toys.write_params(root, lose=1)
    with pytest.raises(StageError, match=r"choose: 10 samples came in and the ledger answers for 9; without a fate: 1"):
        run(CHOOSE, root)
    assert not (root / toys.CHOICE.path).exists()


def test_a_missing_input_is_named_with_the_command_that_makes_it(root):
    with pytest.raises(StageError, match=r"choose reads .*data/make/rows, which does not exist; .*--target choose"):
        run(CHOOSE, root)


def test_a_full_disk_leaves_the_previous_output_as_it_was(root):
    run(MAKE, root)
    run(CHOOSE, root)
    before = (root / toys.CHOICE.path).read_bytes()
    toys.write_params(root, fail=True)
    with pytest.raises(StageError, match=r"No space left on device.*what was there before is untouched"):
        run(CHOOSE, root)
    assert (root / toys.CHOICE.path).read_bytes() == before
    assert sorted(path.name for path in (root / "data/choose").iterdir()) == ["choice.parquet"]


def test_a_forbidden_folder_is_one_clear_error(root, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied", "data/make")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StageError, match=r"make: .*Permission denied.*what was there before is untouched"):
        run(MAKE, root)


def test_scratch_survives_a_failed_run_with_equal_inputs_and_goes_after_success(root):
    run(MAKE, root)
    toys.write_params(root, fail=True)
    with pytest.raises(StageError):
        run(CHOOSE, root)
    assert len(list((root / ".datamill/scratch/choose").glob("*/progress"))) == 1
    toys.write_params(root, fail=False)  # other parameters: a checkpoint of the failed run must not be used
    assert run(CHOOSE, root)["resumed"] == 0
    assert not (root / ".datamill/scratch/choose").exists()


def test_wrong_parameters_of_a_later_stage_stop_the_first(root):
    (root / "params.yaml").write_text("make: {num_rows: 3}\nchoose: {lose: 0, fial: false}\ntotal: {}\n")
    with pytest.raises(ParamsError, match=r"choose\.fial is not a parameter; did you mean 'fail'\?"):
        run(MAKE, root)
    assert not (root / "data").exists()


def test_a_stage_killed_half_way_is_run_again_by_the_same_command(root):
    code = (
        "import os, signal, pathlib\n"
        "from tests import toys\n"
        "from datamill import files, execute\n"
        "files.publish = lambda path: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"execute.execute(toys.PIPELINE[0], root=pathlib.Path({str(root)!r}), pipeline=toys.PIPELINE)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], env=os.environ, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (root / toys.ROWS.path).exists()
    assert (root / "data/make/.partial-rows").exists()
    run(MAKE, root)
    assert sorted(path.name for path in (root / "data/make").iterdir()) == ["rows"]


def test_equal_inputs_and_parameters_give_equal_bytes(root):
    run(MAKE, root)
    run(CHOOSE, root)
    first = (root / toys.CHOICE.path).read_bytes()
    run(MAKE, root)
    run(CHOOSE, root)
    assert (root / toys.CHOICE.path).read_bytes() == first


def test_the_digest_of_an_output_is_read_from_dvcs_lock_file(tmp_path):
    assert dvc_digest("data/a", root=tmp_path) is None
    (tmp_path / "dvc.lock").write_text("stages:\n  x:\n    outs:\n    - path: data/a\n      md5: abc.dir\n")
    assert dvc_digest("data/a", root=tmp_path) == "abc.dir"


def test_damaged_metrics_name_their_file(tmp_path):
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/make.json").write_text("{")
    with pytest.raises(Exception, match=r"reports/make.json is damaged"):
        load_metrics("make", root=tmp_path)
    assert load_metrics("other", root=tmp_path) == {}


def test_the_last_stage_reads_what_the_ledger_kept(root):
    for stage in toys.PIPELINE:
        run(stage, root)
    assert json.loads((root / toys.TOTAL.path).read_text()) == {"left": 5}


def test_reports_of_a_failed_stage_are_kept_until_it_runs_again(root, monkeypatch):
    for stage in toys.PIPELINE[:2]:
        run(stage, root)

    def write_and_fail(*, choice, total, params):
        total.write_text("what was seen")
        raise StageError("total: too few")

    gate = dataclasses.replace(TOTAL, run=write_and_fail)
    monkeypatch.setattr(Stage, "name", property(lambda stage: "total" if stage is gate else stage.run.__name__))
    with pytest.raises(StageError, match=r"total: too few\nWhat it found is in \.datamill/failed/total\."):
        run(gate, root)
    assert (root / ".datamill/failed/total/total.json").read_text() == "what was seen"
    assert not (root / toys.TOTAL.path).exists()
    run(TOTAL, root)
    assert not (root / ".datamill/failed/total").exists()


def test_a_stage_tells_when_it_starts_and_how_it_ends_and_notes_its_code(root):
    run(MAKE, root)
    toys.write_params(root, fail=True)
    with pytest.raises(StageError):
        run(CHOOSE, root)
    lines = (root / ".datamill/openlineage.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    assert [(event["job"]["name"], event["eventType"]) for event in events] == [
        ("make", "START"),
        ("make", "COMPLETE"),
        ("choose", "START"),
        ("choose", "FAIL"),
    ]
    noted = json.loads((root / ".datamill/code/make.json").read_text())
    assert (root / f".datamill/code/{noted['digest']}.json").exists()
    assert not (root / ".datamill/code/choose.json").exists()


@pytest.mark.parametrize(
    ("value", "shown"),
    [(56554.0, "56,554"), (1, "1"), (0.9926123, "0.9926"), (2.5e-7, "2.5e-07"), (float("nan"), "nan")],
)
def test_numbers_are_shown_as_people_write_them(value, shown):
    assert show_number(value) == shown
