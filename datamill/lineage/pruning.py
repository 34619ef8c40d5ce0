"""Which runs stay on record: the latest, and those that a champion that is kept came from."""

import json
from collections.abc import Iterator
from pathlib import Path

from datamill import files
from datamill.errors import DataError
from datamill.lineage import versions
from datamill.lineage.runs import VERSIONS_FOLDER, records

RUNS_KEPT = 200  # about 50 MB; every one is in MLflow, too
CARD = "champion.json"


def prune(root: Path, *, keep: int = RUNS_KEPT) -> tuple[str, ...]:
    """Forget old runs; returns their keys.

    The run of every kept champion stays: the one its card names, and the one with its lock file, which ``why champion``
    and ``trace model:...`` ask for.

    Args:
        root: The workspace.
        keep: Latest runs that stay (count).
    """
    old = records(root)[keep:]
    if not old:
        return ()
    sessions, locks = set(_sessions(root)), set(_locks(root))
    forgotten = [one for one in old if one.name not in sessions and _lock(one) not in locks]
    for folder in forgotten:
        files.remove(folder)
    return tuple(folder.name for folder in forgotten)


def _sessions(root: Path) -> Iterator[str]:
    for card in (root / VERSIONS_FOLDER).glob(f"*/{CARD}"):
        try:
            yield json.loads(card.read_text(encoding="utf-8")).get("run", "")
        except ValueError as error:
            raise DataError(
                f"{card} is damaged, so that no run is forgotten; `datamill rollback` to another"
            ) from error


def _locks(root: Path) -> Iterator[str]:
    return (_lock(path.parent) for path in (root / VERSIONS_FOLDER).glob(f"*/{versions.LOCK_FILE}"))


def _lock(folder: Path) -> str:
    """Digest of a lock file; the folder's own name where there is none, so that it is equal to no other."""
    path = folder / versions.LOCK_FILE
    return files.sha256_file(path) if path.is_file() else folder.name
