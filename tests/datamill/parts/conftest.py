import pytest

from datamill import parts
from tests.builders import image_table, small_parts, write_parts


def keys(folder):
    return [part.key for part in parts.read_manifest(folder).parts]


def only_part(folder):
    (part,) = parts.read_manifest(folder).parts
    return folder / part.name


@pytest.fixture
def folder(tmp_path):
    return write_parts(tmp_path / "samples", *image_table())


@pytest.fixture(name="small_parts")
def _small_parts(monkeypatch):
    """Parts of 5 to 40 samples of 100 bytes."""
    small_parts(monkeypatch, target_bytes=20_000, least_row_bytes=1_000)
