"""A model that answers with a number is watched as one that answers with classes."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from datamill import catalog, files
from datamill.monitoring.answers import ANSWERS, read_sample
from datamill.monitoring.labelling import News
from datamill.monitoring.reference import Headline, read_reference, write_reference
from datamill.monitoring.verdicts import read_verdict
from datamill.monitoring.watching import window_metrics
from datamill.networks import build, design
from datamill.preprocessing import NumberColumn, TabularPreprocessor, save_preprocessor
from datamill.samples import Dataset, Feature
from tests.watched import change_watch, look

LOAD = Feature(name="load", kind="number")
DATASET = Dataset(name="engines", modality="tabular", classes=("heat",), features=(LOAD,))
NETWORK, WEIGHTS = catalog.TRAIN_NETWORK.path, catalog.TRAIN_BEST.path


SPEC = design("mlp", shape=(1,), classes=("heat",), width=4, depth=1, dropout=0.0)
torch.manual_seed(0)
STATE = {name: value.clone() for name, value in build(SPEC).state_dict().items()}


def answers(load: np.ndarray) -> np.ndarray:
    """What the model says."""
    network = build(SPEC)
    network.load_state_dict(STATE)
    with torch.inference_mode():
        return network.eval()(torch.from_numpy(load[:, None].astype(np.float32))).numpy()[:, 0].astype(np.float64)


def engines(count: int, *, low: float = 0.0, seed: int = 0) -> pd.DataFrame:
    """Rows whose ``heat`` is what the model says of their ``load``, with noise that grows with it."""
    rng = np.random.default_rng(seed)
    load = rng.uniform(low, 1, count)
    rows = pd.DataFrame({"key": [f"{seed}-{row}" for row in range(count)], "load": load})
    return rows.assign(heat=answers(load) + rng.normal(0, 0.1 + load))


@pytest.fixture
def root(tables: Path) -> Path:
    """A workspace whose model answers with a number, and whose reference is a regression's."""
    files.write_json(tables / NETWORK, SPEC.model_dump(mode="json"))
    save_file(STATE, tables / WEIGHTS)
    numbers = (NumberColumn(name="load", fill=0.0, offset=0.0, scale=1.0),)
    fitted = TabularPreprocessor(numbers=numbers, categories=(), encoding="one_hot", num_neighbors=None, reference=())
    save_preprocessor(fitted, tables / catalog.PREPROCESS_STATE.path)
    files.remove(tables / catalog.EVALUATE_REFERENCE.path)
    refer(tables, engines(2_000))
    change_watch(
        tables,
        source__data__target="heat",
        source__data__target_kind="number",
        source__data__id="key",
        drift__detectors__embedding=[],
    )
    return tables


def refer(root: Path, rows: pd.DataFrame) -> None:
    """Write the reference of what the model was measured on."""
    count, load = len(rows), rows["load"].to_numpy()
    write_reference(
        root / catalog.EVALUATE_REFERENCE.path,
        identity={
            "sample_id": [f"{row:032x}" for row in range(count)],
            "split": ["test"] * count,
            "label": [-1] * count,
            "time": pa.nulls(count, pa.timestamp("us", tz="UTC")),
            "target": rows["heat"].to_numpy(),
        },
        features=pa.table({"load": load}),
        arrays={
            "inputs": load[:, None].astype(np.float32),
            "embeddings": np.zeros((count, 4), np.float32),
            "predictions": answers(load),
        },
        dataset=DATASET,
        model_sha256=files.sha256_file(root / WEIGHTS),
        preprocessor_sha256=files.sha256_file(root / catalog.PREPROCESS_STATE.path),
        headline=Headline(name="mae", value=0.48),
    )


def drop(root: Path, rows: pd.DataFrame, *, labelled: bool, name: str = "a.csv") -> None:
    rows.assign(**({} if labelled else {"heat": None})).to_csv(root / "incoming" / name, index=False)


def true_mae(rows: pd.DataFrame) -> float:
    return float((rows["heat"] - answers(rows["load"].to_numpy())).abs().mean())


def test_a_regressions_reference_comes_back_as_it_was(root: Path) -> None:
    reference = read_reference(root / catalog.EVALUATE_REFERENCE.path)
    assert reference.is_regression
    assert reference.probabilities.shape == (2_000, 0)
    some = reference.only("test")
    rows = engines(2_000)
    assert some.predictions.tolist() == answers(rows["load"].to_numpy()).tolist()
    assert some.targets.tolist() == rows["heat"].tolist()
    names = {path.name for path in (root / catalog.EVALUATE_REFERENCE.path).iterdir()}
    assert names == {"rows.parquet", "inputs.npy", "embeddings.npy", "predictions.npy", "reference.json"}


def test_the_loss_on_new_rows_is_estimated_without_targets_and_measured_when_they_come(root: Path) -> None:
    rows = engines(800, low=0.5, seed=1)
    drop(root, rows, labelled=False)
    found = look(root)
    assert found.judged is not None
    told = found.judged.verdict.performance
    assert told is not None
    assert (told.metric, told.is_measured, told.is_at_risk) == ("mae", False, True)
    assert told.estimated == pytest.approx(true_mae(rows), rel=0.08)
    assert ("prediction", "ks") in {(one.kind, one.detector) for one in found.judged.verdict.outcomes if one.is_drift}
    page = (root / "reports/windows/000001/report.html").read_text()
    assert f"mae, estimated</dt><dd>{told.estimated:.4g}<small>" in page

    drop(root, rows, labelled=True)
    later = look(root, minutes=1)
    assert later.labels == News(num_new=800)
    (judged,) = later.labelled
    true = judged.verdict.performance
    assert true is not None
    assert (true.is_measured, true.is_at_risk) == (True, True)
    assert true.estimated == pytest.approx(true_mae(rows), rel=1e-4)
    assert {one.kind for one in judged.verdict.outcomes} == {"label"}
    assert window_metrics(judged)["performance.mae.measured"] == true.estimated
    text = " ".join((root / "reports/windows/000001/report.html").read_text().split())
    assert f"mae measured {true.estimated:.4g}" in text
    assert f"where {told.estimated:.4g} was estimated" in text


def test_targets_that_come_with_their_rows_are_measured_at_once(root: Path) -> None:
    rows = engines(300, seed=2)
    drop(root, rows, labelled=True)
    found = look(root)
    assert found.judged is not None
    told = found.judged.verdict.performance
    assert told is not None
    assert (told.is_measured, told.is_at_risk) == (True, False)
    assert not found.judged.verdict.is_drift
    assert found.labelled == ()


def test_answers_and_samples_of_a_regression_are_kept(root: Path) -> None:
    rows = engines(40, seed=3)
    drop(root, rows, labelled=False)
    look(root)
    folder = root / "reports/windows/000001"
    assert pq.read_table(folder / ANSWERS).column_names == ["content_hash", "prediction"]
    table = pq.read_table(folder / "observations.parquet")
    said = answers(rows["load"].to_numpy())
    assert np.array(table["predicted"].to_pylist(), float) == pytest.approx(said, rel=1e-5)
    assert table["confidence"].null_count == 40
    sample = read_sample(folder)
    assert sample.is_regression
    assert sample.predictions == pytest.approx(said, rel=1e-5)
    assert np.isnan(sample.targets).all()


@pytest.mark.parametrize("count", [0, 1])
def test_a_window_of_rejects_or_of_one_row_is_judged(root: Path, count: int) -> None:
    rows = engines(5, seed=4).astype({"load": object})
    rows.loc[count:, "load"] = "much"
    drop(root, rows, labelled=False)
    found = look(root)
    assert found.judged is not None
    assert (found.judged.verdict.num_samples, found.judged.num_rejects) == (count, 5 - count)
    assert read_verdict(root / "reports/windows/000001").verdict.num_samples == count


def test_the_loss_may_be_a_root_mean_squared_error(root: Path) -> None:
    change_watch(root, drift__loss="rmse")
    rows = engines(300, seed=5)
    drop(root, rows, labelled=True)
    found = look(root)
    assert found.judged is not None
    told = found.judged.verdict.performance
    assert told is not None
    assert told.metric == "rmse"
    errors = rows["heat"].to_numpy() - answers(rows["load"].to_numpy())
    assert told.estimated == pytest.approx(float(np.sqrt((errors**2).mean())), rel=1e-4)
