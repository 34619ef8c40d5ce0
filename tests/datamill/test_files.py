import errno
import threading

import pytest

from datamill import files


def test_a_failed_write_leaves_the_old_file_and_no_trace(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"x": 1})
    with pytest.raises(FileNotFoundError), files.atomic_write(path) as partial:
        partial.write_text((tmp_path / "absent").read_text())
    assert path.read_text() == '{\n  "x": 1\n}\n'
    assert [one.name for one in tmp_path.iterdir()] == ["a.json"]


def test_a_folder_takes_the_place_of_a_folder(tmp_path):
    target = tmp_path / "parts"
    for content in ("old", "new"):
        partial = files.partial_path(target)
        partial.mkdir()
        (partial / content).write_text(content)
        files.publish(target)
    assert [one.name for one in tmp_path.rglob("*")] == ["parts", "new"]


def test_the_partial_name_keeps_the_ending(tmp_path):
    assert files.partial_path(tmp_path / "a.png").name == ".partial-a.png"


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", {"x": float("nan")})


def test_removing_what_is_absent_is_fine(tmp_path):
    files.remove(tmp_path / "nothing")


def test_a_finished_file_is_flushed_beside_other_work_and_a_missing_one_is_no_error(tmp_path, monkeypatch):
    there, gone = tmp_path / "there", tmp_path / "gone"
    there.write_text("x")
    asked, flush = [], files.fsync_path

    def noted(path):
        asked.append(path)
        flush(path)
        done.set()

    done = threading.Event()
    monkeypatch.setattr(files, "fsync_path", noted)
    files.flush_soon(gone)
    files.flush_soon(there)
    assert done.wait(10)
    assert asked == [gone, there]


def test_what_could_not_be_flushed_beside_other_work_is_raised_by_the_next_publish(tmp_path, monkeypatch):
    told = iter([OSError(errno.EIO, "Input/output error")])
    flush = files.fsync_path

    def fails_once(path):
        if (error := next(told, None)) is not None:
            raise error
        flush(path)

    monkeypatch.setattr(files, "fsync_path", fails_once)
    (tmp_path / "there").write_text("x")
    files.flush_soon(tmp_path / "there")
    with pytest.raises(OSError, match="Input/output error"):
        files.write_json(tmp_path / "manifest.json", {})
    assert not (tmp_path / "manifest.json").exists()
    files.write_json(tmp_path / "manifest.json", {})
