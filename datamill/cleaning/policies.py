"""The parameters of cleaning: one policy per kind of fault."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from datamill.stage import Params

Share = Annotated[float, Field(ge=0, le=1)]
Imputation = Literal["off", "drop", "mean", "median", "mode", "interpolate", "knn", "regression"]


class ExactPolicy(Params):
    """Samples with the same content, byte for byte (tables: value for value)."""

    policy: Literal["drop", "flag", "off"]
    """What becomes of all copies but the first in sample order (drop, flag, off)."""
    conflicting: Literal["drop_all", "keep_first", "flag"]
    """What becomes of the copies when their labels differ (drop_all, keep_first, flag)."""


class NearPolicy(Params):
    """Samples that differ hardly: images that look alike, rows that agree to 4 significant digits."""

    policy: Literal["drop", "group", "flag", "off"]
    """drop all but a cluster's first, group (keep on one side of the split), flag (note it only), off (do not look)."""
    max_bits: Annotated[int, Field(ge=0, le=4)]
    """Bits in which two images' 64-bit difference hashes may differ (0 to 4)."""
    max_mean_difference: Share
    """Mean difference between two images' grey 16 x 16 thumbnails (0 to 1); confirms what the hash suggests."""
    max_pixel_difference: Share
    """Largest difference between two pixels of the thumbnails (0 to 1)."""


class MissingPolicy(Params):
    """Missing values of a table.

    Fitted on all surviving rows, later test rows among them: for a leak-free estimate choose ``off`` here and let
    preprocess impute, which fits on the training split only.
    """

    policy: Imputation
    """off, drop the row, or impute: mean, median, mode, interpolate, knn, regression; categories take their mode."""
    neighbors: PositiveInt
    """Rows that vote on a value (count; knn only)."""


class OutlierPolicy(Params):
    """Unusual rows of a table; judged by all surviving rows, later test rows among them."""

    method: Literal["off", "zscore", "iqr", "isolation_forest"]
    """How they are found: per column by z-score or quartiles, or per row by an isolation forest."""
    action: Literal["drop", "clip", "flag"]
    """What becomes of them; clip moves a value to the nearest bound (zscore and iqr only)."""
    max_zscore: PositiveFloat
    """Distance from the mean that is still usual (standard deviations; zscore only)."""
    max_iqr: PositiveFloat
    """Distance beyond the quartiles that is still usual (interquartile ranges; iqr only)."""
    contamination: Annotated[float, Field(gt=0, le=0.5)]
    """Share of rows taken for unusual (0 to 0.5; isolation_forest only)."""

    @model_validator(mode="after")
    def _forest_has_no_bounds(self) -> Self:
        if self.method == "isolation_forest" and self.action == "clip":
            raise ValueError("isolation_forest judges whole rows and has no bound to clip to: use action drop or flag")
        return self


class TablePolicies(Params):
    """What becomes of a table's faulty values."""

    non_finite: Literal["drop", "missing", "off"]
    """What becomes of infinite numbers: drop the row, count them as missing, or off."""
    outliers: OutlierPolicy
    """Unusual numbers; judged by all rows, later test rows among them."""
    missing: MissingPolicy
    """Missing values; fitted on all rows, later test rows among them."""
