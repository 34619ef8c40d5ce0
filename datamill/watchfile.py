"""``watch.yaml``: how the model is watched; apart from ``params.yaml``, so that a new threshold trains nothing anew."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from ruamel.yaml.error import YAMLError

from datamill import config
from datamill.errors import ParamsError
from datamill.stage import Params

WATCH_FILE = "watch.yaml"

P = TypeVar("P", bound=Params)


@dataclass(frozen=True)
class _Section:
    name: str
    params: type[Params]


def load_section(root: Path, name: str, params: type[P]) -> P:
    """The checked section ``name`` of ``watch.yaml``; the other sections are not looked at.

    Raises:
        ParamsError: The file or the section is missing, or a value is wrong; lists every fault at once.
    """
    sections = read_sections(root)
    section = _Section(name, params)
    path = root / WATCH_FILE
    return cast(P, config.check_params(sections, stages=[section], path=path, others=list(sections))[name])


def read_sections(root: Path) -> dict[str, Any]:
    """Every section of ``watch.yaml`` as plain data, unchecked.

    Raises:
        ParamsError: The file is missing, is no YAML, or is no mapping.
    """
    path = root / WATCH_FILE
    try:
        sections = config.parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ParamsError(
            f"{path} is missing; it says how the model is watched, and `datamill init` writes one"
        ) from error
    except YAMLError as error:
        raise ParamsError(f"{path} is not valid YAML; look at its line {_line(error)}") from error
    if not isinstance(sections, dict):
        raise ParamsError(f"{path} must hold sections, found {type(sections).__name__}")
    return sections


def _line(error: YAMLError) -> int:
    """Where a text is no YAML; its words are not shown, because a secret may stand among them."""
    mark = getattr(error, "problem_mark", None)
    return mark.line + 1 if mark else 1
