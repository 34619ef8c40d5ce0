"""Export as WebDataset: tar files that other loaders read in sequence, with bytes that depend on their content alone.

Each sample is two neighbouring members: ``<sample_id>.<png|jpg|bmp|webp|npy>`` and ``<sample_id>.cls``, the number of
its class. Images are the encoded files as they came (after repairs), tables the float32 row that training sees.

Source: https://github.com/webdataset/webdataset, "The WebDataset Format".
"""

import io
import tarfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from datamill.modalities import image

EXTENSIONS = {"PNG": "png", "JPEG": "jpg", "BMP": "bmp", "WEBP": "webp"}
MODE = 0o644


class TarWriter:
    """Writes one split as ``<split>-000000.tar``, ``<split>-000001.tar``, ...; nothing for a split without samples."""

    def __init__(self, folder: Path, *, split: str, max_samples: int) -> None:
        """Write below ``folder``, at most ``max_samples`` to a file."""
        self._folder = folder
        self._split = split
        self._max_samples = max_samples
        self._num_samples = 0
        self._tar: tarfile.TarFile | None = None

    def write(self, sample_id: str, *, extension: str, payload: bytes, label: int) -> None:
        """Append one sample."""
        if self._num_samples % self._max_samples == 0:
            self._next_file()
        self._num_samples += 1
        self._add(f"{sample_id}.{extension}", payload)
        self._add(f"{sample_id}.cls", str(label).encode())

    def __enter__(self) -> Self:
        """Start writing."""
        return self

    def __exit__(
        self, error: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Finish the last file."""
        if self._tar is not None:
            self._tar.close()

    def _next_file(self) -> None:
        if self._tar is not None:
            self._tar.close()
        number = self._num_samples // self._max_samples
        path = self._folder / f"{self._split}-{number:06d}.tar"
        self._tar = tarfile.open(path, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 - closed by __exit__

    def _add(self, name: str, content: bytes) -> None:
        member = tarfile.TarInfo(name)  # time, user and group are 0 in a fresh one: equal content, equal bytes
        member.size = len(content)
        member.mode = MODE
        assert self._tar is not None
        self._tar.addfile(member, io.BytesIO(content))


def image_member(payload: bytes) -> tuple[str, bytes]:
    """Extension and content of an encoded image, which stays as it is."""
    return EXTENSIONS[image.read_header(payload).format], payload


def row_member(row: NDArray[Any]) -> tuple[str, bytes]:
    """Extension and content of a table's row: an NPY file without pickles."""
    buffer = io.BytesIO()
    np.save(buffer, row, allow_pickle=False)
    return "npy", buffer.getvalue()
