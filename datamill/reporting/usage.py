"""How to call an exported model, as code that a reader can copy."""

import json
from collections.abc import Mapping
from typing import Any


def usage_snippet(interface: Mapping[str, Any]) -> str:
    """Python that calls the exported model; in the workspace it runs as it is.

    Images need onnxruntime and numpy alone; rows of a table go through the fitted preprocessor, which is ours.
    """
    imports, made = _rows(interface["features"]) if "features" in interface else _images(interface["sample"])
    return f"""\
import json
{imports}import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(
    "models/export/model.onnx", providers=["CPUExecutionProvider"]
)
with open("models/export/interface.json", encoding="utf-8") as file:
    classes = json.load(file)["classes"]
{made}
(probabilities,) = session.run(["probabilities"], {{"input": batch.astype(np.float32)}})
print(classes[probabilities[0].argmax()], probabilities[0].max())"""


def _images(sample: Mapping[str, Any]) -> tuple[str, str]:
    shape = ", ".join(map(str, sample["shape"]))
    made = f"""\
# your images: count, height, width, channels; 0 to 255
images = np.zeros((1, {shape}), np.{sample["dtype"]})
batch = images.transpose(0, 3, 1, 2)"""
    return "", made


def _rows(features: Mapping[str, str]) -> tuple[str, str]:
    imports = "from pathlib import Path\n\n"
    ours = "import pyarrow as pa\nfrom datamill.preprocessing import load_preprocessor\n"
    values = {name: "0.0" if kind == "number" else '"..."' for name, kind in features.items()}
    columns = "\n".join(f"    {json.dumps(name, ensure_ascii=False)}: [{value}]," for name, value in values.items())
    made = f"""\
# your rows, a list per column; None where a value is missing
rows = {{
{columns}
}}
preprocessor = load_preprocessor(Path("models/preprocess/preprocessor.json"))
batch = preprocessor.arrays(
    pa.table({{f"feature:{{name}}": values for name, values in rows.items()}})
)"""
    return imports + ours, made
