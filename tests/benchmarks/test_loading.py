import subprocess
import sys

import numpy as np
import psutil
import pytest
import torch

from benchmarks.loading import checks, measure, report, rounds, sources, stored, tasks
from benchmarks.loading.__main__ import close, parse
from benchmarks.loading.child import is_in_order, missing_rows
from benchmarks.loading.contender import Batch, Contender
from benchmarks.loading.measure import Result
from benchmarks.pipeline import Figure


def result(name: str, *values: float, role: str = "peer", peak: int = 100) -> Result:
    return Result(name, role, values=list(values), peak_bytes=[peak] * len(values))


OURS = result("datamill", 8.0, 6.0, 4.0, role="ours", peak=110)
FAST = result("fast", 2.0, 3.0, 4.0)
SLOW = result("slow", 1.0, 1.0, 1.0, peak=200)


def test_a_ratio_is_the_median_over_the_rounds():
    (figure,) = report.against("speed", OURS, FAST, bar=2.0)
    assert figure == Figure("speed (fast)", 2.0, 2.0, at_most=False)


def test_the_fastest_peer_has_the_highest_median_and_no_fault():
    wrong = Result("wrong", "peer", values=[9.0, 9.0], fault="row 3 twice")
    assert report.best([OURS, SLOW, FAST, wrong], role="peer", of=report.fastest) is FAST


def test_memory_is_held_against_the_peer_that_needs_least():
    (figure,) = report.memory_figure("images", [OURS, SLOW, FAST])
    assert (figure.name, figure.value, figure.holds) == ("images: memory / least peer (fast)", 1.1, True)


def test_a_bar_is_missed_when_datamill_failed():
    (figure,) = report.against("speed", None, FAST, bar=2.0)
    assert not figure.holds


def test_verdicts_name_each_figure_beside_its_bar(capsys):
    figures = [Figure("speed", 2.5, 2.0, at_most=False), Figure("memory", 1.31, 1.2, at_most=True)]
    assert close(figures, check=True) == 1
    assert capsys.readouterr().out.split("\n")[-3:-1] == ["ok     speed 2.5 (>= 2)", "MISSED memory 1.31 (<= 1.2)"]


@pytest.mark.parametrize(("value", "check", "status"), [(2.5, True, 0), (1.5, True, 1), (1.5, False, 0)])
def test_check_exits_with_1_when_a_bar_is_missed(value, check, status):
    assert close([Figure("speed", value, 2.0, at_most=False)], check=check) == status


def test_the_table_is_sorted_by_speed_and_ends_with_who_failed():
    absent = Result("absent", "peer", fault="absent: needs grain")
    lines = report.table("work", [absent, SLOW, FAST, OURS], word="samples/s").splitlines()[3:]
    assert [line.split()[0] for line in lines] == ["datamill", "fast", "slow", "absent"]
    assert "2.00x (1.00 to 4.00)" in lines[1]
    assert lines[3].endswith("needs grain")


def test_rows_that_come_twice_or_never_are_a_fault():
    assert missing_rows([np.array([2, 0]), torch.tensor([1])], num_rows=3) is None
    assert (
        missing_rows([np.array([2, 0]), np.array([2])], num_rows=3) == "3 rows instead of 3, 1 absent, 1 twice or more"
    )
    assert missing_rows([np.array([2, 0, 1, 3])], num_rows=3) is not None


def test_stored_order_is_no_shuffle():
    assert is_in_order([np.arange(4), np.arange(4, 8)])
    assert not is_in_order([np.array([3, 1, 5]), np.array([0, 4, 2])])


def test_a_crop_is_found_also_mirrored_and_only_when_every_pixel_is_right():
    image = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    crop = image[2:9, 1:8].copy()
    assert checks.is_crop(crop, of=image)
    assert checks.is_crop(crop[:, ::-1], of=image)
    crop[0, 0] ^= 1
    assert not checks.is_crop(crop, of=image)
    assert checks.is_crop(crop, of=image, margin=1)


def test_a_window_is_found_in_its_clip():
    clip = np.random.default_rng(0).integers(-30_000, 30_000, 50, dtype=np.int16)
    window = clip[7:27] / np.float32(32768)
    assert checks.is_window(window, of=clip)
    assert not checks.is_window(window[::-1], of=clip)


def test_wrong_pixels_and_wrong_padding_are_faults(tmp_path):
    np.save(tmp_path / "x.npy", np.full((3, 28, 28), 255, np.uint8))
    images, source = tasks.Images(), stored.Arrays(tmp_path)
    batch = images.many(source.take(np.array([2, 0])), np.array([2, 0]))
    assert images.fault(batch, source, is_strict=True) is None
    assert images.fault(Batch(batch.x + 0.01, batch.ids), source, is_strict=True) == "a pixel is off by 0.01"

    sources.write_sequences(tmp_path, num_rows=4)
    sequences, tokens = tasks.Sequences(), stored.Ragged(tmp_path)
    batch = sequences.many(tokens.take(np.array([1, 3])), np.array([1, 3]))
    assert sequences.fault(batch, tokens, is_strict=True) is None
    batch.x[0, 0] += 1
    assert sequences.fault(batch, tokens, is_strict=True) == "row 1 is not its tokens and zeros"


def test_absent_images_are_replaced_aloud(tmp_path):
    assert "SYNTHETIC" in sources.write_images(tmp_path, num_rows=5, idx=tmp_path)
    assert np.load(tmp_path / "x.npy").shape == (5, 28, 28)


def test_jpegs_are_of_the_wanted_size():
    assert 18_000 < np.mean([len(sources._jpeg(row)) for row in range(8)]) < 24_000


def test_contenders_take_turns_and_one_that_fails_stops():
    asked = []

    def run(name: str) -> dict[str, object]:
        asked.append(name)
        return {"fault": "exit status 1"} if name == "b" else {"rate": 10.0, "peak_bytes": 5}

    results = [Result(name, "peer") for name in "abc"]
    measure.take_turns(results, run, key="rate", rounds=3, word="samples/s")
    assert asked == ["a", "b", "c", "c", "a", "c", "a"]
    assert [len(one.values) for one in results] == [3, 0, 3]
    assert results[1].fault == "exit status 1"


def test_a_peer_far_behind_takes_two_turns():
    rates = {"fast": 100.0, "slow": 9.0, "datamill": 1.0}
    results = [Result(name, "ours" if name == "datamill" else "peer") for name in rates]
    measure.take_turns(results, lambda name: {"rate": rates[name]}, key="rate", rounds=4, word="samples/s")
    assert [len(one.values) for one in results] == [4, 2, 4]


def test_a_peer_that_is_not_installed_is_absent():
    assert Contender("x", open=lambda data: None, needs=("json", "no_such_module")).missing == ("no_such_module",)


def test_peers_are_chosen_by_the_beginning_of_their_names(tmp_path):
    run = rounds.Run(tmp_path, 1, peers=("torch", "grain"))
    named = [Contender(name, open=lambda data: None) for name in ("torch samples w0", "grain t2", "spdl t2")]
    assert [run.wants(one) for one in named] == [True, True, False]
    assert run.wants(Contender("datamill", open=lambda data: None, role="ours"))


def test_a_child_that_crashes_or_hangs_is_a_fault(monkeypatch):
    crashed = measure.run_child({"action": "none"}, timeout_s=60)
    assert crashed["fault"].startswith("exit status 1: KeyError")
    monkeypatch.setattr(measure, "COMMAND", (sys.executable, "-c", "import time; time.sleep(60)"))
    assert measure.run_child({}, timeout_s=0.3)["fault"] == "nothing after 0.3 s"


def test_memory_counts_children_too():
    inner = "import time; held = bytes(range(256)) * 2**18; print(flush=True); time.sleep(60)"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    with subprocess.Popen([sys.executable, "-c", outer], stdout=subprocess.PIPE, start_new_session=True) as child:
        child.stdout.readline()
        assert measure.tree_bytes(child.pid) > 64 * 2**20
        measure.end_group(child)
    assert measure.tree_bytes(child.pid) == 0


def test_a_busy_core_is_idle_again_afterwards():
    before = psutil.Process().children()
    with measure.busy_core():
        (spinner,) = (child for child in psutil.Process().children() if child not in before)
        assert spinner.is_running()
    assert not spinner.is_running()


def test_only_known_works_are_accepted(capsys):
    assert parse(["--only", "images", "--only", "step"]).only == ["images", "step"]
    with pytest.raises(SystemExit):
        parse(["--only", "nothing"])
    assert "choose from" in capsys.readouterr().err
