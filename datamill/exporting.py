"""A trained network as ONNX: a file that runs without torch and without this package."""

# Shapes: B batch, N samples, K classes.

import hashlib
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from datamill.errors import StageError
from datamill.inference import INPUT, LOGITS, PROBABILITIES, run_session
from datamill.networks import NetworkSpec, to_input
from datamill.shards.native import Shard

OPSET = 18  # what current releases of ONNX Runtime, TensorRT and OpenVINO all read
EXAMPLE_ROWS = 2  # a batch of 1 would be taken for a constant


class Classifier(nn.Module):
    """A network that also says what its logits mean."""

    def __init__(self, network: nn.Module) -> None:
        """Wrap ``network``, which maps a batch to logits, shape (B, K)."""
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and probabilities, shape (B, K) each."""
        logits = self.network(x)
        return logits, torch.softmax(logits, dim=1)


@dataclass(frozen=True)
class Parity:
    """How closely the exported model follows torch.

    Attributes:
        samples: Samples compared.
        max_difference: Largest absolute difference of a probability.
        agreement: Share of samples with the same predicted class, in [0, 1].
    """

    samples: int
    max_difference: float
    agreement: float


def to_onnx(network: nn.Module, *, shape: tuple[int, ...]) -> onnx.ModelProto:
    """The network as ONNX, batch size free, equal networks giving equal bytes.

    Input ``input``: float32, shape (B, *shape). Outputs ``logits`` and ``probabilities``: float32, shape (B, K).

    Args:
        network: In evaluation mode, on the CPU.
        shape: One row of its input, without the batch.

    Raises:
        StageError: The network uses something that ONNX cannot express.
    """
    example = torch.zeros((EXAMPLE_ROWS, *shape))
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it reports operators of packages that are not installed
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own use of its deprecated functions
            program = torch.onnx.export(
                Classifier(network).eval(),
                (example,),
                input_names=[INPUT],
                output_names=[LOGITS, PROBABILITIES],
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise StageError(f"the network cannot be written as ONNX: {error}") from error
    assert program is not None
    model = program.model_proto
    strip_provenance(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def strip_provenance(model: onnx.ModelProto) -> None:
    """Remove what tells where the network was made: stack traces with file paths, and the exporter's notes."""
    _strip_graph(model.graph)
    for function in model.functions:
        _strip(function)
        for node in function.node:
            _strip_node(node)
    _strip(model)


def check_parity(session: onnxruntime.InferenceSession, *, network: nn.Module, shard: Shard, batch_size: int) -> Parity:
    """Both models over every row of a shard, on the CPU."""
    largest, agreeing = 0.0, 0
    for start in range(0, shard.num_rows, batch_size):
        x = to_input(shard.x[start : start + batch_size])
        with torch.inference_mode():
            wanted = torch.softmax(network(x), dim=1).numpy()
        found = run_session(session, x=x.contiguous().numpy())
        largest = float(np.maximum(largest, np.abs(found - wanted).max()))  # keeps NaN, unlike max
        agreeing += int((found.argmax(axis=1) == wanted.argmax(axis=1)).sum())
    return Parity(samples=shard.num_rows, max_difference=largest, agreement=agreeing / max(1, shard.num_rows))


def require_parity(parity: Parity, *, max_difference: float) -> None:
    """Refuse a model that answers differently from the network it was made of.

    Raises:
        StageError: A probability differs by more than ``max_difference``, or is no number.
    """
    if not parity.max_difference <= max_difference:  # also true of NaN
        raise StageError(
            f"the ONNX model differs from torch by up to {parity.max_difference:.3g} in a probability over "
            f"{parity.samples} test samples (same class for {parity.agreement:.2%}), more than export.max_difference "
            f"{max_difference:.3g}; nothing was exported. Raise the limit if that is acceptable, or report the network"
        )


def parity_metrics(parity: Parity) -> dict[str, float]:
    """Parity as the stage's metrics; the difference to three significant digits, below which it is noise."""
    difference = float(f"{parity.max_difference:.3g}")
    return {"samples": parity.samples, "max_difference": difference, "agreement": round(parity.agreement, 6)}


def network_rows(shard: Shard, *, count: int) -> NDArray[np.float32]:
    """``count`` network inputs: rows of a shard from the first on, repeated when it has fewer."""
    rows = np.arange(count) % shard.num_rows
    return to_input(shard.x[rows]).contiguous().numpy()


def describe_interface(
    spec: NetworkSpec,
    *,
    example: NDArray[np.float32],
    probabilities: NDArray[np.float32],
    features: Mapping[str, str],
    preprocessor_sha256: str,
) -> dict[str, Any]:
    """What a caller of the model must know, as JSON values.

    Args:
        spec: The network.
        example: One network input, shape (1, ...).
        probabilities: What the model answers to it, shape (1, K): a caller can check its own set-up against them.
        features: Columns that the preprocessor takes, by name, with their kinds; empty for images.
        preprocessor_sha256: Hash of the preprocessor that the network was trained behind.
    """
    batch_shape = ["batch", *example.shape[1:]]
    given = {"name": INPUT, "dtype": "float32", "shape": batch_shape}
    outputs = [
        {"name": name, "dtype": "float32", "shape": ["batch", spec.num_classes]} for name in (LOGITS, PROBABILITIES)
    ]
    return {
        "network": spec.kind,
        "sample": {"shape": list(spec.shape), "dtype": "uint8" if spec.is_image else "float32"},
        **({"features": dict(features)} if features else {}),
        "input": given,
        "outputs": outputs,
        "classes": list(spec.classes),
        "preprocessing": _preprocessing(spec),
        "preprocessor_sha256": preprocessor_sha256,
        "normalisation": {"is_inside_the_model": True, "mean": list(spec.mean), "std": list(spec.std)},
        "example": {
            "sha256": hashlib.sha256(example.tobytes()).hexdigest(),
            "probabilities": [round(float(value), 6) for value in probabilities[0]],
        },
    }


def _preprocessing(spec: NetworkSpec) -> str:
    if not spec.is_image:
        return "Rows must have gone through the fitted preprocessor, which scales numbers and encodes categories."
    height, width, channels = spec.shape
    colour = "grey" if channels == 1 else "RGB"
    size = f"{height} x {width} px"
    return f"Pixels from 0 to 255, {colour}, resized to {size}, channels first; the model normalises inside."


def _strip_graph(graph: onnx.GraphProto) -> None:
    _strip(graph)
    for node in graph.node:
        _strip_node(node)
    for named in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        _strip(named)


def _strip_node(node: onnx.NodeProto) -> None:
    _strip(node)
    for attribute in node.attribute:
        attribute.ClearField("doc_string")
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            _strip_graph(graph)


def _strip(message: Any) -> None:
    message.ClearField("doc_string")
    message.ClearField("metadata_props")
