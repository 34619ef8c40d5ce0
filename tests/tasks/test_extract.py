from pathlib import Path
from typing import Any

import pytest

from datamill import features
from tasks.extract import STAGE, ExtractParams
from tests.builders import image_table, tabular_table, write_parts
from tests.fakes import MemoryTracker, make_context


@pytest.mark.parametrize("builder", [image_table, tabular_table])
def test_metrics_are_the_same_whatever_was_taken_over(tmp_path: Path, builder: Any) -> None:
    samples = write_parts(tmp_path / "samples", *builder())
    trackers, metrics = [MemoryTracker(), MemoryTracker()], []
    for name, tracker in zip(("first", "second"), trackers, strict=True):
        previous = {"features": tmp_path / "first"} if name == "second" else {}
        context = make_context(tmp_path, tracker=tracker, previous=previous)
        metrics.append(STAGE.run(samples=samples, features=tmp_path / name, params=ExtractParams(), context=context))
    assert metrics == [{"samples": 64}] * 2
    assert [tracker.metrics[0][1] for tracker in trackers] == [
        {"linked": 0, "copied": 0, "looked_at": 64},
        {"linked": 64, "copied": 0, "looked_at": 0},
    ]
    assert features.read_manifest(tmp_path / "second").num_rows == 64
