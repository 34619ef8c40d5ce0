"""What Git knows of a workspace; every question has an answer where there is no repository, too."""

import subprocess
from pathlib import Path


def head(root: Path) -> str:
    """The commit that is checked out, 40 hexadecimal digits; empty without one."""
    return resolve("HEAD", root=root)


def resolve(text: str, *, root: Path) -> str:
    """The commit that ``text`` names; empty when it names none."""
    found = _ask("rev-parse", "--verify", "--quiet", "--end-of-options", f"{text}^{{commit}}", root=root)
    return found.decode().strip() if found else ""


def content(path: str, *, revision: str, root: Path) -> bytes | None:
    """A file of the workspace as it was at a commit; ``None`` when it was not there."""
    return _ask("show", "--end-of-options", f"{revision}:./{path}", root=root)


def subject(revision: str, *, root: Path) -> str:
    """The first line of a commit's message."""
    return (
        (_ask("log", "-1", "--format=%s", "--end-of-options", revision, root=root) or b"")
        .decode(errors="replace")
        .strip()
    )


def _ask(*words: str, root: Path) -> bytes | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, check=False)
    except FileNotFoundError:  # no Git on this machine
        return None
    return done.stdout if done.returncode == 0 else None
