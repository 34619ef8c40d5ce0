"""What the cursor takes of a pass, and what it knows afterwards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

ID_BYTES = 16


class Look(NamedTuple):
    """What was known of a file after an earlier pass."""

    stamp: str
    is_done: bool
    seen_at: float


class WindowRecord(NamedTuple):
    """A window that was judged."""

    number: int
    name: str
    judged_at: datetime
    model: str
    is_published: bool
    is_told: bool


class Labelled(NamedTuple):
    """How many labels of a window are known.

    Attributes:
        number: The window's.
        num_samples: Its samples.
        num_labels: Those whose label is known.
        num_contradicting: Labels that came and contradict the first one.
    """

    number: int
    num_samples: int
    num_labels: int
    num_contradicting: int = 0


@dataclass(frozen=True)
class Advance:
    """What a pass has seen.

    Attributes:
        origin: Digest of the source.
        items: Ids of the items that were judged or rejected, uint8, shape ``(N, 16)``.
        done: Stamp by key of the files all of whose items were.
        waiting: Stamp by key of the files to look at again.
        place: How far a query was read, as JSON; ``None`` for files.
        labelled: Windows that got labels; contradictions are those of this pass.
        early: Label by key of what was not judged yet.
        arrived: Keys of such labels whose item has come.
    """

    origin: str
    items: NDArray[np.uint8] = field(default_factory=lambda: np.empty((0, ID_BYTES), np.uint8))
    done: Mapping[str, str] = field(default_factory=dict)
    waiting: Mapping[str, str] = field(default_factory=dict)
    place: str | None = None
    labelled: Sequence[Labelled] = ()
    early: Mapping[str, str] = field(default_factory=dict)
    arrived: Sequence[str] = ()
