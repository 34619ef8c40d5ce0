"""Small workspaces outside the checkout."""

from pathlib import Path

import pytest

from datamill import config
from flows.workspace import create_workspace
from tasks import PIPELINE

QUICK = {
    "digits": ["train.epochs=2", "synthesize.method=pca"],
    "breast-cancer": ["train.epochs=2"],
}


def make_workspace(folder: Path, *, example: str = "digits") -> Path:
    """A workspace that begins with an example and trains briefly."""
    create_workspace(folder, example=example)
    config.set_params(QUICK[example], stages=PIPELINE, root=folder)
    return folder


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A quick workspace of the default example."""
    return make_workspace(tmp_path / "project")
