"""Copies of samples changed by an augmentation policy, as new samples that name their parents.

A copy of an image depends on the policy, our code and the parent's id alone, and the id names the parent's content. So
the copies of an earlier run are taken over where those are the same; ``recipe.json`` beside the parts says so.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib import metadata
from pathlib import Path
from typing import final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from datamill import files, imports, parts
from datamill.augmentation import image_augmenter
from datamill.augmentation.images import ImageAugmenter
from datamill.augmentation.policy import Augmenter, Policy
from datamill.augmentation.tables import TableAugmenter
from datamill.derived import payload_hashes, sample_table
from datamill.hashes import HashIndex, halves
from datamill.modalities import image as images
from datamill.samples import Dataset, id_bytes
from datamill.stage import Engine

RECIPE = "recipe.json"
PARTS_AT_HAND = 2  # earlier parts in memory at a time
OWN = ("label", "group", "time")  # what a copy has from its parent's row, not from its payload


@dataclass(frozen=True)
class Recipe:
    """What decides about copies besides their parents.

    Attributes:
        policy: The policy.
        scales: Standard deviation of each numeric column over train; empty for images.
        num_copies: Copies of each sample (count).
        dataset: What the payload is.
    """

    policy: Policy
    scales: tuple[float, ...]
    num_copies: int
    dataset: Dataset

    def augmenter(self) -> Augmenter:
        """The policy's augmenter for samples as they are in parts, before preprocessing.

        Raises:
            ParamsError: The policy is wrong.
        """
        if self.policy.kind == "image":
            return image_augmenter(self.policy)
        return TableAugmenter(self.policy, scales=np.array(self.scales))


class Seal(BaseModel):
    """What the copies in a folder were made by; stored beside them."""

    model_config = ConfigDict(frozen=True)

    policy: Policy
    num_copies: int
    code: str
    """Digest of our code, and the versions of the libraries that change and encode images."""

    @classmethod
    def of(cls, recipe: Recipe) -> "Seal":
        """That of copies made now."""
        versions = [metadata.version(name) for name in ("albumentations", "opencv-python-headless", "numpy")]
        code = " ".join([imports.digest(__name__), *versions])
        return cls(policy=recipe.policy, num_copies=recipe.num_copies, code=code)


def write_copies(
    parents: Iterable[pa.Table], *, folder: Path, recipe: Recipe, engine: Engine, former: Path | None = None
) -> int:
    """Write the copies as parts, each sample's after one another, and say how many there are.

    Args:
        parents: Training samples with payload and the label their copies get.
        folder: Must not hold anything yet.
        recipe: How copies are made.
        engine: Where they are made.
        former: Folder of an earlier run; what is there already is not made again.
    """
    count = 0
    with parts.PartsWriter(folder, dataset=recipe.dataset, previous=former) as writer:
        for copies in iter_copies(parents, recipe=recipe, engine=engine, former=former):
            writer.write(copies)
            count += copies.num_rows
    files.write_json(folder / RECIPE, Seal.of(recipe).model_dump(mode="json"))
    return count


def iter_copies(
    parents: Iterable[pa.Table], *, recipe: Recipe, engine: Engine, former: Path | None
) -> Iterator[pa.Table]:
    """The copies of each table of parents; made in workers where ``former`` does not hold them."""
    earlier = _Earlier(_reusable(former, recipe=recipe), num_copies=recipe.num_copies)
    waiting: deque[tuple[pa.Table, NDArray[np.int64]]] = deque()

    def missing() -> Iterator[pa.Table]:
        for table in parents:
            places = earlier.find(table["sample_id"])
            waiting.append((table, places))
            yield table.filter(pa.array(places < 0))

    for made in engine.map(partial(copies_of, recipe=recipe), missing()):
        table, places = waiting.popleft()
        yield earlier.join(table, places=places, made=made)


def copies_of(table: pa.Table, *, recipe: Recipe) -> pa.Table:
    """Changed copies of samples, each sample's after one another; runs in a worker.

    A copy keeps its parent's label, group and time. A copy equal to its parent or to an earlier copy of it is left out:
    it would only give that picture more weight.

    Args:
        table: The parents, with payload.
        recipe: How copies are made; round k is drawn as epoch -k, which no training run asks for.
    """
    augmenter, dataset = recipe.augmenter(), recipe.dataset
    ids = table["sample_id"].to_pylist()
    seen = [{content} for content in payload_hashes(augmented_payload(table, augmenter=None, dataset=dataset, epoch=0))]
    rounds, parents = [dataset.arrow_schema().empty_table()], [np.empty(0, np.int64)]
    for copy in range(1, recipe.num_copies + 1) if ids else ():
        copied = sample_table(
            augmented_payload(table, augmenter=augmenter, dataset=dataset, epoch=-copy),
            sources=[f"augment:{copy}:{parent}" for parent in ids],
            labels=table["label"].to_pylist(),
            parents=[[parent] for parent in ids],
            origin="augmented",
        )
        copied = copied.append_column("group", table["group"]).append_column("time", table["time"])
        contents = copied["content_hash"].to_pylist()
        rows = np.flatnonzero([content not in before for content, before in zip(contents, seen, strict=True)])
        for content, before in zip(contents, seen, strict=True):
            before.add(content)
        rounds.append(parts.conform(copied.take(pa.array(rows)), schema=dataset.arrow_schema()))
        parents.append(rows)
    return pa.concat_tables(rounds).take(pa.array(np.argsort(np.concatenate(parents), kind="stable")))


def augmented_payload(
    table: pa.Table, *, augmenter: Augmenter | None, dataset: Dataset, epoch: int
) -> dict[str, pa.Array]:
    """Payload columns after one round of augmentation; without an augmenter the same values, encoded the same way."""
    ids = id_bytes(table["sample_id"])
    if dataset.modality == "image":
        decoded = images.decode_column(table)
        if augmenter is not None:  # one by one: images in parts differ in size
            decoded = [
                augmenter.apply(image[None], sample_ids=ids[row : row + 1], epoch=epoch)[0]
                for row, image in enumerate(decoded)
            ]
        return {"image": images.payload(decoded)}
    numbers = dataset.columns("number")
    columns = {feature.column: table[feature.column].combine_chunks() for feature in dataset.features}
    if augmenter is not None:
        values = augmenter.apply(numeric_values(table, dataset=dataset), sample_ids=ids, epoch=epoch)
        columns |= {name: pa.array(values[:, place], from_pandas=True) for place, name in enumerate(numbers)}
    return columns


def check_on_images(augmenter: Augmenter, *, table: pa.Table) -> None:
    """Run every albumentations transform on real samples; others were checked when the augmenter was built.

    Raises:
        ParamsError: A transform fails, or changes the shape or type of an image.
    """
    if isinstance(augmenter, ImageAugmenter):
        for image in images.decode_column(table):
            augmenter.check(image)


def numeric_values(table: pa.Table, *, dataset: Dataset) -> NDArray[np.float64]:
    """Numeric columns, shape (N, F), NaN for missing values."""
    columns = [table[name].to_numpy() for name in dataset.columns("number")]
    return np.stack(columns, axis=1).astype(np.float64) if columns else np.zeros((table.num_rows, 0))


@final
class _Earlier:
    """Copies of an earlier run, found by their parent: 40 bytes each, and one or two parts, are in memory."""

    def __init__(self, paths: list[Path], *, num_copies: int) -> None:
        """Read whose copies are in these parts, which hold them in order; samples that lack one are left out."""
        parents = [np.empty((0, 2), np.uint64), *(_parents(path) for path in paths)]
        self._starts = np.cumsum([len(one) for one in parents])[:-1]  # row of each part's first copy
        hashes = np.concatenate(parents)
        self._first = _complete(hashes, num_copies=num_copies)
        self._index = HashIndex(hashes[self._first])
        self._num_copies = num_copies
        self._paths = paths
        self._read = lru_cache(PARTS_AT_HAND)(pq.read_table)

    def find(self, sample_ids: pa.ChunkedArray) -> NDArray[np.int64]:
        """Row of each sample's first copy, -1 where its copies are not at hand, shape ``(N,)``."""
        places = self._index.find(halves(sample_ids))
        return np.where(places < 0, -1, np.append(self._first, -1)[places])

    def join(self, table: pa.Table, *, places: NDArray[np.int64], made: pa.Table) -> pa.Table:
        """The copies of all of ``table``, in its order: those at ``places``, and ``made`` for the others."""
        parents = np.flatnonzero(places >= 0).repeat(self._num_copies)
        if not len(parents):
            return made
        rows = (places[places >= 0, None] + np.arange(self._num_copies)).ravel()
        owners = np.searchsorted(self._starts, rows, side="right") - 1
        pieces = [
            self._read(self._paths[owner]).take(pa.array(rows[owners == owner] - self._starts[owner]))
            for owner in np.unique(owners).tolist()
        ]
        known = pa.concat_tables(pieces).take(pa.array(np.argsort(np.argsort(owners, kind="stable"))))
        for name in OWN:
            column = table[name].take(pa.array(parents))
            known = known.set_column(known.column_names.index(name), known.field(name), column)
        others = pc.index_in(pc.list_flatten(made["parents"]), value_set=table["sample_id"].combine_chunks())
        order = np.argsort(np.concatenate([parents, others.to_numpy()]), kind="stable")
        return pa.concat_tables([known, made]).take(pa.array(order))


def _reusable(former: Path | None, *, recipe: Recipe) -> list[Path]:
    """Parts of an earlier run in order; none unless the same recipe and code made images, and all is as written."""
    if former is None or recipe.dataset.modality != "image" or not recipe.num_copies:
        return []
    try:
        seal = Seal.model_validate_json((former / RECIPE).read_bytes())
    except (FileNotFoundError, ValidationError):
        return []
    known = parts.known_parts(former)
    if seal != Seal.of(recipe) or not all(parts.is_whole(former, part) for part in known.values()):
        return []
    return [former / part.name for part in known.values()]


def _parents(path: Path) -> NDArray[np.uint64]:
    """Id of each copy's parent, shape ``(N, 2)``."""
    return halves(pc.list_flatten(pq.read_table(path, columns=["parents"])["parents"]))


def _complete(parents: NDArray[np.uint64], *, num_copies: int) -> NDArray[np.int64]:
    """Row of the first copy of each parent that has as many as asked for, shape ``(P,)``."""
    starts = np.flatnonzero(np.append(True, (parents[1:] != parents[:-1]).any(axis=1))[: len(parents)])
    sizes = np.diff(np.append(starts, len(parents)))
    return np.asarray(starts[sizes == num_copies], np.int64)
