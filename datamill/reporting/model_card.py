"""The model card: what the model is for, how good it is, and how to use it.

Source: M. Mitchell et al., "Model Cards for Model Reporting", FAT* 2019 (the questions that a card answers).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamill.evaluation.calibration import Bin
from datamill.evaluation.metrics import HEADLINES, LOWER_IS_BETTER
from datamill.evaluation.slices import Slice
from datamill.reporting import plots
from datamill.reporting.cards import (
    Block,
    Card,
    Code,
    Document,
    Picture,
    Section,
    Table,
    Text,
    Tile,
    Tiles,
    demote_headings,
    plot,
)
from datamill.reporting.usage import usage_snippet
from datamill.training.history import EpochResult

NAMES = {
    "accuracy": "Accuracy",
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1",
    "roc_auc": "ROC AUC",
    "log_loss": "Log loss",
    "brier": "Brier score",
    "calibration_error": "Calibration error",
}
MISTAKES = "Test samples about which the network was sure and wrong, with true and predicted class"
NUM_SLICES = 12  # lowest ones shown
MAX_CLASSES = 60  # rows of the per-class table


@dataclass(frozen=True)
class About:
    """What only the owner can say; empty strings are shown as open questions."""

    title: str
    owner: str
    licence: str
    intended_use: str
    limitations: str


@dataclass(frozen=True)
class ModelFacts:
    """Everything a model card shows.

    Attributes:
        about: The owner's words.
        interface: Content of ``interface.json``.
        evaluated: Metrics of ``evaluate``.
        trained: Metrics of ``train``.
        exported: Metrics of ``export``.
        times: Latencies by batch size, measured on this machine.
        confusion: Test samples by true and predicted class, shape ``(K, K)``.
        bins: Reliability bins.
        slices: Accuracy by slice.
        history: Epochs of the training run.
        mistakes_png: Sheet of confident mistakes.
        diagnosis: Report of ``diagnose`` in Markdown; ``None`` where it was not kept.
        rows: Rows of each split's shard.
    """

    about: About
    interface: Mapping[str, Any]
    evaluated: Mapping[str, Any]
    trained: Mapping[str, Any]
    exported: Mapping[str, Any]
    times: Mapping[str, Any]
    confusion: NDArray[np.int64]
    bins: Sequence[Bin]
    slices: Sequence[Slice]
    history: Sequence[EpochResult]
    mistakes_png: bytes
    diagnosis: str | None
    rows: Mapping[str, int]


def model_card(facts: ModelFacts) -> Card:
    """The card of a model."""
    kind, num_classes = facts.interface["network"], len(facts.interface["classes"])
    return Card(
        title=facts.about.title,
        subtitle=f"Model card: {kind.upper()} classifier of {num_classes} classes, "
        f"{facts.trained['num_parameters']:,} parameters, measured on {facts.evaluated['samples']:,} test samples",
        sections=[
            Section("At a glance", [_tiles(facts), *_remarks(facts.evaluated)]),
            Section("Use", _use(facts.about)),
            Section("Metrics", _metrics(facts.evaluated)),
            Section("Classes", _classes(facts)),
            Section("Calibration", _calibration(facts)),
            Section("Where it is weakest", _slices(facts)),
            Section("Most confident mistakes", [Picture("mistakes", MISTAKES, facts.mistakes_png)]),
            Section("Training", _training(facts)),
            Section("Speed and size", _speed(facts)),
            Section("How to call it", _calling(facts.interface)),
            Section("Lineage", _lineage(facts)),
        ],
    )


def with_interval(value: float, interval: Mapping[str, float] | None) -> str:
    """A number, and its interval where there is one."""
    ends = f" ({interval['low']:.4f} to {interval['high']:.4f})" if interval else ""
    return f"{value:.4f}{ends}"


def _tiles(facts: ModelFacts) -> Block:
    shown = [name for name in ("accuracy", "f1", "roc_auc", "calibration_error") if name in facts.evaluated]
    tiles = [_metric_tile(name, evaluated=facts.evaluated) for name in shown]
    batch = facts.times["latency"]["1"]
    size_bytes = facts.exported["size_bytes"]
    tiles.append(
        Tile("Latency, one sample", f"{batch['median_ms']:.3g} ms", f"95th percentile {batch['p95_ms']:.3g} ms, CPU")
    )
    tiles.append(Tile("Size", f"{size_bytes / 2**20:.2f} MiB", f"{facts.trained['num_parameters']:,} parameters"))
    return Tiles(tiles)


def _metric_tile(name: str, *, evaluated: Mapping[str, Any]) -> Tile:
    interval, beside = evaluated["interval"].get(name), evaluated["baseline"].get(name)
    ends = f"{interval['low']:.4f} to {interval['high']:.4f}" if interval else "no interval"
    baseline = f"; baseline {beside:.4f}" if beside is not None else ""
    return Tile(NAMES[name], f"{evaluated[name]:.4f}", ends + baseline)


def _remarks(evaluated: Mapping[str, Any]) -> list[Block]:
    return [Text(f"Note: {remark}.") for remark in evaluated["notes"].values()]


def _use(about: About) -> list[Block]:
    rows = {
        "Owner": about.owner,
        "Licence": about.licence,
        "Intended use": about.intended_use,
        "Limitations": about.limitations,
    }
    unsaid = [name.lower() for name, value in rows.items() if not value.strip()]
    blocks: list[Block] = [
        Table(["", ""], [[name, " ".join(value.split()) or "not stated"] for name, value in rows.items()])
    ]
    if unsaid:
        blocks.append(Text(f"Not stated yet: {', '.join(unsaid)}. The owner says it in export.card of params.yaml."))
    return blocks


def _metrics(evaluated: Mapping[str, Any]) -> list[Block]:
    baseline, rows = evaluated["baseline"], []
    for name in (name for name in HEADLINES if name in evaluated):
        difference = baseline["difference"][name]
        arrow = "\N{NO-BREAK SPACE}↓" if name in LOWER_IS_BETTER else ""
        ours = with_interval(evaluated[name], evaluated["interval"].get(name))
        theirs = with_interval(baseline[name], baseline["interval"].get(name))
        ends = f" ({difference['low']:+.4f} to {difference['high']:+.4f})" if "low" in difference else ""
        rows.append([NAMES[name] + arrow, ours, theirs, f"{difference['value']:+.4f}{ends}"])
    stopped = "" if baseline["has_converged"] else ", stopped before it converged"
    note = (
        f"On {evaluated['samples']:,} test samples that no other stage has learnt from. Precision, recall and F1 are "
        f"means over classes, ROC AUC is the mean of one class against the rest; lower is better where ↓ stands. In "
        f"brackets: percentile bootstrap intervals over {evaluated['resampled_unit']}s; the difference is paired. "
        f"Resampling adds to a calibration error, so its interval may lie above the value. The baseline is a "
        f"logistic regression on the raw inputs of {baseline['rows']:,} training rows{stopped}."
    )
    blocks: list[Block] = [Table(["Metric", "Network", "Baseline", "Difference"], rows), Text(note)]
    if evaluated["binary"]:
        one = evaluated["binary"]
        text = f"precision {one['precision']:.4f}, recall {one['recall']:.4f}, F1 {one['f1']:.4f}"
        blocks.append(Text(f"For the class {one['positive']} alone: {text}."))
    return blocks


def _classes(facts: ModelFacts) -> list[Block]:
    classes = facts.evaluated["class"]
    rows = [
        [name, f"{row['precision']:.4f}", f"{row['recall']:.4f}", f"{row['f1']:.4f}", f"{row['support']:,}"]
        for name, row in list(classes.items())[:MAX_CLASSES]
    ]
    blocks: list[Block] = [Table(["Class", "Precision", "Recall", "F1", "Test samples"], rows)]
    if len(classes) > MAX_CLASSES:
        blocks.append(Text(f"{len(classes) - MAX_CLASSES} further classes are in reports/evaluate.json."))
    figure = plots.confusion_figure(facts.confusion, classes=list(classes))
    return [*blocks, plot("confusion", figure, caption="Confusion matrix on the test split: true class by row")]


def _calibration(facts: ModelFacts) -> list[Block]:
    error = facts.evaluated["calibration_error"]
    text = (
        f"Where the network is 80% sure it should be right 80% of the time. Over all test samples, confidence and "
        f"accuracy differ by {error:.2%} on average (expected calibration error)."
    )
    figure = plots.reliability_figure(facts.bins)
    return [Text(text), plot("calibration", figure, caption="Accuracy by confidence on the test split")]


def _slices(facts: ModelFacts) -> list[Block]:
    worst = facts.evaluated["worst_slice"]
    if not worst:
        return [Text("No slice of the test split holds enough samples to be judged on its own.")]
    lowest = sorted(facts.slices, key=lambda entry: (entry.high, entry.accuracy))[:NUM_SLICES]
    text = (
        f"Lowest accuracy among slices of enough samples: {with_interval(worst['accuracy'], worst)} for "
        f"{worst['property']} {worst['value']}, {worst['count']:,} samples. The worst of many slices looks worse than "
        f"it is: read the interval."
    )
    figure = plots.slices_figure(lowest, overall=facts.evaluated["accuracy"])
    caption = "The most surely weak slices, their size, and Wilson intervals; dashed: the accuracy over all samples"
    return [Text(text), plot("slices", figure, caption=caption)]


def _training(facts: ModelFacts) -> list[Block]:
    curves = plot("curves", plots.curves_figure(facts.history), caption="Loss and accuracy by epoch")
    if facts.diagnosis is None:
        return [curves, Text("The diagnosis of this run was not kept with it; run the diagnose stage to renew it.")]
    return [curves, Document(demote_headings(facts.diagnosis))]


def _speed(facts: ModelFacts) -> list[Block]:
    rows = [
        [
            f"{batch} sample{'' if batch == '1' else 's'}",
            f"{row['median_ms']:.3f}",
            f"{row['p95_ms']:.3f}",
            f"{row['samples_per_s']:,.0f}",
        ]
        for batch, row in facts.times["latency"].items()
    ]
    parity = facts.exported["parity"]
    text = (
        f"ONNX Runtime on the CPU, {_threads(facts.times['threads'])}, on the machine that exported the model. The "
        f"file has {facts.exported['size_bytes']:,} bytes. Against torch over {parity['samples']:,} test samples, "
        f"probabilities differ by at most {parity['max_difference']:.1e} and the class is the same for "
        f"{parity['agreement']:.2%}."
    )
    return [Table(["Batch", "Median (ms)", "95th percentile (ms)", "Samples per second"], rows), Text(text)]


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _calling(interface: Mapping[str, Any]) -> list[Block]:
    given = interface["input"]
    shape = ", ".join(str(size) for size in given["shape"])
    text = f"The model takes one input, {given['dtype']} of shape ({shape}). {interface['preprocessing']}"
    return [Text(text), Code(usage_snippet(interface), "python")]


def _lineage(facts: ModelFacts) -> list[Block]:
    best = facts.trained["best"]
    rows = [[split, f"{count:,}"] for split, count in facts.rows.items()]
    text = (
        f"Epoch {best['epoch']} of {facts.trained['epochs']} was kept. The data card tells where the samples come from "
        f"and what became of each; dvc.lock pins every artifact by its hash."
    )
    return [Table(["Split", "Rows"], rows), Text(text)]
