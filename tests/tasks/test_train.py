from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from datamill import files
from datamill.augmentation.policy import Policy, save_policy
from datamill.networks import load_network, to_input
from datamill.stage import Metrics
from datamill.training.history import read_history
from tasks.train import STAGE, TrainParams
from tests.fakes import MemoryTracker, make_context
from tests.trained import Trained, train_images, train_tables

OUTPUTS = {
    "network": "network.json",
    "best": "best.safetensors",
    "last": "last.safetensors",
    "history": "history.csv",
    "times": "times.json",
}
PARAMS = {
    "seed": 7,
    "epochs": 3,
    "batch_size": 16,
    "peak_lr": 0.02,
    "warmup_share": 0.1,
    "weight_decay": 0.05,
    "label_smoothing": 0.05,
    "max_gradient_norm": 1.0,
    "patience": None,
    "network": {"kind": "auto", "width": 8, "depth": 1, "dropout": 0.1},
}


class Killer(MemoryTracker):
    """Ends the run when it is told of epoch 2."""

    def log_metrics(self, metrics: Mapping[str, float], *, step: int | None = None) -> None:
        super().log_metrics(metrics, step=step)
        if step == 2:
            raise KeyboardInterrupt


def write_inputs(folder: Path, *, kind: str) -> Trained:
    if kind == "image":
        trained = train_images(folder, steps=0)
        state: dict[str, Any] = {"height": 8, "width": 8, "channels": 1, "mean": [0.3], "std": [0.3]}
    else:
        trained = train_tables(folder, steps=0)
        columns = [{"name": name, "fill": 0, "offset": 0, "scale": 4} for name in ("height", "width")]
        state = {"numbers": columns, "categories": [], "encoding": "one_hot", "num_neighbors": None, "reference": []}
    files.write_json(folder / "preprocessor.json", {"kind": kind, **state})
    save_policy(folder / "policy.json", policy=Policy(kind=kind, seed=1, transforms=()))  # type: ignore[arg-type]
    return trained


def run(folder: Path, out: str, *, tracker: MemoryTracker | None = None, **changes: Any) -> Metrics:
    (folder / out).mkdir(exist_ok=True)
    return STAGE.run(
        shards=folder / "shards",
        policy=folder / "policy.json",
        preprocessor=folder / "preprocessor.json",
        **{port: folder / out / name for port, name in OUTPUTS.items()},
        params=TrainParams(**(PARAMS | changes)),
        context=make_context(folder / out, tracker=tracker),
    )


@pytest.mark.parametrize("kind", ["image", "tabular"])
def test_a_network_is_trained_and_kept(tmp_path: Path, kind: str) -> None:
    trained = write_inputs(tmp_path, kind=kind)
    metrics = run(tmp_path, "out", epochs=20)
    assert metrics["best"]["validation_accuracy"] >= 0.9
    assert metrics["best"]["is_validated"] == 1
    assert (metrics["epochs"], metrics["stopped_early"]) == (20, 0)
    assert metrics["rows"] == {"train": 40, "validation": 10}
    test = trained.shard("test")
    network = load_network(tmp_path / "out/network.json", tmp_path / "out/best.safetensors")
    with torch.no_grad():
        predicted = network(to_input(test.x[:])).argmax(dim=1).numpy()
    assert (predicted == test.label).mean() >= 0.9


def test_metrics_are_those_of_the_best_epoch(tmp_path: Path) -> None:
    write_inputs(tmp_path, kind="tabular")
    best = run(tmp_path, "out")["best"]
    row = read_history(tmp_path / "out/history.csv")[best["epoch"] - 1]
    assert best["validation_accuracy"] == pytest.approx(row.validation_accuracy, rel=1e-5)
    assert best["train_loss"] == pytest.approx(row.train_loss, rel=1e-5)


@pytest.mark.parametrize("kind", ["image", "tabular"])
def test_a_killed_run_goes_on_and_gives_the_same_bytes(tmp_path: Path, kind: str) -> None:
    write_inputs(tmp_path, kind=kind)
    expected = run(tmp_path, "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "killed", tracker=Killer())
    tracker = MemoryTracker()
    assert run(tmp_path, "killed", tracker=tracker) == expected
    assert [step for step, _ in tracker.metrics] == [1, 2, 3]
    for port in ("network", "best", "last", "history"):
        name = OUTPUTS[port]
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()


def test_equal_runs_give_equal_bytes(tmp_path: Path) -> None:
    write_inputs(tmp_path, kind="image")
    assert run(tmp_path, "first") == run(tmp_path, "second")
    for port in ("network", "best", "last", "history"):
        name = OUTPUTS[port]
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_every_epoch_is_tracked_and_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_inputs(tmp_path, kind="tabular")
    tracker = MemoryTracker()
    run(tmp_path, "out", tracker=tracker)
    assert [step for step, _ in tracker.metrics] == [1, 2, 3]
    assert set(tracker.metrics[0][1]) == {
        "train_loss",
        "validation_loss",
        "train_accuracy",
        "validation_accuracy",
        "learning_rate",
        "gradient_norm",
    }
    assert capsys.readouterr().out.count("epoch") == 3


def test_an_empty_validation_split_is_said_in_the_metrics(tmp_path: Path) -> None:
    train_tables(tmp_path, bounds={"train": (0, 40), "validation": (40, 40), "test": (40, 64)}, steps=0)
    (tmp_path / "again").mkdir()
    write_inputs(tmp_path / "again", kind="tabular")
    for name in ("policy.json", "preprocessor.json"):
        (tmp_path / "again" / name).rename(tmp_path / name)
    best = run(tmp_path, "out")["best"]
    assert (best["epoch"], best["is_validated"]) == (3, 0)
    assert "validation_loss" not in best


def test_durations_go_to_their_own_file(tmp_path: Path) -> None:
    import json

    write_inputs(tmp_path, kind="tabular")
    run(tmp_path, "out")
    times = json.loads((tmp_path / "out/times.json").read_text())
    assert set(times) == {"seconds", "epochs", "samples_per_s", "loading_share", "step_ms_median"}
    assert times["epochs"] == 3
    assert 0 < times["loading_share"] < 1
