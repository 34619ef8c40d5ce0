"""What a stage keeps for its next run about contents it has seen: flat files in the stage's own folder, and a seal.

Nothing here is a result. It may be deleted or damaged at any time, and is believed only if its seal names what it was
made with and the SHA-256 of every file::

    <name>      records of one type
    seal.json   version, what the records were made with, SHA-256 by name, and a few facts
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from datamill import files

VERSION = 1
SEAL = "seal.json"
READ_ROWS = 65_536  # records read at a time; bounds memory, not results

Records = NDArray[Any]


class _Seal(BaseModel):
    """What ``seal.json`` says."""

    model_config = ConfigDict(frozen=True)

    version: int
    made_with: str
    files: dict[str, str]
    facts: dict[str, int]


@dataclass(frozen=True)
class State:
    """What is kept from run to run.

    Attributes:
        folder: Below the stage's own.
        made_with: Stands for all that decides what the records say, apart from the contents they are about.
    """

    folder: Path
    made_with: str

    def facts(self) -> dict[str, int] | None:
        """The facts of the last run, if its files are whole and were made with the same; else ``None``."""
        try:
            seal = _Seal.model_validate_json((self.folder / SEAL).read_bytes())
            is_sound = (seal.version, seal.made_with) == (VERSION, self.made_with)
            is_sound = is_sound and all(
                files.sha256_file(self.folder / name) == one for name, one in seal.files.items()
            )
            return seal.facts if is_sound else None
        except (OSError, ValidationError):
            return None

    def keep(self, paths: Sequence[Path], *, facts: dict[str, int]) -> None:
        """Move files here, under their names, for the next run; what was here before is gone."""
        self.forget()
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in paths:
            path.replace(self.folder / path.name)
        found = {path.name: files.sha256_file(self.folder / path.name) for path in paths}
        seal = _Seal(version=VERSION, made_with=self.made_with, files=found, facts=facts)
        files.write_json(self.folder / SEAL, seal.model_dump(mode="json"))

    def forget(self) -> None:
        """Delete what was kept."""
        files.remove(self.folder)


@final
class Former:
    """Records of the last run, in the order of their contents (``first``), which are taken bit by bit."""

    def __init__(self, path: Path | None, dtype: np.dtype[Any]) -> None:
        """Stand before the first record of a file; without a file there is none."""
        self._path = path
        self._next = 0
        self._head: Records = np.empty(0, dtype)

    def up_to(self, last: np.uint64 | None = None) -> Records:
        """The next records, as far as ``first`` is not above ``last``; ``None`` for all that are left."""
        pieces = [self._head]
        while self._path is not None and (last is None or not len(pieces[-1]) or pieces[-1]["first"][-1] <= last):
            offset = self._next * self._head.dtype.itemsize
            piece = np.fromfile(self._path, self._head.dtype, count=READ_ROWS, offset=offset)
            if not len(piece):
                break
            pieces.append(piece)
            self._next += len(piece)
        records = np.concatenate(pieces)
        count = len(records) if last is None else int(np.searchsorted(records["first"], last, side="right"))
        self._head = records[count:].copy()
        return records[:count]


def match(records: Records, others: Records, *, fields: Sequence[str]) -> NDArray[np.int64]:
    """Place among ``others`` of the record with equal ``fields``, -1 for none, shape ``(N,)``; all ascend in ``first``.

    Of others whose ``first`` is equal only one is looked at, so another one may seem to be missing.
    """
    if not len(others):
        return np.full(len(records), -1)
    near = np.minimum(np.searchsorted(others["first"], records["first"]), len(others) - 1)
    is_same = np.all([records[name] == others[name][near] for name in ("first", *fields)], axis=0)
    return np.where(is_same, near, -1)
