"""Tables: one typed column per feature, numbers as float64 with null for missing, categories as strings."""

import hashlib
import io
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from datamill.samples import Dataset

SIGNIFICANT_DIGITS = 4  # rows that agree to this many digits share a fingerprint


def numbers(dataset: Dataset) -> list[str]:
    """Names of the numeric columns of a part."""
    return [feature.column for feature in dataset.features if feature.kind == "number"]


def categories(dataset: Dataset) -> list[str]:
    """Names of the category columns of a part."""
    return [feature.column for feature in dataset.features if feature.kind == "category"]


def properties(table: pa.Table, *, dataset: Dataset) -> pa.Table:
    """The feature columns under their own names."""
    return pa.table({feature.name: table[feature.column] for feature in dataset.features})


def fingerprints(table: pa.Table, *, dataset: Dataset) -> NDArray[np.uint64]:
    """Hash of each row with its numbers rounded to ``SIGNIFICANT_DIGITS``; near-duplicates share it exactly."""
    frame = observations(table, dataset=dataset)
    digest = np.zeros(len(frame), np.uint64)
    for row, values in enumerate(frame.itertuples(index=False)):
        text = "\0".join(f"{v:.{SIGNIFICANT_DIGITS - 1}e}" if isinstance(v, float) else str(v) for v in values)
        digest[row] = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
    return digest


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
    return ColumnTransformer([("number", number, numbers(dataset)), ("category", category, categories(dataset))])


def pictures(table: pa.Table, *, dataset: Dataset) -> list[NDArray[np.uint8]]:
    """Each row as a small picture of its names and values."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = []
    for row in table.to_pylist():
        figure = Figure(figsize=(2.4, 2.4), dpi=80)
        canvas = FigureCanvasAgg(figure)
        out = io.StringIO()
        for feature in dataset.features[:12]:
            value = row[feature.column]
            shown = f"{value:.4g}" if isinstance(value, float) else str(value)
            out.write(f"{feature.name[:20]:<20} {shown[:10]:>10}\n")
        hidden = len(dataset.features) - 12
        if hidden > 0:
            out.write(f"... and {hidden} more")
        figure.text(0.03, 0.97, out.getvalue(), family="monospace", fontsize=6.5, va="top")
        canvas.draw()
        drawn.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    return drawn
