"""Sources with a history: tiny ones that are edited at random, and the workspaces that follow them."""

import contextlib
import csv
import gzip
import hashlib
import io
import json
import os
import random
import shutil
import sqlite3
import struct
import tarfile
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, final

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datamill import config, ledger, parts, recall
from datamill.cleaning import buckets, pairs
from datamill.errors import DatamillError
from datamill.execute import execute
from datamill.settings import Settings
from datamill.shards import writing
from datamill.shards.exchange import example, mds, tfrecord
from datamill.sources import exchanged, idx, image_folder, listing, query, stretches
from datamill.stage import Stage
from tasks import PIPELINE

DATA_STAGES = PIPELINE[: [stage.name for stage in PIPELINE].index("shard") + 1]
SETTINGS = Settings(tracking="off", num_threads=1, num_workers=1, device="cpu")
CLASSES = ("0", "1", "2")
RARE = "9"  # a class that comes and goes
SMALL = {
    (parts.writing, "TARGET_BYTES"): 3000, (parts.writing, "MIN_BYTES"): 750, (parts.writing, "MAX_BYTES"): 6000,
    (parts.writing, "LEAST_ROW_BYTES"): 20, (parts, "READ_ROWS"): 16, (parts.parquet, "READ_ROWS"): 16,
    (parts.parquet, "GROUP_BYTES"): 1500,
    (stretches, "MEAN_ROWS"): 8, (stretches, "MAX_ROWS"): 20, (stretches, "REACH"): 1,
    (exchanged, "BATCH_IMAGES"): 24, (image_folder, "BATCH_FILES"): 8, (recall, "READ_ROWS"): 32,
    (buckets, "MAX_NEIGHBORS"): 2, (buckets, "PART_ROWS"): 64, (pairs, "MAX_PAIRS"): 40, (pairs, "PER_SAMPLE"): 0,
    (writing, "BLOCK_BYTES"): 512, (writing, "SEGMENT_BYTES"): 4000,
    (idx, "BATCH_ROWS"): 16, (query, "BATCH_ROWS"): 16, (listing, "SETTLED_S"): -1000.0,
}  # fmt: skip
"""Bounds under which a few hundred rows are many parts; files that were just written count as settled."""
EXAMPLE = Path(__file__).resolve().parents[2] / "flows/examples" / "digits"

Payload = Any
"""Of an image its encoded bytes, of a table the values of its features by name."""


@dataclass(frozen=True)
class Row:
    """One item of a source."""

    label: str
    payload: Payload
    name: str
    """Of its file in a folder of images, of its group in a table."""


Files = dict[str, list[Row]]
"""The rows of a source, by the file, or the folder, that they lie in."""


class Source(Protocol):
    """A kind of source."""

    @abstractmethod
    def params(self, folder: Path) -> dict[str, Any]:
        """Its section ``ingest.source``."""

    @abstractmethod
    def payload(self, label: str, *, rng: random.Random) -> Payload:
        """One of this class."""

    @abstractmethod
    def near(self, payload: Payload, *, rng: random.Random) -> Payload:
        """One that differs by a little."""

    @abstractmethod
    def bad(self, payload: Payload, *, rng: random.Random) -> Payload:
        """One that cannot become a sample."""

    @abstractmethod
    def write(self, folder: Path, name: str, rows: Sequence[Row]) -> None:
        """Write one file, or the files of one folder, anew."""

    @abstractmethod
    def remove(self, folder: Path, name: str) -> None:
        """Take it away."""

    def rename(self, folder: Path, name: str, other: str) -> None:
        """Give it another name, without writing it."""
        (folder / name).rename(folder / other)


class _Images:
    """Pictures of noise, of which the third that is bright tells the class."""

    def payload(self, label: str, *, rng: random.Random) -> bytes:
        shape = (9, 9, 3) if rng.random() < 0.05 else (rng.choice([9, 9, 9, 12]), 9)
        pixels = np.frombuffer(rng.randbytes(int(np.prod(shape))), np.uint8).reshape(shape) // 4
        third = int(label) % 3 * 3
        pixels[third : third + 3] += 150
        return _encoded(pixels)

    def near(self, payload: bytes, *, rng: random.Random) -> bytes:
        pixels = cv2.imdecode(np.frombuffer(payload, np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None:
            return payload
        pixels[rng.randrange(pixels.shape[0]), rng.randrange(pixels.shape[1])] ^= np.uint8(rng.choice([1, 2, 3]))
        return _encoded(pixels)

    def bad(self, payload: bytes, *, rng: random.Random) -> bytes:
        return rng.choice([payload[: len(payload) // 2], b"no image", b"", payload[:-8] + b"flipped!"])


def _encoded(pixels: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", pixels)[1].tobytes())


ENDINGS = {"parquet": ".parquet", "webdataset": ".tar", "tfrecord": ".tfrecord", "mds": ".mds"}


@final
class PackedImages(_Images, Source):
    """Encoded images in files of a format that other tools write."""

    def __init__(self, form: str = "parquet") -> None:
        """Files of this format."""
        self._form = form

    def params(self, folder: Path) -> dict[str, Any]:
        named = {"image": None, "label": None, "class_names": None}
        return {"kind": "exchanged", "format": self._form, "path": str(folder), **named}

    def write(self, folder: Path, name: str, rows: Sequence[Row]) -> None:
        self._path(folder, name).write_bytes(PACKED[self._form](rows))

    def remove(self, folder: Path, name: str) -> None:
        self._path(folder, name).unlink()

    def rename(self, folder: Path, name: str, other: str) -> None:
        self._path(folder, name).rename(self._path(folder, other))

    def _path(self, folder: Path, name: str) -> Path:
        return folder / f"{name}{ENDINGS[self._form]}"


def _parquet(rows: Sequence[Row]) -> bytes:
    images = [{"bytes": row.payload, "path": None} for row in rows]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    labels = pa.array([int(row.label) for row in rows], pa.int64())
    stream = io.BytesIO()
    pq.write_table(pa.table({"image": pa.array(images, kind), "label": labels}), stream)
    return stream.getvalue()


def _tar(rows: Sequence[Row]) -> bytes:
    """Members in pairs; every other file is compressed."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for row in rows:
            for ending, content in (("png", row.payload), ("cls", row.label.encode())):
                member = tarfile.TarInfo(f"{row.name}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return _perhaps_zipped(stream.getvalue(), rows=rows)


def _tfrecord(rows: Sequence[Row]) -> bytes:
    stream = io.BytesIO()
    writer = tfrecord.RecordWriter(stream, dataset=None)
    for row in rows:
        label = np.array([int(row.label)], np.int64)
        writer._append(example.encode({"image/encoded": [row.payload], "image/class/label": label}))
    return _perhaps_zipped(stream.getvalue(), rows=rows)


def _mds(rows: Sequence[Row]) -> bytes:
    stream = io.BytesIO()
    writer = mds.MdsWriter(stream)
    for row in rows:
        writer.write(hashlib.blake2b(row.name.encode(), digest_size=16).hexdigest(), row.payload, int(row.label))
    if not rows:  # which files written by the library never are: only its columns tell what it is
        writer.write("", b"", 0)
        writer._samples.clear()
    writer.close()
    return stream.getvalue()


PACKED: dict[str, Callable[[Sequence[Row]], bytes]] = {
    "parquet": _parquet,
    "webdataset": _tar,
    "tfrecord": _tfrecord,
    "mds": _mds,
}


def _perhaps_zipped(content: bytes, *, rows: Sequence[Row]) -> bytes:
    """So that the compression of a file comes and goes with its rows."""
    return gzip.compress(content, mtime=0) if len(rows) % 2 else content


@final
class IdxPairs(Source):
    """Pairs of files of images and labels, which are named in the parameters."""

    def params(self, folder: Path) -> dict[str, Any]:
        names = [path.name for path in sorted(folder.iterdir()) if not path.name.endswith("-labels")]
        images, labels = ([str(folder / f"{name}{end}") for name in names] for end in ("", "-labels"))
        return {"kind": "idx", "images": images, "labels": labels, "class_names": None}

    def payload(self, label: str, *, rng: random.Random) -> bytes:
        pixels = np.frombuffer(rng.randbytes(81), np.uint8).reshape(9, 9) // 4
        third = int(label) % 3 * 3
        pixels[third : third + 3] += 150
        return pixels.tobytes()

    def near(self, payload: bytes, *, rng: random.Random) -> bytes:
        place = rng.randrange(len(payload))
        return payload[:place] + bytes([payload[place] ^ rng.choice([1, 2, 3])]) + payload[place + 1 :]

    def bad(self, payload: bytes, *, rng: random.Random) -> bytes:
        """There is no image that is none; this one is empty."""
        return bytes(len(payload))

    def write(self, folder: Path, name: str, rows: Sequence[Row]) -> None:
        images = struct.pack(">4B3I", 0, 0, 8, 3, len(rows), 9, 9) + b"".join(row.payload for row in rows)
        labels = struct.pack(">4BI", 0, 0, 8, 1, len(rows)) + bytes(int(row.label) for row in rows)
        (folder / name).write_bytes(_perhaps_zipped(images, rows=rows))
        (folder / f"{name}-labels").write_bytes(_perhaps_zipped(labels, rows=rows[1:]))

    def remove(self, folder: Path, name: str) -> None:
        (folder / name).unlink()
        (folder / f"{name}-labels").unlink()

    def rename(self, folder: Path, name: str, other: str) -> None:
        (folder / name).rename(folder / other)
        (folder / f"{name}-labels").rename(folder / f"{other}-labels")


@final
class ImageFolders(_Images, Source):
    """A folder per class, and one per patient below it; a row lies in the folder of its class."""

    def params(self, folder: Path) -> dict[str, Any]:
        return {"kind": "image_folder", "path": str(folder), "group_from": "folder"}

    def write(self, folder: Path, name: str, rows: Sequence[Row]) -> None:
        wanted = {folder / row.label / name / f"{row.name}.png": row.payload for row in rows}
        for path in folder.glob(f"*/{name}/*"):
            if path not in wanted:
                path.unlink()
        for path, payload in wanted.items():
            if not path.exists() or path.read_bytes() != payload:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(payload)

    def remove(self, folder: Path, name: str) -> None:
        for path in folder.glob(f"*/{name}"):
            shutil.rmtree(path)

    def rename(self, folder: Path, name: str, other: str) -> None:
        for path in folder.glob(f"*/{name}"):
            path.rename(path.with_name(other))


COLUMNS = ("height", "width", "colour", "when", "key", "class", "patient")
ROLES = ("target", "target_kind", "group", "time", "id", "exclude", "kinds")  # of columns, in files and databases


class Table(Source):
    """Files of rows with numbers, holes and words; the columns of each file have an order of their own."""

    def __init__(self, form: str = "csv", *, has_id: bool = False) -> None:
        """Files of this format."""
        self._form = form
        self._has_id = has_id
        self._columns = COLUMNS if has_id else tuple(column for column in COLUMNS if column != "key")

    def params(self, folder: Path) -> dict[str, Any]:
        roles = {"target": "class", "group": "patient", "time": "when", "id": "key" if self._has_id else None}
        read = {"format": self._form, "delimiter": ",", "encoding": "utf-8", "target_kind": "category"}
        return {"kind": "table", "path": str(folder), **read, **roles, "exclude": [], "kinds": {}}

    def payload(self, label: str, *, rng: random.Random) -> dict[str, Any]:
        return {
            "height": round(4.0 * int(label) + rng.gauss(0, 1), 3),
            "width": None if rng.random() < 0.1 else round(rng.gauss(-int(label), 1), 2),
            "colour": rng.choice(["red", "green", "blue"]) if rng.random() < 0.9 else None,
            "when": f"2024-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}",
            "key": f"k{rng.randrange(5_000)}",
        }

    def near(self, payload: dict[str, Any], *, rng: random.Random) -> dict[str, Any]:
        return {**payload, "height": 1e6 if rng.random() < 0.1 else rng.gauss(0, 1)}

    def bad(self, payload: dict[str, Any], *, rng: random.Random) -> dict[str, Any]:
        return {**payload, **rng.choice([{"when": "some day"}, {"height": "tall"}, {"width": "wide"}, {"key": None}])}

    def write(self, folder: Path, name: str, rows: Sequence[Row]) -> None:
        columns = list(self._columns)
        random.Random(name).shuffle(columns)
        told = [{**row.payload, "class": row.label, "patient": row.name} for row in rows]
        if self._form == "csv":
            with (folder / f"{name}.csv").open("w", newline="") as file:
                csv.writer(file).writerows([columns, *([one[column] for column in columns] for one in told)])
            return
        numbers = {column: pa.float64() for column in ("height", "width")}
        cells = {
            column: pa.array(
                [value if isinstance(value, float) or column not in numbers else None for value in values],
                numbers.get(column, pa.string()),
            )
            for column in columns
            for values in [[one[column] for one in told]]
        }
        pq.write_table(pa.table(cells), folder / f"{name}.parquet")

    def remove(self, folder: Path, name: str) -> None:
        (folder / f"{name}.{self._form}").unlink()

    def rename(self, folder: Path, name: str, other: str) -> None:
        (folder / f"{name}.{self._form}").rename(folder / f"{other}.{self._form}")


@final
class Rows(Table):
    """Rows of a table in a database of one file, whose columns hold what they are given."""

    def params(self, folder: Path) -> dict[str, Any]:
        os.environ["DATAMILL_HISTORY"] = f"sqlite:///{folder / 'rows.db'}"
        named = {name: value for name, value in super().params(folder).items() if name in ROLES}
        query = f"SELECT {self._quoted} FROM history"  # noqa: S608 - of names above
        return {**named, "kind": "query", "url_variable": "DATAMILL_HISTORY", "query": query, "version": None}

    def write(self, folder: Path, name: str, rows: Sequence[Row]) -> None:
        values = [{**row.payload, "class": row.label, "patient": row.name, "file": name} for row in rows]
        self.remove(folder, name)
        marks = ", ".join(f":{column}" for column in ("file", *self._columns))
        self._tell(folder, f"INSERT INTO history VALUES ({marks})", values)  # noqa: S608

    def remove(self, folder: Path, name: str) -> None:
        self._tell(folder, "DELETE FROM history WHERE file = :name", [{"name": name}])

    def rename(self, folder: Path, name: str, other: str) -> None:
        names = {"name": name, "other": other}
        self._tell(folder, "UPDATE history SET file = :other WHERE file = :name", [names])

    @property
    def _quoted(self) -> str:
        return ", ".join(f'"{column}"' for column in self._columns)

    def _tell(self, folder: Path, statement: str, values: Sequence[Mapping[str, Any]]) -> None:
        with contextlib.closing(sqlite3.connect(folder / "rows.db")) as connection, connection:
            connection.execute(f"CREATE TABLE IF NOT EXISTS history (file, {self._quoted})")
            connection.executemany(statement, values)


@dataclass
class History:
    """A source on disk, and the edits that it goes through."""

    source: Source
    folder: Path
    rng: random.Random
    files: Files = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    _count: int = 0

    def begin(self, *, num_files: int, num_rows: int) -> None:
        """Make files with so many rows each."""
        self.folder.mkdir(parents=True)
        for _ in range(num_files):
            self._put(self._new_name(), [self._row(self.rng.choice(CLASSES)) for _ in range(num_rows)])

    def edit(self) -> str:
        """Do something to it; what, in words."""
        edits = [
            self._append_rows, self._append_file, self._change, self._delete, self._delete_file, self._rename,
            self._reorder, self._duplicate, self._near, self._bad, self._relabel, self._come, self._go, self._empty,
            self._move, self._swap, self._touch,
        ]  # fmt: skip
        chosen = self.rng.choice(edits)
        self.log.append(f"{chosen.__name__.lstrip('_')} {chosen() or ''}".strip())
        return self.log[-1]

    def _new_name(self) -> str:
        self._count += 1
        return f"{self.rng.randrange(100):02d}-{self._count}"

    def _row(self, label: str) -> Row:
        self._count += 1
        name = (
            f"p{self.rng.randrange(60)}"
            if isinstance(self.source, Table)
            else f"{self.rng.randrange(1000)}-{self._count}"
        )
        return Row(label, self.source.payload(label, rng=self.rng), name)

    def _put(self, name: str, rows: list[Row]) -> None:
        self.files[name] = rows
        self.source.write(self.folder, name, rows)

    def _some_file(self) -> tuple[str, list[Row]]:
        name = self.rng.choice(sorted(self.files))
        return name, list(self.files[name])

    def _some_rows(self, rows: Sequence[Row]) -> list[int]:
        count = min(len(rows), self.rng.choice([1, 2, 5, 20]))
        return self.rng.sample(range(len(rows)), count)

    def _put_at(self, rows: list[Row], new: Sequence[Row]) -> list[Row]:
        """New rows at the end, the beginning, or anywhere."""
        where = self.rng.choice(["end", "start", "anywhere"])
        if where == "anywhere":
            for row in new:
                rows.insert(self.rng.randrange(len(rows) + 1), row)
            return rows
        return [*rows, *new] if where == "end" else [*new, *rows]

    def _append_rows(self) -> str:
        name, rows = self._some_file()
        new = [self._row(self.rng.choice(CLASSES)) for _ in range(self.rng.choice([1, 3, 30]))]
        self._put(name, self._put_at(rows, new))
        return f"{len(new)} to {name}"

    def _append_file(self) -> str:
        name = self._new_name()
        self._put(name, [self._row(self.rng.choice(CLASSES)) for _ in range(self.rng.choice([0, 1, 40]))])
        return name

    def _change(self) -> str:
        return self._replace(lambda row: self._with(row, self.source.payload(row.label, rng=self.rng)))

    def _near(self) -> str:
        return self._copy(lambda row: self._with(row, self.source.near(row.payload, rng=self.rng)))

    def _duplicate(self) -> str:
        return self._copy(
            lambda row: row if self.rng.random() < 0.7 else Row(self.rng.choice(CLASSES), row.payload, row.name)
        )

    def _bad(self) -> str:
        return self._replace(lambda row: self._with(row, self.source.bad(row.payload, rng=self.rng)))

    def _relabel(self) -> str:
        return self._replace(lambda row: Row(self.rng.choice(CLASSES), row.payload, row.name))

    def _come(self) -> str:
        """A class appears."""
        name, rows = self._some_file()
        self._put(name, self._put_at(rows, [self._row(RARE) for _ in range(self.rng.choice([1, 12]))]))
        return f"in {name}"

    def _go(self) -> None:
        """It disappears."""
        self._keep(lambda row: row.label != RARE)

    def _empty(self) -> str:
        """A class loses almost all of its rows."""
        label, left = self.rng.choice(CLASSES), self.rng.choice([1, 3, 8])
        kept = [row for rows in self.files.values() for row in rows if row.label == label][:left]
        self._keep(lambda row: row.label != label or any(row is one for one in kept))
        return f"{label} down to {left}"

    def _delete(self) -> str:
        name, rows = self._some_file()
        gone = set(self._some_rows(rows))
        self._put(name, [row for place, row in enumerate(rows) if place not in gone])
        return f"{len(gone)} of {name}"

    def _delete_file(self) -> str:
        if len(self.files) < 2:
            return "none"
        name, _ = self._some_file()
        del self.files[name]
        self.source.remove(self.folder, name)
        return name

    def _rename(self) -> str:
        name, rows = self._some_file()
        other = self._new_name()
        del self.files[name]
        self.files[other] = rows
        self.source.rename(self.folder, name, other)
        return f"{name} to {other}"

    def _swap(self) -> str:
        """Two files change names."""
        if len(self.files) < 2:
            return "none"
        one, other = self.rng.sample(sorted(self.files), 2)
        for name, new in ((one, "aside"), (other, one), ("aside", other)):
            self.source.rename(self.folder, name, new)
        self.files[one], self.files[other] = self.files[other], self.files[one]
        return f"{one} and {other}"

    def _reorder(self) -> str:
        name, rows = self._some_file()
        names = [row.name for row in rows]
        self.rng.shuffle(rows if isinstance(self.source, Table) else names)
        self._put(name, [Row(row.label, row.payload, told) for row, told in zip(rows, names, strict=True)])
        if isinstance(self.source, PackedImages | IdxPairs):
            self.rng.shuffle(rows)
            self._put(name, rows)
        return name

    def _move(self) -> str:
        """Rows go to another file."""
        (name, rows), (other, _) = self._some_file(), self._some_file()
        gone = set(self._some_rows(rows))
        self._put(name, [row for place, row in enumerate(rows) if place not in gone])
        self._put(other, [*self.files[other], *(rows[place] for place in sorted(gone))])
        return f"{len(gone)} from {name} to {other}"

    def _touch(self) -> str:
        """A file is written again with the same content."""
        name, rows = self._some_file()
        self._put(name, rows)
        return name

    def _with(self, row: Row, payload: Payload) -> Row:
        return Row(row.label, payload, row.name)

    def _replace(self, change: Callable[[Row], Row]) -> str:
        name, rows = self._some_file()
        places = self._some_rows(rows)
        for place in places:
            rows[place] = change(rows[place])
        self._put(name, rows)
        return f"{len(places)} of {name}"

    def _copy(self, change: Callable[[Row], Row]) -> str:
        name, rows = self._some_file()
        other, others = self._some_file()
        new = [change(rows[place]) for place in self._some_rows(rows)]
        if not isinstance(self.source, Table):
            new = [Row(row.label, row.payload, self._row(row.label).name) for row in new]
        self._put(other, self._put_at(others, new))
        return f"{len(new)} of {name} to {other}"

    def _keep(self, is_kept: Callable[[Row], bool]) -> None:
        for name, rows in list(self.files.items()):
            left = [row for row in rows if is_kept(row)]
            if len(left) < len(rows):
                self._put(name, left)


@dataclass
class Outcome:
    """What a run left: every output by its path, and the error that ended it, if one did."""

    outputs: dict[str, bytes]
    error: str

    def difference(self, other: "Outcome") -> str:
        """What differs, in words; empty if nothing does."""
        if self.error != other.error:
            return f"errors {self.error!r} and {other.error!r}"
        names = self.outputs.keys() | other.outputs.keys()
        return ", ".join(sorted(name for name in names if self.outputs.get(name) != other.outputs.get(name)))


def write_params(root: Path, *, source: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
    """A ``params.yaml`` like that of the digits, for this source, with these changes, ``{"split.seed": 1}``."""
    sections = config.read_params(EXAMPLE)
    sections["ingest"]["source"] = dict(source)
    sections["synthesize"]["method"] = "off"
    sections["validate"]["expectations"] = []
    for name, value in {"validate.max_bad_share": 0.9, "validate.limits.classes.allowed": None, **changes}.items():
        *path, last = name.split(".")
        section = sections
        for one in path:
            section = section[one]
        section[last] = value
    root.mkdir(parents=True, exist_ok=True)
    (root / "params.yaml").write_text(json.dumps(sections))


def run(root: Path, *, settings: Settings = SETTINGS) -> Outcome:
    """Run every stage up to the shards and collect what they wrote, up to the one that fails."""
    outputs: dict[str, bytes] = {}
    error = ""
    for stage in DATA_STAGES:
        try:
            with contextlib.redirect_stdout(None):
                execute(stage, root=root, pipeline=PIPELINE, settings=settings)
        except DatamillError as caught:
            error = f"{stage.name}: {type(caught).__name__} {caught}".replace(str(root), "")
            break
        outputs |= collect(stage, root=root)
    return Outcome(outputs, error)


def collect(stage: Stage, *, root: Path) -> dict[str, bytes]:
    """What a stage wrote, by its path."""
    paths = [root / artifact.path for artifact in (*stage.outputs.values(), stage.metrics)]
    found = [one for path in paths for one in ([path] if path.is_file() else sorted(path.rglob("*"))) if one.is_file()]
    return {one.relative_to(root).as_posix(): one.read_bytes() for one in found}


def splits(root: Path) -> dict[tuple[str, ...], str]:
    """Split of every sample, by its id, class and group, but for units whose first sample decides for others unlike it.

    Such a unit, of near-duplicates in several groups say, follows its first sample, which may be another one next time.
    """
    names = ["sample_id", "content_hash", "label", "group"]
    rows = parts.read_table(root / "data/ingest/samples", columns=names).to_pylist()
    ties = ledger.read(root / "data/clean/ledger.parquet", columns=["sample_id", "leak_group"]).to_pylist()
    leak = {row["sample_id"]: row["leak_group"] for row in ties}
    home: dict[Any, Any] = {}

    def first(one: Any) -> Any:
        while one in home:
            one = home[one]
        return one

    for row in rows:
        for tie in (
            row["content_hash"],
            leak.get(row["sample_id"]) or row["sample_id"],
            ("group", row["group"] or row["sample_id"]),
        ):
            if first(row["sample_id"]) != first(("tie", tie)):
                home[first(row["sample_id"])] = first(("tie", tie))
    kinds: dict[Any, set[Any]] = {}
    for row in rows:
        kinds.setdefault(first(row["sample_id"]), set()).add(row["group"] or (row["content_hash"], row["label"]))
    found = ledger.read(root / "data/split/assignments.parquet", columns=["sample_id", "split"]).to_pylist()
    split = {row["sample_id"]: row["split"] for row in found}
    return {
        (row["sample_id"], row["label"], row["group"] or ""): split[row["sample_id"]]
        for row in rows
        if row["sample_id"] in split and len(kinds[first(row["sample_id"])]) == 1
    }
