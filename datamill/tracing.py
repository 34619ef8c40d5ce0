"""One sample's whole story: where it came from, what every stage decided about it, what was predicted."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from datamill import parts
from datamill.errors import DataError
from datamill.samples import LIGHT_COLUMNS
from datamill.stage import Stage

MAX_LISTED = 5
FEATURES = ("height", "width", "channels", "size_bytes", "pixel_mean", "pixel_std")


@dataclass(frozen=True)
class Chapter:
    """What one artifact says of a sample."""

    stage: str
    artifact: str
    facts: dict[str, Any]


def find_sample(text: str, *, stages: Iterable[Stage], root: Path) -> str:
    """The id of the one sample whose id begins with ``text``, or whose source key is or ends with ``text``.

    Raises:
        DataError: No sample fits, or several do.
    """
    found: dict[str, str] = {}
    for folder in _parts_folders(stages, root=root):
        for table in parts.iter_tables(folder, columns=["sample_id", "source"]) if "source" in _columns(folder) else ():
            fits = pc.or_(pc.starts_with(table["sample_id"], text), pc.ends_with(table["source"], text))
            found |= dict(zip(*(column.to_pylist() for column in table.filter(fits).columns), strict=True))
    if not found:
        raise DataError(f"no sample has an id that begins with, or a source that ends with, {text!r}")
    if len(found) > 1:
        listed = "\n".join(f"  {key}  {source}" for key, source in list(found.items())[:MAX_LISTED])
        raise DataError(f"{len(found)} samples fit {text!r}; name one by its id:\n{listed}")
    return next(iter(found))


def story(sample_id: str, *, stages: Iterable[Stage], root: Path) -> Iterator[Chapter]:
    """What every artifact on disk says of a sample, in the order of the stages."""
    for stage in stages:
        for artifact in stage.outputs.values():
            path = root / artifact.path
            for facts in _facts(sample_id, path):
                yield Chapter(stage.name, artifact.path, facts)


def _facts(sample_id: str, path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet" and path.is_file() and "sample_id" in pq.read_schema(path).names:
        rows = pq.read_table(path, filters=[("sample_id", "=", sample_id)]).to_pylist()
    elif (path / parts.MANIFEST).is_file():
        tables = parts.iter_tables(path, columns=_columns(path))
        rows = [row for table in tables for row in table.filter(pc.equal(table["sample_id"], sample_id)).to_pylist()]
    else:
        rows = []
    return [
        {key: value for key, value in row.items() if key != "sample_id" and value not in (None, "", [])} for row in rows
    ]


def _parts_folders(stages: Iterable[Stage], *, root: Path) -> Iterator[Path]:
    for stage in stages:
        for artifact in stage.outputs.values():
            if (root / artifact.path / parts.MANIFEST).is_file():
                yield root / artifact.path


def _columns(folder: Path) -> list[str]:
    """Columns that a person can read: of samples all but the payload, of features what was seen in it."""
    found = parts.read_manifest(folder).parts
    names = pq.read_schema(folder / found[0].name).names if found else []
    wanted = LIGHT_COLUMNS if "source" in names else ("sample_id", *FEATURES)
    return [name for name in wanted if name in names]
