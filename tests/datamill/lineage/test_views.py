import os
from pathlib import Path

from datamill.lineage import views


def open_view(name: str, *, root: Path) -> Path:
    return views.view(name, root=root, write=lambda path: path.write_text(name), is_whole=Path.is_file)


def age(path: Path, *, days: float) -> None:
    time = path.stat().st_mtime - days * 24 * 3600
    os.utime(path, (time, time))


def test_a_view_is_written_once(tmp_path: Path) -> None:
    path = open_view("one", root=tmp_path)
    path.write_text("as it was written")
    assert open_view("one", root=tmp_path).read_text() == "as it was written"


def test_views_that_nobody_asked_for_in_a_week_go_when_another_is_written(tmp_path: Path) -> None:
    old, asked, young = (open_view(name, root=tmp_path) for name in ("old", "asked", "young"))
    age(old, days=8)
    age(asked, days=8)
    age(young, days=6)
    open_view("asked", root=tmp_path)
    assert old.exists()
    open_view("new", root=tmp_path)
    assert sorted(path.name for path in (tmp_path / views.FOLDER).iterdir()) == ["asked", "new", "young"]
