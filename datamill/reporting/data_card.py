"""The data card: where the samples come from, what became of each, and what the network was shown.

Source: T. Gebru et al., "Datasheets for Datasets", 2021 (the questions that a card answers).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamill.reporting import plots
from datamill.reporting.cards import Block, Card, Picture, Section, Table, Text, Tile, Tiles, plot
from datamill.reporting.funnel import Step
from datamill.reporting.model_card import About
from datamill.samples import Dataset

MAX_ROWS = 40  # of the table of classes


@dataclass(frozen=True)
class DataFacts:
    """Everything a data card shows.

    Attributes:
        about: The owner's words.
        dataset: What holds for every sample.
        steps: The funnel, from ingest to shard.
        source: By split, samples of each class that came from the source, shape ``(K,)``.
        made: Generated training samples of each class, shape ``(K,)``.
        generated: Samples made by each stage that makes some.
        rules: Expectations that were checked, as ``validate`` stores them.
        suspects: Header and first lines of the audit's suspicious labels.
        candidates: What the admission gate said of synthetic samples: (fate, reason, count).
        preview_png: Sheet of augmented samples.
        synthetic_png: Sheet of synthetic samples.
    """

    about: About
    dataset: Dataset
    steps: Sequence[Step]
    source: Mapping[str, NDArray[np.int64]]
    made: NDArray[np.int64]
    generated: Mapping[str, int]
    rules: Sequence[Mapping[str, Any]]
    suspects: Sequence[Sequence[str]]
    candidates: Sequence[tuple[str, str, int]]
    preview_png: bytes
    synthetic_png: bytes


def data_card(facts: DataFacts) -> Card:
    """The card of a data set."""
    dataset = facts.dataset
    num_classes = len(dataset.classes)
    return Card(
        title=f"{facts.about.title}: data",
        subtitle=f"Data card: {dataset.name}, {dataset.modality} {dataset.task}, {num_classes} classes",
        sections=[
            Section("At a glance", [_tiles(facts)]),
            Section("The fate of every sample", _funnel(facts.steps)),
            Section("Classes and splits", _balance(facts)),
            Section("Validation rules", _rules(facts.rules)),
            Section("Duplicates and repairs", _cleaning(facts.steps)),
            Section("Suspicious labels", _audit(facts)),
            Section(
                "Augmentation",
                [Picture("augmentation", "Training samples before and after augmentation", facts.preview_png)],
            ),
            Section("Synthesis", _synthesis(facts)),
        ],
    )


def _tiles(facts: DataFacts) -> Block:
    source = {split: int(counts.sum()) for split, counts in facts.source.items()}
    first = facts.steps[0]
    lost = sum(step.lost for step in facts.steps)
    tiles = [Tile("Items in the source", f"{first.survived + first.lost:,}", f"{first.lost:,} rejected")]
    tiles += [Tile(f"{split.capitalize()} samples", f"{count:,}", "from the source") for split, count in source.items()]
    tiles.append(Tile("Generated", f"{int(facts.made.sum()):,}", "in the training split only"))
    tiles.append(Tile("Lost on the way", f"{lost:,}", "each with a reason in a ledger"))
    return Tiles(tiles)


def _funnel(steps: Sequence[Step]) -> list[Block]:
    rows = []
    for step in steps:
        came_in = step.survived + step.lost
        rows.append(
            [step.name, f"{came_in:,}", f"{step.added:,}", f"{step.survived:,}", f"{step.lost:,}", reasons(step.losses)]
        )
    columns = ["Stage", "In", "of which new", "Went on", "Lost", "Why lost"]
    figure = plot("funnel", plots.funnel_figure(steps), caption="Samples that went on from each stage")
    note = "At every stage, what came in went on or was lost for a reason; a stage whose ledger does not add up fails."
    return [figure, Table(columns, rows), Text(note)]


def _balance(facts: DataFacts) -> list[Block]:
    figure = plots.balance_figure(facts.source, made=facts.made, classes=facts.dataset.classes)
    columns = ["Class", *(split.capitalize() for split in facts.source), "Generated for train"]
    rows = [
        [name, *(f"{counts[number]:,}" for counts in facts.source.values()), f"{facts.made[number]:,}"]
        for number, name in enumerate(facts.dataset.classes[:MAX_ROWS])
    ]
    blocks: list[Block] = [plot("balance", figure, caption="Samples of each class by split"), Table(columns, rows)]
    absent = [f"{name} in {split}" for split, counts in facts.source.items() for name in _absent(facts, counts)]
    if absent:
        blocks.append(Text(f"Without any sample: {', '.join(absent[:MAX_ROWS])}."))
    return blocks


def _absent(facts: DataFacts, counts: NDArray[np.int64]) -> list[str]:
    return [name for name, count in zip(facts.dataset.classes, counts, strict=True) if not count]


def _rules(rules: Sequence[Mapping[str, Any]]) -> list[Block]:
    alike: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for rule in rules:
        alike.setdefault((rule["name"], rule["severity"]), []).append(rule)
    rows = [[_words(name), _claim(group), _columns(group), severity] for (name, severity), group in alike.items()]
    note = "The limits of each column are in data/validate/schema.json."
    return [Table(["Rule", "Expected", "Of", "If it fails"], rows), Text(note)]


def _claim(rules: Sequence[Mapping[str, Any]]) -> str:
    """What rules of one name expect; where they differ, what the first one does."""
    claims = {rule["claim"] for rule in rules}
    return str(rules[0]["claim"]) if len(claims) == 1 else f"{_columns(rules[:1])}: {rules[0]['claim']}"


def _columns(rules: Sequence[Mapping[str, Any]]) -> str:
    names = [str(rule["kwargs"].get("column", "several columns")) for rule in rules]
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more columns"


def _cleaning(steps: Sequence[Step]) -> list[Block]:
    step = next(step for step in steps if step.name == "clean")
    rows = [
        [_words(reason), fate, f"{count:,}"] for (fate, reason), count in (*step.losses.items(), *step.remarks.items())
    ]
    if not rows:
        return [Text("No duplicate, no outlier and no broken value was found: every sample was kept as it came.")]
    return [Table(["Found", "Sample was", "Samples"], rows)]


def _audit(facts: DataFacts) -> list[Block]:
    step = next(step for step in facts.steps if step.name == "audit")
    found = {**step.losses, **step.remarks}
    if not found:
        return [Text("No label was found to be suspicious.")]
    total = sum(found.values())
    text = (
        f"{total:,} of {step.survived + step.lost:,} labels were found suspicious: {reasons(found)}. "
        f"Test labels are flagged, never changed."
    )
    blocks: list[Block] = [Text(text)]
    if len(facts.suspects) > 1:
        header, *lines = facts.suspects
        blocks += [Text("The most suspicious ones:"), Table([_words(name) for name in header], lines)]
    return blocks


def _synthesis(facts: DataFacts) -> list[Block]:
    made = ", ".join(f"{name} {count:,}" for name, count in facts.generated.items())
    blocks: list[Block] = [Text(f"Samples made by stage: {made}. Each names its parents, all of them in train.")]
    if facts.candidates:
        rows = [[_words(reason) or "passed", fate, f"{count:,}"] for fate, reason, count in facts.candidates]
        blocks.append(Table(["Admission gate", "Candidate was", "Candidates"], rows))
    return [*blocks, Picture("synthetic", "Synthetic samples beside real ones", facts.synthetic_png)]


def reasons(counts: Mapping[tuple[str, str], int]) -> str:
    """Reasons with their numbers of samples, in words."""
    return ", ".join(f"{_words(reason) or fate} {count:,}" for (fate, reason), count in counts.items())


def _words(code: str) -> str:
    return code.replace("_", " ")
