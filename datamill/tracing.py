"""The whole story of one thing, from whichever end it is asked: where it came from, what was decided, what came of it.

What is asked for says by a prefix what it is (``source:``, ``sample:``, ``prediction:``, ``shard:``, ``model:``,
``alert:``, ``window:``), or it is found out: ``train:12`` is a row of a shard, anything else a sample or a source file.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from datamill import catalog, config, parts
from datamill.errors import DataError
from datamill.lineage import watched
from datamill.lineage.trail import Chapter, Trail
from datamill.samples import LIGHT_COLUMNS
from datamill.stage import Stage, metrics_of

MAX_LISTED = 5
MAX_ROWS = 20  # samples of one source file that are told one by one
MAX_CLASSES = 3  # of a prediction, the most probable ones
FEATURES = ("height", "width", "channels", "size_bytes", "pixel_mean", "pixel_std")
SPLITS = ("train", "validation", "test")
HEADLINES = ("samples", "accuracy", "f1", "log_loss")


def trace(text: str, *, stages: Sequence[Stage], root: Path) -> Trail:
    """The story of what ``text`` names.

    Raises:
        DataError: Nothing fits, or several things do; says what was searched.
    """
    kind, _, name = text.partition(":")
    if kind in TRACERS and name:
        return TRACERS[kind](name, stages=stages, root=root)
    if kind in SPLITS and name.isdecimal():
        return _trace_shard(text, stages=stages, root=root)
    try:
        return _trace_sample(text, stages=stages, root=root)
    except DataError as error:
        try:
            return _trace_source(text, stages=stages, root=root)
        except DataError:
            gap = "\n" if "\n" in str(error) else "; "
            kinds = ", ".join(f"{one}:" for one in TRACERS)
            raise DataError(f"{error}{gap}for other things say what it is: {kinds}") from error


def find_sample(text: str, *, stages: Iterable[Stage], root: Path) -> str:
    """The id of the one sample whose id begins with ``text``, or whose source key is or ends with ``text``.

    Raises:
        DataError: No sample fits, or several do.
    """
    found: dict[str, str] = {}
    for folder in _parts_folders(stages, root=root):
        for table in parts.iter_tables(folder, columns=["sample_id", "source"]) if "source" in _columns(folder) else ():
            fits = pc.or_(pc.starts_with(table["sample_id"], text), pc.ends_with(table["source"], text))
            found |= dict(zip(*(column.to_pylist() for column in table.filter(fits).columns), strict=True))
    if not found:
        raise DataError(f"no sample has an id that begins with, or a source that ends with, {text!r}")
    exact = [key for key, source in found.items() if text == source or source.endswith((f"/{text}", f"#{text}"))]
    if len(exact) == 1:
        return exact[0]
    if len(found) > 1:
        listed = "\n".join(f"  {key}  {source}" for key, source in list(found.items())[:MAX_LISTED])
        raise DataError(f"{len(found)} samples fit {text!r}; name one by its id, such as:\n{listed}")
    return next(iter(found))


def story(sample_id: str, *, stages: Iterable[Stage], root: Path) -> Iterator[Chapter]:
    """What every artifact on disk says of a sample, in the order of the stages."""
    for stage in stages:
        for artifact in stage.outputs.values():
            path = root / artifact.path
            for facts in _facts(sample_id, path):
                yield Chapter(stage.name, artifact.path, facts)


def _trace_sample(text: str, *, stages: Sequence[Stage], root: Path) -> Trail:
    sample_id = find_sample(text, stages=stages, root=root)
    chapters = [_with_classes(chapter, root=root) for chapter in story(sample_id, stages=stages, root=root)]
    return Trail(f"sample {sample_id}", tuple(chapters))


def _trace_prediction(text: str, *, stages: Sequence[Stage], root: Path) -> Trail:
    trail = _trace_sample(text, stages=stages, root=root)
    if not any(chapter.artifact == catalog.EVALUATE_PREDICTIONS.path for chapter in trail.chapters):
        placed = [chapter.facts["split"] for chapter in trail.chapters if "split" in chapter.facts]
        where = f"it is in {placed[-1]}" if placed else "it is in no split"
        raise DataError(f"{trail.title} was not predicted: {where}, and validation and test samples are")
    return trail


def _trace_shard(text: str, *, stages: Sequence[Stage], root: Path) -> Trail:
    split, _, row = text.partition(":")
    path = root / catalog.SHARD_LEDGER.path
    if split not in SPLITS or not row.isdecimal():
        raise DataError(f"shard:{text} is no row of a shard; write it as train:12, with one of {', '.join(SPLITS)}")
    if not path.is_file():
        raise DataError(f"{path} is missing, so no shard can be searched; `datamill run --target shard` writes it")
    filters = [("split", "=", split), ("row", "=", int(row))]
    found = pq.read_table(path, columns=["sample_id"], filters=filters)["sample_id"].to_pylist()
    if not found:
        count = pq.read_table(path, columns=["split"], filters=[("split", "=", split), ("row", ">=", 0)]).num_rows
        raise DataError(f"the shard of {split} has no row {row}: it has {count}, the first is 0")
    return _trace_sample(found[0], stages=stages, root=root)


def _trace_source(text: str, *, stages: Sequence[Stage], root: Path) -> Trail:
    """All samples of one file or folder of the source, and what of it could not become one."""
    folder = root / catalog.INGEST_SAMPLES.path
    if not folder.is_dir():
        raise DataError(f"{folder} is missing, so no source can be searched; `datamill run --target ingest` writes it")
    rows = [
        row
        for table in parts.iter_tables(folder, columns=["sample_id", "source", "label"])
        for row in table.filter(_comes_from(table["source"], text)).to_pylist()
    ]
    rejected = pq.read_table(root / catalog.INGEST_REJECTS.path)
    refused = rejected.filter(_comes_from(rejected["source"], text)).to_pylist()
    if not rows and not refused:
        raise DataError(f"no sample and no reject comes from a source called {text!r} or below it")
    ends = _ends([row["sample_id"] for row in rows], root=root)
    summary = {"samples": len(rows), "rejects": len(refused)}
    for end in ends.values():
        summary[end] = summary.get(end, 0) + 1
    chapters = [Chapter("ingest", catalog.INGEST_SAMPLES.path, summary)]
    chapters += [
        Chapter(row["source"], row["sample_id"], {"label": row["label"], "ends": ends[row["sample_id"]]})
        for row in rows[:MAX_ROWS]
    ]
    chapters += [
        Chapter("ingest", catalog.INGEST_REJECTS.path, {"fate": "rejected", **row}) for row in refused[:MAX_ROWS]
    ]
    return Trail(f"source {text}", tuple(chapters))


def _trace_model(text: str, *, stages: Sequence[Stage], root: Path) -> Trail:
    """What a model was made of: data digests, parameters, code, and how good it was."""
    from datamill.lineage import versions
    from datamill.lineage.runs import find_run

    run = find_run(text, stages=stages, root=root)
    known = versions.digests(run.lock)
    chapters = []
    for stage in stages:
        outputs = {artifact.path: known[artifact.path] for artifact in stage.outputs.values() if artifact.path in known}
        code = run.code[stage.name]
        facts: dict[str, Any] = dict(outputs)
        facts |= {name: value for name, value in config.flatten(run.params.get(stage.name) or {}).items() if name}
        facts["code"] = code.digest or f"{len(code.files)} files" if code.digest or code.files else "not on record"
        chapters.append(Chapter(stage.name, stage.module, facts))
    path = metrics_of("evaluate").path
    if run.has(path):
        metrics = json.loads(run.open(path).read_text(encoding="utf-8"))
        chapters.append(Chapter("measured", path, {name: metrics[name] for name in HEADLINES if name in metrics}))
    return Trail(f"model of {run.name}", tuple(chapters))


TRACERS: dict[str, Callable[..., Trail]] = {
    "source": _trace_source,
    "sample": _trace_sample,
    "prediction": _trace_prediction,
    "shard": _trace_shard,
    "model": _trace_model,
    "alert": watched.trace_alert,
    "window": watched.trace_window,
}


def _comes_from(sources: Any, text: str) -> Any:
    """Which source keys are ``text``, end with it as a path, or lie below it."""
    key = text.rstrip("/")
    is_named = rf"(^|/){re.escape(key)}($|[/#:])"  # below a folder, a row of a file, a line of a file
    return pc.match_substring_regex(sources, is_named)


def _ends(sample_ids: Sequence[str], *, root: Path) -> dict[str, str]:
    """Where samples ended: the split they are in, or ``dropped``; ``not decided`` before shard ran."""
    path = root / catalog.SHARD_LEDGER.path
    if not path.is_file():
        return dict.fromkeys(sample_ids, "not decided")
    table = pq.read_table(path, columns=["sample_id", "split", "fate"])
    table = table.filter(pc.is_in(table["sample_id"], pc.cast(list(sample_ids), "string")))
    ends = dict.fromkeys(sample_ids, "dropped")
    return ends | {row["sample_id"]: row["split"] for row in table.to_pylist() if row["fate"] == "kept"}


def _with_classes(chapter: Chapter, *, root: Path) -> Chapter:
    """A prediction's probabilities by class, the most probable ones."""
    if "probabilities" not in chapter.facts:
        return chapter
    classes = parts.read_manifest(root / catalog.INGEST_SAMPLES.path).dataset.classes
    likely = sorted(zip(chapter.facts["probabilities"], classes, strict=True), key=lambda pair: -pair[0])[:MAX_CLASSES]
    shown = ", ".join(f"{name} {value:.4f}" for value, name in likely)
    return Chapter(chapter.stage, chapter.artifact, {**chapter.facts, "probabilities": shown})


def _facts(sample_id: str, path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet" and path.is_file() and "sample_id" in pq.read_schema(path).names:
        rows = pq.read_table(path, filters=[("sample_id", "=", sample_id)]).to_pylist()
    elif (path / parts.MANIFEST).is_file():
        tables = parts.iter_tables(path, columns=_columns(path))
        rows = [row for table in tables for row in table.filter(pc.equal(table["sample_id"], sample_id)).to_pylist()]
    else:
        rows = []
    return [
        {key: value for key, value in row.items() if key != "sample_id" and value not in (None, "", [])} for row in rows
    ]


def _parts_folders(stages: Iterable[Stage], *, root: Path) -> Iterator[Path]:
    for stage in stages:
        for artifact in stage.outputs.values():
            if (root / artifact.path / parts.MANIFEST).is_file():
                yield root / artifact.path


def _columns(folder: Path) -> list[str]:
    """Columns that a person can read: of samples all but the payload, of features what was seen in it."""
    found = parts.read_manifest(folder).parts
    names = pq.read_schema(folder / found[0].name).names if found else []
    wanted = LIGHT_COLUMNS if "source" in names else ("sample_id", *FEATURES)
    return [name for name in wanted if name in names]
