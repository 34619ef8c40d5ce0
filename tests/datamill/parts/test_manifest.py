import json

import pytest

from datamill import parts
from datamill.errors import DataError
from tests.datamill.parts.conftest import only_part


def test_a_folder_without_manifest_is_not_finished(folder):
    (folder / "manifest.json").unlink()
    with pytest.raises(DataError, match="was not finished"):
        parts.read_manifest(folder)


def test_a_truncated_part_is_named_with_both_sizes(folder):
    part = only_part(folder)
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"parquet has \d+ bytes, the manifest says \d+"):
        parts.read_table(folder)


def test_one_flipped_bit_is_found_by_verify(folder):
    part = only_part(folder)
    content = bytearray(part.read_bytes())
    content[100] ^= 1
    part.write_bytes(content)
    with pytest.raises(DataError, match="has SHA-256"):
        parts.verify(folder)


@pytest.mark.parametrize(("text", "message"), [("{", "is damaged"), (None, "has version 99")])
def test_a_damaged_or_foreign_manifest_is_refused(folder, text, message):
    path = folder / "manifest.json"
    path.write_text(text if text is not None else json.dumps(json.loads(path.read_text()) | {"version": 99}))
    with pytest.raises(DataError, match=message):
        parts.read_manifest(folder)


@pytest.mark.parametrize("key", ["../../elsewhere", "/etc/passwd", ""])
def test_a_manifest_that_names_a_file_elsewhere_is_refused(folder, key):
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    content["parts"][0]["key"] = key
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="is damaged"):
        parts.read_manifest(folder)
