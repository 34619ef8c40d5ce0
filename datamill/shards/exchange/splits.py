"""One split in a foreign format: numbered files, each written under another name until it is whole."""

import contextlib
from pathlib import Path
from types import TracebackType
from typing import Self

from datamill import files
from datamill.errors import DataError
from datamill.samples import Dataset
from datamill.shards.exchange.records import FileWriter, Format, Payload

DATASET = "dataset.json"


class SplitWriter:
    """Writes samples in the order they come; a split without samples makes no file.

    What a file holds depends on the samples alone. Memory holds one row group (Parquet), one file (MDS) or one sample.
    """

    def __init__(
        self, form: Format, folder: Path, *, split: str, dataset: Dataset | None, max_samples: int, max_bytes: int
    ) -> None:
        """Write below ``folder``: at most ``max_samples`` to a file, and none more once it has ``max_bytes``."""
        self._form = form
        self._folder = folder
        self._split = split
        self._dataset = dataset
        self._max_samples = max_samples
        self._max_bytes = max_bytes
        self._names: list[str] = []
        self._num_samples = 0  # of the open file
        self._file: FileWriter | None = None
        self._stack = contextlib.ExitStack()

    @property
    def num_files(self) -> int:
        """Files begun."""
        return len(self._names)

    def write(self, sample_id: str, payload: Payload, label: int) -> None:
        """Append one sample.

        Args:
            sample_id: Its identity, 32 hexadecimal digits.
            payload: An encoded image, or one row of numbers; all samples have the same kind.
            label: Number of its class.

        Raises:
            DataError: The number is not that of a class.
        """
        num_classes = None if self._dataset is None else len(self._dataset.classes)
        if label < 0 or (num_classes is not None and label >= num_classes):
            raise DataError(f"sample {sample_id} has label {label}, and there are {num_classes} classes")
        is_full = self._num_samples == self._max_samples
        if self._file is None or is_full or self._file.size_bytes >= self._max_bytes:
            self._stack.close()
            self._file = self._open()
        self._file.write(sample_id, payload, label)
        self._num_samples += 1

    def __enter__(self) -> Self:
        """Describe the data set, and start writing."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._dataset is not None:
            files.write_json(self._folder / DATASET, self._dataset.model_dump(mode="json"))
        return self

    def __exit__(
        self, error: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Finish the last file and the split; after an error, the file that was not finished is removed."""
        self._stack.__exit__(error, value, tb)
        if error is None:
            self._form.finish(self._folder, split=self._split, names=self._names)

    def _open(self) -> FileWriter:
        name = self._form.file_name(self._split, len(self._names))
        path = self._stack.enter_context(files.atomic_write(self._folder / name))
        stream = self._stack.enter_context(path.open("wb"))
        file = self._form.open_file(stream, dataset=self._dataset)
        self._stack.callback(file.close)  # before the stream, and an error in it takes the file back
        self._names.append(name)
        self._num_samples = 0
        return file
