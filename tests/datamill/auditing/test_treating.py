import csv
from pathlib import Path

import numpy as np
import pyarrow as pa

from datamill import ledger
from datamill.auditing import treating
from datamill.auditing.judging import Judgement
from tests.builders import image_table, write_parts
from tests.datamill.auditing.rosters import roster_of


def verdicts(quality: list[float], issues: list[bool]) -> Judgement:
    return Judgement(
        quality=np.array(quality, np.float32), suggestion=np.zeros(len(quality), np.int32), is_issue=np.array(issues)
    )


def test_the_policy_touches_the_worst_of_train_up_to_its_share_and_flags_the_rest() -> None:
    judgement = verdicts([0.3, 0.1, 0.2, 0.0, 0.9], [True, True, True, True, False])
    is_train = np.array([True, True, True, False, True])
    actions = treating.choose_actions(judgement, is_train=is_train, max_share=0.5)
    assert actions.tolist() == [treating.FLAG, treating.TREAT, treating.TREAT, treating.FLAG, 0]


def test_suspects_are_listed_worst_first_up_to_the_limit(tmp_path: Path) -> None:
    dataset, table = image_table(num_samples=5)
    write_parts(tmp_path / "samples", dataset, table)
    judgement = verdicts([0.3, 0.1, 0.2, 0.9, 0.1], [True, True, True, False, True])
    ledger.write(tmp_path / "split.parquet", sample_ids=table["sample_id"], fates="kept", reasons="", details="")
    roster = roster_of(table, folds=np.array([0, -1, 0, 0, 0], np.int8))
    actions = np.array([2, 1, 2, 0, 2], np.int8)
    ((rows, audited),) = [
        piece
        for piece in treating.iter_audited(
            tmp_path / "split.parquet",
            roster=roster,
            judgement=judgement,
            actions=actions,
            policy="drop",
            classes="xyz",
        )
        if piece[1].num_rows
    ]
    is_suspect = treating.is_suspect(judgement, actions=actions, limit=2)
    assert is_suspect.tolist() == [False, True, False, False, True]
    treating.write_suspects(
        tmp_path / "suspects.csv",
        suspects=audited.filter(pa.array(is_suspect[rows])),
        samples=tmp_path / "samples",
        limit=2,
    )
    with (tmp_path / "suspects.csv").open() as file:
        listed = list(csv.reader(file))
    ids = table["sample_id"].to_pylist()
    expected = [
        [ids[1], "item-0001", "test", "y", "x", "0.100000", "flag"],
        [ids[4], "item-0004", "train", "y", "x", "0.100000", "drop"],
    ]
    assert listed[0] == ["sample_id", "source", "split", "label", "suggestion", "quality", "action"]
    assert listed[1:] == sorted(expected)
    assert audited["detail"].to_pylist()[0] == "labelled 'x', looks like 'x', quality 0.3000"
