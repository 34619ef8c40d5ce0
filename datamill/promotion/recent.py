"""Both models' answers to what came in lately: the samples that monitoring keeps of its newest windows."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamill import exporting
from datamill.errors import DataError
from datamill.modalities import image
from datamill.monitoring.reference import DESCRIPTION, Reference, read_reference
from datamill.networks import to_input
from datamill.preprocessing import Preprocessor, load_preprocessor
from datamill.promotion.evidence import aligned
from datamill.promotion.params import ShadowParams
from datamill.promotion.shadow import UNKNOWN, Shadow

WINDOWS = "reports/windows"
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
    answers = {
        folder: np.concatenate([_answer(folder, window=window, num_threads=num_threads) for window in kept])
        for folder in classes
    }
    wide = {folder: aligned(answers[folder], classes=classes[folder], onto=both) for folder in classes}
    labels = np.concatenate([_labels(window, classes=both) for window in kept])
    return Shadow(tuple(names), wide[champion], wide[challenger], labels)


def _newest(root: Path, *, count: int) -> Iterator[tuple[str, Reference]]:
    """Name and kept samples of the last windows, newest first; a damaged or just deleted one is left out."""
    folder = root / WINDOWS
    found = {path.relative_to(folder).parts[0]: path.parent for path in folder.glob(f"*/**/{DESCRIPTION}")}
    for name in sorted(found, reverse=True)[:count]:
        try:
            yield name, read_reference(found[name])
        except (DataError, FileNotFoundError) as error:
            print(f"promote: window {name} is left out of the comparison: {error}", flush=True)


def _last(window: Reference, *, count: int) -> Reference:
    start = max(0, len(window) - count)
    arrays = {name: getattr(window, name)[start:] for name in ("inputs", "embeddings", "probabilities")}
    return Reference(window.description, window.rows.slice(start), **arrays)


def _answer(folder: Path, *, window: Reference, num_threads: int) -> NDArray[np.float64]:
    """Class probabilities of one model, shape ``(N, K)``."""
    session = exporting.open_session((folder / "model.onnx").read_bytes(), num_threads=num_threads)
    rows = _rows(window, preprocessor=load_preprocessor(folder / "preprocessor.json"))
    batches = [to_input(rows[start : start + BATCH_SIZE]) for start in range(0, len(rows), BATCH_SIZE)]
    found = [exporting.run_session(session, x=x.contiguous().numpy()) for x in batches]
    return np.concatenate(found).astype(np.float64)


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
