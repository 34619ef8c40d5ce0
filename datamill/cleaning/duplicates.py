"""Exact duplicates: samples with the same content hash."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from datamill.cleaning.observing import Ids
from datamill.cleaning.policies import ExactPolicy
from datamill.fates import Fates, Rows
from datamill.ledger import Fate

DUPLICATE = "exact_duplicate"
CONFLICT = "conflicting_duplicate"


def first_of_content(contents: NDArray[np.uint64]) -> NDArray[np.int32]:
    """Row of the first sample with each sample's content, shape ``(N,)``; its own row where it is the first.

    Args:
        contents: Content hashes, shape ``(N, 2)``.
    """
    order = np.lexsort((contents[:, 1], contents[:, 0]))
    is_new = np.ones(len(order), bool)
    is_new[1:] = False
    for half in contents.T:
        in_order = half[order]
        is_new[1:] |= in_order[1:] != in_order[:-1]
    places = np.arange(len(order), dtype=np.int32)
    places[~is_new] = 0
    np.maximum.accumulate(places, out=places)  # where the run of each one's content begins
    first = np.empty(len(order), np.int32)
    first[order] = order[places]
    return first


def in_conflict(content: NDArray[np.int32], *, labels: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Whether a sample's content occurs with more than one label, shape ``(N,)``.

    Args:
        content: As ``first_of_content`` returns it, shape ``(N,)``.
        labels: Number of each sample's label, shape ``(N,)``.
    """
    contested = np.zeros(len(content), bool)
    contested[content[labels != labels[content]]] = True
    return contested[content]


def settle_duplicates(
    fates: Fates,
    *,
    content: NDArray[np.int32],
    labels: NDArray[np.int32],
    classes: Sequence[str],
    sample_ids: Ids,
    policy: ExactPolicy,
) -> None:
    """Decide about samples whose content occurs more than once.

    Copies whose labels differ follow ``policy.conflicting`` alone, all others ``policy.policy``.

    Args:
        fates: Receives the decisions.
        content: First row with each sample's content, shape ``(N,)``.
        labels: Number of each sample's label, shape ``(N,)``.
        classes: Names of the labels.
        sample_ids: Id of each sample.
        policy: What becomes of them.
    """
    conflict = in_conflict(content, labels=labels)
    is_copy = content != np.arange(len(content))
    fate: Fate
    if policy.policy != "off":
        fate = "dropped" if policy.policy == "drop" else "kept"
        copies = np.flatnonzero(is_copy & ~conflict)
        fates.decide(copies, fate=fate, reason=DUPLICATE, details=partial(of_first, first=content, ids=sample_ids))
    contested = np.flatnonzero(conflict & is_copy if policy.conflicting == "keep_first" else conflict)
    numbers = labels[contested]

    def describe(rows: Rows) -> list[str]:
        names = [classes[number] for number in numbers[np.searchsorted(contested, rows)].tolist()]
        contents = of_first(rows, first=content, ids=sample_ids)
        return [f"label {name!r}, content {of}" for name, of in zip(names, contents, strict=True)]

    fate = "kept" if policy.conflicting == "flag" else "dropped"
    fates.decide(contested, fate=fate, reason=CONFLICT, details=describe)


def of_first(rows: Rows, *, first: NDArray[np.int32], ids: Ids) -> list[str]:
    """``of`` and the id of the sample that each of these rows repeats."""
    return [f"of {one}" for one in ids.digits(first[rows]).to_pylist()]


def to_compare(fates: Fates, *, content: NDArray[np.int32]) -> NDArray[np.int32]:
    """Rows that may be near-duplicates of each other: the first of each content that survives."""
    return np.flatnonzero(fates.surviving & (content == np.arange(len(content)))).astype(np.int32)
