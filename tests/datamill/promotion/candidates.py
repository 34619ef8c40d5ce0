"""Models to judge: as evidence, and as workspaces that look as they do after a run of the pipeline."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pyarrow as pa
import yaml
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from datamill import catalog, files, parts
from datamill.evaluation.metrics import Predictions
from datamill.preprocessing import NumberColumn, TabularPreprocessor, save_preprocessor
from datamill.promotion.evidence import Evidence
from datamill.promotion.params import PromoteParams
from tests.builders import CLASSES, tabular_table, write_parts

POLICY: dict[str, Any] = {
    "after_training": True, "metric": "accuracy", "level": 0.95, "num_resamples": 200, "seed": 0, "margin": None,
    "floor": None, "min_common": 30, "min_common_share": 0.8,
    "slices": {"allowance": 0.05, "level": 0.9, "min_count": 10},
    "speed": {"max_latency_ms": None, "max_latency_ratio": None, "max_size_bytes": None, "max_size_ratio": 2.0},
    "shadow": {
        "num_windows": 0, "max_rows": 100, "min_rows": 10, "is_required": False, "max_loss": 0.1, "min_agreement": 0.5,
    },
    "recent": None,
    "keep": 2,
}  # fmt: skip
NUM_SAMPLES, NUM_TEST = 160, 120


def policy(**changes: Any) -> PromoteParams:
    """The tests' policy with some values changed; ``slices__allowance`` reaches into a section."""
    sections = {key: dict(value) if isinstance(value, dict) else value for key, value in POLICY.items()}
    for key, value in changes.items():
        section, _, name = key.rpartition("__")
        (sections[section] if section else sections)[name] = value
    return PromoteParams.model_validate(sections)


def contents(folder: Path) -> dict[str, bytes]:
    """Bytes of every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def evidence(wrong: Sequence[int] = (), *, count: int = 100, first: int = 0, **changes: Any) -> Evidence:
    """A model of two classes, sure of every answer, and wrong about these rows of ``count`` test samples."""
    label = np.arange(count) % 2
    says = label.copy()
    says[list(wrong)] = 1 - label[list(wrong)]
    probabilities = np.full((count, 2), 0.1)
    probabilities[np.arange(count), says] = 0.9
    facts: dict[str, Any] = {
        "version": f"wrong about {sorted(wrong)}",
        "classes": ("no", "yes"),
        "sample_ids": tuple(f"s{first + row}" for row in range(count)),
        "predictions": Predictions(label, probabilities),
        "size_bytes": 1000,
        "latency_ms": 1.0,
    }
    return Evidence(**{**facts, **changes})


def write_policy(root: Path, **changes: Any) -> None:
    """A ``watch.yaml`` that says only what a challenger must show."""
    section = policy(**changes).model_dump(mode="json")
    (root / "watch.yaml").write_text(yaml.safe_dump({"promote": section}, sort_keys=False))


def write_workspace(root: Path, *, bias: float) -> Path:
    """A workspace with a trained model of the builders' clusters; the larger ``bias``, the more it says class 1."""
    dataset, table = tabular_table(num_samples=NUM_SAMPLES)
    if not (root / catalog.INGEST_SAMPLES.path).exists():
        write_parts(root / catalog.INGEST_SAMPLES.path, dataset, table)
        write_parts(root / catalog.CLEAN_REPAIRS.path, dataset, table.slice(0, 0))
    names = ("height", "width")
    numbers = tuple(NumberColumn(name=name, fill=0.0, offset=0.0, scale=1.0) for name in names)
    preprocessor = TabularPreprocessor(
        numbers=numbers, categories=(), encoding="one_hot", num_neighbors=None, reference=()
    )
    model = linear_model(bias=bias)
    for artifact in (
        catalog.EXPORT_MODEL,
        catalog.PREPROCESS_STATE,
        catalog.TRAIN_NETWORK,
        catalog.EVALUATE_PREDICTIONS,
    ):
        (root / artifact.path).parent.mkdir(parents=True, exist_ok=True)
    save_preprocessor(preprocessor, root / catalog.PREPROCESS_STATE.path)
    (root / catalog.EXPORT_MODEL.path).write_bytes(model)
    files.write_json(root / catalog.EXPORT_INTERFACE.path, {"classes": list(CLASSES)})
    files.write_json(root / catalog.TRAIN_NETWORK.path, {"kind": "mlp", "classes": list(CLASSES)})
    (root / catalog.TRAIN_BEST.path).write_bytes(f"weights {bias}".encode())
    x = preprocessor.arrays(table)
    np.save(root / catalog.EXPORT_EXAMPLE.path, x[:1], allow_pickle=False)
    (probabilities,) = onnxruntime.InferenceSession(model).run(["probabilities"], {"input": x})
    _write_predictions(root / catalog.EVALUATE_PREDICTIONS.path, table=table, probabilities=probabilities)
    return root


def linear_model(*, bias: float) -> bytes:
    """A softmax of distances to the clusters' centres, ``bias`` added to class 1, as ONNX."""
    centres = np.array([[4.0 * number, -4.0 * number] for number in range(len(CLASSES))], np.float32)
    offset = -(centres**2).sum(axis=1) / 2 + np.array([0, bias, 0], np.float32)
    nodes = [
        helper.make_node("Gemm", ["input", "weight", "offset"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", len(CLASSES)])
        for name in ("logits", "probabilities")
    ]
    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 2])
    weights = [numpy_helper.from_array(centres.T.copy(), "weight"), numpy_helper.from_array(offset, "offset")]
    graph = helper.make_graph(nodes, "linear", [given], outputs, initializer=weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _write_predictions(path: Path, *, table: pa.Table, probabilities: NDArray[np.float32]) -> None:
    table = table.slice(0, NUM_TEST)
    says = np.array(CLASSES, dtype=object)[probabilities.argmax(axis=1)][:NUM_TEST]
    columns = {
        "sample_id": table["sample_id"],
        "split": pa.array(["test"] * NUM_TEST),
        "label": table["label"],
        "predicted": pa.array(says, pa.string()),
        "confidence": pa.array(probabilities.max(axis=1)[:NUM_TEST]),
        "probabilities": pa.array(list(probabilities[:NUM_TEST]), pa.list_(pa.float32())),
    }
    parts.write_parquet(pa.table(columns), path)
