"""Gathers the evidence about a candidate and the champion, and has the kernel judge it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from datamill import catalog
from datamill.errors import DataError, StageError
from datamill.execute import dvc_digest
from datamill.promotion import champions, history
from datamill.promotion.decision import decide
from datamill.promotion.evidence import Evidence, Slicing, read_answers, summary
from datamill.promotion.params import PromoteParams
from datamill.promotion.reasons import Decision, Reason
from datamill.settings import Settings

DATA = (catalog.INGEST_SAMPLES, catalog.SPLIT_ASSIGNMENTS, catalog.SHARD_SHARDS)


def judge(
    root: Path, *, folder: Path, version: str, entries: Sequence[history.Entry], policy: PromoteParams
) -> tuple[Decision, dict[str, Any]]:
    """What the kernel says of a candidate, and the candidate's evidence as it goes on record.

    Where there should be a champion and its files are not here, or damaged, nothing is compared and nothing promoted.

    Args:
        root: The workspace.
        folder: The candidate's files.
        version: The candidate's version.
        entries: The history.
        policy: What a challenger must show.

    Raises:
        StageError: The predictions are of other data than the workspace holds.
        DataError: The candidate's files do not belong together.
    """
    from datamill.promotion.racing import race  # onnxruntime
    from datamill.promotion.recent import read_shadow

    num_threads = Settings.from_environment().num_threads
    missing = _missing_champion(root, on_record=history.champion(entries))
    champion = None if missing else champions.champion_folder(root)
    latencies = race([folder] if champion is None else [folder, champion], num_threads=num_threads)
    challenger = _read_challenger(root, folder=folder, version=version, latency_ms=latencies[0])
    if missing:
        return Decision(False, (missing,)), summary(challenger)
    if champion is None:
        return decide(None, challenger, policy=policy), summary(challenger)
    before = _read_evidence(champion, version=champion.name, latency_ms=latencies[1])
    shadow = read_shadow(root, champion=champion, challenger=folder, limits=policy.shadow, num_threads=num_threads)
    return decide(before, challenger, policy=policy, shadow=shadow), summary(challenger)


def _missing_champion(root: Path, *, on_record: str | None) -> Reason | None:
    """Why the champion cannot be compared with; ``None`` when it can, or when there is none."""
    current = champions.current(root)
    needed = f"its folder in {champions.CHAMPIONS}, copied from where it was promoted; or a rollback; or --force"
    if on_record not in {None, current}:
        return Reason("champion", False, f"the champion on record, {on_record}, is not here", needed)
    try:
        if current is not None:
            champions.verify(root, version=current)
    except DataError as error:
        return Reason("champion", False, str(error), needed)
    return None


def _read_challenger(root: Path, *, folder: Path, version: str, latency_ms: float) -> Evidence:
    """A candidate's evidence, with the slices and the data of the workspace it was trained in."""
    evidence = _read_evidence(folder, version=version, latency_ms=latency_ms)
    groups, slicings = _read_slicings(root, evidence=evidence)
    digests = {one.path: found for one in DATA if (found := dvc_digest(one.path, root=root))}
    return replace(evidence, groups=groups, slicings=slicings, digests=digests)


def _read_evidence(folder: Path, *, version: str, latency_ms: float) -> Evidence:
    network = json.loads((folder / "network.json").read_text(encoding="utf-8"))
    ids, predictions = read_answers(folder / "predictions.parquet", classes=network["classes"])
    return Evidence(
        version=version,
        classes=tuple(network["classes"]),
        sample_ids=ids,
        predictions=predictions,
        size_bytes=(folder / "model.onnx").stat().st_size,
        latency_ms=latency_ms,
    )


def _read_slicings(root: Path, *, evidence: Evidence) -> tuple[tuple[str | None, ...], tuple[Slicing, ...]]:
    """Group of each test sample, and the ways to slice them beyond their class, as ``evaluate`` does."""
    from datamill.evaluation.slices import slicings
    from datamill.evaluation.traits import read_traits
    from datamill.progress import show_progress

    samples, repairs = (root / one.path for one in (catalog.INGEST_SAMPLES, catalog.CLEAN_REPAIRS))
    try:
        traits = read_traits(samples, repairs=repairs, ids=evidence.sample_ids, progress=show_progress)
    except KeyError as error:
        raise StageError(
            f"test sample {error} is not in {samples}, so the predictions are of other data; use `datamill run`"
        ) from error
    cuts = slicings(traits, labels=evidence.labels)
    return tuple(traits[0][1].to_pylist()), tuple((name, tuple(values)) for name, values in cuts if name != "class")
