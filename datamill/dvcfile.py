"""``dvc.yaml``, rendered from the declared stages; DVC decides from it what is up to date.

Code enters in one of two ways. Inside the checkout each stage depends on the files it can import. In a workspace of
its own, datamill's code lies elsewhere, so a first stage ``observe`` writes a digest of each stage's code (and the
state of a remote source, which DVC cannot hash) into ``.datamill/observed.yaml``, and stages depend on their digest as
on a parameter.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import yaml

from datamill import files, imports
from datamill.errors import StageError
from datamill.stage import Artifact, Stage

DVC_FILE = "dvc.yaml"
LOCK_FILE = "dvc.lock"
OBSERVED = ".datamill/observed.yaml"
HEADER = "# Rendered from the declared stages (tasks/); do not edit: `python -m tasks render` writes it again.\n"


def render(pipeline: Sequence[Stage], *, root: Path, sources: Sequence[str] = (), remote: bool = False) -> str:
    """The text of ``dvc.yaml`` for the workspace ``root``.

    Args:
        pipeline: The stages in order.
        root: The workspace; decides how code enters.
        sources: Local files and folders that the first stage reads.
        remote: Whether the first stage reads a remote source, whose state must be observed.
    """
    inside = _is_inside(pipeline[0], root=root)
    stages: dict[str, Any] = {}
    if remote or not inside:
        stages["observe"] = {
            "cmd": "python -m tasks observe",
            "desc": "Observe what DVC cannot hash: code outside the workspace, remote sources.",
            "always_changed": True,
            "outs": [{OBSERVED: {"cache": False, "persist": True}}],
        }
    for number, stage in enumerate(pipeline):
        first = number == 0
        code = [_relative(file, root=root) for file in imports.closure(stage.module)] if inside else []
        observed = [f"code.{stage.name}"] * (not inside) + ["source"] * (first and remote)
        stages[stage.name] = _entry(stage, code=code, observed=observed, sources=sources if first else ())
    return HEADER + yaml.safe_dump({"stages": stages}, sort_keys=False, width=120)


def write(text: str, *, root: Path) -> bool:
    """Store a rendered ``dvc.yaml``; returns whether it differed from what was there."""
    path = root / DVC_FILE
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    with files.atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return True


def read_lock(root: Path) -> dict[str, Any]:
    """The entries of ``dvc.lock`` by stage; none before DVC has written it."""
    path = root / LOCK_FILE
    return parse_lock(path.read_text(encoding="utf-8")) if path.is_file() else {}


def parse_lock(text: str) -> dict[str, Any]:
    """The entries of the text of a ``dvc.lock``, by stage."""
    content = yaml.load(text, _LockLoader)  # noqa: S506 - a safe one
    return dict((content or {}).get("stages", {}))


class _LockLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The loader in C, which takes a tenth of the time, with the booleans of YAML 1.2, in which DVC writes."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":bool")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_LockLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|false)$"), ["t", "f"])


def check(text: str, *, root: Path) -> None:
    """Refuse a ``dvc.yaml`` that is not ``text``.

    Raises:
        StageError: It is missing or differs; says how to renew it.
    """
    path = root / DVC_FILE
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        raise StageError(
            f"{path} does not fit the declared stages and params.yaml; "
            "`datamill run` renews it, and so does `python -m tasks render`"
        )


def observe(pipeline: Sequence[Stage], *, root: Path, source: str) -> None:
    """Write ``OBSERVED``: the digest of each stage's code and the state of the remote source (empty when local)."""
    code = {stage.name: imports.digest(stage.module) for stage in pipeline}
    path = root / OBSERVED
    with files.atomic_write(path) as partial:
        partial.write_text(yaml.safe_dump({"code": code, "source": source}, sort_keys=False), encoding="utf-8")


def _entry(stage: Stage, *, code: Sequence[str], observed: Sequence[str], sources: Sequence[str]) -> dict[str, Any]:
    inputs = [artifact.path for artifact in stage.inputs.values() if not artifact.measured]
    entry: dict[str, Any] = {"cmd": f"python -m tasks {stage.name}", "desc": stage.summary}
    entry["deps"] = [*inputs, *sources, *code]
    entry["params"] = [stage.name, *([{OBSERVED: list(observed)}] if observed else [])]
    outputs = [artifact for artifact in stage.outputs.values() if not artifact.measured]
    entry["outs"] = [{one.path: _options(one)} for one in outputs if one.plot is None]
    plots = [{one.path: {**_options(one), **_drawn(one)}} for one in outputs if one.plot is not None]
    if plots:
        entry["plots"] = plots
    entry["metrics"] = [{stage.metrics.path: _options(stage.metrics)}]
    return {key: value for key, value in entry.items() if value}


def _options(artifact: Artifact) -> Mapping[str, bool]:
    # persist: DVC must not delete an output before the stage runs, so that a failed stage leaves the previous one
    return {"cache": False, "persist": True} if artifact.in_git else {"persist": True}


def _drawn(artifact: Artifact) -> Mapping[str, str]:
    assert artifact.plot is not None
    options = {"x": artifact.plot.x, "y": artifact.plot.y, "template": artifact.plot.template}
    return {key: value for key, value in options.items() if value is not None}


def _is_inside(stage: Stage, *, root: Path) -> bool:
    file = imports.module_file(stage.module)
    return file is not None and file.resolve().is_relative_to(root.resolve())


def _relative(file: Path, *, root: Path) -> str:
    return file.resolve().relative_to(root.resolve()).as_posix()
