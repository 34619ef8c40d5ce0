"""The state of a loader: plain numbers and words that say which batch comes next, and of which loader."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamill.errors import StageError
from datamill.shards.batching import Place

VERSION = 1

REASONS = {
    "fingerprint": "the shard holds other data",
    "seed": "another seed gives another order",
    "order": "another order",
    "batch_size": "batches of another size",
    "last": "the rows that fill no batch are treated otherwise",
    "buckets": "rows are brought together otherwise",
    "draw": "rows are drawn with other probabilities",
}
"""What makes a position meaningless when it differs, by key of the state."""


def pack(identity: Mapping[str, Any], *, epoch: int, place: Place) -> dict[str, Any]:
    """The state, of types that JSON has."""
    return {"version": VERSION, **identity, "epoch": epoch, **place._asdict()}


def unpack(state: Mapping[str, Any], *, identity: Mapping[str, Any]) -> tuple[int, Place]:
    """The epoch, and the place in it.

    Raises:
        StageError: The state is none, or that of a loader of other batches.
    """
    numbers: list[Any] = [state.get(key) for key in ("epoch", *Place._fields)]
    if state.get("version") != VERSION or not all(type(number) is int and number >= 0 for number in numbers):
        raise StageError(
            f"this is no state of a loader: version {state.get('version')!r} (this datamill has {VERSION}), "
            f"epoch, batch, pool and offset {numbers}; start the training afresh"
        )
    for key, reason in REASONS.items():
        if state.get(key) != identity[key]:
            raise StageError(
                f"the state was saved with {key} {state.get(key)!r}, this loader has {identity[key]!r} ({reason}): "
                f"its position means nothing here; make the loader as it was, or start the training afresh"
            )
    epoch, *place = numbers
    return epoch, Place(*place)


def digest(array: NDArray[Any] | None) -> str | None:
    """Identity of an array's numbers (32 hexadecimal digits); ``None`` of none."""
    return None if array is None else hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=16).hexdigest()
