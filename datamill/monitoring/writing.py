"""The folder of a window: what was found, what the model said of every sample, and a few inputs."""

from pathlib import Path
from typing import Any

import pyarrow as pa
from numpy.typing import NDArray

from datamill import ledger, parts
from datamill.drift.observations import take
from datamill.monitoring.observing import WatchedModel
from datamill.monitoring.reference import UNKNOWN_LABEL, write_reference
from datamill.monitoring.verdicts import OBSERVATIONS, REJECTS, SAMPLE, VERDICT, Judged, write_verdict
from datamill.monitoring.windows import Window


def write_window(folder: Path, judged: Judged, *, window: Window, model: WatchedModel) -> None:
    """Write all of a judged window but the page about it.

    Args:
        folder: Made here.
        judged: What was found.
        window: The window itself.
        model: Who saw it.
    """
    folder.mkdir(parents=True)
    write_verdict(folder / VERDICT, judged)
    ledger.write_rejects(folder / REJECTS, window.rejects)
    parts.write_parquet(_predictions(window), folder / OBSERVATIONS)
    if window.kept.inputs is not None:
        _write_sample(folder / SAMPLE, window, inputs=window.kept.inputs, model=model)


def _write_sample(folder: Path, window: Window, *, inputs: NDArray[Any], model: WatchedModel) -> None:
    """Keep the chosen samples as a reference is kept."""
    seen, chosen = take(window.observations, window.kept.rows), window.rows.take(pa.array(window.kept.rows))
    arrays = {"embeddings": seen.embeddings, "probabilities": seen.probabilities, "predictions": seen.predictions}
    write_reference(
        folder,
        identity={
            "sample_id": chosen["sample_id"],
            "split": ["window"] * len(seen),
            "label": [UNKNOWN_LABEL] * len(seen) if seen.labels is None else seen.labels,
            "time": chosen["time"],
            **({} if seen.targets is None else {"target": seen.targets}),
        },
        features=seen.features,
        arrays={"inputs": inputs, **{name: rows for name, rows in arrays.items() if rows is not None}},
        dataset=model.dataset,
        model_sha256=model.reference.description.model_sha256,
        preprocessor_sha256=model.reference.description.preprocessor_sha256,
        headline=None,
    )


def _predictions(window: Window) -> pa.Table:
    """What is kept of every sample: who it is, and what the model said; a regression has no confidence."""
    seen, table = window.observations, window.rows.drop_columns(["content_hash"])
    if seen.predictions is not None:
        predicted = pa.array([repr(one) for one in seen.predictions.tolist()], pa.string())
        return table.append_column("predicted", predicted).append_column(
            "confidence", pa.nulls(len(seen), pa.float32())
        )
    assert seen.probabilities is not None
    predicted = pa.array(seen.classes, pa.string()).take(pa.array(seen.probabilities.argmax(axis=1)))
    confidence = pa.array(seen.probabilities.max(axis=1, initial=0.0), pa.float32())
    return table.append_column("predicted", predicted).append_column("confidence", confidence)
