"""What feeds of files have in common."""

from collections.abc import Iterator, Mapping, Sequence

from datamill.monitoring.feeds.settling import Found, WatchedPlace
from datamill.monitoring.feeds.units import Portion, Schema, Unit


class PlaceFeed:
    """New files of a place."""

    def __init__(self, place: WatchedPlace) -> None:
        """Read what is new in ``place``."""
        self._place = place
        self.schema = Schema()

    @property
    def origin(self) -> str:
        """Digest of the place."""
        return self._place.origin

    @property
    def waiting(self) -> Mapping[str, str]:
        """Files that are too young."""
        return self._place.waiting

    def keys(self) -> Iterator[Sequence[str]]:
        """Every file that is there now."""
        return self._place.keys()


class FileFeed(PlaceFeed):
    """A feed in which every new or changed file is a unit."""

    def units(self) -> Iterator[Unit]:
        """A unit per new or changed file."""
        for found in self._place.fresh():
            for one in found:
                if self._is_wanted(one.file.key):
                    yield Unit({one.file.key: one.stamp}, self._portions(one), one.is_second_look)

    def _is_wanted(self, key: str) -> bool:
        raise NotImplementedError

    def _portions(self, one: Found) -> Iterator[Portion]:
        raise NotImplementedError


def has_ending(key: str, *, place: WatchedPlace, endings: tuple[str, ...]) -> bool:
    """Whether a file of a folder is one of the format; what was named itself or by a glob always is."""
    return not place.store.is_folder() or key.lower().endswith(endings)
