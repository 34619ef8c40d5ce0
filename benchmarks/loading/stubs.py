"""Imports of peers that need a hand."""

import importlib
import importlib.machinery
import sys
import types
from typing import Any


def import_streaming() -> Any:
    """mosaicml-streaming; it needs torchvision only for classes that no work uses, so a stand-in will do."""
    try:
        return importlib.import_module("streaming")
    except (ImportError, RuntimeError):
        for name in [name for name in sys.modules if name.split(".")[0] in {"streaming", "torchvision"}]:
            del sys.modules[name]
        parts: dict[str, dict[str, Any]] = {
            "": {},
            ".datasets": {"VisionDataset": object, "CIFAR10": None},
            ".transforms": {},
        }
        for name, content in {**parts, ".transforms.functional": {"to_tensor": None}}.items():
            module = types.ModuleType(f"torchvision{name}")
            module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, loader=None)
            module.__dict__.update(content)
            sys.modules[module.__name__] = module
        return importlib.import_module("streaming")
