"""What is wrong with a window's data itself: its schema, and values that are missing, unusable or never seen."""

# Shapes: N samples.

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import stats

from datamill.drift.columns import all_numbers, kind_of
from datamill.drift.observations import Observations
from datamill.drift.verdict import Outcome

UNKNOWN_CLASS = -2  # of ``Observations.labels``
Mask = NDArray[np.bool_]


def check(reference: Observations, window: Observations, *, num_examples: int) -> Iterator[Outcome]:
    """Every check of a window of at least one sample against a reference of at least one.

    A difference of schema is drift by itself. Shares are tested: a rare accident is none, and what the reference has
    not seen is allowed to turn up as often as a sample of its size must miss it.
    """
    yield from schema(reference, window)
    for name in reference.features.column_names:
        if name in window.features.column_names:
            before, after = reference.features[name], window.features[name]
            if kind_of(before) == kind_of(after):
                yield from _column(name, before, after, ids=window.sample_ids, num_examples=num_examples)
    yield from _answers(reference, window, num_examples=num_examples)
    yield from unknown_classes(reference, window, num_examples=num_examples)


def unknown_classes(reference: Observations, window: Observations, *, num_examples: int) -> Iterator[Outcome]:
    """Whether more labels are none of the classes than the reference leads to expect; nothing without labels."""
    if window.labels is None or not len(window.classes):
        return
    seen = np.zeros(0, bool) if reference.labels is None else reference.labels == UNKNOWN_CLASS
    yield _unseen(
        "unknown_class",
        "",
        window.labels == UNKNOWN_CLASS,
        num_reference=len(reference),
        num_allowed=int(seen.sum()),
        examples=_ids(window.sample_ids, window.labels == UNKNOWN_CLASS, num_examples),
    )


def schema(reference: Observations, window: Observations) -> Iterator[Outcome]:
    """What is missing, new or of another kind: columns, classes, the width of embeddings."""
    before, after = reference.features, window.features
    for name in [*before.column_names, *(name for name in after.column_names if name not in before.column_names)]:
        if name not in after.column_names:
            yield _changed(name, before=str(before[name].type), after=None)
        elif name not in before.column_names:
            yield _changed(name, before=None, after=str(after[name].type))
        elif kind_of(before[name]) != kind_of(after[name]):
            yield _changed(name, before=str(before[name].type), after=str(after[name].type))
    if reference.classes and window.classes and reference.classes != window.classes:
        yield _changed("(classes)", before=list(reference.classes), after=list(window.classes))
    if reference.embeddings is not None and window.embeddings is not None:
        widths = reference.embeddings.shape[1], window.embeddings.shape[1]
        if widths[0] != widths[1]:
            yield _changed("(embeddings)", before=widths[0], after=widths[1])


def unseen_p_value(count: int, *, num: int, num_reference: int, num_allowed: int) -> float:
    """Chance that ``count`` of ``num`` new samples or more are of a sort that so few of the reference are of.

    Without drift all samples are in random order of oddity; so many of the new ones must then come before the
    ``num_allowed + 1``-th of the reference.

    Source: E. J. Gumbel and H. von Schelling, "The distribution of the number of exceedances", 1950.
    """
    if count == 0:
        return 1.0
    drawn = count + num_allowed
    return float(stats.hypergeom.cdf(num_allowed, num + num_reference, num_reference, min(drawn, num + num_reference)))


def _column(
    name: str, reference: pa.ChunkedArray, window: pa.ChunkedArray, *, ids: tuple[str, ...], num_examples: int
) -> Iterator[Outcome]:
    is_null = _mask(window.is_null())
    missing = _more("null_share", name, is_null, count=reference.null_count, num=len(reference))
    yield _with_examples(missing, _ids(ids, is_null, num_examples))
    if kind_of(reference) == "category":
        yield _unseen_values(name, reference, window, ids=ids, num_examples=num_examples)
        return
    before, after = all_numbers(reference), all_numbers(window)
    is_odd = ~np.isfinite(after) & ~is_null
    num_odd = int((~np.isfinite(before)).sum()) - reference.null_count
    broken = _more("non_finite", name, is_odd, count=num_odd, num=len(reference))
    yield _with_examples(broken, _ids(ids, is_odd, num_examples))
    yield from _beyond(name, before, after, ids=ids, num_examples=num_examples)


def _answers(reference: Observations, window: Observations, *, num_examples: int) -> Iterator[Outcome]:
    """Embeddings, probabilities and predictions that are no numbers."""
    for name in ("embeddings", "probabilities", "predictions"):
        before, after = getattr(reference, name), getattr(window, name)
        if before is not None and after is not None:
            is_odd = _is_odd(after)
            num_odd = int(_is_odd(before).sum())
            broken = _more("non_finite", f"({name})", is_odd, count=num_odd, num=len(reference))
            yield _with_examples(broken, _ids(window.sample_ids, is_odd, num_examples))


def _is_odd(rows: NDArray[np.floating[Any]]) -> Mask:
    return np.asarray(~np.isfinite(rows.reshape(len(rows), -1)).all(axis=1))


def _beyond(
    name: str, before: NDArray[np.float64], after: NDArray[np.float64], *, ids: tuple[str, ...], num_examples: int
) -> Iterator[Outcome]:
    known = before[np.isfinite(before)]
    if not len(known):
        return
    low, high = float(known.min()), float(known.max())
    is_beyond = np.isfinite(after) & ((after < low) | (after > high))
    examples = _ids(ids, is_beyond, num_examples)
    detail = {"low": low, "high": high}
    yield _unseen("range", name, is_beyond, num_reference=len(known), num_allowed=1, examples=examples, detail=detail)


def _unseen_values(
    name: str, reference: pa.ChunkedArray, window: pa.ChunkedArray, *, ids: tuple[str, ...], num_examples: int
) -> Outcome:
    """Source: I. J. Good, "The population frequencies of species", 1953: as many are unseen as were seen just once."""
    seen = pc.value_counts(reference.drop_null().cast(pa.string()))
    once = int(pc.sum(pc.equal(seen.field("counts"), 1)).as_py() or 0)
    text = window.cast(pa.string())
    is_new = _mask(pc.and_(pc.is_valid(text), pc.invert(pc.is_in(text, value_set=seen.field("values")))))
    values = pc.unique(text.filter(pa.array(is_new))).to_pylist()[:num_examples]
    return _unseen(
        "unseen_category",
        name,
        is_new,
        num_reference=len(reference) - reference.null_count,
        num_allowed=once,
        examples=_ids(ids, is_new, num_examples),
        detail={"values": values},
    )


def _changed(subject: str, *, before: object, after: object) -> Outcome:
    return Outcome(
        "quality", "schema", subject, 1.0, None, 1.0, "share", is_drift=True, detail={"before": before, "after": after}
    )


def _more(detector: str, subject: str, is_so: Mask, *, count: int, num: int) -> Outcome:
    """Whether a larger share of the window is so than of the reference: Fisher's exact test, one-sided."""
    found = int(is_so.sum())
    p_value = float(stats.hypergeom.sf(found - 1, num + len(is_so), count + found, len(is_so)))
    before, after = count / num, found / len(is_so)
    detail = {"before": before, "after": after}
    effect = max(after - before, 0.0)
    return Outcome(
        "quality", detector, subject, after, min(p_value, 1.0), effect, "share", is_drift=False, detail=detail
    )


def _unseen(
    detector: str,
    subject: str,
    is_so: Mask,
    *,
    num_reference: int,
    num_allowed: int,
    examples: list[str],
    detail: Mapping[str, object] | None = None,
) -> Outcome:
    found = int(is_so.sum())
    p_value = unseen_p_value(found, num=len(is_so), num_reference=num_reference, num_allowed=num_allowed)
    share = found / len(is_so)
    told = {**(detail or {}), "count": found, "examples": examples}
    return Outcome("quality", detector, subject, share, p_value, share, "share", is_drift=False, detail=told)


def _with_examples(outcome: Outcome, examples: list[str]) -> Outcome:
    return Outcome(**{**vars(outcome), "detail": {**outcome.detail, "examples": examples}})


def _ids(ids: tuple[str, ...], is_so: Mask, num: int) -> list[str]:
    return [ids[row] for row in np.flatnonzero(is_so)[:num]]


def _mask(column: pa.ChunkedArray) -> Mask:
    return np.asarray(column.to_numpy(), bool)
