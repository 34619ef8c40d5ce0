"""The index beside MDS files, as somebody else may have written it."""

import hashlib
from collections.abc import Mapping
from typing import IO

from pydantic import BaseModel, ConfigDict, ValidationError

from datamill.errors import DataError
from datamill.shards.exchange.records import PIECE_BYTES

INDEX = "index.json"
VERIFIED = frozenset(("md5", "sha1", "sha224", "sha256", "sha384", "sha512", "blake2b", "blake2s"))


class _File(BaseModel):
    """The part of an index's entry that says which file is meant."""

    model_config = ConfigDict(frozen=True)

    basename: str
    bytes: int
    hashes: dict[str, str] = {}


class _Shard(BaseModel):
    model_config = ConfigDict(frozen=True)

    raw_data: _File
    zip_data: _File | None = None


class _Index(BaseModel):
    model_config = ConfigDict(frozen=True)

    shards: tuple[_Shard, ...]


def read_index(content: bytes, *, name: str, found: Mapping[str, int]) -> dict[str, dict[str, str]]:
    """Checksums of the files beside an index, by name and algorithm, after comparing the files with its list.

    Args:
        content: The index.
        name: Its path, for messages.
        found: Size (bytes) of each MDS file beside it, by name.

    Raises:
        DataError: The index is damaged, or a file is missing, of another size, compressed or not listed.
    """
    try:
        shards = _Index.model_validate_json(content).shards
    except ValidationError as error:
        raise DataError(f"{name} is damaged ({error.error_count()} faults); get it again") from error
    packed = next((shard.zip_data.basename for shard in shards if shard.zip_data is not None), None)
    if packed is not None:
        raise DataError(f"{name}: {packed} is compressed, which is not read; write the files without compression")
    listed = {shard.raw_data.basename: shard.raw_data.bytes for shard in shards}
    differing = sorted(one for one in listed.keys() | found.keys() if listed.get(one) != found.get(one))
    if differing:
        one = differing[0]
        raise DataError(f"{name} lists {one} with {listed.get(one)} bytes, there are {found.get(one)}; get it again")
    return {shard.raw_data.basename: shard.raw_data.hashes for shard in shards}


def check_hashes(stream: IO[bytes], *, name: str, hashes: Mapping[str, str]) -> None:
    """Pass when the content has these checksums; algorithms that Python does not know are left out.

    Raises:
        DataError: It has another one.
    """
    known = {algorithm: hashlib.new(algorithm) for algorithm in hashes if algorithm in VERIFIED}
    while known and (piece := stream.read(PIECE_BYTES)):
        for digest in known.values():
            digest.update(piece)
    for algorithm, digest in known.items():
        if digest.hexdigest() != hashes[algorithm]:
            raise DataError(f"{name} does not match its {algorithm} in the index; get the file again")
