"""What the address of a source names, told without opening it: few modules are loaded for that."""

import glob
from pathlib import Path


def local_path(url: str) -> str | None:
    """The local path that ``url`` names, or ``None`` for a remote one."""
    bare = url.removeprefix("file://").removeprefix("local://")
    return None if "://" in bare or "::" in bare else str(Path(bare).expanduser())


def watched(path: str) -> list[str]:
    """Files and folders whose change may change what a local path or glob holds."""
    if not glob.has_magic(path) or Path(path).exists():
        return [path]
    folder = Path(glob_base(path))
    return [str(folder)] if folder != Path() else sorted(str(file) for file in folder.glob(path) if file.is_file())


def glob_base(pattern: str) -> str:
    """The folder a glob searches: what stands before its first wildcard."""
    parts = pattern.split("/")
    fixed = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    return "/".join(parts[:fixed]) or ("/" if pattern.startswith("/") else ".")
