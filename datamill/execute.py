"""Runs one stage: parameters checked, outputs whole or absent, every sample accounted for, the run tracked."""

import contextlib
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from datamill import config, durations, dvcfile, files, imports, progress
from datamill.errors import DatamillError, StageError
from datamill.lineage import codebase
from datamill.lineage.emitting import Teller
from datamill.settings import STATE, Settings
from datamill.stage import Artifact, Context, Metrics, Params, Stage
from datamill.tracking import Tracker, current_session, numbers

HEADLINES = 5  # numbers in the line at the end of a stage
SEALS = ("manifest.json", "index.json")  # files that hold the checksums of the folder they stand in


def execute(stage: Stage, *, root: Path, pipeline: Sequence[Stage], settings: Settings | None = None) -> Metrics:
    """Run ``stage`` in the workspace ``root`` and put its outputs in their places.

    Outputs are written beside their places and moved there at the end, so an error, a full disk or a kill leaves the
    previous ones as they were. The ledger must answer for every sample that came in.

    Args:
        stage: The stage to run.
        root: The workspace.
        pipeline: All stages; the parameters of all are checked before any work.
        settings: Where and how to run; from the environment by default.

    Returns:
        The stage's metrics, as stored in ``reports/<stage>.json``.

    Raises:
        ParamsError: A parameter of any stage is wrong.
        StageError: An input is missing, an output was not written, samples do not add up, or the disk refused.
        DataError: The data is not what was declared.
    """
    root = root.resolve()
    settings = settings or Settings.from_environment()
    params = config.load_params(pipeline, root=root)[stage.name]
    inputs = {port: root / artifact.path for port, artifact in stage.inputs.items()}
    _require(stage, inputs)
    names = tuple(one.name for one in pipeline)
    tracker = Tracker(root, settings, current_session(settings), stage.name, names)
    print(f"{stage.name}: {stage.summary}", flush=True)
    start = time.monotonic()
    tracker.start(params=config.flatten(params.model_dump(mode="json")))
    teller = Teller(stage, root=root, session=tracker.session)
    teller.start()
    try:
        with contextlib.chdir(root), FileLock(_state(root) / f"{stage.name}.lock"):
            metrics = _run(stage, root=root, params=params, inputs=inputs, settings=settings, tracker=tracker)
    except BaseException as error:
        tracker.finish(status="failed")
        teller.fail(error)
        if isinstance(error, OSError):
            raise StageError(f"{stage.name}: {error}; what was there before is untouched") from error
        raise
    seconds = time.monotonic() - start
    summary = numbers(config.flatten(metrics))
    tracker.log_metrics({**summary, "seconds": seconds})
    _log_artifacts(stage, root=root, tracker=tracker)
    tracker.finish(status="executed", summary={**summary, "seconds": seconds})
    teller.complete()
    durations.note(stage.name, seconds=seconds, state=_state(root))
    print(f"{stage.name}: done in {seconds:.1f} s{_headline(metrics)}", flush=True)
    return metrics


def _run(
    stage: Stage, *, root: Path, params: Params, inputs: Mapping[str, Path], settings: Settings, tracker: Tracker
) -> Metrics:
    finals = {port: root / artifact.path for port, artifact in stage.outputs.items()}
    partials = {port: files.partial_path(path) for port, path in finals.items()}
    scratch = _scratch(stage, root=root, params=params, inputs=inputs) if stage.wants_context else None
    previous = {port: path for port, path in finals.items() if path.exists()}
    extra = (
        {}
        if scratch is None
        else {
            "context": _context(
                settings,
                scratch=scratch,
                state=_state(root) / "state" / stage.name,
                previous=previous,
                tracker=tracker,
            )
        }
    )
    evidence = _state(root) / "failed" / stage.name
    files.remove(evidence)
    try:
        for partial in partials.values():
            partial.parent.mkdir(parents=True, exist_ok=True)
            files.remove(partial)
        metrics = stage.run(**inputs, **partials, params=params, **extra)
        _require_written(stage, partials)
        _check_account(stage, inputs=inputs, outputs=partials)
        for path in finals.values():
            files.publish(path)
        files.write_json(root / stage.metrics.path, metrics)
        codebase.note(stage, root=root)
    except StageError as error:
        if not _keep_evidence(stage, partials, folder=evidence):
            raise
        raise StageError(f"{error}\nWhat it found is in {evidence.relative_to(root)}.") from error
    finally:
        for partial in partials.values():
            files.remove(partial)
    if scratch is not None:
        files.remove(scratch.parent)
    return metrics


def _keep_evidence(stage: Stage, partials: Mapping[str, Path], *, folder: Path) -> bool:
    """Keep the reports a failed stage had written, and say whether there were any; its data is thrown away."""
    for port, partial in partials.items():
        if stage.outputs[port].logged and partial.exists():
            folder.mkdir(parents=True, exist_ok=True)
            partial.rename(folder / Path(stage.outputs[port].path).name)
    return folder.exists()


def _require(stage: Stage, inputs: Mapping[str, Path]) -> None:
    missing = [path for port, path in inputs.items() if not stage.inputs[port].measured and not path.exists()]
    if missing:
        raise StageError(
            f"{stage.name} reads {', '.join(map(str, missing))}, which does not exist; "
            f"`datamill run --target {stage.name}` makes what it needs first"
        )


def _require_written(stage: Stage, partials: Mapping[str, Path]) -> None:
    missing = [port for port, path in partials.items() if not path.exists()]
    if missing:
        raise StageError(f"{stage.name} declares the outputs {missing} but did not write them")


def _check_account(stage: Stage, *, inputs: Mapping[str, Path], outputs: Mapping[str, Path]) -> None:
    if stage.account is None:
        return
    from datamill import ledger

    came_in = [*(inputs[port] for port in stage.account.population), *(outputs[port] for port in stage.account.created)]
    ledger.check(outputs[stage.account.ledger], population=ledger.incoming(came_in), stage=stage.name)


def _context(
    settings: Settings, *, scratch: Path, state: Path, previous: Mapping[str, Path], tracker: Tracker
) -> Context:
    from datamill.engine import Engine

    return Context(
        engine=Engine(
            kind=settings.engine,
            address=settings.engine_address,
            num_workers=settings.num_workers,
            storage=settings.storage,
        ),
        previous=previous,
        wanted_device=settings.device,
        num_threads=settings.num_threads,
        num_workers=settings.num_workers,
        scratch=scratch,
        state=state,
        tracker=tracker,
        progress=progress.show_progress,
    )


def _scratch(stage: Stage, *, root: Path, params: Params, inputs: Mapping[str, Path]) -> Path:
    """A folder that only a killed run with the same inputs, parameters and code can have left something in."""
    total = hashlib.sha256(f"{params.model_dump_json()}\0{imports.digest(stage.module)}".encode())
    for port, path in inputs.items():
        if not stage.inputs[port].measured:
            total.update(f"{port}\0{_seal(path)}".encode())
    scratch = _state(root) / "scratch" / stage.name / total.hexdigest()[:16]
    for other in scratch.parent.glob("*"):
        if other != scratch:
            files.remove(other)
    scratch.mkdir(parents=True, exist_ok=True)
    return scratch


def _seal(path: Path) -> str:
    """A hash that stands for an artifact: of the file, or of the files that hold a folder's checksums."""
    if path.is_file():
        return files.sha256_file(path)
    seals = sorted(file for file in path.rglob("*") if file.name in SEALS) or sorted(path.rglob("*"))
    return " ".join(files.sha256_file(file) for file in seals if file.is_file())


def _state(root: Path) -> Path:
    state = root / STATE
    state.mkdir(exist_ok=True)
    return state


def _log_artifacts(stage: Stage, *, root: Path, tracker: Tracker) -> None:
    for artifact in stage.inputs.values():  # not what it wrote itself: DVC has given that no digest yet
        if artifact.dataset:
            tracker.log_dataset(**_describe_dataset(artifact, root=root))
    for artifact in (*stage.outputs.values(), stage.metrics):
        path = root / artifact.path
        if artifact.logged:
            tracker.log_artifact(path)
        if artifact.example is not None:
            tracker.log_model(path, example=root / artifact.example)


def _describe_dataset(artifact: Artifact, *, root: Path) -> dict[str, Any]:
    from datamill import parts

    manifest = parts.read_manifest(root / artifact.path)
    digest = dvc_digest(artifact.path, root=root) or files.sha256_file(root / artifact.path / parts.MANIFEST)
    return {
        "name": manifest.dataset.name,
        "digest": digest,
        "source": artifact.path,
        "rows": manifest.num_rows,
    }


def dvc_digest(path: str, *, root: Path) -> str | None:
    """The hash DVC's lock file holds for an output; ``None`` before DVC has stored it."""
    outs = (out for stage in dvcfile.read_lock(root).values() for out in stage.get("outs", ()))
    return next((str(out["md5"]) for out in outs if out["path"] == path), None)


def _headline(metrics: Metrics) -> str:
    shown = [f"{key} {show_number(value)}" for key, value in numbers(metrics).items()]
    text = ", ".join(shown[:HEADLINES])
    return f": {text}" if text else ""


def show_number(value: float) -> str:
    """A number for people: whole ones with commas, others with four digits."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def load_metrics(name: str, *, root: Path) -> Metrics:
    """The stored metrics of a stage, or nothing when it has not run.

    Raises:
        DatamillError: The file is damaged.
    """
    path = root / f"reports/{name}.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise DatamillError(f"{path} is damaged: {error}; run the stage again") from error
