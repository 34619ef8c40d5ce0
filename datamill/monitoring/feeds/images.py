"""Images that are dropped into a folder, one file each."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from datamill.errors import DataError
from datamill.monitoring.feeds.files import PlaceFeed
from datamill.monitoring.feeds.settling import Found, WatchedPlace
from datamill.monitoring.feeds.units import Portion, Unit
from datamill.monitoring.params import SourceParams, WatchedImages
from datamill.samples import IMAGE_TYPE, content_hash
from datamill.sources.batches import Reject, sample_table
from datamill.sources.image_folder import BATCH_FILES, IMAGES, PASSING, REMOTE_READERS, read_image
from datamill.sources.listing import LINKED_FOLDER, NOT_A_FILE, OUTSIDE

LASTING = ("too_large", OUTSIDE[0], LINKED_FOLDER[0], NOT_A_FILE[0])  # faults that no writer is about to mend


class ImageFeed(PlaceFeed):
    """New images of a folder."""

    def __init__(self, data: WatchedImages, *, place: WatchedPlace, params: SourceParams) -> None:
        """Read what is new in ``place``."""
        super().__init__(place)
        self._has_labels = data.labels == "folder"
        self._params = params

    def units(self) -> Iterator[Unit]:
        """Runs of new files."""
        for found in self._place.fresh():
            for start in range(0, len(found), BATCH_FILES):
                some = found[start : start + BATCH_FILES]
                files = {one.file.key: one.stamp for one in some}
                yield Unit(files, self._portions(some), is_second_look=False)

    def _portions(self, found: Sequence[Found]) -> Iterator[Portion]:
        if self._place.store.filesystem is None:
            results = [self._read(one) for one in found]
        else:
            with ThreadPoolExecutor(max_workers=REMOTE_READERS) as pool:
                results = list(pool.map(self._read, found))
        waiting = {}
        rejects = []
        for one, result in zip(found, results, strict=True):
            if isinstance(result, Reject):
                is_final = result.reason in LASTING or (one.is_second_look and result.reason not in PASSING)
                if is_final:
                    rejects.append(result)
                else:
                    waiting[one.file.key] = one.stamp
        good = [(one.file.key, result) for one, result in zip(found, results, strict=True) if isinstance(result, bytes)]
        yield Portion(self._table(good), rejects, waiting)

    def _read(self, one: Found) -> bytes | Reject:
        limits = {"max_pixels": self._params.max_pixels, "max_file_bytes": self._params.max_file_bytes}
        try:
            return read_image(one.file, store=self._place.store, **limits)
        except DataError as error:
            return Reject(one.file.key, "unreadable", str(error))

    def _table(self, images: Sequence[tuple[str, bytes]]) -> pa.Table:
        keys = [key for key, _ in images]
        payloads = pa.array([payload for _, payload in images], pa.binary())
        fields = list(IMAGE_TYPE)
        return sample_table(
            dataset=IMAGES,
            sources=keys,
            contents=[content_hash(payload) for _, payload in images],
            labels=[key.partition("/")[0] if self._has_labels and "/" in key else "" for key in keys],
            payload={"image": pa.StructArray.from_arrays([payloads, pa.array(keys, pa.string())], fields=fields)},
        )
