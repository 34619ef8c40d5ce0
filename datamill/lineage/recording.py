"""What a run was, kept beside the workspace's state when a flow ends: enough to explain it later.

Layout of a record, ``.datamill/runs/<session key>/``::

    run.json      who, when, from which Git revision, how every stage ended, versions of the libraries
    dvc.lock      DVC's digest of everything; absent where DVC did not run
    params.yaml
    code.json     the code of every stage, by file
    metrics.json  the metrics of every stage
    files/        outputs that are in Git, because DVC's cache does not hold them
"""

import importlib.metadata
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from datamill import dvcfile, files
from datamill.config import PARAMS_FILE
from datamill.execute import load_metrics
from datamill.lineage import codebase, git
from datamill.settings import STATE
from datamill.stage import Stage
from datamill.tracking import Session

FOLDER = f"{STATE}/runs"
RUN_FILE, CODE_FILE, METRICS_FILE, COPIES = "run.json", "code.json", "metrics.json", "files"
LIBRARIES = ("numpy", "pandas", "pyarrow", "scikit-learn", "torch", "albumentations", "cleanlab", "imbalanced-learn")


def record(
    root: Path, *, session: Session, statuses: Mapping[str, str], stages: Sequence[Stage], now: datetime
) -> Path:
    """Put the workspace as it is now on record; returns the record's folder, which is whole or absent.

    Args:
        root: The workspace.
        session: Whose run it was; a second record of the same session replaces the first.
        statuses: How each stage ended.
        stages: All stages.
        now: When the run ended, in UTC.
    """
    folder = root / FOLDER / session.key
    lock = dvcfile.read_lock(root)
    code = codebase.codes(lock, stages=tuple(stage.name for stage in stages), root=root)
    about = {
        "key": session.key,
        "name": session.name,
        "ended_at": now.isoformat(timespec="seconds"),
        "revision": git.head(root),
        "statuses": dict(statuses),
        "versions": library_versions(),
    }
    with files.atomic_write(folder) as partial:
        partial.mkdir()
        files.write_json(partial / RUN_FILE, about)
        files.write_json(partial / CODE_FILE, {name: asdict(one) for name, one in code.items()})
        files.write_json(partial / METRICS_FILE, _metrics(root, statuses=statuses))
        for name in (dvcfile.LOCK_FILE, PARAMS_FILE, *_in_git(stages)):
            target = partial / (name if "/" not in name else f"{COPIES}/{name}")
            if (root / name).is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(root / name, target)
    return folder


def library_versions() -> dict[str, str]:
    """The versions of Python and of the libraries that results depend on."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _metrics(root: Path, *, statuses: Mapping[str, str]) -> dict[str, Any]:
    return {
        name: load_metrics(name, root=root) for name, status in statuses.items() if status in {"executed", "cached"}
    }


def _in_git(stages: Sequence[Stage]) -> list[str]:
    artifacts = [artifact for stage in stages for artifact in (*stage.outputs.values(), stage.metrics)]
    return [artifact.path for artifact in artifacts if artifact.in_git]
