"""What a run predicted for the samples it is measured on, beside the roster they stand in."""

# Shapes: N source samples of a run, T its measured samples, K classes of either run.

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from datamill import catalog
from datamill.errors import DataError, ParamsError
from datamill.evaluation.metrics import HEADLINES, Predictions, scores
from datamill.lineage.decomposition import ADDITIVE, Score
from datamill.lineage.pairing import ALONE, Pairs
from datamill.lineage.roster import Codebook, Roster, read_roster
from datamill.lineage.runs import Run
from datamill.stage import Stage

MEASURED = ("test", "validation")


@dataclass(frozen=True)
class Side:
    """One of the two runs that are compared.

    Attributes:
        run: The run.
        roster: Its source samples.
        rows: Places in the roster of the samples it is measured on, shape ``(T,)``.
        predictions: Their truth and probabilities, over the classes of either run.
    """

    run: Run
    roster: Roster
    rows: NDArray[np.int64]
    predictions: Predictions


def parse_metric(text: str) -> tuple[str, str]:
    """Split and name of a metric: ``accuracy`` is the test split's, ``validation.accuracy`` the other's.

    Raises:
        ParamsError: There is no such metric.
    """
    split, _, name = text.rpartition(".")
    split = split or "test"
    if split not in MEASURED or name not in HEADLINES:
        raise ParamsError(
            f"no metric is called {text!r}; there are {', '.join(HEADLINES)}, and the same of the other split as "
            f"validation.{HEADLINES[0]}"
        )
    return split, name


def read_sides(a: Run, b: Run, *, split: str, stages: Sequence[Stage]) -> tuple[Side, Side]:
    """Both runs with their samples and predictions, over the classes of either.

    Raises:
        DataError: An artifact is not on this machine, or damaged.
    """
    book = Codebook()
    rosters = [read_roster(run, stages=stages, book=book) for run in (a, b)]
    classes = tuple(dict.fromkeys(name for one in rosters for name in one.dataset.classes))
    first, second = (
        Side(run, one, *_read_predictions(run, roster=one, split=split, classes=classes))
        for run, one in zip((a, b), rosters, strict=True)
    )
    return first, second


def partners(a: Side, b: Side, *, pairs: Pairs) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Place among B's measured samples of each of A's, or ``ALONE``, and whether its content is the same, ``(T,)``."""
    place = np.full(len(b.roster), ALONE, np.int64)
    place[b.rows] = np.arange(len(b.rows))
    there = pairs.of_a[a.rows]
    partner = np.where(there == ALONE, ALONE, place[there])
    kept = np.flatnonzero(partner != ALONE)
    is_same = np.zeros(len(a.rows), bool)
    old, new = a.roster.contents.take(pa.array(a.rows[kept])), b.roster.contents.take(pa.array(there[kept]))
    is_same[kept] = pc.equal(old, new).to_numpy(zero_copy_only=False)
    return partner, is_same


def scorer(name: str, *, num_bins: int) -> Score:
    """A function that gives one headline metric, NaN where it is undefined."""

    def score(predictions: Predictions) -> float:
        if name in ADDITIVE:
            return float(ADDITIVE[name](predictions).mean())
        return scores(predictions, num_bins=num_bins).get(name, float("nan"))

    return score


def _read_predictions(
    run: Run, *, roster: Roster, split: str, classes: Sequence[str]
) -> tuple[NDArray[np.int64], Predictions]:
    path = run.open(catalog.EVALUATE_PREDICTIONS.path)
    table = pq.read_table(path, columns=["sample_id", "label", "probabilities"], filters=[("split", "=", split)])
    rows = pc.index_in(table["sample_id"], value_set=roster.ids).combine_chunks()
    if not len(rows):
        raise DataError(f"{run.name} has no predictions of {split}, so there is nothing to compare")
    if rows.null_count:
        raise DataError(
            f"{run.name}: {rows.null_count} of {len(rows)} predictions of {split} are for samples of another run; "
            f"run the stage evaluate again"
        )
    own = len(roster.dataset.classes)
    probabilities = np.zeros((len(rows), len(classes)))
    given = pc.list_flatten(table["probabilities"]).to_numpy().reshape(len(rows), own)
    probabilities[:, [classes.index(name) for name in roster.dataset.classes]] = given
    label = pc.index_in(table["label"], value_set=pa.array(classes)).to_numpy().astype(np.int64)
    return rows.to_numpy().astype(np.int64), Predictions(label, probabilities)
