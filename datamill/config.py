"""``params.yaml``: read, checked as a whole before any work, and changed by the command line."""

import difflib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from datamill import files
from datamill.errors import ParamsError
from datamill.stage import Params, Stage

PARAMS_FILE = "params.yaml"
CREDENTIALS = re.compile(r"(?<=://)\S*@")  # of an address, also one written wrongly; no message repeats them


class Section(Protocol):
    """A section of a file of parameters: a stage's, or one that says how the model is watched."""

    @property
    def name(self) -> str:
        """Its key in the file."""

    @property
    def params(self) -> type[Params]:
        """What it must hold."""


def read_params(root: Path) -> dict[str, Any]:
    """The sections of ``params.yaml`` as plain data.

    Raises:
        ParamsError: The file is missing, is no YAML, or is no mapping.
    """
    path = root / PARAMS_FILE
    try:
        sections = parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ParamsError(f"{path} is missing; `datamill init` makes a workspace with one") from error
    except YAMLError as error:
        raise ParamsError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(sections, dict):
        raise ParamsError(f"{path} must hold one section per stage, found {type(sections).__name__}")
    return sections


def parse_yaml(text: str) -> Any:
    """Plain data of a YAML 1.2 text, as DVC reads it: ``off`` and ``no`` are words, not false.

    Raises:
        YAMLError: The text is no YAML.
    """
    return YAML(typ="safe", pure=True).load(text)


def load_params(stages: Iterable[Stage], *, root: Path, others: Iterable[str] = ()) -> dict[str, Params]:
    """The checked parameters of every stage, by stage name; sections of ``others`` may stand there unchecked.

    Raises:
        ParamsError: Lists every fault of every section at once.
    """
    return check_params(read_params(root), stages=stages, path=root / PARAMS_FILE, others=others)


def set_params(assignments: Iterable[str], *, stages: Iterable[Stage], root: Path) -> list[str]:
    """Change values in ``params.yaml``, comments kept; a wrong value changes nothing.

    Args:
        assignments: Each ``section.key=value``, the value in YAML.
        stages: All stages; the changed file is checked against them.
        root: The workspace.

    Returns:
        One line per value that differs: ``train.epochs: 30 -> 3``.

    Raises:
        ParamsError: An assignment is malformed, names no parameter, or gives a value out of bounds.
    """
    path = root / PARAMS_FILE
    editor = YAML()
    editor.preserve_quotes = True
    editor.width = 120
    document = editor.load(path.read_text(encoding="utf-8"))
    changes = [change for assignment in assignments if (change := _assign(document, assignment))]
    check_params(_plain(document), stages=stages, path=path)
    if changes:
        with files.atomic_write(path) as partial, partial.open("w", encoding="utf-8") as file:
            editor.dump(document, file)
    return changes


def check_params(
    sections: dict[str, Any], *, stages: Iterable[Section], path: Path, others: Iterable[str] = (), what: str = "stage"
) -> dict[str, Params]:
    """The checked parameters of every stage, or of whatever the sections are of; ``path`` is only named in errors.

    Raises:
        ParamsError: Lists every fault of every section at once.
    """
    stages = list(stages)
    names = [*(stage.name for stage in stages), *others]
    faults = [f"section {name!r} is no {what}{_nearest(name, names)}" for name in sections if name not in names]
    params: dict[str, Params] = {}
    for stage in stages:
        if stage.name not in sections:
            faults.append(f"section {stage.name!r} is missing")
            continue
        try:
            params[stage.name] = stage.params.model_validate(sections[stage.name])
        except ValidationError as error:
            faults += [_describe(stage, fault) for fault in error.errors()]
    if faults:
        raise ParamsError(f"{path}:\n" + "\n".join(f"  {fault}" for fault in faults))
    return params


def flatten(values: Any, *, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one level with dotted keys; lists stay whole."""
    if not isinstance(values, dict):
        return {prefix: values}
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, prefix=f"{prefix}.{key}" if prefix else str(key))
    return flat


def _assign(document: Any, assignment: str) -> str | None:
    key, equals, text = assignment.partition("=")
    place = document
    *sections, last = key.split(".")
    for section in sections:
        place = place.get(section) if isinstance(place, dict) else None
    if not equals or not isinstance(place, dict) or last not in place:
        known = flatten(_plain(document))
        raise ParamsError(f"--set {assignment}: use section.key=value with a key of params.yaml{_nearest(key, known)}")
    value, before = parse_yaml(text), _plain(place[last])
    if value == before and type(value) is type(before):
        return None
    place[last] = value
    return f"{key}: {json.dumps(before)} -> {json.dumps(value)}"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else getattr(value, "value", value)


def _describe(stage: Section, fault: Any) -> str:
    place = ".".join([stage.name, *(str(part) for part in fault["loc"])])
    if fault["type"] == "extra_forbidden":
        known = _field_names(stage.params)
        return f"{place} is not a parameter{_nearest(str(fault['loc'][-1]), known)}"
    if fault["type"] == "missing":
        return f"{place} is missing"
    shown = CREDENTIALS.sub("", repr(fault["input"]))
    return f"{place} is {shown}: {fault['msg'][0].lower()}{fault['msg'][1:]}"


def _field_names(model: Any) -> list[str]:
    properties = [model.model_json_schema(), *model.model_json_schema().get("$defs", {}).values()]
    return sorted({name for schema in properties for name in schema.get("properties", {})})


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
