"""The first-party code a module can reach: what a stage's result depends on, read from source."""

import ast
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

FIRST_PARTY = ("datamill", "tasks")
DECLARATIONS = frozenset({"datamill", "tasks", "datamill.catalog", "datamill.stage"})  # they name paths, not results
BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")  # of a statement: where others stand
TEMPLATES = "templates"  # folder beside a module whose files count as code


def closure(module: str) -> tuple[Path, ...]:
    """Files of ``module`` and of every first-party module it imports, directly or not, anywhere in its source.

    Imports inside functions count. Modules that only declare (``DECLARATIONS``) do not: what they say stands in
    ``dvc.yaml`` already. Template files beside a reached module count.
    """
    files = {file for path in _reached(module).values() for file in (path, *_templates(path))}
    return tuple(sorted(files))


def modules(module: str) -> tuple[str, ...]:
    """Names of the modules behind ``closure``."""
    return tuple(_reached(module))


@cache
def _reached(module: str) -> Mapping[str, Path]:
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found or name in DECLARATIONS:
            continue
        file = module_file(name)
        if file is None:
            continue
        found[name] = file
        waiting += [name.rpartition(".")[0], *_imported_by(file, package=_package(name, file))]
    return found


def digest(module: str) -> str:
    """One hash over the closure of ``module``: names and bytes (32 hexadecimal digits)."""
    total = hashlib.sha256()
    for file in closure(module):
        total.update(f"{file.parent.name}/{file.name}\0".encode())
        total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()[:32]


@cache
def module_file(name: str) -> Path | None:
    """Source file of a first-party module; ``None`` for other modules and for names that are no module."""
    if name.partition(".")[0] not in FIRST_PARTY:
        return None
    top, *rest = name.split(".")
    spec = find_spec(top)
    assert spec is not None
    assert spec.origin is not None
    base = Path(spec.origin).parent.joinpath(*rest)
    for candidate in (base / "__init__.py", base.with_suffix(".py")):
        if candidate.is_file():
            return candidate
    return None


def imported_names(source: str, *, package: str) -> Iterator[str]:
    """Every dotted name that ``source`` imports; ``from a import b`` gives both ``a`` and ``a.b``."""
    for node in _statements(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = (
                ".".join([*package.split(".")[: -node.level + 1 or None], *filter(None, [node.module])])
                if node.level
                else node.module
            )
            if base:
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names)


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Every statement below ``node``; expressions, which are most of a tree, hold none."""
    for name in BLOCKS:
        for child in getattr(node, name, ()):
            yield child
            yield from _statements(child)


@cache
def _imported_by(file: Path, *, package: str) -> tuple[str, ...]:
    """``imported_names`` of a file; stages share most of theirs."""
    return tuple(imported_names(file.read_text(encoding="utf-8"), package=package))


def _package(name: str, file: Path) -> str:
    return name if file.name == "__init__.py" else name.rpartition(".")[0]


def _templates(path: Path) -> Iterable[Path]:
    folder = path.parent / TEMPLATES
    return sorted(file for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else ()
