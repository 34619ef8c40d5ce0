"""The whole pipeline, run stage by stage in this process: small, real, without DVC."""

import json
from pathlib import Path

import pytest

from datamill import files, ledger
from datamill.execute import execute
from datamill.settings import Settings
from datamill.tracing import find_sample, story
from tasks import PIPELINE
from tests.pipeline.conftest import make_workspace


def listing(root: Path) -> set[str]:
    return {
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.is_file() and ".datamill" not in path.parts
    }


def covers(declared: set[str], path: str) -> bool:
    return any(path == one or path.startswith(f"{one}/") for one in declared)


def run_all(root: Path, *, num_workers: int) -> dict[str, str]:
    """Run every stage; returns the hash of each file that is not a measurement. Checks what each stage writes."""
    settings = Settings(tracking="off", num_threads=1, num_workers=num_workers, device="cpu")
    for stage in PIPELINE:
        before = listing(root)
        execute(stage, root=root, pipeline=PIPELINE, settings=settings)
        declared = {artifact.path for artifact in (*stage.outputs.values(), stage.metrics)}
        undeclared = {path for path in listing(root) - before if not covers(declared, path)}
        assert not undeclared, f"{stage.name} wrote {sorted(undeclared)[:5]} without declaring it"
    measured = {artifact.path for stage in PIPELINE for artifact in stage.outputs.values() if artifact.measured}
    kept = [path for path in sorted(listing(root)) if path.startswith(("data/", "models/", "reports/"))]
    return {path: files.sha256_file(root / path) for path in kept if not covers(measured, path)}


@pytest.mark.parametrize("example", ["digits", "breast-cancer"])
def test_equal_parameters_give_equal_bytes_whatever_the_workers(tmp_path, example):
    first = run_all(make_workspace(tmp_path / "one", example=example), num_workers=1)
    second = run_all(make_workspace(tmp_path / "two", example=example), num_workers=2)
    differing = [path for path in first if second.get(path) != first[path]]
    assert differing == []
    assert set(first) == set(second)
    check_story(tmp_path / "one")
    check_conservation(tmp_path / "one")


def check_story(root: Path) -> None:
    """Any sample of the shards can be told from its source to its row."""
    sample_id = ledger.survivors(root / "data/shard/ledger.parquet")[0]
    assert find_sample(sample_id[:12], stages=PIPELINE, root=root) == sample_id
    told = [chapter.stage for chapter in story(sample_id, stages=PIPELINE, root=root)]
    assert [name for name in told if name != "extract"][:5] == ["ingest", "validate", "clean", "split", "audit"]
    assert "shard" in told


def check_conservation(root: Path) -> None:
    """Source rows plus generated rows, less what each stage dropped, is what the shards hold."""
    ingested = json.loads((root / "reports/ingest.json").read_text())
    assert ingested["num_items"] == ingested["num_samples"] + ingested["num_rejects"]
    lost = 0
    for name in ("validate/verdicts", "clean/ledger", "split/assignments", "audit/ledger"):
        counts = ledger.count(root / f"data/{name}.parquet")
        lost += counts["dropped"] + counts["quarantined"]
    plan = ledger.count(root / "data/balance/plan.parquet")
    generated = plan["in"] - (ingested["num_samples"] - lost)
    assert generated >= 0
    assert ledger.count(root / "data/shard/ledger.parquet")["kept"] == plan["in"] - plan["dropped"]
