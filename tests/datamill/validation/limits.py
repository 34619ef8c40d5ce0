"""Limits for tests: everything checked, mildly."""

from typing import Any

from datamill.validation.rules import Limits

DEFAULT: dict[str, Any] = {
    "classes": {"severity": "critical", "allowed": None},
    "class_size": {"severity": "warning", "min_samples": 10},
    "nulls": {"severity": "warning", "max_share": 0.5},
    "non_finite": "warning",
    "constant": "warning",
    "range": {"severity": "warning", "max_iqr": 10.0},
    "identifier": {"severity": "warning", "max_unique_share": 0.9},
    "image": {"severity": "critical", "min_height": 8, "min_width": 8, "odd_severity": "warning", "usual_share": 0.5},
}


def make_limits(**changes: Any) -> Limits:
    """The default limits with some changed."""
    return Limits.model_validate(DEFAULT | changes)
