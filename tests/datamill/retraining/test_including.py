import os
import time

import pytest

from datamill.errors import StageError
from datamill.retraining import IncludeParams
from datamill.retraining.including import include

PARAMS = IncludeParams(watched="incoming", into="images")


def write(path, text, *, age_s=60.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    then = time.time() - age_s
    os.utime(path, (then, then))


def test_watched_files_join_the_source_under_names_of_their_own(tmp_path):
    write(tmp_path / "images/cat/1.png", "old")
    write(tmp_path / "incoming/cat/1.png", "new")
    write(tmp_path / "incoming/dog/2.png", "new")
    assert include(tmp_path, PARAMS) == ["cat/watched-1.png", "dog/watched-2.png"]
    assert (tmp_path / "images/cat/1.png").read_text() == "old"
    assert (tmp_path / "images/cat/watched-1.png").read_text() == "new"


def test_what_was_copied_is_not_touched_again_so_that_ingest_reads_only_what_is_new(tmp_path):
    write(tmp_path / "incoming/cat/1.png", "one")
    include(tmp_path, PARAMS)
    before = (tmp_path / "images/cat/watched-1.png").stat()
    write(tmp_path / "incoming/cat/2.png", "two")
    assert include(tmp_path, PARAMS) == ["cat/watched-2.png"]
    after = (tmp_path / "images/cat/watched-1.png").stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_ctime_ns) == (
        before.st_ino,
        before.st_mtime_ns,
        before.st_ctime_ns,
    )
    assert after.st_mtime_ns == (tmp_path / "incoming/cat/1.png").stat().st_mtime_ns


def test_a_watched_file_that_changed_takes_the_place_of_its_copy(tmp_path):
    write(tmp_path / "incoming/cat/1.png", "one")
    include(tmp_path, PARAMS)
    write(tmp_path / "incoming/cat/1.png", "uno", age_s=30)
    assert include(tmp_path, PARAMS) == ["cat/watched-1.png"]
    assert (tmp_path / "images/cat/watched-1.png").read_text() == "uno"


def test_what_was_deleted_stays_in_the_training_data(tmp_path):
    write(tmp_path / "incoming/cat/1.png", "one")
    include(tmp_path, PARAMS)
    (tmp_path / "incoming/cat/1.png").unlink()
    assert include(tmp_path, PARAMS) == []
    assert (tmp_path / "images/cat/watched-1.png").exists()


def test_hidden_files_links_and_files_still_being_written_wait(tmp_path):
    write(tmp_path / "incoming/.partial-1.png", "half")
    write(tmp_path / "incoming/.staging/2.png", "half")
    write(tmp_path / "incoming/3.png", "just now", age_s=0)
    (tmp_path / "incoming/4.png").symlink_to(tmp_path / "incoming/3.png")
    assert include(tmp_path, PARAMS) == []
    assert not (tmp_path / "images").exists()


def test_a_missing_watched_folder_is_told(tmp_path):
    with pytest.raises(StageError, match=r"retrain\.include\.watched is 'incoming', and there is no such folder"):
        include(tmp_path, PARAMS)
