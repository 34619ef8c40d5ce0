"""From training samples to judged synthetic samples: what the generators and the gate need from the data around them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamill import derived, sheets
from datamill.generators import Generator, Rows, gate
from datamill.preprocessing import Preprocessor
from datamill.samples import Dataset

NUM_SHOWN = 6  # real and synthetic pictures of each class on the sheet
REAL_COLOUR, KEPT_COLOUR, REJECTED_COLOUR = "#868e96", "#2b8a3e", "#c92a2a"


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
    labels: Mapping[str, str], *, classes: Sequence[str], max_rows: int, rng: np.random.Generator
) -> dict[str, list[str]]:
    """At most ``max_rows`` training ids of each class, in random order."""
    members: dict[str, list[str]] = {name: [] for name in classes}
    for key, label in labels.items():
        members[label].append(key)
    return {name: [keys[place] for place in rng.permutation(len(keys))[:max_rows]] for name, keys in members.items()}


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


def report(judged: Sequence[Candidates], *, skipped: Mapping[str, int], real: Mapping[str, RealClass]) -> dict[str, Any]:
    """Numbers for the stage's metrics: all candidates, then class by class."""
    reasons = Counter(reason for one in judged for reason in one.verdict.reasons)
    classes: dict[str, Any] = {label: {"train_rows": rows, "skipped": "class_too_small"} for label, rows in skipped.items()}
    for one in judged:
        classes[one.label] = {
            "train_rows": len(real[one.label].ids),
            "candidates": one.table.num_rows,
            "admitted": one.verdict.reasons.count(""),
            "density": round(one.verdict.density, 4),
            "coverage": round(one.verdict.coverage, 4),
            "expected_coverage": round(one.verdict.expected_coverage, 4),
        }
    return {
        "candidates": sum(reasons.values()),
        "admitted": reasons.pop("", 0),
        "reasons": dict(sorted(reasons.items())),
        "classes": classes,
    }


def write_sheet(
    path: Path, *, judged: Sequence[Candidates], originals: Mapping[str, pa.Table], dataset: Dataset, heading: str
) -> None:
    """Draw a row per class: real samples, then synthetic ones with the gate's verdict.

    Args:
        path: The PNG file.
        judged: Candidates of each class.
        originals: ``NUM_SHOWN`` or fewer real samples of each class, with payload.
        dataset: What the payload is.
        heading: The first line of the sheet.
    """
    from datamill.modalities import modality_of

    blank = np.full((8, 8, 3), 255, np.uint8)
    pictures, titles, colours = [], [], []
    for one in judged:
        shown = one.table.slice(0, NUM_SHOWN)
        reasons = one.verdict.reasons[:NUM_SHOWN]
        for table, names in (
            (originals[one.label], ["real"] * originals[one.label].num_rows),
            (shown, [reason or "admitted" for reason in reasons]),
        ):
            missing = NUM_SHOWN - table.num_rows
            pictures += [*modality_of(dataset).pictures(table, dataset=dataset), *[blank] * missing]
            titles += [*[f"{one.label}: {name.replace('_', ' ')}" for name in names], *[""] * missing]
            colours += [*[_colour(name) for name in names], *["#ffffff"] * missing]
    sheets.write_sheet(path, pictures, titles, 2 * NUM_SHOWN, heading, colours=colours)


def _colour(name: str) -> str:
    return {"real": REAL_COLOUR, "admitted": KEPT_COLOUR}.get(name, REJECTED_COLOUR)
