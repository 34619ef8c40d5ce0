"""Differences of parameters, code and libraries, and which of them provably changed nothing that is measured."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

from datamill import catalog, config
from datamill.lineage.causes import Cause, Kind, nobody, union
from datamill.lineage.pairing import ALONE, Pairs
from datamill.lineage.roster import ledgers
from datamill.lineage.runs import Run
from datamill.stage import Stage

MAX_NAMED = 4
MAX_CHARS = 80  # of a parameter's value
MEASURES = "evaluate"  # its parameters shape its reports; the number is computed from the predictions, alike for both
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Reach:
    """What the parameters or the code of one stage can have touched.

    Attributes:
        is_none: Provably nothing that is measured: none of its results that lead there differs, or none leads there.
        is_everywhere: Every sample, for all that is known.
        rows_a: Otherwise these, places in A.
        rows_b: And these, places in B.
    """

    is_none: bool = False
    is_everywhere: bool = False
    rows_a: Rows = field(default_factory=nobody)
    rows_b: Rows = field(default_factory=nobody)


def leading(stages: Sequence[Stage]) -> dict[str, set[str]]:
    """Paths of the outputs that lead to the predictions, by the stage that writes them."""
    wanted = {catalog.EVALUATE_PREDICTIONS.path}
    found: dict[str, set[str]] = {}
    for stage in reversed(stages):
        mine = {artifact.path for artifact in stage.outputs.values()} & wanted
        if mine:
            found[stage.name] = mine
            wanted |= {artifact.path for artifact in stage.inputs.values()}
    return found


def setting_changes(
    a: Run, b: Run, *, stages: Sequence[Stage], pairs: Pairs, origins: Mapping[str, Rows], sources: Sequence[Cause]
) -> tuple[list[Cause], list[str]]:
    """Causes among parameters, code and libraries, and one line for each difference that changed nothing.

    Args:
        a: The run before.
        b: The run after.
        stages: All stages.
        pairs: Who is who.
        origins: By stage, samples of A about which it began to decide otherwise.
        sources: What became of the source's rows; the first stage's settings may be behind it.
    """
    leads, declared = leading(stages), {stage.name: stage for stage in stages}

    @cache  # the digests of a workspace without a lock file are computed, and that takes a while
    def reach(name: str) -> Reach:
        differing = {path for path in leads.get(name, ()) if a.digest(path) is None or a.digest(path) != b.digest(path)}
        return _reach(declared[name], differing=differing, pairs=pairs, own=origins.get(name), sources=sources)

    found: list[Cause] = []
    idle: list[str] = []
    for stage in stages:
        lines = list(_parameters(a, b, stage=stage.name))
        if lines and (stage.name == MEASURES or reach(stage.name).is_none):
            idle += [f"parameter {line}" for line in lines]
        elif lines:
            title, detail = _headline(lines)
            found.append(_cause("parameters", title, detail, [reach(stage.name)]))
    for files, names in _code(a, b, stages=stages).items():
        alive = [reach(name) for name in names if not reach(name).is_none]
        title, detail = _headline(list(files))
        told = f"code {title} (reached by {_some(names)})"
        if alive:
            found.append(_cause("code", told, detail, alive))
        else:
            idle.append(told)
    libraries = parameter_changes(a.libraries, b.libraries) if a.libraries and b.libraries else []
    if libraries:
        found.append(Cause("libraries", f"versions {', '.join(libraries)}", is_everywhere=True))
    return found, idle


def parameter_changes(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """One line per parameter that differs: ``peak_lr 0.004 -> 0.001``."""
    names = dict.fromkeys([*old, *new])
    return [
        f"{name} {_value(old, name)} -> {_value(new, name)}"
        for name in names
        if (name in old, old.get(name)) != (name in new, new.get(name))
    ]


def changed_files(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Files that differ, each with what became of it."""
    names = sorted({*old, *new})
    words = {(True, False): "new", (False, True): "gone"}
    return [
        f"{name}{f' ({words[name not in old, name not in new]})' if name not in old or name not in new else ''}"
        for name in names
        if (name in old, old.get(name)) != (name in new, new.get(name))
    ]


def _reach(stage: Stage, *, differing: set[str], pairs: Pairs, own: Rows | None, sources: Sequence[Cause]) -> Reach:
    """What a change of the stage can have touched, told from the leading outputs that differ."""
    if not differing:
        return Reach(is_none=True)
    if not stage.inputs and sources:  # what it made of the source cannot be told from what the source became
        rows_a, rows_b = (union(rows) for rows in zip(*((one.rows_a, one.rows_b) for one in sources), strict=True))
        return Reach(rows_a=rows_a, rows_b=rows_b)
    is_all_told = differing <= set(ledgers([stage]).values())  # what it decides is all that it gives
    if own is None or not (len(own) or is_all_told):
        return Reach(is_everywhere=True)
    partners = pairs.of_a[own]
    return Reach(rows_a=own, rows_b=partners[partners != ALONE])


def _cause(kind: Kind, title: str, detail: str, reaches: Sequence[Reach]) -> Cause:
    rows_a, rows_b = union(one.rows_a for one in reaches), union(one.rows_b for one in reaches)
    return Cause(kind, title, detail, rows_a, rows_b, any(one.is_everywhere for one in reaches))


def _parameters(a: Run, b: Run, *, stage: str) -> Iterator[str]:
    old, new = (config.flatten(run.params.get(stage) or {}, prefix=stage) for run in (a, b))
    yield from parameter_changes(old, new)


def _code(a: Run, b: Run, *, stages: Sequence[Stage]) -> dict[tuple[str, ...], list[str]]:
    """Files that differ, grouped by the stages that reach them."""
    reached: dict[str, list[str]] = {}
    for stage in stages:
        old, new = a.code[stage.name], b.code[stage.name]
        if old.same_as(new) is False:
            named = changed_files(old.files, new.files) if old.files and new.files else []
            for file in named or [
                f"of {stage.name} (digest {old.digest[:8]} -> {new.digest[:8]}; files not on record)"
            ]:
                reached.setdefault(file, []).append(stage.name)
    grouped: dict[tuple[str, ...], list[str]] = {}
    for file, names in reached.items():
        grouped.setdefault(tuple(names), []).append(file)
    return {tuple(names): list(key) for key, names in grouped.items()}


def _headline(lines: Sequence[str]) -> tuple[str, str]:
    """The first lines as a title, the others as the detail."""
    more = lines[MAX_NAMED:]
    return ", ".join(lines[:MAX_NAMED]) + (f" and {len(more)} more" if more else ""), ", ".join(more)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= MAX_NAMED else f"{names[0]} and {len(names) - 1} later stages"


def _value(values: Mapping[str, object], name: str) -> str:
    text = str(values[name]) if name in values else "unset"
    return text if len(text) <= MAX_CHARS else f"{text[: MAX_CHARS - 1]}…"
