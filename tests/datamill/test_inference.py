"""Exported models at work."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from datamill import inference
from datamill.exporting import network_rows, to_onnx
from datamill.inference import measure_latency, open_session, run_session
from tests.trained import train_tables


def test_latency_is_measured_on_as_many_rows_as_asked(tmp_path: Path) -> None:
    shard = train_tables(tmp_path, steps=1).shard("test")
    x = network_rows(shard, count=64)
    assert x.shape == (64, 2)
    assert np.array_equal(x[14], x[0])
    session = open_session(to_onnx(nn.Linear(2, 3).eval(), shape=(2,)).SerializeToString(), num_threads=1)
    assert run_session(session, x=x).shape == (64, 3)
    times = measure_latency(session, x=x, warmup=1, repeats=5)
    assert 0 < times["median_ms"] <= times["p95_ms"]


def test_no_torch_is_loaded_to_answer() -> None:
    command = "import sys, datamill.inference, datamill.promotion.racing; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", command], check=True)


def test_a_slow_model_is_not_timed_for_ever_but_ten_times_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, clock = [], itertools.count()
    monkeypatch.setattr(inference, "run_session", lambda session, *, x: calls.append(x))
    monkeypatch.setattr(inference.time, "perf_counter", lambda: float(next(clock)))  # each look takes a second
    times = measure_latency(None, x=np.zeros((4, 2), np.float32), warmup=20, repeats=200, budget_s=4.0)  # type: ignore[arg-type]
    assert len(calls) == 3 + 10  # half of the budget to warm up
    assert times == {"median_ms": 1000.0, "p95_ms": 1000.0, "samples_per_s": 4.0}
