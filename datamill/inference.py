"""Exported models answer: ONNX Runtime on the CPU, without torch."""

import time

import numpy as np
import onnxruntime
from numpy.typing import NDArray

INPUT, LOGITS, PROBABILITIES = "input", "logits", "probabilities"
LOG_ERRORS = 3  # ONNX Runtime's severity
ENOUGH_CALLS = 10  # timed, however slow the model is


def open_session(model: bytes, *, num_threads: int) -> onnxruntime.InferenceSession:
    """The model in ONNX Runtime on the CPU, quiet and without telemetry."""
    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = LOG_ERRORS
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run_session(session: onnxruntime.InferenceSession, *, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities of a batch of network inputs, shape (B, K)."""
    (probabilities,) = session.run([PROBABILITIES], {INPUT: x})
    return np.asarray(probabilities, np.float32)


def measure_latency(
    session: onnxruntime.InferenceSession, *, x: NDArray[np.float32], warmup: int, repeats: int, budget_s: float = 5.0
) -> dict[str, float]:
    """Median and 95th percentile of the time one call with ``x`` takes (ms), and samples per second at the median.

    A model so slow that ``budget_s`` is over before ``repeats`` calls are gets ten timed calls at least.
    """
    end = time.perf_counter() + budget_s
    for _ in range(warmup):
        run_session(session, x=x)
        if time.perf_counter() > end - budget_s / 2:
            break
    times_ms: list[float] = []
    while len(times_ms) < repeats:
        start = time.perf_counter()
        if start > end and len(times_ms) >= ENOUGH_CALLS:
            break
        run_session(session, x=x)
        times_ms.append((time.perf_counter() - start) * 1000)
    median, p95 = np.quantile(times_ms, [0.5, 0.95])
    return {"median_ms": float(median), "p95_ms": float(p95), "samples_per_s": float(len(x) / median * 1000)}
