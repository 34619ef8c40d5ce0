"""All of ``watch.yaml``, checked as a whole before any work; each section is declared in the package that owns it."""

import glob
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from datamill import config
from datamill.alerts.params import AlertParams
from datamill.drift.params import DriftParams
from datamill.errors import DataError
from datamill.monitoring.params import SourceParams
from datamill.promotion.params import PromoteParams
from datamill.retraining.params import RetrainParams
from datamill.stage import Params
from datamill.watchfile import WATCH_FILE, read_sections

P = TypeVar("P", bound=Params)


@dataclass(frozen=True)
class WatchSection:
    """A section of ``watch.yaml``."""

    name: str
    params: type[Params]


SECTIONS = (
    WatchSection("source", SourceParams),
    WatchSection("drift", DriftParams),
    WatchSection("alerts", AlertParams),
    WatchSection("retrain", RetrainParams),
    WatchSection("promote", PromoteParams),
)


@dataclass(frozen=True)
class WatchParams:
    """The checked sections of ``watch.yaml``."""

    sections: Mapping[str, Params]

    def of(self, params: type[P]) -> P:
        """The section that holds these parameters."""
        return next(section for section in self.sections.values() if isinstance(section, params))


def absent(url: str) -> DataError:
    """What to say of a source that is not there."""
    return DataError(f"{url} does not exist; make it, or correct source.data.path in {WATCH_FILE}")


def require_source(params: SourceParams, *, root: Path, source: str | None = None) -> None:
    """Pass unless the watched folder or file, ``source`` or the one of ``params``, is local and not there.

    Raises:
        DataError: Naming it.
    """
    path = source or getattr(params.data, "path", None)
    if path and "://" not in path and not glob.has_magic(path) and not (root / path).exists():
        raise absent(path)


def load_watch(root: Path) -> WatchParams:
    """Every section of ``watch.yaml``.

    Raises:
        ParamsError: The file is missing or no YAML; or lists every fault of every section at once.
    """
    path = root / WATCH_FILE
    return WatchParams(
        config.check_params(read_sections(root), stages=SECTIONS, path=path, what=f"part of {WATCH_FILE}")
    )
