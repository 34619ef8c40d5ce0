"""A pipeline of three small stages, to test the mechanism without the real ones."""

import json
from pathlib import Path

import pyarrow as pa
import yaml
from pydantic import PositiveInt

from datamill import ledger, parts
from datamill.stage import Account, Artifact, Context, Metrics, Params, Stage
from tests.builders import tabular_table, write_parts

ROWS = Artifact("data/make/rows", dataset=True)
CHOICE = Artifact("data/choose/choice.parquet")
TOTAL = Artifact("data/total/total.json", logged=True)


class MakeParams(Params):
    num_rows: PositiveInt
    """Rows to make (count)."""


class ChooseParams(Params):
    lose: int
    """Samples left out of the ledger (count); more than none breaks the rule."""
    fail: bool
    """Whether to stop half-way."""


class TotalParams(Params):
    pass


def make(*, rows: Path, params: MakeParams) -> Metrics:
    """Make rows."""
    write_parts(rows, *tabular_table(num_samples=params.num_rows))
    return {"num_rows": params.num_rows, "kind": "toy"}


def choose(*, rows: Path, choice: Path, params: ChooseParams, context: Context) -> Metrics:
    """Drop every other row."""
    if params.fail:
        choice.write_text("half")
        (context.scratch / "progress").write_text("1")
        raise OSError(28, "No space left on device", str(choice))
    ids = parts.read_table(rows, columns=["sample_id"])["sample_id"].to_pylist()[params.lose :]
    fates = ["kept" if row % 2 == 0 else "dropped" for row in range(len(ids))]
    blank = [""] * len(ids)
    ledger.write(choice, sample_ids=ids, fates=fates, reasons=blank, details=blank, extra={"odd": pa.array(blank)})
    context.tracker.log_metrics({"curve": 1.0}, step=0)
    return {"in": len(ids), "resumed": int((context.scratch / "progress").exists())}


def total(*, choice: Path, total: Path, params: TotalParams) -> Metrics:
    """Count what is left."""
    total.write_text(json.dumps({"left": len(ledger.survivors(choice))}))
    return {"left": len(ledger.survivors(choice))}


PIPELINE = (
    Stage(run=make, params=MakeParams, outputs={"rows": ROWS}),
    Stage(
        run=choose,
        params=ChooseParams,
        inputs={"rows": ROWS},
        outputs={"choice": CHOICE},
        account=Account(ledger="choice", population=("rows",)),
    ),
    Stage(run=total, params=TotalParams, inputs={"choice": CHOICE}, outputs={"total": TOTAL}),
)


def write_params(root: Path, *, num_rows: int = 10, lose: int = 0, fail: bool = False) -> None:
    """A ``params.yaml`` for the toy pipeline, with a comment that must survive editing."""
    sections = {"make": {"num_rows": num_rows}, "choose": {"lose": lose, "fail": fail}, "total": {}}
    text = yaml.safe_dump(sections, sort_keys=False).replace(f"num_rows: {num_rows}", f"num_rows: {num_rows}  # count")
    (root / "params.yaml").write_text(text)
