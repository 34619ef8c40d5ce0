"""Tables: one typed column per feature, numbers as float64 with null for missing, categories as strings."""

import io
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from datamill.hashes import word_hashes
from datamill.mixing import INCREMENT, mixed
from datamill.samples import Dataset

MAX_DRAWN = 12  # features in the picture of a row
SIGNIFICANT_DIGITS = 4  # rows that agree to this many digits share a fingerprint


def properties(table: pa.Table, *, dataset: Dataset) -> pa.Table:
    """The feature columns under their own names."""
    return pa.table({feature.name: table[feature.column] for feature in dataset.features})


def features(table: pa.Table, *, dataset: Dataset) -> pa.Table:
    """``fingerprint``: a hash of each row with numbers rounded to ``SIGNIFICANT_DIGITS``; near-duplicates share it."""
    total = np.zeros(table.num_rows, np.uint64)
    for feature in dataset.features:
        column = table[feature.column].combine_chunks()
        codes = _rounded(column) if feature.kind == "number" else word_hashes(column)
        total = mixed(total + codes + INCREMENT)
    return pa.table({"fingerprint": total}, schema=pa.schema([pa.field("fingerprint", pa.uint64(), nullable=False)]))


def _rounded(column: pa.Array) -> NDArray[np.uint64]:
    """A code per number, equal where the leading digits are; missing and infinite ones have codes of their own."""
    values = column.to_numpy(zero_copy_only=False)
    is_usual = np.isfinite(values) & (values != 0)
    magnitude = np.abs(np.where(is_usual, values, 1.0))
    exponent = np.floor(np.log10(magnitude))
    digits = SIGNIFICANT_DIGITS - 1
    # Two factors, because ten to the power of 323 is no float64.
    scaled = magnitude * 10.0 ** (digits - exponent - np.trunc(-exponent / 2)) * 10.0 ** np.trunc(-exponent / 2)
    mantissa = np.rint(scaled)
    carry = mantissa >= 10.0 ** (digits + 1)
    mantissa, exponent = np.where(carry, mantissa / 10, mantissa), exponent + carry
    usual = np.copysign(mantissa, values) * 1_000 + exponent
    unusual = np.select([np.isnan(values), values == np.inf, values == -np.inf], [0.1, 0.2, 0.3], 0.0)
    return np.asarray(np.where(is_usual, usual, unusual), np.float64).view(np.uint64)


def observations(table: pa.Table, *, dataset: Dataset) -> pd.DataFrame:
    """Feature columns as a data frame: float64 with NaN for missing, categories as objects with None for missing."""
    return pd.DataFrame(
        {
            feature.column: table[feature.column].to_numpy(zero_copy_only=False).astype(np.float64)
            if feature.kind == "number"
            else np.asarray(table[feature.column].to_pylist(), dtype=object)
            for feature in dataset.features
        }
    )


def vectorizer(*, dataset: Dataset) -> Any:
    """Numbers with the median for missing ones, standardised; categories one-hot, unknown ones all zero."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    number = make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler())
    category = make_pipeline(
        SimpleImputer(strategy="constant", fill_value="", missing_values=None),
        OneHotEncoder(handle_unknown="ignore", max_categories=50, sparse_output=False),
    )
    return ColumnTransformer(
        [("number", number, dataset.columns("number")), ("category", category, dataset.columns("category"))]
    )


def pictures(table: pa.Table, *, dataset: Dataset) -> list[NDArray[np.uint8]]:
    """Each row as a small picture of its names and values."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = []
    shown_features, hidden = dataset.features[:MAX_DRAWN], len(dataset.features) - MAX_DRAWN
    height = 0.1 + 0.12 * (len(shown_features) + (hidden > 0))
    for row in table.to_pylist():
        figure = Figure(figsize=(1.92, height), dpi=100)
        canvas = FigureCanvasAgg(figure)
        out = io.StringIO()
        for feature in shown_features:
            value = row[feature.column]
            shown = f"{value:.4g}" if isinstance(value, float) else str(value)
            out.write(f"{_cut(feature.name, 19):<19} {_cut(shown, 10):>10}\n")
        if hidden > 0:
            out.write(f"... and {hidden} more")
        text = figure.text(0.03, 1 - 0.05 / height, out.getvalue(), family="monospace", fontsize=7.2, va="top")
        text.set_parse_math(False)
        canvas.draw()
        drawn.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    return drawn


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
