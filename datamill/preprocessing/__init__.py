"""What turns samples into arrays and back; ``fitting`` makes it from training rows, JSON keeps it.

A fitted preprocessor gives two views of a table of samples. ``arrays`` is what shards store: images as ``uint8`` pixels
of one size, tables as finished ``float32`` features. ``matrix`` is the continuous space in which generators and
over-samplers work, and ``restore`` leads from it back to payload columns.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from datamill import files
from datamill.errors import DataError
from datamill.modalities import image as images
from datamill.samples import FEATURE_PREFIX

Encoding = Literal["one_hot", "ordinal"]

LIMIT = float(np.finfo(np.float32).max)  # numbers beyond it are taken for it, so that no float32 becomes infinite


class Preprocessor(Protocol):
    """A fitted preprocessor; tables of samples carry their payload columns."""

    @property
    def columns(self) -> Mapping[str, str]:
        """Columns of a table's rows by name: ``number`` or ``category``; empty for images."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample in ``arrays``: (H, W, C) of an image, (D,) of a table's row."""

    @property
    def dtype(self) -> Literal["uint8", "float32"]:
        """Type of the numbers in ``arrays``."""

    @property
    def mean(self) -> tuple[float, ...]:
        """Per-channel offset of pixels in [0, 1] for the network's first layer; empty for tables."""

    @property
    def std(self) -> tuple[float, ...]:
        """Per-channel divisor of pixels in [0, 1] for the network's first layer; empty for tables."""

    def arrays(self, table: pa.Table) -> NDArray[np.uint8] | NDArray[np.float32]:
        """The samples as shards store them, shape ``(N, *shape)``; finite."""

    def matrix(self, table: pa.Table) -> NDArray[np.float32]:
        """The samples as points of a continuous space, shape ``(N, D)``; finite."""

    def restore(self, matrix: NDArray[np.float32]) -> dict[str, pa.Array]:
        """Payload columns of points of that space, whose ``matrix`` is the nearest valid point."""


class ImagePreprocessor(BaseModel):
    """Images of one size and number of channels; the network's first layer applies ``mean`` and ``std``."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["image"] = "image"
    height: int
    width: int
    channels: Literal[1, 3]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def columns(self) -> Mapping[str, str]:
        """None: the payload is a picture."""
        return {}

    @property
    def shape(self) -> tuple[int, ...]:
        """Height and width (px) and channels."""
        return (self.height, self.width, self.channels)

    @property
    def dtype(self) -> Literal["uint8", "float32"]:
        """Pixels stay bytes until the network reads them: a quarter of the disk."""
        return "uint8"

    def arrays(self, table: pa.Table) -> NDArray[np.uint8]:
        """Decoded and resized images, shape (N, H, W, C)."""
        pixels = np.empty((table.num_rows, *self.shape), np.uint8)
        for row, payload in enumerate(pc.struct_field(table["image"], "bytes").to_pylist()):
            decoded = images.decode(payload)
            pixels[row] = images.resize(decoded, height=self.height, width=self.width, channels=self.channels)
        return pixels

    def matrix(self, table: pa.Table) -> NDArray[np.float32]:
        """Flattened pixels in [0, 1], shape (N, H * W * C)."""
        return self.arrays(table).reshape(table.num_rows, -1).astype(np.float32) / np.float32(255)

    def restore(self, matrix: NDArray[np.float32]) -> dict[str, pa.Array]:
        """The ``image`` column as PNG; values outside [0, 1] are clipped."""
        pixels = np.rint(np.clip(matrix, 0, 1) * 255).astype(np.uint8).reshape(-1, *self.shape)
        return {"image": images.payload(list(pixels))}


class NumberColumn(BaseModel):
    """A numeric column: ``(value or fill) - offset``, divided by ``scale``."""

    model_config = ConfigDict(frozen=True)

    name: str
    fill: float
    offset: float
    scale: float


class CategoryColumn(BaseModel):
    """A category column and the values it had in training, ``None`` last where some were missing."""

    model_config = ConfigDict(frozen=True)

    name: str
    values: tuple[str | None, ...]


class TabularPreprocessor(BaseModel):
    """Rows of a table as features: numbers first, then categories, each in the table's order."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["tabular"] = "tabular"
    numbers: tuple[NumberColumn, ...]
    categories: tuple[CategoryColumn, ...]
    encoding: Encoding
    num_neighbors: int | None
    """Neighbours whose mean replaces a missing number; ``None`` where ``fill`` does."""
    reference: tuple[tuple[float | None, ...], ...]
    """Scaled training rows among which neighbours are looked for; empty without neighbours."""

    @property
    def columns(self) -> Mapping[str, str]:
        """The table's columns, by name: ``number`` or ``category``."""
        return {one.name: "number" for one in self.numbers} | {one.name: "category" for one in self.categories}

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of features."""
        widths = [len(column.values) if self.encoding == "one_hot" else 1 for column in self.categories]
        return (len(self.numbers) + sum(widths),)

    @property
    def dtype(self) -> Literal["uint8", "float32"]:
        """Features are stored ready for the network."""
        return "float32"

    @property
    def mean(self) -> tuple[float, ...]:
        """Empty: already applied."""
        return ()

    @property
    def std(self) -> tuple[float, ...]:
        """Empty: already applied."""
        return ()

    def arrays(self, table: pa.Table) -> NDArray[np.float32]:
        """Features, shape (N, D): missing numbers imputed, values unknown in training all zero (ordinal: -1)."""
        blocks = [self._numbers(table), *(self._encode(table, column) for column in self.categories)]
        features = np.hstack(blocks) if table.num_rows else np.empty((0, *self.shape))
        return np.clip(features, -LIMIT, LIMIT).astype(np.float32)

    def matrix(self, table: pa.Table) -> NDArray[np.float32]:
        """The same as ``arrays``."""
        return self.arrays(table)

    def restore(self, matrix: NDArray[np.float32]) -> dict[str, pa.Array]:
        """Feature columns: numbers scaled back, of each one-hot group the category with the largest value.

        A group in which nothing is above zero stands for no category seen in training and comes back as null.
        """
        columns: dict[str, pa.Array] = {}
        for position, number in enumerate(self.numbers):
            values = matrix[:, position].astype(np.float64) * number.scale + number.offset
            columns[FEATURE_PREFIX + number.name] = pa.array(np.clip(values, -LIMIT, LIMIT))
        start = len(self.numbers)
        for category in self.categories:
            stop = start + (len(category.values) if self.encoding == "one_hot" else 1)
            codes = _decode(matrix[:, start:stop], num_values=len(category.values), encoding=self.encoding)
            values_or_null = [None if code < 0 else category.values[code] for code in codes]
            columns[FEATURE_PREFIX + category.name] = pa.array(values_or_null, pa.string())
            start = stop
        return columns

    def _numbers(self, table: pa.Table) -> NDArray[np.float64]:
        names = [column.name for column in self.numbers]
        offset = np.array([column.offset for column in self.numbers])
        scale = np.array([column.scale for column in self.numbers])
        scaled: NDArray[np.float64] = np.clip((read_numbers(table, names=names) - offset) / scale, -LIMIT, LIMIT)
        is_missing = np.isnan(scaled)
        if not is_missing.any():
            return scaled
        if self.num_neighbors is not None:
            return np.asarray(self._imputer.transform(scaled), np.float64)
        fill = (np.array([column.fill for column in self.numbers]) - offset) / scale
        return np.asarray(np.where(is_missing, fill, scaled), np.float64)

    def _encode(self, table: pa.Table, column: CategoryColumn) -> NDArray[np.float64]:
        known = pa.array(column.values, pa.string())
        codes = pc.fill_null(pc.index_in(table[FEATURE_PREFIX + column.name], value_set=known), -1).to_numpy()
        if self.encoding == "ordinal":
            return np.asarray(codes[:, None], np.float64)
        return np.asarray(codes[:, None] == np.arange(len(column.values)), np.float64)

    @cached_property
    def _imputer(self) -> Any:
        from sklearn.impute import KNNImputer  # the others do without it, and it takes a second

        assert self.num_neighbors is not None
        imputer = KNNImputer(n_neighbors=self.num_neighbors, keep_empty_features=True)
        return imputer.fit(np.array(self.reference, np.float64))


def save_preprocessor(preprocessor: ImagePreprocessor | TabularPreprocessor, path: Path) -> None:
    """Write a fitted preprocessor as JSON."""
    files.write_json(path, preprocessor.model_dump(mode="json"))


def load_preprocessor(path: Path) -> Preprocessor:
    """Read a fitted preprocessor.

    Raises:
        DataError: The file is missing or damaged.
    """
    union = Annotated[ImagePreprocessor | TabularPreprocessor, Field(discriminator="kind")]
    try:
        return cast(Preprocessor, TypeAdapter(union).validate_json(path.read_bytes()))
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; run the stage preprocess") from error
    except ValidationError as error:
        raise DataError(f"{path} is damaged ({error.error_count()} faults); run the stage preprocess again") from error


def read_numbers(table: pa.Table, *, names: Sequence[str]) -> NDArray[np.float64]:
    """Numeric columns, shape (N, len(names)), NaN for missing and non-finite values, others within float32."""
    values = np.empty((table.num_rows, len(names)))
    for position, name in enumerate(names):
        values[:, position] = table[FEATURE_PREFIX + name].to_numpy()
    values[~np.isfinite(values)] = np.nan
    return np.asarray(np.clip(values, -LIMIT, LIMIT))


def _decode(block: NDArray[np.float32], *, num_values: int, encoding: Encoding) -> NDArray[np.int64]:
    """Position of each row's category, -1 for none."""
    if not num_values:
        return np.full(len(block), -1)
    if encoding == "ordinal":
        return np.asarray(np.clip(np.rint(block[:, 0]), -1, num_values - 1), np.int64)
    return np.asarray(np.where(block.max(axis=1) > 0, block.argmax(axis=1), -1), np.int64)
