"""How fast models are beside each other: timed in turn, so that what else the machine does meets all of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datamill import inference

WARMUP, REPEATS, ROUNDS = 5, 40, 5


def race(folders: Sequence[Path], *, num_threads: int) -> list[float]:
    """Median time that each model takes for one sample, the best of several rounds (ms).

    Args:
        folders: Each with a ``model.onnx`` and its ``example.npy``.
        num_threads: Threads of ONNX Runtime.
    """
    runners = [
        (
            inference.open_session((folder / "model.onnx").read_bytes(), num_threads=num_threads),
            np.load(folder / "example.npy", allow_pickle=False),
        )
        for folder in folders
    ]
    times = [
        [
            inference.measure_latency(session, x=example, warmup=WARMUP, repeats=REPEATS)["median_ms"]
            for session, example in runners
        ]
        for _ in range(ROUNDS)
    ]
    return [min(column) for column in zip(*times, strict=True)]
