"""How to call an exported model, as code that a reader can copy."""

from collections.abc import Mapping
from typing import Any


def usage_snippet(interface: Mapping[str, Any]) -> str:
    """Python that calls the exported model with onnxruntime and numpy alone; in the workspace it runs as it is."""
    shape = ", ".join(map(str, interface["sample"]["shape"]))
    is_image = len(interface["sample"]["shape"]) == 3
    made = f"np.zeros((1, {shape}), np.{interface['sample']['dtype']})"
    what = "your images: count, height, width, channels; 0 to 255" if is_image else "your rows, after the preprocessor"
    batch = "samples.transpose(0, 3, 1, 2).astype(np.float32)" if is_image else "samples.astype(np.float32)"
    return f"""\
import json
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(
    "models/export/model.onnx", providers=["CPUExecutionProvider"]
)
with open("models/export/interface.json", encoding="utf-8") as file:
    classes = json.load(file)["classes"]
# {what}
samples = {made}
(probabilities,) = session.run(["probabilities"], {{"input": {batch}}})
print(classes[probabilities[0].argmax()], probabilities[0].max())"""
