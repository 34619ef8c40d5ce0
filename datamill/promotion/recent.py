"""Both models' answers to what came in lately: the samples that monitoring keeps of its newest windows."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamill import catalog, inference
from datamill.errors import DataError
from datamill.modalities import image
from datamill.monitoring.answers import read_sample
from datamill.monitoring.reference import Reference
from datamill.monitoring.verdicts import SAMPLE, WINDOWS
from datamill.networks import to_input
from datamill.preprocessing import Preprocessor, load_preprocessor
from datamill.promotion.evidence import aligned
from datamill.promotion.params import ShadowParams
from datamill.promotion.shadow import UNKNOWN, Shadow
from datamill.shards.native import open_shard

TAUGHT = ("train", "validation")  # splits that a model has learnt from
BATCH_SIZE = 256  # inputs at a time; bounds memory, not results


def read_shadow(
    root: Path, *, champion: Path, challenger: Path, limits: ShadowParams, num_threads: int
) -> Shadow | None:
    """What both models answer to the newest inputs; ``None`` where no window has kept any.

    Each model sees an input through its own preprocessor: a table's row from its columns, an image as the champion
    took it, resized where the challenger wants another size.

    Args:
        root: The workspace.
        champion: Folder of its files.
        challenger: The same of the other model.
        limits: How many windows and inputs.
        num_threads: Threads of ONNX Runtime.
    """
    names, kept = [], []
    left = limits.max_rows
    for name, window in _newest(root, count=limits.num_windows):
        if left <= 0:
            break
        names.append(name)
        kept.append(_last(window, count=left))
        left -= len(kept[-1])
    if not kept:
        return None
    classes = {folder: _classes(folder) for folder in (champion, challenger)}
    both = tuple(dict.fromkeys([*classes[challenger], *classes[champion]]))
    rows = {folder: _rows_of(folder, windows=kept) for folder in classes}
    is_new = ~_is_taught(rows[challenger], shards=root / catalog.SHARD_SHARDS.path)
    answers = {
        folder: _answer(folder, rows=rows[folder][is_new], num_classes=len(classes[folder]), num_threads=num_threads)
        for folder in classes
    }
    wide = {folder: aligned(answers[folder], classes=classes[folder], onto=both) for folder in classes}
    labels = np.concatenate([_labels(window, classes=both) for window in kept])[is_new]
    return Shadow(tuple(names), wide[champion], wide[challenger], labels, num_taught=int((~is_new).sum()))


def _newest(root: Path, *, count: int) -> Iterator[tuple[str, Reference]]:
    """Name and kept samples of the last windows, newest first; a damaged or just deleted one is left out."""
    found = [folder for folder in (root / WINDOWS).glob("[0-9]*") if (folder / SAMPLE).is_dir()]
    for folder in sorted(found, reverse=True)[:count]:
        try:
            yield folder.name, read_sample(folder)
        except (DataError, FileNotFoundError) as error:
            print(f"promote: window {folder.name} is left out of the comparison: {error}", flush=True)


def _last(window: Reference, *, count: int) -> Reference:
    start = max(0, len(window) - count)
    arrays = {name: getattr(window, name)[start:] for name in ("inputs", "embeddings", "probabilities")}
    return Reference(window.description, window.rows.slice(start), **arrays)


def _rows_of(folder: Path, *, windows: Sequence[Reference]) -> NDArray[Any]:
    """The windows' inputs as a model takes them, one after the other."""
    preprocessor = load_preprocessor(folder / "preprocessor.json")
    return np.concatenate([_rows(window, preprocessor=preprocessor) for window in windows])


def _is_taught(rows: NDArray[Any], *, shards: Path) -> NDArray[np.bool_]:
    """Which inputs the challenger was trained on, or chosen by: those that its shards hold, to the byte.

    New data that was judged in a window may have been trained on since, and what was learnt by heart proves nothing.
    """
    keys = [_key(row) for row in rows]
    wanted, taught = set(keys), set[bytes]()
    for name in TAUGHT:
        if (shards / name).exists():
            x = open_shard(shards / name).x
            for start in range(0, len(x), BATCH_SIZE):
                taught |= wanted.intersection(_key(row) for row in np.asarray(x[start : start + BATCH_SIZE]))
    return np.array([key in taught for key in keys], bool)


def _key(row: NDArray[Any]) -> bytes:
    return hashlib.blake2b(row.tobytes(), digest_size=16).digest()


def _answer(folder: Path, *, rows: NDArray[Any], num_classes: int, num_threads: int) -> NDArray[np.float64]:
    """Class probabilities of one model, shape ``(N, K)``."""
    session = inference.open_session((folder / "model.onnx").read_bytes(), num_threads=num_threads)
    found = np.empty((len(rows), num_classes))
    for start in range(0, len(rows), BATCH_SIZE):
        x = to_input(rows[start : start + BATCH_SIZE]).contiguous().numpy()
        found[start : start + BATCH_SIZE] = inference.run_session(session, x=x)
    return found


def _rows(window: Reference, *, preprocessor: Preprocessor) -> NDArray[Any]:
    """The window's inputs as this preprocessor gives them."""
    if window.description.dataset.modality != "image":
        return preprocessor.arrays(window.rows)
    height, width, channels = preprocessor.shape
    if window.inputs.shape[1:] == preprocessor.shape:
        return np.asarray(window.inputs)
    resized = [image.resize(np.asarray(one), height=height, width=width, channels=channels) for one in window.inputs]
    return np.stack(resized)


def _labels(window: Reference, *, classes: tuple[str, ...]) -> NDArray[np.int64]:
    """Numbers of the true classes among ``classes``, ``UNKNOWN`` where the class is not known or in neither model."""
    own = window.description.dataset.classes
    number = np.array([classes.index(name) if name in classes else UNKNOWN for name in own] + [UNKNOWN], np.int64)
    label = window.rows["label"].to_numpy().astype(np.int64)
    return np.asarray(number[np.where(label >= 0, label, len(own))])


def _classes(folder: Path) -> tuple[str, ...]:
    return tuple(json.loads((folder / "network.json").read_text(encoding="utf-8"))["classes"])
