"""Exact duplicates: samples with the same content hash."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from datamill.cleaning.observing import Ids
from datamill.cleaning.policies import ExactPolicy
from datamill.fates import Fates, Rows
from datamill.ledger import Fate
from datamill.links import Links, contains, linked
from datamill.runs import SortedRuns

DUPLICATE = "exact_duplicate"
CONFLICT = "conflicting_duplicate"


@dataclass(frozen=True)
class Copies:
    """Samples whose content occurs more than once.

    Attributes:
        links: Each copy, and the first sample with its content.
        contested: Samples whose content occurs with more than one label, the first ones among them, ascending.
        labels: Number of the label of each of these.
    """

    links: Links
    contested: NDArray[np.int64]
    labels: NDArray[np.int32]


def find_copies(contents: SortedRuns) -> Copies:
    """Which samples have equal content.

    Args:
        contents: A record of type ``observing.CONTENT`` for each sample, in sample order.
    """
    rows, firsts = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    contested, labels = [np.empty(0, np.int64)], [np.empty(0, np.int32)]
    for records in contents.shared():
        records = records[np.lexsort((records["second"], records["first"]))]  # stable: equal contents keep their order
        is_first = np.ones(len(records), bool)
        is_first[1:] = np.any([records[half][1:] != records[half][:-1] for half in ("first", "second")], axis=0)
        start = np.maximum.accumulate(np.where(is_first, np.arange(len(records)), 0))
        differs = records["label"] != records["label"][start]
        is_contested = np.zeros(len(records), bool)
        is_contested[start[differs]] = True
        is_contested = is_contested[start]
        rows.append(records["row"][~is_first])
        firsts.append(records["row"][start[~is_first]])
        contested.append(records["row"][is_contested])
        labels.append(records["label"][is_contested])
    order = np.argsort(np.concatenate(rows))
    by_row = np.argsort(found := np.concatenate(contested))
    return Copies(
        links=Links(np.concatenate(rows)[order], np.concatenate(firsts)[order]),
        contested=found[by_row],
        labels=np.concatenate(labels)[by_row],
    )


def settle_duplicates(
    fates: Fates, *, copies: Copies, classes: Sequence[str], sample_ids: Ids, policy: ExactPolicy
) -> None:
    """Decide about samples whose content occurs more than once.

    Copies whose labels differ follow ``policy.conflicting`` alone, all others ``policy.policy``.

    Args:
        fates: Receives the decisions.
        copies: Which these are.
        classes: Names of the labels.
        sample_ids: Id of each sample.
        policy: What becomes of them.
    """
    links = copies.links
    fate: Fate
    if policy.policy != "off":
        fate = "dropped" if policy.policy == "drop" else "kept"
        rows = links.rows[~contains(copies.contested, links.rows)]
        fates.decide(rows, fate=fate, reason=DUPLICATE, details=partial(of_first, links=links, ids=sample_ids))
    contested, numbers = copies.contested, copies.labels
    if policy.conflicting == "keep_first":
        is_copy = links.named(contested)
        contested, numbers = contested[is_copy], numbers[is_copy]

    def describe(rows: Rows) -> list[str]:
        names = [classes[number] for number in numbers[np.searchsorted(contested, rows)].tolist()]
        contents = of_first(rows, links=links, ids=sample_ids)
        return [f"label {name!r}, content {of}" for name, of in zip(names, contents, strict=True)]

    fate = "kept" if policy.conflicting == "flag" else "dropped"
    fates.decide(contested, fate=fate, reason=CONFLICT, details=describe)


def leak_groups(clusters: Links, *, copies: Copies) -> Links:
    """The groups of samples that must share a side of the split.

    Args:
        clusters: Samples that are near-duplicates.
        copies: Exact copies, which always share a group.
    """
    return linked(np.concatenate([clusters.pairs(), copies.links.pairs()])) if len(copies.links) else clusters


def of_first(rows: Rows, *, links: Links, ids: Ids) -> list[str]:
    """``of`` and the id of the sample that each of these rows repeats."""
    return [f"of {one}" for one in ids.digits(links.of(rows)).to_pylist()]


def may_be_near(rows: Rows, *, fates: Fates, copies: Copies) -> NDArray[np.bool_]:
    """Which of some samples may be near-duplicates, shape ``(N,)``: the first of each content that survives."""
    return np.asarray(fates.survive(rows) & ~copies.links.named(rows), np.bool_)
