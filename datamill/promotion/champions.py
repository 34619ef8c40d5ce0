"""The champion's files, and those of the ones before it.

``models/champions/<version>/`` holds a champion's files and is never changed once it is there; ``models/champion`` is a
link to one of them, exchanged in a single rename. So a reader that resolves the link once reads one model throughout,
a kill leaves the old champion or the new one, and going back restores the very bytes.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datamill import catalog, dvcfile, files
from datamill.errors import DataError, StageError

CHAMPION = "models/champion"
CHAMPIONS = "models/champions"
CARD = "champion.json"

MODEL = (  # the model itself: its version is the hash of these
    catalog.EXPORT_MODEL,
    catalog.EXPORT_INTERFACE,
    catalog.EXPORT_EXAMPLE,
    catalog.PREPROCESS_STATE,
    catalog.TRAIN_NETWORK,
    catalog.TRAIN_BEST,
    catalog.EVALUATE_PREDICTIONS,
)
BESIDE = (catalog.EVALUATE_REFERENCE.path, "dvc.lock", "params.yaml")  # what it is watched by, and what made it
VERSION_DIGITS = 12


def champion_folder(root: Path) -> Path | None:
    """The folder of the present champion, resolved, so that a change of champion does not change what is read there.

    Returns:
        ``None`` when there is none.

    Raises:
        DataError: ``models/champion`` leads nowhere.
    """
    link = root / CHAMPION
    if not link.is_symlink():
        return None
    folder = link.resolve()
    if not (folder / CARD).exists():
        raise DataError(f"{link} leads to {folder}, which holds no champion; `datamill rollback` to one that is kept")
    return folder


def current(root: Path) -> str | None:
    """Version of the champion on disk; ``None`` when there is none."""
    link = root / CHAMPION
    return link.readlink().name if link.is_symlink() else None


def stage_candidate(root: Path) -> tuple[Path, str]:
    """A copy of the workspace's trained model, beside the champions but not among them, and its version.

    Raises:
        StageError: The pipeline has not run to its end.
    """
    folder = _candidate(root)
    files.remove(folder)
    folder.mkdir(parents=True)
    for artifact in MODEL:
        source = root / artifact.path
        if not source.exists():
            raise StageError(f"{source} is not there, so there is no model to judge; `datamill run` makes one")
        shutil.copyfile(source, folder / source.name)
    for source in (root / name for name in BESIDE):
        if source.exists():
            (shutil.copytree if source.is_dir() else shutil.copyfile)(source, folder / source.name)
    _require_one_run(folder)
    return folder, _version({name: folder / name for name in (Path(artifact.path).name for artifact in MODEL)})


def _require_one_run(folder: Path) -> None:
    """Refuse files that DVC's lock file does not know together: one of them was made anew and the rest was not.

    Raises:
        StageError: Names the stage to run.
    """
    stages = dvcfile.read_lock(folder)
    found = {artifact.path: files.md5_file(folder / Path(artifact.path).name) for artifact in MODEL}
    for name, stage in stages.items():
        for item in (*stage.get("deps", ()), *stage.get("outs", ())):
            if item["path"] in found and item.get("md5") not in {None, found[item["path"]]}:
                raise StageError(
                    f"{item['path']} is not the one that {name} ran with, so the model and what is known about it do "
                    "not belong together; `datamill run` brings them up to date"
                )


def trained(root: Path) -> str | None:
    """Version of the workspace's trained model; ``None`` before the pipeline has run to its end."""
    paths = {Path(artifact.path).name: root / artifact.path for artifact in MODEL}
    return _version(paths) if all(path.exists() for path in paths.values()) else None


def discard_candidate(root: Path) -> None:
    """Delete the copy that ``stage_candidate`` made, if it is still there."""
    files.remove(_candidate(root))


def admit(folder: Path, *, version: str, root: Path, card: Mapping[str, Any]) -> Path:
    """Put a candidate among the champions, its card written; the champion stays who it is. Returns its place there."""
    target = root / CHAMPIONS / version
    if is_intact(root, version=version):
        return target
    files.remove(target)  # damaged, and here are the same bytes
    digests = {
        path.relative_to(folder).as_posix(): files.sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / CARD
    }
    files.write_json(folder / CARD, {"version": version, **card, "files": digests})
    files.fsync_tree(folder)
    folder.rename(target)
    files.fsync_path(target.parent)
    return target


def switch(root: Path, *, version: str) -> None:
    """Make ``version`` the champion, at once for every reader.

    Raises:
        DataError: It is not kept, or its files are damaged.
    """
    verify(root, version=version)
    link = root / CHAMPION
    if link.is_dir() and not link.is_symlink():
        raise DataError(f"{link} is a folder, and should be a link that datamill makes; move it away")
    partial = files.partial_path(link)
    files.remove(partial)
    partial.symlink_to(Path(CHAMPIONS).name + f"/{version}")
    partial.replace(link)
    files.fsync_path(link.parent)


def verify(root: Path, *, version: str) -> None:
    """Refuse a version that is not kept, or whose bytes are not what they were.

    Raises:
        DataError: Names the versions there are, or the damaged files.
    """
    folder = root / CHAMPIONS / version
    if not (folder / CARD).exists():
        there = ", ".join(kept(root)) or "none"
        raise DataError(f"champion {version} is not in {root / CHAMPIONS}; kept there: {there}")
    faults = _faults(folder)
    if faults:
        raise DataError(f"champion {version} is damaged: {', '.join(faults)} in {folder}; choose another version")


def is_intact(root: Path, *, version: str) -> bool:
    """Whether a version is kept, every byte as it was."""
    folder = root / CHAMPIONS / version
    return (folder / CARD).exists() and not _faults(folder)


def kept(root: Path) -> list[str]:
    """Versions whose files are here, in the order of their names."""
    return sorted(path.parent.name for path in (root / CHAMPIONS).glob(f"[!.]*/{CARD}"))


def prune(root: Path, *, order: Sequence[str], keep: int) -> None:
    """Delete all but the champion and the ``keep`` champions before it.

    Args:
        root: The workspace.
        order: Versions from the oldest champion to the present one, repeats allowed.
        keep: How many earlier ones stay.
    """
    newest = list(dict.fromkeys([current(root), *reversed(order)]))
    for version in set(kept(root)) - set(newest[: keep + 1]):
        files.remove(root / CHAMPIONS / version)


def read_card(folder: Path) -> dict[str, Any]:
    """What is written about a champion: version, who made it, evidence, hashes of its files.

    Raises:
        DataError: The card is damaged.
    """
    try:
        return dict(json.loads((folder / CARD).read_text(encoding="utf-8")))
    except ValueError as error:
        raise DataError(f"{folder / CARD} is damaged: {error}; `datamill rollback` to another version") from error


def _version(paths: Mapping[str, Path]) -> str:
    """Hash of a model's files, by name."""
    total = hashlib.sha256()
    for name, path in sorted(paths.items()):
        total.update(f"{name}\0{files.sha256_file(path)}\n".encode())
    return total.hexdigest()[:VERSION_DIGITS]


def _candidate(root: Path) -> Path:
    return files.partial_path(root / CHAMPIONS / "candidate")


def _faults(folder: Path) -> list[str]:
    """Files that are missing or have other bytes than the card says."""
    digests = read_card(folder)["files"]
    return [
        name
        for name, digest in digests.items()
        if not (folder / name).is_file() or files.sha256_file(folder / name) != digest
    ]
