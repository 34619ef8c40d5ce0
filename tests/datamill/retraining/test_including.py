import os
import time

import cv2
import numpy as np
import pytest

from datamill.errors import StageError
from datamill.retraining import IncludeParams
from datamill.retraining.including import include
from datamill.sources import listing
from datamill.sources.stores import Store
from tests.datamill.sources.rerun import Workspace

PARAMS = IncludeParams(watched="incoming", into="images")


def write(path, content, *, age_s=60.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
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


def test_the_next_ingest_opens_the_new_files_and_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "SETTLED_S", -1000.0)  # trust files that were just written
    opened, real = [], Store.read
    monkeypatch.setattr(Store, "read", lambda store, file: (opened.append(file.key), real(store, file))[1])

    def png(brightness):
        return cv2.imencode(".png", np.full((6, 6), brightness, np.uint8))[1].tobytes()

    for number in range(12):
        write(tmp_path / "images" / ("cat", "dog")[number % 2] / f"{number}.png", png(number))
    source = {"kind": "image_folder", "path": str(tmp_path / "images"), "group_from": "none"}
    workspace = Workspace(tmp_path / "ingested", source)
    assert workspace.ingest()["num_samples"] == 12
    opened.clear()
    write(tmp_path / "incoming/cat/1.png", png(100))
    write(tmp_path / "incoming/dog/1.png", png(101))
    include(tmp_path, PARAMS)
    assert workspace.ingest()["classes"] == {"cat": 7, "dog": 7}
    assert opened == ["cat/watched-1.png", "dog/watched-1.png"]
    assert workspace.content() == workspace.fresh_content()
    opened.clear()
    include(tmp_path, PARAMS)
    workspace.ingest()
    assert opened == []
