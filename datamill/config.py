"""``params.yaml``: read, checked as a whole before any work, and changed by the command line."""

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, Protocol

import yaml
from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import CollectionNode

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
    document, text, changes = read_params(root), path.read_text(encoding="utf-8"), []
    for assignment in assignments:
        key, value = _parse_assignment(assignment, known=flatten(document, whole=True))
        *sections, last = key.split(".")
        place = reduce(dict.__getitem__, sections, document)
        if value != place[last] or type(value) is not type(place[last]):
            changes.append(f"{key}: {json.dumps(place[last])} -> {json.dumps(value)}")
            place[last] = value
            text = _replaced(text, key.split("."), value)
    check_params(document, stages=stages, path=path)
    if parse_yaml(text) != document:  # with `<<`, say
        raise ParamsError(f"{path} is written in a way that --set cannot change; edit it by hand")
    if changes:
        with files.atomic_write(path) as partial:
            partial.write_text(text, encoding="utf-8")
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
            faults += [_describe(stage, fault, section=sections[stage.name]) for fault in error.errors()]
    if faults:
        raise ParamsError(f"{path}:\n" + "\n".join(f"  {fault}" for fault in faults))
    return params


def flatten(values: Any, *, prefix: str = "", whole: bool = False) -> dict[str, Any]:
    """Nested mappings as one level with dotted keys; lists stay whole, and with ``whole`` mappings come as well."""
    if not isinstance(values, dict):
        return {prefix: values}
    flat: dict[str, Any] = {prefix: values} if whole and prefix else {}
    for key, value in values.items():
        flat |= flatten(value, prefix=f"{prefix}.{key}" if prefix else str(key), whole=whole)
    return flat


def _parse_assignment(assignment: str, *, known: Iterable[str]) -> tuple[str, Any]:
    key, equals, text = assignment.partition("=")
    if not equals or key not in (known := list(known)):
        raise ParamsError(f"--set {assignment}: use section.key=value with a key of params.yaml{_nearest(key, known)}")
    try:
        return key, parse_yaml(text)
    except YAMLError as error:
        raise ParamsError(f"--set {assignment}: {text!r} is no valid YAML; put quotes around it") from error


def _replaced(text: str, key: Sequence[str], value: Any) -> str:
    """The YAML ``text`` with another value at ``key``, in flow style; every other character stays."""
    node = label = YAML(typ="safe", pure=True).compose(text)
    for name in key:
        label, node = next((pair for pair in node.value if pair[0].value == name), (None, None))
        if label is None:  # the key comes from elsewhere, by `<<`
            return text
    colon = text.index(":", label.end_mark.index) + 1
    start, end = max(node.start_mark.index, colon), len(text[: _end(node)].rstrip())
    if node.start_mark.line > label.end_mark.line and end > start:  # a block below its key
        head, _, _ = text[colon:start].partition("\n")  # the comment beside the key
        _, newline, rest = text[end:].partition("\n")
        return f"{text[:colon]} {_flow(value)}{head}{newline}{rest}"
    if end <= start:  # nothing was written: null
        start = end = colon
    gap = "" if text[start - 1].isspace() else " "
    return f"{text[:start]}{gap}{_flow(value)}{text[end:]}"


def _end(node: Any) -> int:
    """Where a node's last character is: a block's own mark is at what follows it."""
    if isinstance(node, CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.index)


def _flow(value: Any) -> str:
    """A value in flow style, wherever it is put, and for readers of YAML 1.1 as well; ``off`` is the word we know."""
    if value == "off":
        return "off"
    listed = yaml.safe_dump([value], default_flow_style=True, width=2**16, allow_unicode=True, sort_keys=False)
    return listed.strip()[1:-1]


def _keys(fault: Any, *, section: Any) -> Iterator[str]:
    """Where a fault is, without the names of alternatives (a source's kind) that pydantic puts between the keys."""
    value = section
    for part in fault["loc"]:
        is_key = part in value if isinstance(value, dict) else isinstance(part, int)
        if is_key or (part == fault["loc"][-1] and fault["type"] in ("missing", "extra_forbidden")):
            yield str(part)
        value = value[part] if is_key and isinstance(value, dict | list) else value


def _describe(stage: Section, fault: Any, *, section: Any) -> str:
    place = ".".join([stage.name, *_keys(fault, section=section)])
    if fault["type"] == "extra_forbidden":
        known = _field_names(stage.params)
        return f"{place} is not a parameter{_nearest(str(fault['loc'][-1]), known)}"
    if fault["type"] == "missing":
        return f"{place} is missing"
    if fault["type"] in ("union_tag_invalid", "union_tag_not_found"):  # the whole section would be told otherwise
        key, known = fault["ctx"]["discriminator"].strip("'"), fault["ctx"].get("expected_tags", "")
        if not known:
            return f"{place}.{key} is missing"
        tag, names = fault["ctx"]["tag"], known.replace("'", "")
        return f"{place}.{key} is {tag!r}: it is one of {names}{_nearest(tag, names.split(', '))}"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "model_type":
        message = "should hold keys and values"
    shown = "" if isinstance(fault["input"], dict) else f" is {CREDENTIALS.sub('', repr(fault['input']))}"
    return f"{place}{shown}: {message[0].lower()}{message[1:]}"


def _field_names(model: Any) -> list[str]:
    properties = [model.model_json_schema(), *model.model_json_schema().get("$defs", {}).values()]
    return sorted({name for schema in properties for name in schema.get("properties", {})})


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
