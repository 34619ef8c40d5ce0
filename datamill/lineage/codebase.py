"""Which code a stage ran with, named by file: a digest alone says that code changed, not which.

A workspace outside the checkout gives DVC one digest per stage. What stands behind a digest is noted beside the
workspace's state when the stage runs, so that any lock file of that workspace can be read later.
"""

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from datamill import files, imports
from datamill.dvcfile import OBSERVED
from datamill.settings import STATE
from datamill.stage import Stage

FOLDER = f"{STATE}/code"
DIGEST_NOTE = re.compile(r"[0-9a-f]{32}\.json")  # what a digest of code stands for
MAX_NOTES = 3000  # about 20 MB: 200 versions of the code of every stage


@dataclass(frozen=True)
class Code:
    """The code that one stage can reach.

    Attributes:
        digest: Of all of it; empty where only the files are known.
        files: MD5 of each file by its path, as DVC computes it; empty where only the digest is known.
    """

    digest: str = ""
    files: Mapping[str, str] = field(default_factory=dict)

    def same_as(self, other: "Code") -> bool | None:
        """Whether both are the same code; ``None`` where that cannot be told."""
        if self.files and other.files:
            return self.files == other.files
        return self.digest == other.digest if self.digest and other.digest else None


def present(module: str) -> Code:
    """The code that ``module`` reaches as it is installed now."""
    found = imports.closure(module)
    top = Path(imports.__file__).resolve().parents[1]
    names = [file.resolve().relative_to(top).as_posix() for file in found]
    return Code(imports.digest(module), dict(zip(names, map(files.md5_file, found), strict=True)))


def note(stage: Stage, *, root: Path) -> None:
    """Write down which code ``stage`` runs with, under its digest and as the last one of the stage.

    Of more than ``MAX_NOTES`` the ones noted longest ago go: a workspace in which no flow runs prunes nothing else.
    """
    code = present(stage.module)
    for name in (code.digest, stage.name):
        files.write_json(root / FOLDER / f"{name}.json", asdict(code))
    known = digest_notes(root)
    with contextlib.suppress(FileNotFoundError):  # a stage beside this one forgets them, too
        for path in sorted(known, key=lambda path: path.stat().st_mtime)[:-MAX_NOTES] if len(known) > MAX_NOTES else ():
            path.unlink()


def digest_notes(root: Path) -> list[Path]:
    """What is noted of digests of code."""
    return [path for path in (root / FOLDER).glob("*.json") if DIGEST_NOTE.fullmatch(path.name)]


def codes(lock: Mapping[str, Any], *, stages: tuple[str, ...], root: Path) -> dict[str, Code]:
    """The code each stage ran with by the stages of a lock file, or by the last notes where there is none."""
    return {name: _locked(lock[name], root=root) if name in lock else _noted(name, root=root) for name in stages}


def _locked(entry: Mapping[str, Any], *, root: Path) -> Code:
    observed = entry.get("params", {}).get(OBSERVED, {})
    digest = next((str(value) for key, value in observed.items() if key.startswith("code.")), "")
    if digest:
        return Code(digest, _noted(digest, root=root).files)
    found = {dep["path"]: dep.get("md5", "") for dep in entry.get("deps", ())}
    return Code(files={path: md5 for path, md5 in found.items() if path.startswith(("datamill/", "tasks/"))})


def _noted(name: str, *, root: Path) -> Code:
    try:
        return Code(**json.loads((root / FOLDER / f"{name}.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return Code()
