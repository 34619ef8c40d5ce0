"""``watch.yaml``: how the model is watched. Apart from ``params.yaml``, so that a changed threshold trains nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ruamel.yaml.error import YAMLError

from datamill import config
from datamill.drift.params import DriftParams
from datamill.errors import ParamsError
from datamill.monitoring.params import SourceParams
from datamill.stage import Params

WATCH_FILE = "watch.yaml"

P = TypeVar("P", bound=Params)


@dataclass(frozen=True)
class WatchSection:
    """A section of ``watch.yaml`` and the package that owns it."""

    name: str
    params: type[Params]


SECTIONS = (
    WatchSection("source", SourceParams),
    WatchSection("drift", DriftParams),
)


@dataclass(frozen=True)
class WatchParams:
    """The checked sections of ``watch.yaml``."""

    sections: Mapping[str, Params]

    def of(self, params: type[P]) -> P:
        """The section that holds these parameters."""
        return next(section for section in self.sections.values() if isinstance(section, params))


def load_watch(root: Path) -> WatchParams:
    """Every section of ``watch.yaml``, checked as a whole before any work.

    Raises:
        ParamsError: The file is missing or no YAML; or lists every fault of every section at once.
    """
    path = root / WATCH_FILE
    try:
        sections = config.parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ParamsError(f"{path} is missing: it says how the model is watched; `datamill init` writes one") from error
    except YAMLError as error:
        raise ParamsError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(sections, dict):
        raise ParamsError(f"{path} must hold the sections {_names()}, found {type(sections).__name__}")
    return WatchParams(config.check_params(sections, stages=SECTIONS, path=path, what="section of watch.yaml"))


def _names() -> str:
    return ", ".join(section.name for section in SECTIONS)
