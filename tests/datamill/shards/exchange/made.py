"""Small samples and their exports, for tests."""

from pathlib import Path
from typing import IO, Any

import numpy as np

from datamill.modalities.image import encode_png
from datamill.samples import Dataset
from datamill.shards import exchange
from datamill.shards.exchange.packed import Packed, open_packed
from datamill.shards.exchange.records import Fault, Payload, Record, Wanted

DATASET = Dataset(name="bars", modality="image", classes=("ant", "bee", "cat"))
NUM_SAMPLES = 5
IDS = [f"{number:032x}" for number in range(NUM_SAMPLES)]
IMAGES = [encode_png(np.full((4, 6, 1), 40 * number, np.uint8)) for number in range(NUM_SAMPLES)]
ROWS = [np.array([number, 0.5, -number], np.float32) for number in range(NUM_SAMPLES)]
LABELS = [0, 1, 2, 1, 0]


def export(folder: Path, name: str, payloads: Any = IMAGES, **limits: Any) -> Path:
    """The samples with these payloads as split ``train`` of an export."""
    with exchange.writer(name, folder, split="train", dataset=DATASET, **limits) as out:
        for sample_id, payload, label in zip(IDS, payloads, LABELS, strict=True):
            out.write(sample_id, payload, label)
    return folder


def entries(path: Path, name: str, **wanted: Any) -> list[Record | Fault]:
    """Everything that is read from files of a format."""
    chosen = Wanted(**wanted)
    return list(opened(path, name, **wanted).records(chosen))


def opened(path: Path, name: str, **wanted: Any) -> Packed:
    """The files of a format, described and not yet read."""
    return open_packed(str(path), format=name, wanted=Wanted(**wanted))


def read(stream: IO[bytes], name: str, **wanted: Any) -> list[Record | Fault]:
    """Everything that is read from one file."""
    return list(exchange.FORMATS[name].read(stream, name="f", wanted=Wanted(**wanted)))


def faults(some: list[Record | Fault]) -> list[tuple[str, str]]:
    """Place and reason of what is no sample."""
    return [(one.place, one.reason) for one in some if isinstance(one, Fault)]


def payloads(some: list[Record | Fault]) -> list[Payload | None]:
    """Payloads, of files without faults."""
    return [one.payload for one in some if isinstance(one, Record)]
