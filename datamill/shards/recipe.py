"""How samples become the arrays of a shard, and the name of that: arrays made the same way may serve again."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel

from datamill import imports
from datamill.preprocessing import ImagePreprocessor, Preprocessor
from datamill.samples import HASH_BYTES, Dataset
from datamill.shards.entries import Field


@dataclass(frozen=True)
class Recipe:
    """How samples become arrays.

    Attributes:
        preprocessor: The fitted preprocessor.
        columns: Columns of a part that it reads.
        key: Changes when the array of an unchanged sample would.
    """

    preprocessor: Preprocessor
    columns: tuple[str, ...]
    key: str

    @classmethod
    def of(cls, preprocessor: Preprocessor, *, dataset: Dataset) -> "Recipe":
        """The recipe of a fitted preprocessor; an image's pixels depend on its size alone, not on their statistics."""
        assert isinstance(preprocessor, BaseModel)
        decisive = {"height", "width", "channels"} if isinstance(preprocessor, ImagePreprocessor) else None
        fitted = preprocessor.model_dump(mode="json", include=decisive)
        code = imports.digest("datamill.preprocessing")
        features = [feature.column for feature in dataset.features]
        columns = ("image",) if dataset.modality == "image" else tuple(features)
        text = json.dumps([fitted, columns, code], sort_keys=True)
        return cls(preprocessor, columns, hashlib.blake2b(text.encode(), digest_size=HASH_BYTES).hexdigest())

    @property
    def fields(self) -> dict[str, Field]:
        """Fields of a shard for training."""
        return {
            "x": Field.array(self.preprocessor.dtype, self.preprocessor.shape),
            "label": Field.array("int32"),
            "weight": Field.array("float32"),
            "draw": Field.array("float32"),
            "sample_id": Field.array("uint8", (HASH_BYTES,)),
        }

    def meta(self, *, is_repaired: bool) -> dict[str, Any]:
        """What a shard says of how it was made; rows of repaired samples may not serve again under the same id."""
        return {"recipe": self.key, "is_repaired": is_repaired}

    def rows_in(self, size_bytes: int) -> int:
        """Rows whose arrays take so many bytes; at least 1."""
        row_bytes = int(np.prod(self.preprocessor.shape)) * np.dtype(self.preprocessor.dtype).itemsize
        return max(1, size_bytes // max(1, row_bytes))
