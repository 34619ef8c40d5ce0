"""What a feed gives: units, most often files, whose items are new together or not at all."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import pyarrow as pa

from datamill.sources.batches import Reject


class Portion(NamedTuple):
    """Some items of a unit, in its order.

    Attributes:
        table: Samples with their payload; the label is the empty string where none is known.
        rejects: What could not become a sample.
        waiting: Stamp by key of files of the unit that must be looked at again.
        place: How far a query was read with this portion, as JSON.
    """

    table: pa.Table
    rejects: Sequence[Reject] = ()
    waiting: Mapping[str, str] = {}
    place: str | None = None


class Unit(NamedTuple):
    """Items that are read together.

    Attributes:
        files: Stamp by key of the files it consists of; empty for a query.
        portions: Its items, read as the iterator advances. It raises ``DataError`` where the unit is damaged.
        is_second_look: Whether an earlier pass has seen the same files with the same stamps, so that what is damaged
            now will stay so.
    """

    files: Mapping[str, str]
    portions: Iterator[Portion]
    is_second_look: bool


@dataclass
class Schema:
    """How the columns of new rows differ from those the model was trained on.

    Attributes:
        missing: Rows without a feature, by its name.
        unknown: Columns that are no feature and have no role.
    """

    missing: Counter[str] = field(default_factory=Counter)
    unknown: set[str] = field(default_factory=set)


class Feed(Protocol):
    """A source of new items."""

    @property
    def origin(self) -> str:
        """Digest of what is read, so that equal keys of two sources are two items."""

    @property
    def schema(self) -> Schema:
        """How the columns read so far differ."""

    @property
    def waiting(self) -> Mapping[str, str]:
        """Stamp by key of the files that were found too young to be read."""

    def units(self) -> Iterator[Unit]:
        """What may be new, oldest deliveries in no order but that of their names.

        Raises:
            DataError: The source is missing or cannot be listed.
        """

    def keys(self) -> Iterator[Sequence[str]] | None:
        """Every file that is there now, some at a time; ``None`` where there are no files."""
