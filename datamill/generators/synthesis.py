"""From training samples to judged synthetic ones: generators and gate know points, this module knows samples."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamill import derived
from datamill.generators import Generator, Rows, gate
from datamill.preprocessing import Preprocessor


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


def choose_real(
    labels: Mapping[str, str], *, sizes: Mapping[str, int], min_rows: int, max_rows: int, rng: np.random.Generator
) -> dict[str, list[str]]:
    """At most ``max_rows`` training ids of each class, in random order; classes below ``min_rows`` are left out.

    Args:
        labels: Label by id.
        sizes: Training samples by class.
        min_rows: Fewest samples of a class that can be judged (count).
        max_rows: Most samples of a class that are read, raised to ``min_rows`` (count).
        rng: Source of the order.
    """
    members: dict[str, list[str]] = {name: [] for name in sizes}
    for key, label in labels.items():
        members[label].append(key)
    limit = max(max_rows, min_rows)
    orders = {name: rng.permutation(len(keys))[:limit] for name, keys in members.items()}
    return {name: [members[name][row] for row in order] for name, order in orders.items() if len(order) >= min_rows}


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
    points: dict[str, NDArray[np.float32]] = {}
    contents: dict[str, str] = {}
    for table in tables:
        block = preprocessor.matrix(table)
        ids = table["sample_id"].to_pylist()
        points |= dict(zip(ids, block, strict=True))
        # compared as a generated point would be stored, in the same size and encoding
        contents |= dict(zip(ids, derived.payload_hashes(preprocessor.restore(block)), strict=True))
    real = {}
    for label, ids in chosen.items():
        num_held_out = max(num_neighbors + 1, round(len(ids) * held_out_share))
        real[label] = RealClass(
            ids=list(ids),
            points=np.stack([points[key] for key in ids]),
            contents=frozenset(contents[key] for key in ids),
            num_fitted=len(ids) - num_held_out,
        )
    return real


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
    payload = preprocessor.restore(generator.sample(label, count=count, seed=seed))
    stored = preprocessor.matrix(pa.table(payload))
    contents = derived.payload_hashes(payload)
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
