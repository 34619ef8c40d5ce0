"""A run, found by any of its names, and the artifacts it made, read without checking anything out."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from datamill import config, dvcfile, files
from datamill.errors import DataError
from datamill.lineage import codebase, git, recording, versions
from datamill.lineage.codebase import Code
from datamill.lineage.views import view
from datamill.settings import Settings
from datamill.stage import Stage

WORKSPACE, CHAMPION = "workspace", "champion"
CHAMPION_FOLDER, VERSIONS_FOLDER = "models/champion", "models/champions"  # each with the dvc.lock its model came from
MIN_CHARS = 4  # of a session's key
MAX_LISTED = 5


@dataclass(frozen=True)
class Run:
    """One state of the pipeline.

    Attributes:
        name: What people call it, on one line.
        root: The workspace whose artifacts it may read as they are.
        lock: Stages of its ``dvc.lock``; empty where DVC did not run.
        params: Section of ``params.yaml`` by stage, as the stages ran with them.
        code: Code by stage.
        libraries: Versions by library; empty where they are not on record.
        copies: Folder with copies of the outputs that are in Git.
        revision: Git commit whose blobs are its outputs in Git.
        key: Its session, where one is on record.
        is_live: Whether it is the workspace as it is now.
    """

    name: str
    root: Path
    lock: Mapping[str, Any]
    params: Mapping[str, Any]
    code: Mapping[str, Code]
    libraries: Mapping[str, str] = field(default_factory=dict)
    copies: Path | None = None
    revision: str = ""
    key: str = ""
    is_live: bool = False

    def digest(self, path: str) -> str | None:
        """DVC's digest of an output."""
        if self.is_live and not self.lock:
            return versions.digest_of(self.root / path) if (self.root / path).exists() else None
        return versions.digests(self.lock).get(path)

    def has(self, path: str) -> bool:
        """Whether the run has made an artifact."""
        return (self.root / path).exists() if self.is_live else path in versions.digests(self.lock)

    def open(self, path: str) -> Path:
        """A file or folder with the bytes of an output as this run made it; only to be read.

        Raises:
            DataError: The run has not made it, or its bytes are not on this machine.
        """
        if self.is_live:
            if not (self.root / path).exists():
                raise DataError(f"{self.name} has no {path}; `datamill run` makes it")
            return self.root / path
        digest = versions.digests(self.lock).get(path)
        if digest is None:
            raise DataError(f"{self.name} has no {path}: its {dvcfile.LOCK_FILE} does not name it")
        for found in self._places(path, digest=digest):
            return found
        raise DataError(
            f"{self.name}: {path} (MD5 {digest}) is neither in DVC's cache nor in the workspace; "
            f"`dvc fetch --all-commits {path}` brings it back if it was committed and pushed"
        )

    def _places(self, path: str, *, digest: str) -> Iterator[Path]:
        if self.copies is not None and (self.copies / path).is_file():
            yield self.copies / path
        cached = versions.Cache(self.root).find(digest)
        if cached is not None:
            yield cached
        blob = git.content(path, revision=self.revision, root=self.root) if self.revision else None
        if blob is not None:
            name = f"{digest}{Path(path).suffix}"
            yield view(name, root=self.root, write=lambda place: place.write_bytes(blob), is_whole=Path.is_file)
        if (self.root / path).exists() and versions.digest_of(self.root / path) == digest:
            yield self.root / path


def find_run(text: str, *, stages: Sequence[Stage], root: Path, settings: Settings | None = None) -> Run:
    """The run that ``text`` names.

    Args:
        text: ``workspace``, ``champion``, a session's key or its beginning, the version of a model that was champion,
            a Git revision, an MLflow run's id, or the folder of another workspace.
        stages: All stages.
        root: The workspace.
        settings: Where MLflow is; from the environment by default.

    Raises:
        DataError: Nothing fits, or several records do; says what was searched.
    """
    root = root.resolve()
    if text == WORKSPACE:
        return _live(root, name="the workspace", stages=stages)
    if text == CHAMPION:
        return _champion(stages=stages, root=root)
    found = [folder for folder in records(root) if len(text) >= MIN_CHARS and folder.name.startswith(text)]
    exact = [folder for folder in found if folder.name == text] or found
    if len(exact) > 1:
        raise DataError(f"{len(exact)} runs on record begin with {text!r}: {_listed(exact)}; give more of the key")
    if exact:
        return open_record(exact[0], root=root)
    kept = kept_versions(text, root=root)
    if len(kept) == 1:
        return open_version(kept[0], stages=stages, root=root)
    revision = git.resolve(text, root=root)
    if revision:
        return _committed(revision, stages=stages, root=root)
    if (Path(text) / config.PARAMS_FILE).is_file():
        return _live(Path(text).resolve(), name=f"workspace {Path(text).resolve().name}", stages=stages)
    folder = _from_mlflow(text, root=root, settings=settings)
    if folder is not None:
        return open_record(folder, root=root)
    raise DataError(
        f"no run is called {text!r}: searched runs on record ({_listed(records(root)) or 'none'}), "
        f"champions, Git revisions, folders and MLflow's runs; {WORKSPACE!r} and {CHAMPION!r} are names, too"
    )


def kept_versions(text: str, *, root: Path) -> list[Path]:
    """Folders of the models that were champion and whose version begins with ``text``."""
    found = (root / VERSIONS_FOLDER).glob(f"*/{dvcfile.LOCK_FILE}") if len(text) >= MIN_CHARS else ()
    return sorted(path.parent for path in found if path.parent.name.startswith(text))


def records(root: Path) -> list[Path]:
    """Folders of the runs on record, the latest first."""
    found = [path.parent for path in (root / recording.FOLDER).glob(f"*/{recording.RUN_FILE}")]
    whole = [folder for folder in found if not folder.name.startswith((files.PARTIAL, files.REPLACED))]
    return sorted(whole, key=lambda folder: (ended_at(folder), folder.name), reverse=True)


def ended_at(folder: Path) -> datetime:
    """When a run on record ended, in UTC."""
    return datetime.fromisoformat(_about(folder)["ended_at"])


def open_record(folder: Path, *, root: Path) -> Run:
    """The run behind a record.

    Raises:
        DataError: The record is damaged.
    """
    about = _about(folder)
    lock_file = folder / dvcfile.LOCK_FILE
    lock = dvcfile.parse_lock(lock_file.read_text(encoding="utf-8")) if lock_file.is_file() else {}
    code = json.loads((folder / recording.CODE_FILE).read_text(encoding="utf-8"))
    return Run(
        name=f"{about['name']} of {datetime.fromisoformat(about['ended_at']):%Y-%m-%d %H:%M} ({folder.name[:8]})",
        root=root,
        lock=lock,
        params=_params(lock, text=(folder / config.PARAMS_FILE).read_text(encoding="utf-8")),
        code={name: Code(**content) for name, content in code.items()},
        libraries=about["versions"],
        copies=folder / recording.COPIES,
        key=about["key"],
    )


def _about(folder: Path) -> dict[str, Any]:
    path = folder / recording.RUN_FILE
    try:
        about = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} is damaged; remove {folder} to forget that run") from error
    missing = {"key", "name", "ended_at", "versions"} - set(about)
    if missing:
        raise DataError(f"{path} lacks {', '.join(sorted(missing))}; remove {folder} to forget that run")
    return about


def _live(root: Path, *, name: str, stages: Sequence[Stage]) -> Run:
    lock = dvcfile.read_lock(root)
    return Run(
        name=name,
        root=root,
        lock=lock,
        params=_params(lock, text=(root / config.PARAMS_FILE).read_text(encoding="utf-8")),
        code=codebase.codes(lock, stages=tuple(stage.name for stage in stages), root=root),
        libraries=recording.library_versions(),
        is_live=True,
    )


def _committed(revision: str, *, stages: Sequence[Stage], root: Path) -> Run:
    texts = {name: git.content(name, revision=revision, root=root) for name in (dvcfile.LOCK_FILE, config.PARAMS_FILE)}
    missing = [name for name, text in texts.items() if text is None]
    if missing:
        raise DataError(
            f"revision {revision[:10]} has no {' and no '.join(missing)}; nothing was run and committed there"
        )
    lock_text, params_text = ((text or b"").decode() for text in texts.values())
    lock = dvcfile.parse_lock(lock_text)
    return Run(
        name=f"revision {revision[:10]} ({git.subject(revision, root=root)})",
        root=root,
        lock=lock,
        params=_params(lock, text=params_text),
        code=codebase.codes(lock, stages=tuple(stage.name for stage in stages), root=root),
        revision=revision,
    )


def _champion(*, stages: Sequence[Stage], root: Path) -> Run:
    folder = root / CHAMPION_FOLDER
    if not folder.exists():
        raise DataError(f"there is no champion yet: {folder} is missing; `datamill promote` makes one")
    return open_version(folder.resolve(), stages=stages, root=root)


def open_version(folder: Path, *, stages: Sequence[Stage], root: Path) -> Run:
    """The run that a kept model came from: the one on record with the same lock file, else what that file tells.

    Raises:
        DataError: The model came from a workspace where DVC did not run.
    """
    lock_file = folder / dvcfile.LOCK_FILE
    if not lock_file.is_file():
        raise DataError(f"{folder} holds no {dvcfile.LOCK_FILE}, so the run it came from is not known")
    for one in records(root):
        if (one / dvcfile.LOCK_FILE).is_file() and (one / dvcfile.LOCK_FILE).read_bytes() == lock_file.read_bytes():
            return open_record(one, root=root)
    lock = dvcfile.parse_lock(lock_file.read_text(encoding="utf-8"))
    return Run(
        name=f"model {folder.name}",
        root=root,
        lock=lock,
        params=_params(lock, text=(folder / config.PARAMS_FILE).read_text(encoding="utf-8")),
        code=codebase.codes(lock, stages=tuple(stage.name for stage in stages), root=root),
    )


def _from_mlflow(text: str, *, root: Path, settings: Settings | None) -> Path | None:
    """The record of the session that an MLflow run belongs to, fetched from there when it is not here."""
    if len(text) != 32 or not all(char in "0123456789abcdef" for char in text):
        return None
    from datamill.tracking import server  # loads MLflow

    try:
        return server.fetch_record(text, root=root, settings=settings or Settings.from_environment())
    except Exception as error:
        raise DataError(f"MLflow does not tell which session run {text} belongs to: {error}") from error


def _params(lock: Mapping[str, Any], *, text: str) -> dict[str, Any]:
    """Parameters as the stages ran with them: DVC's note of them, and the file for stages without one."""
    written = config.parse_yaml(text) or {}
    ran = {name: entry.get("params", {}).get(config.PARAMS_FILE, {}).get(name) for name, entry in lock.items()}
    return {**written, **{name: section for name, section in ran.items() if section is not None}}


def _listed(folders: Sequence[Path]) -> str:
    names = [folder.name for folder in folders[:MAX_LISTED]]
    return ", ".join(names) + (", ..." if len(folders) > MAX_LISTED else "")
