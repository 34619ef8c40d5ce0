"""What a parts folder holds: its manifest, which is written last, and whether the parts are as it says."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from datamill import files
from datamill.errors import DataError
from datamill.samples import Dataset

MANIFEST = "manifest.json"
VERSION = 2
MAX_ROWS = 50_000  # of a part


class Part(BaseModel):
    """One Parquet file."""

    model_config = ConfigDict(frozen=True)

    key: str = Field(pattern="^[0-9a-f]{1,64}$")  # names a file, and must not lead out of the folder
    num_rows: int
    size_bytes: int
    sha256: str

    @property
    def name(self) -> str:
        """Its file's name."""
        return f"{self.key}.parquet"


class Manifest(BaseModel):
    """The parts of a folder; a folder without it is not finished."""

    model_config = ConfigDict(frozen=True)

    version: int = VERSION
    dataset: Dataset
    num_rows: int
    parts: tuple[Part, ...]


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a parts folder.

    Raises:
        DataError: It is missing, damaged, of another version, or names a part that is missing or has another size.
    """
    path = folder / MANIFEST
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(
            f"{path} is missing: the folder was not finished; run the stage that writes it again"
        ) from error
    except ValidationError as error:
        raise DataError(
            f"{path} is damaged ({error.error_count()} faults); run the stage that writes it again"
        ) from error
    if manifest.version != VERSION:
        raise DataError(f"{path} has version {manifest.version}, this datamill reads {VERSION}; run the pipeline again")
    for part in manifest.parts:
        file = folder / part.name
        size = file.stat().st_size if file.is_file() else None
        if size != part.size_bytes:
            raise DataError(f"{file} has {size} bytes, the manifest says {part.size_bytes}; run the stage again")
    return manifest


def verify(folder: Path) -> Manifest:
    """The manifest, after every part's bytes were compared with their SHA-256.

    Raises:
        DataError: A part was changed or damaged.
    """
    manifest = read_manifest(folder)
    for part in manifest.parts:
        found = files.sha256_file(folder / part.name)
        if found != part.sha256:
            raise DataError(f"{folder / part.name} has SHA-256 {found[:12]}, the manifest says {part.sha256[:12]}")
    return manifest


def known_parts(folder: Path | None) -> Mapping[str, Part]:
    """The parts of a folder by key; none where the folder is missing, damaged or of another version."""
    try:
        return {part.key: part for part in read_manifest(folder).parts} if folder is not None else {}
    except DataError:
        return {}


def is_whole(folder: Path, part: Part) -> bool:
    """Whether the bytes of ``part`` in ``folder`` are those that were written."""
    file = folder / part.name
    return file.is_file() and file.stat().st_size == part.size_bytes and files.sha256_file(file) == part.sha256
