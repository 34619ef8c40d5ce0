"""DVC's versions of artifacts: what a digest stands for, and where its bytes are, without checking anything out."""

import configparser
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datamill import files
from datamill.lineage.views import view

DIRECTORY = ".dir"  # ends the digest of a folder
DIGEST = re.compile(r"[0-9a-f]{32}(\.dir)?")  # what else stands in its place could name a path out of the cache


def digests(lock: Mapping[str, Any]) -> dict[str, str]:
    """DVC's digest of every output in a lock file, by path."""
    outs = [out for entry in lock.values() for out in entry.get("outs", ())]
    return {out["path"]: out["md5"] for out in outs if DIGEST.fullmatch(str(out.get("md5")))}


def digest_of(path: Path) -> str:
    """What DVC calls a file or folder: the MD5 of its bytes, or of the list of its files with theirs."""
    if path.is_file():
        return files.md5_file(path)
    below = sorted((file.relative_to(path).as_posix(), file) for file in path.rglob("*") if file.is_file())
    listing = [{"md5": files.md5_file(file), "relpath": name} for name, file in below]
    return hashlib.md5(json.dumps(listing, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + DIRECTORY


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    found = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in found if file.is_file())


class Cache:
    """DVC's cache of one workspace, read only."""

    def __init__(self, root: Path) -> None:
        """The cache of the workspace ``root``, wherever its configuration puts it."""
        self._root = root
        self._folder = _cache_folder(root) / "files" / "md5"

    def find(self, digest: str) -> Path | None:
        """The file with this digest, or a folder of links to its files; ``None`` when a byte of it is missing."""
        stored = self._stored(digest)
        if stored is None:
            return None
        return self._view(stored, digest=digest) if digest.endswith(DIRECTORY) else stored

    def _stored(self, digest: str) -> Path | None:
        path = self._folder / digest[:2] / digest[2:]
        return path if DIGEST.fullmatch(digest) and path.is_file() else None

    def _view(self, listing: Path, *, digest: str) -> Path | None:
        """A folder of links to the cache's files; a listing that points elsewhere is not followed."""
        entries = json.loads(listing.read_text(encoding="utf-8"))
        names = {Path(entry["relpath"]): self._stored(entry["md5"]) for entry in entries}
        within = {name: path for name, path in names.items() if not name.is_absolute() and ".." not in name.parts}
        targets = {name: path for name, path in within.items() if path is not None}
        if len(targets) < len(within):
            return None

        def write(folder: Path) -> None:
            folder.mkdir()
            for name, target in targets.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).symlink_to(target)

        def is_whole(folder: Path) -> bool:
            return folder.is_dir() and all((folder / name).is_file() for name in targets)

        return view(digest.removesuffix(DIRECTORY), root=self._root, write=write, is_whole=is_whole)


def _cache_folder(root: Path) -> Path:
    """``cache.dir`` of the workspace's own configuration, else DVC's usual place."""
    folder = root.resolve() / ".dvc"
    parser = configparser.ConfigParser(interpolation=None)
    for name in ("config", "config.local"):
        if (folder / name).is_file():  # DVC writes its sections indented, which the parser would take for values
            lines = (folder / name).read_text(encoding="utf-8").splitlines()
            parser.read_string("\n".join(line.strip() for line in lines))
    return folder / parser.get("cache", "dir", fallback="cache")
