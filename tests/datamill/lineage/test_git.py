import subprocess
from pathlib import Path

import pytest

from datamill.lineage import git


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "a.txt").write_text("a\n")
    who = ("-c", "user.name=n", "-c", "user.email=n@example.org")
    for words in (["init", "--quiet"], ["add", "a.txt"], [*who, "commit", "--quiet", "-m", "the first"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    return tmp_path


def test_a_commit_tells_its_files_and_its_subject(root: Path) -> None:
    revision = git.head(root)
    assert git.resolve("HEAD", root=root) == revision
    assert git.content("a.txt", revision=revision, root=root) == b"a\n"
    assert git.content("b.txt", revision=revision, root=root) is None
    assert git.subject(revision, root=root) == "the first"


def test_a_revision_that_looks_like_an_option_is_none(root: Path) -> None:
    before = sorted(root.iterdir())
    assert git.resolve("--output=evil", root=root) == ""
    assert git.content("a.txt", revision="--output=evil", root=root) is None
    assert git.subject("--output=evil", root=root) == ""
    assert sorted(root.iterdir()) == before


def test_outside_of_a_repository_nothing_is_known(tmp_path: Path) -> None:
    assert (git.head(tmp_path), git.content("a.txt", revision="HEAD", root=tmp_path)) == ("", None)
