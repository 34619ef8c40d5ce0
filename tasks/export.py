"""Turns the trained network into a file that anyone can run, and writes the cards."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from datamill import catalog
from datamill.stage import Context, Metrics, Params, Stage, metrics_of


class CardParams(Params):
    """What only the owner can say about the model and its data; empty strings appear as open questions."""

    title: Annotated[str, Field(min_length=1, max_length=120)]
    """Title of the model card; the data card adds to it."""
    owner: str
    """Who answers for the model."""
    licence: str
    """Under which terms model and data may be used."""
    intended_use: str
    """What the model is for, and what not."""
    limitations: str
    """Known limits of model and data."""


class LatencyParams(Params):
    """How the speed of the exported model is measured."""

    warmup: NonNegativeInt
    """Calls before the clock counts (count)."""
    repeats: int = Field(ge=10, le=100_000)
    """Timed calls per batch size (count); fewer, but ten at least, where they take more than five seconds."""


class ExportParams(Params):
    """How the model is exported and what its cards say."""

    max_difference: PositiveFloat
    """Largest difference of a probability between ONNX and torch on the test split; above it nothing is exported."""
    batch_size: PositiveInt
    """Samples compared at a time (count); bounds memory, not results."""
    latency: LatencyParams
    """How speed is measured."""
    card: CardParams
    """The owner's words."""


BATCHES = (1, 64)  # samples per call whose latency is measured


def export(
    *,
    shards: Path,
    network: Path,
    weights: Path,
    preprocessor: Path,
    samples: Path,
    rejects: Path,
    schema: Path,
    verdicts: Path,
    cleaned: Path,
    assignments: Path,
    audited: Path,
    suspects: Path,
    preview: Path,
    copies: Path,
    synthetic: Path,
    sheet: Path,
    admissions: Path,
    plan: Path,
    resampled: Path,
    sharded: Path,
    history: Path,
    trained: Path,
    diagnosis: Path,
    confusion: Path,
    calibration: Path,
    slices: Path,
    mistakes: Path,
    evaluated: Path,
    model: Path,
    example: Path,
    interface: Path,
    times: Path,
    cards: Path,
    params: ExportParams,
    context: Context,
) -> Metrics:
    """Export ONNX that answers as torch does on the test split, time it, and write the model card and the data card.

    Raises:
        StageError: The exported model differs from torch by more than ``max_difference``, or there is no test split.
    """
    paths = {port: value for port, value in locals().items() if port in STAGE.inputs}

    import torch

    from datamill import arrays, exporting, files, inference
    from datamill.evaluation.prediction import open_splits
    from datamill.networks import load_network, read_spec
    from datamill.preprocessing import load_preprocessor
    from datamill.reporting.cards import write_card
    from datamill.reporting.data_card import data_card
    from datamill.reporting.facts import read_data_facts, read_model_facts
    from datamill.reporting.model_card import About, model_card

    torch.set_num_threads(context.num_threads)
    split, spec, trained_network = open_splits(shards), read_spec(network), load_network(network, weights)
    rows = exporting.network_rows(split["test"], count=max(BATCHES))
    graph = exporting.to_onnx(trained_network, shape=rows.shape[1:])
    content = graph.SerializeToString(deterministic=True)

    session = inference.open_session(content, num_threads=context.num_threads)
    parity = exporting.check_parity(session, network=trained_network, shard=split["test"], batch_size=params.batch_size)
    exporting.require_parity(parity, max_difference=params.max_difference)
    model.write_bytes(content)
    with example.open("wb") as file:
        arrays.save(file, rows[:1])
    described = exporting.describe_interface(
        spec,
        example=rows[:1],
        probabilities=inference.run_session(session, x=rows[:1]),
        features=load_preprocessor(preprocessor).columns,
        preprocessor_sha256=files.sha256_file(preprocessor),
    )
    files.write_json(interface, described)

    timing = params.latency.model_dump()
    latency = {str(size): inference.measure_latency(session, x=rows[:size], **timing) for size in BATCHES}
    measured = {"threads": context.num_threads, "latency": latency}
    files.write_json(times, measured)
    context.tracker.log_metrics({f"latency.{size}.median_ms": row["median_ms"] for size, row in latency.items()})

    metrics: Metrics = {
        "size_bytes": len(content),
        "opset": exporting.OPSET,
        "parity": exporting.parity_metrics(parity),
    }
    about = About(**params.card.model_dump())
    facts = read_model_facts(paths, about=about, interface=described, exported=metrics, times=measured, shards=split)
    write_card(cards, "model_card", card=model_card(facts))
    write_card(cards, "data_card", card=data_card(read_data_facts(paths, about=about, shards=split)))
    return metrics


STAGE = Stage(
    run=export,
    params=ExportParams,
    inputs={
        "shards": catalog.SHARD_SHARDS,
        "network": catalog.TRAIN_NETWORK,
        "weights": catalog.TRAIN_BEST,
        "preprocessor": catalog.PREPROCESS_STATE,
        "samples": catalog.INGEST_SAMPLES,
        "rejects": catalog.INGEST_REJECTS,
        "schema": catalog.VALIDATE_SCHEMA,
        "verdicts": catalog.VALIDATE_VERDICTS,
        "cleaned": catalog.CLEAN_LEDGER,
        "assignments": catalog.SPLIT_ASSIGNMENTS,
        "audited": catalog.AUDIT_LEDGER,
        "suspects": catalog.AUDIT_SUSPECTS,
        "preview": catalog.AUGMENT_PREVIEW,
        "copies": catalog.AUGMENT_COPIES,
        "synthetic": catalog.SYNTHESIZE_SAMPLES,
        "sheet": catalog.SYNTHESIZE_SHEET,
        "admissions": catalog.SYNTHESIZE_ADMISSIONS,
        "plan": catalog.BALANCE_PLAN,
        "resampled": catalog.BALANCE_RESAMPLED,
        "sharded": catalog.SHARD_LEDGER,
        "history": catalog.TRAIN_HISTORY,
        "trained": metrics_of("train"),
        "diagnosis": catalog.DIAGNOSE_REPORT,
        "confusion": catalog.EVALUATE_CONFUSION,
        "calibration": catalog.EVALUATE_CALIBRATION,
        "slices": catalog.EVALUATE_SLICES,
        "mistakes": catalog.EVALUATE_MISTAKES,
        "evaluated": metrics_of("evaluate"),
    },
    outputs={
        "model": catalog.EXPORT_MODEL,
        "example": catalog.EXPORT_EXAMPLE,
        "interface": catalog.EXPORT_INTERFACE,
        "times": catalog.EXPORT_TIMES,
        "cards": catalog.EXPORT_CARDS,
    },
)
