"""Ingests that follow one another, as they do in a workspace, and the one that remembers nothing beside each."""

import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from datamill.stage import Metrics
from tasks.ingest import STAGE
from tests.datamill.sources.drain import make_params
from tests.fakes import InlineEngine, make_context

T = TypeVar("T")
R = TypeVar("R")


class TravellingEngine(InlineEngine):
    """Sends functions, items and results through pickle, as they go to other processes and back."""

    def map(
        self, function: Callable[[T], R], items: Iterable[T], *, total: int | None = None, is_lockless: bool = False
    ) -> Iterator[R]:
        """Each result when it is asked for."""
        for item in items:
            self.num_items += 1
            function, there = pickle.loads(pickle.dumps((function, item)))
            yield pickle.loads(pickle.dumps(function(there)))


class Workspace:
    """Remembers what was ingested last."""

    def __init__(
        self,
        folder: Path,
        source: Mapping[str, Any],
        *,
        engine: InlineEngine | None = None,
        num_workers: int = 1,
    ) -> None:
        """Nothing was ingested yet."""
        self.folder = folder
        self.params = make_params(source)
        self.engine = engine or InlineEngine()
        self.num_workers = num_workers
        self.outputs: dict[str, Path] = {}
        self._num_runs = 0

    def ingest(self) -> Metrics:
        """Ingest with the journal and the outputs of the last time."""
        self._num_runs += 1
        outputs = self._outputs(f"run-{self._num_runs}")
        context = make_context(self.folder, previous=self.outputs, engine=self.engine)
        context = replace(context, num_workers=self.num_workers)
        metrics = STAGE.run(**outputs, params=self.params, context=context)
        self.outputs = outputs
        return metrics

    def content(self) -> dict[str, bytes]:
        """Every byte of the last outputs, by file."""
        return _content(self.outputs)

    def fresh_content(self) -> dict[str, bytes]:
        """What the outputs are when nothing is remembered."""
        outputs = self._outputs(f"fresh-{self._num_runs}")
        STAGE.run(**outputs, params=self.params, context=make_context(self.folder / f"nothing-{self._num_runs}"))
        return _content(outputs)

    def _outputs(self, name: str) -> dict[str, Path]:
        return {"samples": self.folder / name / "samples", "rejects": self.folder / name / "rejects.parquet"}


def _content(outputs: Mapping[str, Path]) -> dict[str, bytes]:
    paths = [*sorted(outputs["samples"].iterdir()), outputs["rejects"]]
    return {path.name: path.read_bytes() for path in paths}
