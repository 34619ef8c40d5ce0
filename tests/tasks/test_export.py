"""The stage ``export``."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
import pytest

from datamill import files, ledger, parts, sheets
from datamill.errors import StageError
from datamill.stage import Metrics
from datamill.training.history import EpochResult, write_history
from tasks import evaluate
from tasks.export import STAGE, ExportParams
from tests.builders import write_parts
from tests.fakes import make_context
from tests.tasks.test_evaluate import PARAMS as EVALUATE_PARAMS
from tests.trained import BOUNDS, Trained, train_images, train_tables

PARAMS = ExportParams.model_validate(
    {
        "max_difference": 1e-4,
        "batch_size": 5,
        "latency": {"warmup": 1, "repeats": 10},
        "card": {
            "title": "Bars <b>& more</b>",
            "owner": "A. N. Owner",
            "licence": "",
            "intended_use": "Telling bars apart.\n\nNothing else.",
            "limitations": "Only | bars",
        },
    }
)
DIAGNOSIS = "# Training diagnosis\n\n**The run is sound.** Nothing <script> was found.\n\n## The run\n\n3 epochs\n"


def write_ledger(path: Path, ids: Sequence[str], fates: dict[int, tuple[str, str]], **extra: pa.Array) -> Path:
    """A ledger in which everything is kept but the rows named."""
    rows = [fates.get(row, ("kept", "")) for row in range(len(ids))]
    fate, reason = zip(*rows, strict=True)
    ledger.write(path, sample_ids=ids, fates=fate, reasons=reason, details=[""] * len(ids), extra=extra)
    return path


def finish(workspace: Trained, folder: Path) -> dict[str, Path]:
    """Every input of ``export``, around a trained workspace."""
    folder.mkdir()
    dataset = parts.read_manifest(workspace.samples).dataset
    table = parts.read_table(workspace.samples)
    ids = table["sample_id"].to_pylist()
    splits = [next(name for name, (start, stop) in BOUNDS.items() if start <= row < stop) for row in range(len(ids))]
    split = pa.array(splits)
    paths = {
        **workspace.paths(),
        "verdicts": write_ledger(folder / "verdicts", ids, {1: ("kept", "odd_image")}),
        "cleaned": write_ledger(folder / "cleaned", ids, {2: ("repaired", "outlier")}),
        "assignments": write_ledger(folder / "assignments", ids, {}, split=split),
        "audited": write_ledger(folder / "audited", ids, {3: ("kept", "label_issue")}, split=split),
        "plan": write_ledger(folder / "plan", [*ids, "new"], {64: ("dropped", "undersampled")}),
        "sharded": write_ledger(folder / "sharded", ids, {}),
        "admissions": write_ledger(folder / "admissions", ["c1", "c2"], {1: ("dropped", "copy")}),
    }
    paths["rejects"] = folder / "rejects"
    ledger.write_rejects(paths["rejects"], [("broken.png", "truncated", "the file ends early")])
    empty = table.slice(0, 0)
    paths |= {port: write_parts(folder / port, dataset, empty) for port in ("copies", "synthetic", "resampled")}
    paths |= {port: folder / f"{port}.png" for port in ("preview", "sheet")}
    for port in ("preview", "sheet"):
        sheets.write_sheet(paths[port], [np.zeros((8, 8, 3), np.uint8)], [port], 1, port)
    rule = {
        "name": "odd_image",
        "type": "expect_x",
        "kwargs": {"column": "height"},
        "severity": "warning",
        "claim": "at least 8",
    }
    written = {
        "schema": {"expectations": [rule]},
        "trained": {"epochs": 2, "num_parameters": 1234, "best": {"epoch": 2}},
    }
    for port, content in written.items():
        paths[port] = folder / f"{port}.json"
        files.write_json(paths[port], content)
    paths["history"] = folder / "history.csv"
    write_history(
        paths["history"],
        [EpochResult(1, 1.0, 1.1, 0.5, 0.4, 0.01, 2.0), EpochResult(2, 0.5, None, 0.9, None, 0.01, 1.0)],
    )
    paths["suspects"] = folder / "suspects.csv"
    paths["suspects"].write_text("source,label,suggestion\nitem|<i>0003</i>,0,1\n")
    paths["diagnosis"] = folder / "diagnosis.md"
    paths["diagnosis"].write_text(DIAGNOSIS)
    return paths | evaluated(workspace, folder)


def evaluated(workspace: Trained, folder: Path) -> dict[str, Path]:
    """Outputs and metrics of ``evaluate``."""
    outputs = {port: folder / Path(artifact.path).name for port, artifact in evaluate.STAGE.outputs.items()}
    context = make_context(folder)
    metrics = evaluate.STAGE.run(**workspace.paths(), **outputs, params=EVALUATE_PARAMS, context=context)
    files.write_json(folder / "evaluate.json", metrics)
    return {**outputs, "evaluated": folder / "evaluate.json"}


def run(inputs: dict[str, Path], out: Path, *, params: ExportParams = PARAMS) -> tuple[Metrics, dict[str, Path]]:
    """The stage's metrics and outputs below ``out``."""
    out.mkdir()
    outputs = {port: out / Path(artifact.path).name for port, artifact in STAGE.outputs.items()}
    given = {port: inputs[port] for port in STAGE.inputs}
    return STAGE.run(**given, **outputs, params=params, context=make_context(out / "context")), outputs


@pytest.fixture
def images(tmp_path: Path) -> dict[str, Path]:
    """Inputs for a CNN."""
    return finish(train_images(tmp_path / "trained"), tmp_path / "finished")


@pytest.mark.parametrize("train", [train_images, train_tables])
def test_the_exported_model_runs_and_answers_as_its_interface_says(train: Any, tmp_path: Path) -> None:
    metrics, outputs = run(finish(train(tmp_path / "trained"), tmp_path / "finished"), tmp_path / "out")
    interface = json.loads(outputs["interface"].read_text())
    example = np.load(outputs["example"], allow_pickle=False)
    session = onnxruntime.InferenceSession(outputs["model"].read_bytes(), providers=["CPUExecutionProvider"])
    (probabilities,) = session.run([interface["outputs"][1]["name"]], {interface["input"]["name"]: example})
    assert probabilities[0] == pytest.approx(interface["example"]["probabilities"], abs=1e-5)
    assert metrics["parity"]["samples"] == 14
    assert metrics["parity"]["agreement"] == 1.0
    assert metrics["size_bytes"] == outputs["model"].stat().st_size
    assert set(json.loads(outputs["times"].read_text())["latency"]) == {"1", "64"}


def test_equal_inputs_give_an_equal_model(images: dict[str, Path], tmp_path: Path) -> None:
    first, one = run(images, tmp_path / "one")
    second, two = run(images, tmp_path / "two")
    assert first == second
    for port in ("model", "example", "interface"):
        assert one[port].read_bytes() == two[port].read_bytes()


def test_the_cards_are_whole_and_ask_for_no_other_file(images: dict[str, Path], tmp_path: Path) -> None:
    _, outputs = run(images, tmp_path / "out")
    cards = outputs["cards"]
    for name in ("model_card", "data_card"):
        page = (cards / f"{name}.html").read_text()
        assert re.findall(r'(?:src|href)="(?!data:|#)[^"]*', page) == []
        listed = re.findall(r"!\[.*?\]\((.*?)\)", (cards / f"{name}.md").read_text())
        assert listed
        assert all((cards / path).is_file() for path in listed)
    page = (cards / "model_card.html").read_text()
    assert "Not stated yet: licence." in page
    assert "<strong>The run is sound.</strong>" in page


def test_names_from_the_data_are_shown_and_not_obeyed(images: dict[str, Path], tmp_path: Path) -> None:
    _, outputs = run(images, tmp_path / "out")
    page = (outputs["cards"] / "model_card.html").read_text()
    assert "<h1>Bars &lt;b&gt;&amp; more&lt;/b&gt;</h1>" in page
    assert "<script" not in page
    assert "item|&lt;i&gt;0003&lt;/i&gt;" in (outputs["cards"] / "data_card.html").read_text()
    text = (outputs["cards"] / "data_card.md").read_text()
    assert r"| item\|\<i\>0003\</i\> | 0 | 1 |" in text


@pytest.mark.parametrize("train", [train_images, train_tables])
def test_the_snippet_of_the_card_runs_as_shown(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = finish(train(tmp_path / "trained", steps=20), tmp_path / "finished")
    _, outputs = run(inputs, tmp_path / "out")
    (snippet,) = re.findall(r"```python\n(.*?)```", (outputs["cards"] / "model_card.md").read_text(), flags=re.DOTALL)
    (tmp_path / "models").mkdir()
    (tmp_path / "models/export").symlink_to(tmp_path / "out")
    (tmp_path / "models/preprocess").mkdir()
    (tmp_path / "models/preprocess/preprocessor.json").symlink_to(inputs["preprocessor"])
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    exec(snippet, {})  # noqa: S102 the card's reader does the same
    assert re.fullmatch(r"[012] 0\.\d+\n", capsys.readouterr().out)


def test_a_missing_diagnosis_is_said_and_not_fatal(images: dict[str, Path], tmp_path: Path) -> None:
    images["diagnosis"].unlink()
    _, outputs = run(images, tmp_path / "out")
    assert "was not kept with it" in (outputs["cards"] / "model_card.html").read_text()


def test_a_model_that_differs_too_much_is_not_exported(images: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(StageError, match="nothing was exported"):
        run(images, tmp_path / "out", params=PARAMS.model_copy(update={"max_difference": 1e-12}))
    assert not (tmp_path / "out/model.onnx").exists()
