"""Exact duplicates: samples with the same content hash."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from datamill.cleaning.policies import ExactPolicy
from datamill.fates import Fates
from datamill.ledger import Fate

DUPLICATE = "exact_duplicate"
CONFLICT = "conflicting_duplicate"


def first_of_content(contents: Sequence[str]) -> NDArray[np.int64]:
    """Row of the first sample with each sample's content, shape ``(N,)``; its own row where it is the first."""
    first: dict[str, int] = {}
    return np.array([first.setdefault(content, row) for row, content in enumerate(contents)], np.int64)


def in_conflict(content: NDArray[np.int64], *, labels: Sequence[str]) -> NDArray[np.bool_]:
    """Whether a sample's content occurs with more than one label, shape ``(N,)``.

    Args:
        content: As ``first_of_content`` returns it, shape ``(N,)``.
        labels: Label of each sample.
    """
    named = np.asarray(labels, dtype=object)
    contested = np.zeros(len(content), bool)
    contested[content[named != named[content]]] = True
    return contested[content]


def settle_duplicates(
    fates: Fates, *, content: NDArray[np.int64], labels: Sequence[str], sample_ids: Sequence[str], policy: ExactPolicy
) -> None:
    """Decide about samples whose content occurs more than once.

    Copies whose labels differ follow ``policy.conflicting`` alone, all others ``policy.policy``.
    """
    conflict = in_conflict(content, labels=labels)
    is_copy = content != np.arange(len(content))
    if policy.policy != "off":
        copies = np.flatnonzero(is_copy & ~conflict).tolist()
        fate: Fate = "dropped" if policy.policy == "drop" else "kept"
        fates.decide(copies, fate=fate, reason=DUPLICATE, details=[f"of {sample_ids[content[row]]}" for row in copies])
    contested = np.flatnonzero(conflict & is_copy if policy.conflicting == "keep_first" else conflict).tolist()
    fates.decide(
        contested,
        fate="kept" if policy.conflicting == "flag" else "dropped",
        reason=CONFLICT,
        details=[f"label {labels[row]!r}, content of {sample_ids[content[row]]}" for row in contested],
    )


def to_observe(fates: Fates, *, content: NDArray[np.int64], is_wanted: bool) -> NDArray[np.int64]:
    """Rows whose payload has to be looked at: the first of each content that survives; none unless it is wanted."""
    is_first = content == np.arange(len(content))
    return np.flatnonzero(fates.surviving & is_first & is_wanted)
