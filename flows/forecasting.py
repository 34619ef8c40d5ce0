"""What a run would do, told before it starts: which stages, why, how much of them, and roughly how long."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from datamill import catalog, config, durations, dvcfile, parts
from datamill.errors import DataError, StageError
from datamill.settings import STATE
from datamill.sources import IngestParams
from datamill.sources.changes import Changes, count_changes
from datamill.sources.journal import made_with
from datamill.stage import Stage
from tasks import PIPELINE, ingest

Verdict = Literal["runs", "may run", "up to date"]

SHOWN = 3  # names of changed things that are spelt out
CODE = ("datamill/", "tasks/")


@dataclass(frozen=True)
class Forecast:
    """What would become of one stage.

    Attributes:
        stage: Its name.
        verdict: ``may run`` where that depends on whether a stage before it gives something else.
        reasons: Why, in words.
        extent: How much of the data it would work on, in words.
        seconds: Roughly how long, judged by earlier runs here; ``None`` when there were none.
    """

    stage: str
    verdict: Verdict
    reasons: tuple[str, ...] = ()
    extent: str = ""
    seconds: float | None = None


def forecast(needs: Mapping[str, tuple[str, ...]], *, root: Path) -> list[Forecast]:
    """What a run of these stages would do; nothing is changed.

    Args:
        needs: The stages, and those that each of them needs.
        root: The workspace; its ``dvc.yaml`` is up to date.

    Raises:
        StageError: DVC could not tell what has changed.
    """
    status = _status(root)
    locked = _locked_params(root)
    found: dict[str, Forecast] = {}
    for stage in PIPELINE:
        if stage.name in needs:
            before = [found[name] for name in needs[stage.name] if name in found]
            reasons = tuple(_reasons(stage, status.get(stage.name, []), locked=locked, root=root))
            found[stage.name] = _judge(stage, before=before, reasons=reasons, root=root)
    return list(found.values())


def settled(needs: Mapping[str, tuple[str, ...]], *, root: Path) -> set[str]:
    """Those of these stages that are up to date, asked of DVC at once; none where it cannot tell now."""
    try:
        return {one.stage for one in forecast(needs, root=root) if one.verdict == "up to date"}
    except StageError:
        return set()


def _judge(stage: Stage, *, before: Sequence[Forecast], reasons: tuple[str, ...], root: Path) -> Forecast:
    moving = [one.stage for one in before if one.verdict != "up to date"]
    if not reasons and not moving:
        return Forecast(stage.name, "up to date")
    known = durations.recall(stage.name, state=root / STATE)
    is_other = any(reason.startswith(("code", "parameters", "never", "command")) for reason in reasons)
    if reasons:
        seconds = None if known is None else known.slowest_s if is_other else known.latest_s
        return Forecast(stage.name, "runs", reasons, _extent(stage, is_other=is_other, root=root), seconds)
    why = (f"if {_some(moving)} give{'s' * (len(moving) == 1)} something else",)
    seconds = known.latest_s if known else None
    return Forecast(stage.name, "may run", why, _extent(stage, is_other=False, root=root), seconds)


def _extent(stage: Stage, *, is_other: bool, root: Path) -> str:
    if stage is ingest.STAGE and (changes := _changes(root)) is not None:
        return str(changes)
    try:
        count = len(parts.read_manifest(root / catalog.INGEST_SAMPLES.path).parts)
    except DataError:
        return "all samples"
    told = f"{count} part{'s' * (count != 1)}"
    return f"changed parts of {told}" if stage.by_part and not is_other else f"all {told}"


def _changes(root: Path) -> Changes | None:
    """What has become of the source's items; ``None`` where that is not known before they are read."""
    params = config.load_params([ingest.STAGE], root=root, others=[one.name for one in PIPELINE])["ingest"]
    assert isinstance(params, IngestParams)
    try:
        with contextlib.chdir(root):
            return count_changes(
                params,
                state=root / STATE / "state" / "ingest",
                made_with=made_with(params, module=ingest.STAGE.module),
                samples=root / catalog.INGEST_SAMPLES.path,
            )
    except DataError:
        return None  # ingest will say what is wrong


def _status(root: Path) -> dict[str, list[Any]]:
    """What DVC says has changed, by stage."""
    command = [sys.executable, "-m", "dvc", "status", "--json"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StageError(f"`dvc status` failed: {done.stderr.strip()[-500:]}")
    status: dict[str, list[Any]] = json.loads(done.stdout or "{}")
    return status


def _locked_params(root: Path) -> dict[str, Any]:
    """Parameters of each stage's last run, as ``dvc.lock`` keeps them."""
    stages = dvcfile.read_lock(root)
    return {name: entry.get("params", {}).get(config.PARAMS_FILE, {}).get(name) for name, entry in stages.items()}


def _reasons(stage: Stage, changes: Sequence[Any], *, locked: Mapping[str, Any], root: Path) -> Iterator[str]:
    if stage.name not in locked:
        yield "never ran here"
        return
    made = {artifact.path for one in PIPELINE for artifact in one.outputs.values()}
    deps: dict[str, Any] = {}
    for change in changes:
        if change == "changed command":
            yield "command changed"
        elif isinstance(change, dict):
            deps |= change.get("changed deps", {})
            outs = change.get("changed outs", {})
            if outs:
                yield f"outputs {_some(list(outs))} {_one_state(outs.values())}"
    if config.PARAMS_FILE in deps:
        yield f"parameters {_some(list(_changed_params(stage, locked[stage.name], root=root)))}"
    code = [path for path in deps if path.startswith(CODE)]
    if code or dvcfile.OBSERVED in deps:
        yield f"code changed{': ' + _some(code) if code else ''}"
    inputs = [path for path in deps if path in made]
    if inputs:
        yield f"inputs {_some(inputs)} {_one_state(deps[path] for path in inputs)}"
    sources = [path for path in deps if path not in made and path not in code and path not in _KNOWN]
    if sources:
        yield f"source {_some(sources)} {_one_state(deps[path] for path in sources)}"


_KNOWN = (config.PARAMS_FILE, dvcfile.OBSERVED)


def _changed_params(stage: Stage, before: Any, *, root: Path) -> Iterator[str]:
    now = config.load_params([stage], root=root, others=[one.name for one in PIPELINE])[stage.name]
    old, new = config.flatten(before or {}), config.flatten(now.model_dump(mode="json"))
    for name in dict.fromkeys([*old, *new]):
        if old.get(name) != new.get(name):
            yield f"{name} {old.get(name, 'unset')} -> {new.get(name, 'unset')}"


def _one_state(states: Any) -> str:
    words = {"modified": "changed", "deleted": "are missing here", "new": "are new"}
    return ", ".join(dict.fromkeys(words.get(str(state), str(state)) for state in states))


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
