"""Millions of hashes as numbers, and an index of them in a few bytes each."""

from hashlib import blake2b
from itertools import pairwise
from typing import final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from datamill.samples import HASH_BYTES, id_bytes

STRIDE = 64  # of hashes that are to be found, one in how many is searched for first


def halves(hashes: pa.Array | pa.ChunkedArray) -> NDArray[np.uint64]:
    """Sample ids, or content hashes, as two numbers each, shape ``(N, 2)``."""
    return id_bytes(hashes).view(np.uint64)


def hash_each(values: pa.Array) -> NDArray[np.uint64]:
    """Hash of each value, binary or text without null, shape ``(N, 2)``: its content hash, taken apart."""
    kind = np.int64 if pa.types.is_large_binary(values.type) or pa.types.is_large_string(values.type) else np.int32
    _, offsets, content = values.buffers()
    ends = np.frombuffer(offsets, kind)[values.offset : values.offset + len(values) + 1].tolist()
    view = memoryview(content if content is not None else b"")
    hashes = [blake2b(view[start:end], digest_size=HASH_BYTES).digest() for start, end in pairwise(ends)]
    return np.frombuffer(bytearray().join(hashes), np.uint64).reshape(len(values), 2)


def identities(sources: pa.Array, contents: pa.Array) -> NDArray[np.uint64]:
    """``samples.sample_id`` of each sample with these source keys and content hashes, shape ``(N, 2)``."""
    return hash_each(pc.binary_join_element_wise(sources, contents, "\0"))


def digits(hashes: NDArray[np.uint64]) -> pa.Array:
    """The ids or content hashes that ``halves`` took apart."""
    width = 2 * HASH_BYTES
    offsets = np.arange(0, width * (len(hashes) + 1), width, np.int32)
    text = np.ascontiguousarray(hashes).tobytes().hex().encode()
    return pa.Array.from_buffers(pa.string(), len(hashes), [None, pa.py_buffer(offsets), pa.py_buffer(text)])


def word_hashes(words: pa.Array) -> NDArray[np.uint64]:
    """64-bit hash of each string, 0 where there is none, shape ``(N,)``."""
    encoded = words.dictionary_encode()
    distinct = [word.encode() for word in encoded.dictionary.to_pylist()]
    codes = [int.from_bytes(blake2b(word, digest_size=8).digest(), "big") for word in distinct]
    places = encoded.indices.fill_null(len(distinct)).to_numpy(zero_copy_only=False)
    return np.asarray(np.array([*codes, 0], np.uint64)[places], np.uint64)


@final
class HashIndex:
    """Finds hashes among others, the faster the more of them come in the order of the others; 32 bytes per hash."""

    def __init__(self, hashes: NDArray[np.uint64]) -> None:
        """Take the hashes to find, shape ``(N, 2)``."""
        self._hashes = hashes
        self._places = np.argsort(hashes[:, 0], kind="stable")
        self._first = hashes[self._places, 0]

    def find(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Place in the index of each of these hashes, shape ``(N, 2)``; -1 where there is none, shape ``(N,)``.

        One in ``STRIDE`` is searched for; the others are expected as far from it as they are here, and searched for
        where they are not. Among hashes whose first halves are equal only one is looked at by a search, so another one
        may seem to be missing.
        """
        found = np.full(len(hashes), -1, np.int64)
        if not len(self._first) or not len(hashes):
            return found
        anchors = self._search(hashes[::STRIDE])
        for step in (0, 1):  # from the one before, then from the one behind
            rest = np.flatnonzero(found < 0)
            near = np.minimum(rest // STRIDE + step, len(anchors) - 1)
            expected = np.clip(anchors[near] + rest - STRIDE * near, 0, len(self._first) - 1)
            is_there = (self._hashes[expected] == hashes[rest]).all(axis=1)
            found[rest[is_there]] = expected[is_there]
        rest = np.flatnonzero(found < 0)
        found[rest] = self._search(hashes[rest])
        return found

    def _search(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        order = np.argsort(hashes[:, 0])  # neighbours in order are neighbours in memory: three times as fast
        near = np.minimum(np.searchsorted(self._first, hashes[order, 0]), len(self._first) - 1)
        places = np.empty(len(hashes), np.int64)
        places[order] = self._places[near]
        return np.where((self._hashes[places] == hashes).all(axis=1), places, -1)
