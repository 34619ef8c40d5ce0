"""Tiny workspaces with a trained model, trained once and copied for every test."""

import shutil
from pathlib import Path

import pytest

from tests.watched import make_workspace


@pytest.fixture(scope="session")
def trained_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose model knows images."""
    return make_workspace(tmp_path_factory.mktemp("images"), modality="image")


@pytest.fixture(scope="session")
def trained_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose model knows rows."""
    return make_workspace(tmp_path_factory.mktemp("tables"), modality="tabular")


@pytest.fixture
def images(trained_images: Path, tmp_path: Path) -> Path:
    """A workspace of images of the test's own."""
    return Path(shutil.copytree(trained_images, tmp_path / "images"))


@pytest.fixture
def tables(trained_tables: Path, tmp_path: Path) -> Path:
    """A workspace of rows of the test's own."""
    return Path(shutil.copytree(trained_tables, tmp_path / "tables"))
