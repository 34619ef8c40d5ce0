import os

from datamill import files, imports
from datamill.lineage import codebase
from datamill.lineage.codebase import Code
from tests.toys import PIPELINE


def test_the_present_code_of_a_stage_is_named_by_file_with_dvcs_digests():
    code = codebase.present("datamill.files")
    assert list(code.files) == ["datamill/files.py"]
    assert code.files["datamill/files.py"] == files.md5_file(imports.module_file("datamill.files"))
    assert code.digest == imports.digest("datamill.files")


def test_what_a_digest_stood_for_is_remembered(tmp_path):
    stage = PIPELINE[0]
    codebase.note(stage, root=tmp_path)
    digest = codebase.present(stage.module).digest
    lock = {"make": {"params": {".datamill/observed.yaml": {"code.make": digest}}}, "choose": {}}
    codes = codebase.codes(lock, stages=("make", "choose", "total"), root=tmp_path)
    assert codes["make"] == codebase.present(stage.module)
    assert codes["choose"] == codes["total"] == Code()


def test_without_a_lock_file_the_last_note_counts(tmp_path):
    codebase.note(PIPELINE[0], root=tmp_path)
    assert codebase.codes({}, stages=("make",), root=tmp_path)["make"] == codebase.present(PIPELINE[0].module)


def test_in_the_checkout_the_lock_file_names_the_files():
    lock = {"train": {"deps": [{"path": "datamill/a.py", "md5": "1"}, {"path": "data/x", "md5": "2"}]}}
    assert codebase.codes(lock, stages=("train",), root=None)["train"] == Code(files={"datamill/a.py": "1"})


def test_sameness_is_told_by_files_else_by_digest_else_not_at_all():
    assert Code("1", {"a": "x"}).same_as(Code("2", {"a": "x"})) is True
    assert Code("1").same_as(Code("2", {"a": "x"})) is False
    assert Code("1").same_as(Code("1")) is True
    assert Code("1").same_as(Code(files={"a": "x"})) is None


def test_of_many_notes_those_of_long_ago_go(tmp_path, monkeypatch):
    monkeypatch.setattr(codebase, "MAX_NOTES", 3)
    folder = tmp_path / codebase.FOLDER
    folder.mkdir(parents=True)
    for time, letter in enumerate("bcda", start=1):
        note = folder / f"{letter * 32}.json"
        note.write_text("{}")
        os.utime(note, (time, time))
    codebase.note(PIPELINE[0], root=tmp_path)
    digest = codebase.present(PIPELINE[0].module).digest
    assert {path.stem for path in folder.iterdir()} == {"a" * 32, "d" * 32, digest, "make"}
