"""Images in packed files: IDX, WebDataset, TFRecord, Parquet of the Hugging Face hub, MDS."""

import math
from collections.abc import Iterator

import numpy as np

from datamill.errors import DataError
from datamill.monitoring.feeds.files import FileFeed, has_ending
from datamill.monitoring.feeds.settling import Found, WatchedPlace
from datamill.monitoring.feeds.units import Portion
from datamill.monitoring.params import SourceParams, WatchedIdx, WatchedPacked
from datamill.samples import Dataset
from datamill.shards.exchange import format_module
from datamill.shards.exchange.packed import Packed
from datamill.shards.exchange.records import Wanted
from datamill.sources.batches import BATCH_BYTES, BATCH_ROWS
from datamill.sources.entries import check_images, entries_of
from datamill.sources.idx import IMAGE_DIMS, LABEL_DIMS, IdxBlock, IdxFile, check_pair, open_idx
from datamill.sources.image_folder import IMAGES
from datamill.sources.stores import open_file


class IdxFeed(FileFeed):
    """IDX files of images; ``x-images-idx3-ubyte`` has its labels in ``x-labels-idx1-ubyte``, if that is there."""

    def __init__(self, data: WatchedIdx, *, place: WatchedPlace, params: SourceParams) -> None:
        """Read what is new in ``place``."""
        super().__init__(place)
        self._names = data.class_names or ()
        self._max_pixels = params.max_pixels

    def _is_wanted(self, key: str) -> bool:
        return "labels" not in key.rpartition("/")[2]

    def _portions(self, one: Found) -> Iterator[Portion]:
        images = open_idx(self._place.store, one.file, num_dims=IMAGE_DIMS)
        labels = self._labels(one, images=images)
        rows = max(1, min(BATCH_ROWS, BATCH_BYTES // math.prod(images.shape[1:])))
        for number, pixels in enumerate(images.batches(rows)):
            start = number * rows
            block = IdxBlock(0, images, start, pixels, labels[start : start + len(pixels)])
            yield Portion(block.table(IMAGES))

    def _labels(self, one: Found, *, images: IdxFile) -> list[str]:
        folder, slash, name = one.file.path.rpartition("/")
        beside = name.replace("images", "labels").replace("idx3", "idx1")
        if beside == name:
            return [""] * images.shape[0]
        store = self._place.store
        try:
            path = f"{folder}{slash}{beside}"
            url = path if store.filesystem is None else store.filesystem.unstrip_protocol(path)
            labels = open_idx(*open_file(url), num_dims=LABEL_DIMS)
        except DataError:
            return [""] * images.shape[0]
        check_pair(images, labels, max_pixels=self._max_pixels)
        numbers = np.concatenate([np.zeros(0, np.uint8), *labels.batches(BATCH_BYTES)]).tolist()
        return [self._names[number] if number < len(self._names) else str(number) for number in numbers]


class PackedFeed(FileFeed):
    """Packed files of images and their classes; a class that the model does not know keeps its own name."""

    def __init__(self, data: WatchedPacked, *, place: WatchedPlace, dataset: Dataset, params: SourceParams) -> None:
        """Read what is new in ``place``; classes given by number are those of ``dataset`` unless named."""
        super().__init__(place)
        self._form = format_module(data.format)
        self._wanted = Wanted(image=data.image, label=data.label, max_bytes=params.max_file_bytes)
        self._names = data.class_names or dataset.classes
        self._max_pixels = params.max_pixels

    def _is_wanted(self, key: str) -> bool:
        return has_ending(key, place=self._place, endings=self._form.ENDINGS)

    def _portions(self, one: Found) -> Iterator[Portion]:
        packed = Packed(self._place.store, (one.file,), self._form, self._names, split=None)
        for columns in packed.read_columns(one.file, wanted=self._wanted):
            entries = entries_of(columns, name_of=lambda label: packed.class_of(label) or str(label))
            yield Portion(*check_images(entries, max_pixels=self._max_pixels))
