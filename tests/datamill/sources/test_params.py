"""What a source section may say."""

from pathlib import Path
from typing import Any

import fsspec
import pytest
from pydantic import ValidationError

from datamill import sources
from datamill.modalities import image
from datamill.sources.params import IngestParams
from tests.datamill.sources.drain import TABLE_FIELDS, make_params

IDX: dict[str, Any] = {"kind": "idx", "images": ["a", "b"], "labels": ["c", "d"], "class_names": None}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"kind": "bundled", "name": "mnist"}, "'digits', 'breast_cancer', 'wine' or 'iris'"),
        ({"kind": "video", "path": "x"}, "'bundled', 'image_folder', 'idx', 'table'"),
        ({"kind": "image_folder", "path": "x", "group_from": "none", "colour": 1}, "Extra inputs are not permitted"),
        ({**IDX, "labels": ["c"]}, "images names 2 files and labels 1; they go in pairs"),
        ({**IDX, "images": ["x/a", "y/a"]}, "share a name"),
        ({**IDX, "class_names": ["cat", "cat"]}, "holds a name twice"),
        ({**TABLE_FIELDS, "path": "x", "encoding": "utf-9"}, "encoding 'utf-9' is unknown"),
        ({**TABLE_FIELDS, "path": "x", "exclude": ["class"]}, r"columns \['class'\] have two roles"),
        ({**TABLE_FIELDS, "path": "x", "delimiter": ";;"}, "at most 1 character"),
    ],
)
def test_a_wrong_source_is_refused_with_the_alternatives(source: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make_params(source)


def test_no_image_may_exceed_what_later_stages_decode() -> None:
    with pytest.raises(ValidationError, match="less than or equal to 64000000"):
        make_params({"kind": "bundled", "name": "iris"}, max_pixels=image.MAX_PIXELS + 1)


def test_every_parameter_is_described() -> None:
    schema = IngestParams.model_json_schema()
    for model in [schema, *schema["$defs"].values()]:
        assert [name for name, field in model["properties"].items() if not field.get("description")] == []


def test_local_paths_name_what_change_detection_must_watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b.csv", "a.csv"):
        Path(name).touch()
    table = {**TABLE_FIELDS}
    assert sources.local_paths(make_params({"kind": "bundled", "name": "iris"})) == []
    assert sources.local_paths(make_params({**IDX, "images": ["x/a", "s3://b"]})) == ["x/a", "c", "d"]
    assert sources.local_paths(make_params({**table, "path": "data/*.csv"})) == ["data"]
    assert sources.local_paths(make_params({**table, "path": "*.csv"})) == ["a.csv", "b.csv"]
    assert sources.local_paths(make_params({**table, "path": "memory://x/*.csv"})) == []
    assert sources.local_paths(make_params({**table, "path": "file:///data/x.csv"})) == ["/data/x.csv"]


def test_fingerprint_of_a_remote_source_changes_with_its_files() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/prints/cat/1.png", b"one")
    params = make_params({"kind": "image_folder", "path": "memory://prints", "group_from": "none"})
    first = sources.fingerprint(params)
    assert len(first) == 32
    assert sources.fingerprint(params) == first
    memory.pipe("/prints/cat/2.png", b"two")
    assert sources.fingerprint(params) != first
    assert sources.fingerprint(make_params({"kind": "bundled", "name": "iris"})) == ""
