"""MDS, the files of MosaicML's streaming library: samples behind a table of offsets, and an index per split.

Columns: ``image`` (bytes) or ``x`` (ndarray of fixed type and shape), ``label`` (int) and ``sample_id`` (str). The
files of a split lie in a folder of its name, with an ``index.json`` that holds their sizes and SHA-256.

Source: https://docs.mosaicml.com/projects/streaming, "MDS"; https://github.com/mosaicml/streaming,
``streaming/base/format/mds``.
"""

import json
import math
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from datamill import files
from datamill.errors import DataError
from datamill.samples import Dataset
from datamill.shards.exchange import npy
from datamill.shards.exchange.mds_index import INDEX
from datamill.shards.exchange.records import (
    Fault,
    Label,
    Payload,
    Record,
    Wanted,
    known_id,
    parse_label,
    read_up_to,
    skip,
    too_large,
)

ENDINGS = (".mds",)
MAX_BYTES = 2**26
MAX_SAMPLES = 10**7  # of one file; its offsets must fit the memory
MAX_CONFIG_BYTES = 2**20
VERSION = 2
HASH = "sha256"
UINT32 = struct.Struct("<I")
IMAGES = ("image", "img", "x")
LABELS = ("label", "class")
SAMPLE_ID = "sample_id"
BYTES = {"bytes", "jpeg", "png"}  # encodings whose bytes are an encoded image
INTEGERS = {"int": 8, "uint8": 1, "uint16": 2, "uint32": 4, "uint64": 8, "int8": 1, "int16": 2, "int32": 4, "int64": 8}
NDARRAY = re.compile(r"ndarray:([a-z0-9]+):([0-9]{1,9}(?:,[0-9]{1,9}){0,15})")


def file_name(split: str, number: int) -> str:
    """``train/shard.00000.mds``."""
    return f"{split}/shard.{number:05d}.mds"


class MdsWriter:
    """Writes one MDS file; its samples are held until it is finished, because the offsets stand before them."""

    def __init__(self, stream: IO[bytes]) -> None:
        """Write to ``stream``."""
        self._stream = stream
        self._config: dict[str, Any] = {}
        self._samples: list[bytes] = []
        self._size_bytes = 0

    @property
    def size_bytes(self) -> int:
        """Bytes of the samples."""
        return self._size_bytes

    def write(self, sample_id: str, payload: Payload, label: int) -> None:
        """Append one sample."""
        encoding = "bytes" if isinstance(payload, bytes) else _encoding(payload)
        content = payload if isinstance(payload, bytes) else _little(payload)
        columns = {
            "image" if isinstance(payload, bytes) else "x": (encoding, content),
            "label": ("int", label.to_bytes(8, "little", signed=True)),
            SAMPLE_ID: ("str", sample_id.encode()),
        }
        config = _config({name: encoding for name, (encoding, _) in columns.items()})
        self._config = self._config or config
        assert config == self._config, f"samples of one file differ: {config} after {self._config}"
        parts = [columns[name][1] for name in config["column_names"]]
        varying = [part for part, size in zip(parts, config["column_sizes"], strict=True) if size is None]
        sample = b"".join([*(UINT32.pack(len(part)) for part in varying), *parts])
        self._samples.append(sample)
        self._size_bytes += len(sample)

    def close(self) -> None:
        """Write the header and the samples."""
        config = json.dumps(self._config, sort_keys=True).encode()
        start = UINT32.size * (len(self._samples) + 2) + len(config)
        offsets = np.cumsum([start, *map(len, self._samples)], dtype=np.uint64)
        if offsets[-1] >= 2**32:
            raise DataError(f"an MDS file cannot hold {offsets[-1]} bytes; lower max_samples")
        self._stream.write(UINT32.pack(len(self._samples)) + offsets.astype("<u4").tobytes() + config)
        self._stream.writelines(self._samples)
        self._samples = []


def open_file(stream: IO[bytes], *, dataset: Dataset | None) -> MdsWriter:
    """A writer of one file."""
    return MdsWriter(stream)


def finish(folder: Path, *, split: str, names: list[str]) -> None:
    """Write the index of a split, from the headers of its files."""
    shards = []
    for name in names:
        path = folder / name
        with path.open("rb") as stream:
            offsets, config = _header(stream, name=name)
        sizes = {"basename": path.name, "bytes": path.stat().st_size, "hashes": {HASH: files.sha256_file(path)}}
        shards.append({**config, "samples": len(offsets) - 1, "raw_data": sizes, "zip_data": None})
    if shards:
        files.write_json(folder / split / INDEX, {"version": VERSION, "shards": shards})


def class_names(stream: IO[bytes], *, name: str, wanted: Wanted) -> None:
    """MDS does not name its classes."""


def read(stream: IO[bytes], *, name: str, wanted: Wanted) -> Iterator[Record | Fault]:
    """Every sample.

    Raises:
        DataError: The header is damaged, offsets do not increase, or the file does not end with its last sample.
    """
    offsets, config = _header(stream, name=name)
    columns = _Columns(config, name=name, wanted=wanted)
    sizes = np.diff(offsets)
    for number, size in enumerate(sizes.tolist()):
        place = f"{name}#{number}"
        if size > wanted.max_bytes + MAX_CONFIG_BYTES:
            num_read = skip(stream, size)
            result: Record | Fault = too_large(place, num_bytes=size, wanted=wanted)
        else:
            sample = read_up_to(stream, size)
            num_read, result = len(sample), columns.record(sample, place=place, wanted=wanted)
        if num_read < size:
            raise DataError(f"{name} is truncated: it ends within sample {number} of {len(sizes)}; get the file again")
        yield result
    if stream.read(1):
        raise DataError(f"{name} goes on after its {len(sizes)} samples; get the file again")


class _Columns:
    """Where the columns of a sample lie."""

    def __init__(self, config: Mapping[str, Any], *, name: str, wanted: Wanted) -> None:
        self._names: list[str] = config["column_names"]
        self._encodings: list[str] = config["column_encodings"]
        self._sizes: list[int | None] = config["column_sizes"]
        images, labels = (
            (IMAGES if wanted.image is None else (wanted.image,)),
            (LABELS if wanted.label is None else (wanted.label,)),
        )
        self._image = next((one for one in images if one in self._names), None)
        self._label = next((one for one in labels if one in self._names), None)
        if self._image is None or self._label is None:
            missing = images if self._image is None else labels
            raise DataError(f"{name} has no column {' or '.join(missing)}; its columns are {self._names}")

    def record(self, sample: bytes, *, place: str, wanted: Wanted) -> Record | Fault:
        """The sample, or why it is none."""
        cells = self._cells(sample)
        if cells is None:
            return Fault(place, "unreadable", f"its {len(sample)} bytes do not divide into its columns")
        assert self._image is not None
        assert self._label is not None
        label = _number(*cells[self._label])
        if label is None:
            return Fault(place, "no_label", f"column {self._label!r} holds no class")
        payload = _payload(*cells[self._image])
        if payload is None:
            return Fault(
                place, "no_image", f"column {self._image!r} holds {cells[self._image][0]}, no image and no row"
            )
        num_bytes = len(payload) if isinstance(payload, bytes) else payload.nbytes
        if num_bytes > wanted.max_bytes:
            return too_large(place, num_bytes=num_bytes, wanted=wanted)
        sample_id = known_id(cells[SAMPLE_ID][1]) if SAMPLE_ID in cells else None
        return Record(place, payload if wanted.payloads else None, label, sample_id)

    def _cells(self, sample: bytes) -> dict[str, tuple[str, bytes]] | None:
        """Encoding and bytes of each column."""
        num_varying = sum(size is None for size in self._sizes)
        start = UINT32.size * num_varying
        if len(sample) < start:
            return None
        varying = iter(struct.unpack_from(f"<{num_varying}I", sample))
        cells = {}
        for name, encoding, fixed in zip(self._names, self._encodings, self._sizes, strict=True):
            size = next(varying) if fixed is None else fixed
            cells[name] = (encoding, sample[start : start + size])
            start += size
        return cells if start == len(sample) else None


def _header(stream: IO[bytes], *, name: str) -> tuple[np.ndarray[Any, np.dtype[np.int64]], dict[str, Any]]:
    """Offset of each sample and of the end, and the columns; the stream then stands at the first sample."""
    damaged = DataError(f"{name} is no whole MDS file: its header is cut or damaged; get the file again")
    head = read_up_to(stream, UINT32.size)
    num_samples = UINT32.unpack(head)[0] if len(head) == UINT32.size else MAX_SAMPLES
    table = read_up_to(stream, UINT32.size * (num_samples + 1)) if num_samples < MAX_SAMPLES else b""
    if not table or len(table) < UINT32.size * (num_samples + 1):
        raise damaged
    offsets = np.frombuffer(table, "<u4").astype(np.int64)
    num_bytes = int(offsets[0]) - len(head) - len(table)
    if not 0 < num_bytes <= MAX_CONFIG_BYTES or (np.diff(offsets) < 0).any():
        raise damaged
    try:
        config = json.loads(read_up_to(stream, num_bytes))
        _check_config(config)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise damaged from error
    return offsets, config


def _check_config(config: dict[str, Any]) -> None:
    names, encodings, sizes = (config[f"column_{key}"] for key in ("names", "encodings", "sizes"))
    is_sound = (
        config["version"] == VERSION
        and config["format"] == "mds"
        and all(isinstance(one, str) for one in [*names, *encodings])
        and all(size is None or (isinstance(size, int) and size > 0) for size in sizes)
        and len(set(names)) == len(names) == len(encodings) == len(sizes)
    )
    if not is_sound:
        raise ValueError("columns")


def _config(encodings: Mapping[str, str]) -> dict[str, Any]:
    names = sorted(encodings)
    return {
        "version": VERSION,
        "format": "mds",
        "compression": None,
        "hashes": [HASH],
        "size_limit": MAX_BYTES,
        "column_names": names,
        "column_encodings": [encodings[name] for name in names],
        "column_sizes": [_fixed_size(encodings[name]) for name in names],
    }


def _fixed_size(encoding: str) -> int | None:
    found = NDARRAY.fullmatch(encoding)
    if found is None:
        return INTEGERS.get(encoding)
    dtype = npy.number_type(found[1])
    return None if dtype is None else math.prod(map(int, found[2].split(","))) * dtype.itemsize


def _encoding(row: np.ndarray[Any, np.dtype[Any]]) -> str:
    if not row.ndim or not row.size:
        raise DataError(f"MDS takes rows of one dimension or more that hold something, not of shape {row.shape}")
    return f"ndarray:{row.dtype.name}:{','.join(map(str, row.shape))}"


def _little(row: np.ndarray[Any, np.dtype[Any]]) -> bytes:
    return row.astype(row.dtype.newbyteorder("<"), copy=False).tobytes()


def _number(encoding: str, content: bytes) -> Label | None:
    if encoding in INTEGERS and len(content) == INTEGERS[encoding]:
        return int.from_bytes(content, "little", signed=not encoding.startswith("u"))
    return parse_label(content) if encoding in {"str", "str_int"} else None


def _payload(encoding: str, content: bytes) -> Payload | None:
    if encoding in BYTES:
        return content
    found = NDARRAY.fullmatch(encoding)
    dtype = None if found is None else npy.number_type(found[1])
    if found is None or dtype is None or _fixed_size(encoding) != len(content):
        return None
    return np.frombuffer(content, dtype).reshape([int(side) for side in found[2].split(",")])
