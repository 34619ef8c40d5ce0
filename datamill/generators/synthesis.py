"""From training samples to judged synthetic ones: generators and gate know points, this module knows samples."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamill import derived
from datamill.generators import Generator, Rows, gate
from datamill.preprocessing import Preprocessor
from datamill.samples import content_hash


@dataclass(frozen=True)
class RealClass:
    """Training samples of one class in random order: the first ``num_fitted`` are for fitting, the others held out."""

    ids: list[str]
    points: NDArray[np.float32]
    contents: frozenset[str]
    num_fitted: int


@dataclass(frozen=True)
class Candidates:
    """Generated samples of one class and the gate's verdict."""

    label: str
    table: pa.Table
    verdict: gate.Verdict

    @property
    def admitted(self) -> pa.Table:
        """Those the gate lets in."""
        return self.table.filter(pa.array([not reason for reason in self.verdict.reasons], pa.bool_()))


def read_real(
    tables: Iterable[pa.Table],
    *,
    chosen: Mapping[str, Sequence[str]],
    preprocessor: Preprocessor,
    held_out_share: float,
    num_neighbors: int,
) -> dict[str, RealClass]:
    """Points of the chosen training samples, class by class; memory grows with the chosen ones only.

    Args:
        tables: The chosen samples with payload, in any order.
        chosen: Ids of each class, in the order of the result.
        preprocessor: Leads to points and back.
        held_out_share: Share of a class kept from the generator for the gate.
        num_neighbors: Neighbours the gate asks for; both halves get at least one row more.
    """
    place_of = {key: (label, row) for label, ids in chosen.items() for row, key in enumerate(ids)}
    width = math.prod(preprocessor.shape)
    points = {label: np.empty((len(ids), width), np.float32) for label, ids in chosen.items()}
    contents: dict[str, set[str]] = {label: set() for label in chosen}
    for table in tables:
        block = preprocessor.matrix(table)
        hashes = content_hashes(block, preprocessor=preprocessor)
        for key, point, content in zip(table["sample_id"].to_pylist(), block, hashes, strict=True):
            label, row = place_of[key]
            points[label][row] = point
            contents[label].add(content)
    return {
        label: RealClass(
            ids=list(ids),
            points=points[label],
            contents=frozenset(contents[label]),
            num_fitted=len(ids) - max(num_neighbors + 1, round(len(ids) * held_out_share)),
        )
        for label, ids in chosen.items()
    }


def content_hashes(points: NDArray[np.float32], *, preprocessor: Preprocessor) -> list[str]:
    """A hash of what would be stored of each point; images are equal where their pixels are, so none is encoded."""
    if preprocessor.dtype == "uint8":
        pixels = np.rint(np.clip(points, 0, 1) * 255).astype(np.uint8)
        return [content_hash(row.tobytes()) for row in pixels]
    return derived.payload_hashes(preprocessor.restore(points))


def fitting_rows(real: Mapping[str, RealClass]) -> Rows:
    """What generators may see."""
    return {label: one.points[: one.num_fitted] for label, one in real.items()}


def generate(
    label: str,
    *,
    generator: Generator,
    real: RealClass,
    preprocessor: Preprocessor,
    rules: gate.Rules,
    method: str,
    count: int,
    seed: int,
) -> Candidates:
    """Generate samples of one class and judge them as they would be stored.

    A sample names the training sample it is nearest to as its parent: the one whose content it may give away.

    Args:
        label: The class.
        generator: Fitted on ``fitting_rows``.
        real: The class's training samples.
        preprocessor: Leads to points and back.
        rules: What the gate asks for.
        method: Name of the generator, for the sample's source.
        count: Samples to generate.
        seed: Seeds the draw.
    """
    drawn = generator.sample(label, count=count, seed=seed)
    payload = preprocessor.restore(drawn)
    stored = preprocessor.matrix(pa.table(payload))
    contents = content_hashes(drawn, preprocessor=preprocessor)
    first_row = {content: row for row, content in reversed(list(enumerate(contents)))}
    is_exact = [content in real.contents or first_row[content] != row for row, content in enumerate(contents)]
    verdict = gate.judge(
        stored,
        train=real.points,
        held_out=real.points[real.num_fitted :],
        is_exact=np.array(is_exact, np.bool_),
        rules=rules,
    )
    table = derived.sample_table(
        payload,
        sources=[f"synthesize:{method}:{label}:{row}" for row in range(count)],
        labels=[label] * count,
        parents=[[real.ids[row]] for row in verdict.nearest],
        origin="synthetic",
    )
    return Candidates(label=label, table=table, verdict=verdict)
