"""The registry of models in MLflow: a version per model judged, its evidence as tags, and who is champion.

Everything here may be said twice: a version is found by the hash of its model before one is made, so what waited in
the spool and is sent again changes nothing.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from datamill import files

CHAMPION, CHALLENGER = "champion", "challenger"  # aliases
VERSION_TAG = "datamill.version"
SHA256_TAG = "datamill.sha256"
PAGE = 100


def log_onnx(run_id: str, *, path: Path, example: Path) -> str:
    """Log an ONNX model with signature and input example to a run; returns its id in MLflow."""
    import onnx
    import onnxruntime
    from mlflow.models import infer_signature

    rows = np.load(example, allow_pickle=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(names, {session.get_inputs()[0].name: rows}), strict=True))
    with mlflow.start_run(run_id=run_id):
        logged = mlflow.onnx.log_model(
            onnx.load(path),
            name="model",
            signature=infer_signature(rows, outputs),
            input_example=rows,
            pip_requirements=[f"onnx=={onnx.__version__}", f"onnxruntime=={onnxruntime.__version__}"],
            onnx_execution_providers=["CPUExecutionProvider"],
            save_as_external_data=False,
            tags={SHA256_TAG: files.sha256_file(path)},
        )
    return str(logged.model_id)


def register(
    client: mlflow.MlflowClient,
    *,
    name: str,
    experiment_id: str,
    run_id: str,
    path: Path,
    example: Path,
    evidence: Mapping[str, Any],
    alias: str,
) -> str:
    """Put a model into the registry, with its evidence; returns its number there.

    Args:
        client: Of a server that answers.
        name: Of the registered model; made where there is none.
        experiment_id: Where the model was logged, if it was.
        run_id: Run that the model and its evidence are logged to.
        path: The ONNX model.
        example: One input of it.
        evidence: See ``datamill.promotion.evidence.summary``.
        alias: What it is called from now on; empty for nothing.
    """
    _require_model(client, name=name)
    known = _find(client, name=name, version=evidence["version"])
    if known is None:
        model_id = _logged(client, experiment_id=experiment_id, path=path) or log_onnx(
            run_id, path=path, example=example
        )
        source = client.get_logged_model(model_id)
        known = client.create_model_version(
            name,
            source.artifact_location,
            run_id=source.source_run_id,
            tags={VERSION_TAG: evidence["version"]},
            model_id=model_id,
        )
    client.log_dict(run_id, dict(evidence), "evidence.json")
    for key, value in _tags(evidence).items():
        client.set_model_version_tag(name, known.version, key, value)
    if alias:
        client.set_registered_model_alias(name, alias, known.version)
    return str(known.version)


def note_decision(client: mlflow.MlflowClient, *, name: str, run_id: str, entry: Mapping[str, Any]) -> None:
    """Keep a decision with the model it is about, and move the champion's alias where it changed the champion.

    Args:
        client: Of a server that answers.
        name: Of the registered model.
        run_id: Run that the entry is logged to.
        entry: A line of the history.
    """
    client.log_dict(run_id, dict(entry), f"promotions/{entry['number']:06d}.json")
    _require_model(client, name=name)
    client.set_registered_model_tag(name, "datamill.history", entry["seal"])
    key, line = f"datamill.decision.{entry['number']:06d}", json.dumps(dict(entry))
    found = _find(client, name=name, version=entry["to"])
    if found is None:  # the process was killed before the model was registered
        client.set_registered_model_tag(name, key, line)
        return
    client.set_model_version_tag(name, found.version, key, line)
    if entry["to"] != entry["from"]:
        client.set_model_version_tag(name, found.version, "datamill.action", entry["action"])
    if entry["action"] == "refused":
        return
    client.set_registered_model_alias(name, CHAMPION, found.version)
    client.set_registered_model_tag(name, "datamill.champion", entry["to"])
    if _aliased(client, name=name, alias=CHALLENGER) == found.version:
        client.delete_registered_model_alias(name, CHALLENGER)


def _require_model(client: mlflow.MlflowClient, *, name: str) -> None:
    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        client.create_registered_model(name, description="Judged by datamill; the alias `champion` is the one in use.")


def _find(client: mlflow.MlflowClient, *, name: str, version: str) -> ModelVersion | None:
    token = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", max_results=PAGE, page_token=token)
        for one in page:
            if one.tags.get(VERSION_TAG) == version:
                return one
        token = page.token
        if not token:
            return None


def _logged(client: mlflow.MlflowClient, *, experiment_id: str, path: Path) -> str | None:
    """The id under which the stage that exported this very model has logged it."""
    query = f"tags.`{SHA256_TAG}` = '{files.sha256_file(path)}'"
    found = client.search_logged_models([experiment_id], filter_string=query, max_results=1)
    return str(found[0].model_id) if found else None


def _aliased(client: mlflow.MlflowClient, *, name: str, alias: str) -> str | None:
    aliases: Mapping[str, str] = client.get_registered_model(name).aliases
    return aliases.get(alias)


def _tags(evidence: Mapping[str, Any]) -> dict[str, str]:
    """Evidence as texts, few enough and short enough for MLflow."""
    tags = {f"metric.{key}": f"{value:.6g}" for key, value in evidence["metrics"].items()}
    tags |= {f"data.{path}": str(value) for path, value in evidence["data"].items()}
    tags |= {key: str(evidence[key]) for key in ("samples", "latency_ms", "size_bytes", "test_set")}
    worst = sorted(evidence["slices"], key=lambda row: (row["high"], row["accuracy"]))
    return {**tags, "slices": json.dumps(worst[:50])}
