"""A tiny workspace with a trained model, and new data for it."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from datamill import catalog, config
from datamill.evaluation.prediction import open_splits
from datamill.evaluation.referencing import choose_rows, write_sampled
from datamill.monitoring.watching import Pass, watch_once
from datamill.networks import load_network
from datamill.samples import FEATURE_PREFIX
from datamill.settings import Settings
from tests.builders import image_table, tabular_table
from tests.fakes import make_context
from tests.trained import Trained, train_images, train_tables

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)  # later than any file that a test writes
BOUNDS = {"train": (0, 24), "validation": (24, 34), "test": (34, 64)}
QUIET = Settings(tracking="off", device="cpu", num_threads=1, num_workers=1)


def make_workspace(root: Path, *, modality: str) -> Path:
    """A workspace after evaluate: a model, its preprocessor, its reference, and a watch.yaml."""
    trained = (train_images if modality == "image" else train_tables)(root / "trained", bounds=BOUNDS)
    for artifact, path in (
        (catalog.TRAIN_NETWORK, trained.network),
        (catalog.TRAIN_BEST, trained.weights),
        (catalog.PREPROCESS_STATE, trained.preprocessor),
    ):
        (root / artifact.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, root / artifact.path)
    _refer(root, trained)
    shutil.rmtree(root / "trained")
    example = "digits" if modality == "image" else "breast-cancer"
    shutil.copyfile(Path(__file__).parent.parent / "flows/examples" / example / "watch.yaml", root / "watch.yaml")
    (root / "incoming").mkdir()
    return root


def change_watch(root: Path, **changes: Any) -> None:
    """Change values of ``watch.yaml``: ``source__data__target="kind"``."""
    path = root / "watch.yaml"
    sections = config.parse_yaml(path.read_text())
    for key, value in changes.items():
        *outer, last = key.split("__")
        place = sections
        for name in outer:
            place = place[name]
        place[last] = value
    path.write_text(yaml.safe_dump(sections, sort_keys=False))


def drop_images(folder: Path, *, count: int = 6, seed: int = 1, labelled: bool = False, prefix: str = "") -> list[str]:
    """Put new images into a folder; returns their keys."""
    _, table = image_table(num_samples=count, seed=seed)
    keys = []
    for row, (one, label) in enumerate(zip(table["image"].to_pylist(), table["label"].to_pylist(), strict=True)):
        key = f"{label}/{prefix}{seed}-{row:03d}.png" if labelled else f"{prefix}{seed}-{row:03d}.png"
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(one["bytes"])
        keys.append(key)
    return keys


def new_rows(*, count: int = 6, seed: int = 1, labelled: bool = False) -> pa.Table:
    """Rows under the names of a user's own columns."""
    _, table = tabular_table(num_samples=count, seed=seed)
    columns = {name.removeprefix(FEATURE_PREFIX): table[name] for name in table.column_names if FEATURE_PREFIX in name}
    return pa.table({**columns, **({"kind": table["label"]} if labelled else {})})


def write_csv(path: Path, table: pa.Table) -> None:
    """Rows as a CSV file."""
    table.to_pandas().to_csv(path, index=False)


def write_parquet(path: Path, table: pa.Table) -> None:
    """Rows as a Parquet file."""
    pq.write_table(table, path)


def look(root: Path, *, minutes: float = 0, **options: Any) -> Pass:
    """One pass, so many minutes after noon."""
    return watch_once(root, now=NOON + timedelta(minutes=minutes), settings=QUIET, **options)


def sources_of(root: Path) -> list[str]:
    """Source keys of every sample of every window, in the order they were judged."""
    found: list[str] = []
    for folder in sorted((root / "reports/windows").glob("[0-9]*")):
        found += pq.read_table(folder / "observations.parquet")["source"].to_pylist()
    return found


def rejects_of(root: Path) -> list[tuple[str, str]]:
    """Source and reason of every reject of every window."""
    found: list[tuple[str, str]] = []
    for folder in sorted((root / "reports/windows").glob("[0-9]*")):
        table = pq.read_table(folder / "rejects.parquet")
        found += zip(table["source"].to_pylist(), table["reason"].to_pylist(), strict=True)
    return found


def _refer(root: Path, trained: Trained) -> None:
    shards = open_splits(trained.shards)
    weights, preprocessor = root / catalog.TRAIN_BEST.path, root / catalog.PREPROCESS_STATE.path
    write_sampled(
        root / catalog.EVALUATE_REFERENCE.path,
        shards=shards,
        rows=choose_rows(shards, max_samples=1000, seed=0),
        network=load_network(root / catalog.TRAIN_NETWORK.path, weights),
        samples=trained.samples,
        repairs=trained.repairs,
        weights=weights,
        preprocessor=preprocessor,
        accuracy=1.0,
        batch_size=64,
        context=make_context(root / "context"),
    )


def accuracy_of(root: Path, window: str) -> float:
    """Share of a window's labelled samples that were predicted right."""
    table = pq.read_table(root / "reports/windows" / window / "observations.parquet")
    label, predicted = (np.array(table[name].to_pylist()) for name in ("label", "predicted"))
    return float((label == predicted)[label != ""].mean())
