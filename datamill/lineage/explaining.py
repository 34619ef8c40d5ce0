"""Why a metric differs between two runs: exact parts, ranked causes, and what followed from them."""

# Shapes: N source samples of a run, T its measured samples, K classes of either run.

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datamill import catalog
from datamill.errors import DataError
from datamill.lineage import causes, changes, decomposition, following, measured, pairing, ranking, shifts
from datamill.lineage.causes import Cause
from datamill.lineage.decomposition import Decomposition
from datamill.lineage.explanation import ClassDelta, Explanation, SliceDelta
from datamill.lineage.measured import Side
from datamill.lineage.pairing import Pairs
from datamill.lineage.ranking import Movement
from datamill.lineage.roster import NOWHERE, SPLITS
from datamill.lineage.runs import Run
from datamill.lineage.shifts import Moments
from datamill.stage import Stage, metrics_of

DEFAULT_METRIC = "accuracy"
TOLERANCE = 1e-4  # between a number on record and the same one computed again
MAX_FEATURES = 3  # named beside a cause


def explain(a: Run, b: Run, *, metric: str, stages: Sequence[Stage]) -> Explanation:
    """Why ``metric`` of run ``b`` is not that of run ``a``.

    Args:
        a: The run before.
        b: The run after.
        metric: One of the headline metrics, on the test split unless it says ``validation.<metric>``.
        stages: All stages.

    Raises:
        ParamsError: There is no such metric.
        DataError: An artifact of a run is not on this machine, or the metric is undefined.
    """
    split, name = measured.parse_metric(metric)
    old, new = measured.read_sides(a, b, split=split, stages=stages)
    pairs = pairing.pair(old.roster, new.roster)
    values, found, classes = _decompose(old, new, pairs=pairs, name=name)
    sources = causes.source_changes(old.roster, new.roster, pairs=pairs)
    touched = causes.union(one.rows_a for one in sources)
    origins, followed = following.follow(old.roster, new.roster, pairs=pairs, touched=touched, known=old.roster.known)
    settings, idle = changes.setting_changes(a, b, stages=stages, pairs=pairs, origins=origins, sources=sources)
    moments = _moments(old, new, sources=sources)
    known = [*settings, *_described(sources, moments=moments)]
    movement = _movement(old, new, found=found, classes=classes)
    ranked = ranking.rank(known, a=old.roster, b=new.roster, movement=movement)
    return Explanation(
        a=a.name,
        b=b.name,
        metric=f"{split} {name}",
        value_a=values[0],
        value_b=values[1],
        decomposition=found,
        ranked=tuple(ranked),
        without_effect=tuple(idle),
        followed=tuple(followed),
        sizes=_sizes(old, new),
        shares=tuple(shifts.shares(old.roster, new.roster)),
        features=tuple(shifts.compare(*moments)),
        classes=classes,
        slices=tuple(_slices(a, b)),
        notes=tuple(_notes(old, new, name=name if split == "test" else None, values=values, causes_=known)),
    )


def _decompose(
    a: Side, b: Side, *, pairs: Pairs, name: str
) -> tuple[tuple[float, float], Decomposition, tuple[ClassDelta, ...]]:
    score = measured.scorer(name, num_bins=int(a.run.params["evaluate"]["num_bins"]))
    values = score(a.predictions), score(b.predictions)
    for side, value in zip((a, b), values, strict=True):
        if not np.isfinite(value):
            raise DataError(f"{name} is undefined in {side.run.name}; ask for another metric")
    partner, is_same = measured.partners(a, b, pairs=pairs)
    found = decomposition.decompose(
        a.predictions, b.predictions, partner=partner, is_same=is_same, metric=name, score=score
    )
    return values, found, tuple(_classes(a, b, partner=partner, is_same=is_same, found=found))


def _classes(
    a: Side, b: Side, *, partner: NDArray[np.int64], is_same: NDArray[np.bool_], found: Decomposition
) -> Iterator[ClassDelta]:
    common = np.flatnonzero(is_same)
    there = partner[common]
    label = a.predictions.label[common]
    right_a, right_b = a.predictions.is_correct[common], b.predictions.is_correct[there]
    names = dict.fromkeys([*a.roster.dataset.classes, *b.roster.dataset.classes])
    for number, name in enumerate(names):
        chosen = label == number
        if chosen.any():
            share = float(found.model_b[there[chosen]].sum())
            yield ClassDelta(name, int(chosen.sum()), int(right_a[chosen].sum()), int(right_b[chosen].sum()), share)


def _movement(a: Side, b: Side, *, found: Decomposition, classes: Sequence[ClassDelta]) -> Movement:
    rows_a, rows_b = np.zeros(len(a.roster)), np.zeros(len(b.roster))
    rows_a[a.rows], rows_b[b.rows] = found.rows_a, found.rows_b
    moved = {one.name: one.share * found.num_common / one.num_common for one in classes}
    model = found.parts.get("model", 0.0) + found.parts.get("other", 0.0)
    gross = float(np.abs(found.model_b).sum()) or abs(model)
    return Movement(rows_a, rows_b, model, gross, moved, {one.name: one.num_common for one in classes})


def _moments(a: Side, b: Side, *, sources: Sequence[Cause]) -> tuple[Moments, Moments]:
    """Feature moments of both runs: of all samples, and of those with other content, cause by cause."""
    changed = [one for one in sources if one.kind == "content"]
    found = []
    for side, rows in ((a, [one.rows_a for one in changed]), (b, [one.rows_b for one in changed])):
        group_of = np.zeros(len(side.roster), np.int64)
        for number, chosen in enumerate(rows, start=1):
            group_of[chosen] = number
        dataset = side.roster.dataset
        found.append(shifts.read_moments(side.run, dataset=dataset, group_of=group_of, num_groups=len(rows) + 1))
    return found[0], found[1]


def _described(sources: Sequence[Cause], *, moments: tuple[Moments, Moments]) -> Iterator[Cause]:
    """The changes of the source; those of content say which features moved."""
    number = 0
    for one in sources:
        if one.kind != "content":
            yield one
            continue
        number += 1
        moved = [
            f"{shift.feature} {shift.mean_a:.4g} -> {shift.mean_b:.4g}"
            for shift in shifts.compare(*moments, group=number)[:MAX_FEATURES]
        ]
        yield replace(one, detail="; ".join(filter(None, [one.detail, ", ".join(moved)])))


def _sizes(a: Side, b: Side) -> dict[str, tuple[int, int]]:
    sizes = {split: (int(a.roster.is_in(split).sum()), int(b.roster.is_in(split).sum())) for split in SPLITS}
    dropped = tuple(int((side.roster.splits == NOWHERE).sum()) for side in (a, b))
    return {
        "in the source": (len(a.roster), len(b.roster)),
        "rejects": (len(a.roster.rejects), len(b.roster.rejects)),
        "dropped": (dropped[0], dropped[1]),
        **sizes,
        "generated": (a.roster.num_generated, b.roster.num_generated),
    }


def _slices(a: Run, b: Run) -> list[SliceDelta]:
    """Slices that both reports have and that differ; those that concern most samples first."""
    if not all(run.has(catalog.EVALUATE_SLICES.path) for run in (a, b)):
        return []
    old, new = (_read_slices(run.open(catalog.EVALUATE_SLICES.path)) for run in (a, b))
    deltas = [
        SliceDelta(*key, num_a=old[key][0], num_b=new[key][0], accuracy_a=old[key][1], accuracy_b=new[key][1])
        for key in old
        if key in new
    ]
    moved = [one for one in deltas if one.accuracy_a != one.accuracy_b]
    return sorted(moved, key=lambda one: -abs(one.accuracy_b - one.accuracy_a) * min(one.num_a, one.num_b))


def _read_slices(path: Path) -> dict[tuple[str, str], tuple[int, float]]:
    """Samples and accuracy of every slice of a ``slices.csv``."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {(row["property"], row["value"]): (int(row["count"]), float(row["accuracy"])) for row in rows}


def _notes(
    a: Side, b: Side, *, name: str | None, values: tuple[float, float], causes_: Sequence[Cause]
) -> Iterator[str]:
    for side, value in zip((a, b), values, strict=True):
        path = metrics_of("evaluate").path
        if name is not None and side.run.has(path):
            stored = json.loads(side.run.open(path).read_text(encoding="utf-8")).get(name)
            if stored is not None and abs(stored - value) > TOLERANCE:
                yield (
                    f"{side.run.name} reports {name} {stored:.6g}, its predictions give {value:.6g}: it was "
                    f"measured by other code than this"
                )
    if not causes_ and values[0] != values[1]:
        yield "Nothing on record differs, and yet the numbers do: device, drivers or a library outside the list."
    if not all(side.run.libraries for side in (a, b)):
        yield "Versions of the libraries are on record only for runs of a flow, so they were not compared."
    for side in (a, b):
        unknown = [stage for stage, code in side.run.code.items() if not code.digest and not code.files]
        if unknown:
            yield f"{side.run.name}: the code of {', '.join(unknown)} is not on record, so it was not compared."
