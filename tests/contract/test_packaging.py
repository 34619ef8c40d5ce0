"""An installed datamill: what it needs is in the wheel, and the library imports without what orchestrates it."""

import os
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ORCHESTRATION_AND_EXTRAS = ("prefect", "dvc", "mlflow", "typer", "alibi_detect", "dask", "distributed", "ray", "s3fs")
ADAPTERS = ("datamill.tracking.server", "datamill.tracking.registry", "datamill.drift.alibi")

WITHOUT = f"""
import importlib, pkgutil, sys
for name in {ORCHESTRATION_AND_EXTRAS!r}:
    sys.modules[name] = None  # as if it were not installed
import datamill
for module in pkgutil.walk_packages(datamill.__path__, "datamill."):
    if module.name not in {ADAPTERS!r}:
        importlib.import_module(module.name)
"""


def python(*arguments: str, folder: Path, path: Path) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def shipped(repository: Path) -> Iterator[Path]:
    """Files that pyproject.toml puts into the wheel beside the modules."""
    settings = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["setuptools"]
    for package, patterns in settings["package-data"].items():
        for pattern in patterns:
            yield from (repository / package.replace(".", "/")).glob(pattern)


def test_every_file_that_is_no_module_goes_into_the_wheel(repository: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "datamill", "tasks", "flows"], cwd=repository, capture_output=True, text=True, check=True
    )
    needed = {repository / name for name in listed.stdout.split() if Path(name).suffix not in {".py", ".md"}}
    assert needed
    assert needed <= set(shipped(repository))


def test_the_skeleton_of_a_workspace_is_that_of_the_checkout(repository: Path) -> None:
    skeleton = repository / "flows/skeleton"
    for copy, original in (("dvc/config", ".dvc/config"), ("dvc/gitignore", ".dvc/.gitignore"), ("dvcignore",) * 2):
        assert (skeleton / copy).read_bytes() == (repository / original.replace("dvcignore", ".dvcignore")).read_bytes()
    ours, theirs = ((repository / name).read_text().splitlines() for name in (".gitignore", "flows/skeleton/gitignore"))
    assert [line for line in ours if line not in theirs] == ["/reports/promotions.jsonl"]
    assert [line for line in theirs if line not in ours] == []


def test_only_adapters_need_orchestration_or_extras(repository: Path, tmp_path: Path) -> None:
    python("-c", WITHOUT, folder=tmp_path, path=repository)


@pytest.mark.slow
def test_an_installed_wheel_makes_a_workspace_and_works_in_it(repository: Path, tmp_path: Path) -> None:
    source, installed, root = tmp_path / "source", tmp_path / "installed", tmp_path / "mine"
    subprocess.run(["git", "clone", "--quiet", str(repository), str(source)], check=True)
    build = ("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), ".")
    python(*build, folder=source, path=tmp_path)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(installed)
    python("-m", "flows.cli", "init", str(root), "--example", "digits", folder=tmp_path, path=installed)
    assert (root / "params.yaml").read_bytes() == (repository / "flows/examples/digits/params.yaml").read_bytes()
    for verb in ("observe", "ingest", "extract", "validate", "clean", "split"):
        python("-m", "tasks", verb, folder=root, path=installed)
    where = python("-c", "import datamill; print(datamill.__file__)", folder=root, path=installed)
    assert where.startswith(str(installed))
    assert (root / "data/split/assignments.parquet").is_file()
