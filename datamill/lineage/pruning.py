"""Which runs stay on record: the latest, and those that a champion that is kept came from; and which notes of code."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from datamill import dvcfile, files
from datamill.errors import DataError
from datamill.lineage import codebase, recording
from datamill.lineage.runs import VERSIONS_FOLDER, ended_at, records

CARD = "champion.json"


def prune(root: Path, *, keep: int) -> tuple[str, ...]:
    """Forget old runs; returns their keys.

    The run of every kept champion stays: the one its card names, and the one with its lock file, which ``why champion``
    and ``trace model:...`` ask for. Code that last ran before the latest runs is forgotten with them, unless a run or
    a champion that is kept, or the workspace, names it.

    Args:
        root: The workspace.
        keep: Latest runs that stay (count, at least 1).
    """
    known = records(root)
    latest, old = known[:keep], known[keep:]
    if not old:
        return ()
    sessions, locks = set(_sessions(root)), set(_locks(root))
    forgotten = [one for one in old if one.name not in sessions and _lock(one) not in locks]
    for folder in forgotten:
        files.remove(folder)
    _forget_code(root, latest=latest, kept=[one for one in known if one not in forgotten])
    return tuple(folder.name for folder in forgotten)


def _forget_code(root: Path, *, latest: Sequence[Path], kept: Sequence[Path]) -> None:
    start = ended_at(latest[-1]).timestamp()
    unnamed = [path for path in codebase.digest_notes(root) if path.stat().st_mtime < start]
    champions = (root / VERSIONS_FOLDER).glob(f"*/{dvcfile.LOCK_FILE}")
    for path in (root / dvcfile.LOCK_FILE, *champions, *(folder / recording.CODE_FILE for folder in kept)):
        text = path.read_text(encoding="utf-8") if unnamed and path.is_file() else ""
        unnamed = [note for note in unnamed if note.stem not in text]
    for note in unnamed:
        note.unlink()


def _sessions(root: Path) -> Iterator[str]:
    for card in (root / VERSIONS_FOLDER).glob(f"*/{CARD}"):
        try:
            yield json.loads(card.read_text(encoding="utf-8")).get("run", "")
        except ValueError as error:
            raise DataError(
                f"{card} is damaged, so that no run is forgotten; `datamill rollback` to another"
            ) from error


def _locks(root: Path) -> Iterator[str]:
    return (_lock(path.parent) for path in (root / VERSIONS_FOLDER).glob(f"*/{dvcfile.LOCK_FILE}"))


def _lock(folder: Path) -> str:
    """Digest of a lock file; the folder's own name where there is none, so that it is equal to no other."""
    path = folder / dvcfile.LOCK_FILE
    return files.sha256_file(path) if path.is_file() else folder.name
