from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from datamill import features, ledger
from datamill.auditing import roster as rosters
from datamill.modalities import image
from tests.builders import CLASSES, image_table, write_parts
from tests.datamill.auditing.rosters import roster_of


def test_observations_of_images_are_their_thumbnails() -> None:
    dataset, table = image_table(num_samples=20)
    roster = roster_of(table, folds=np.zeros(20, np.int8))
    wanted = np.arange(20) % 3 == 0
    blocks = rosters.observe(
        [features.look(piece, dataset=dataset) for piece in (table.slice(0, 7), table.slice(7))],
        roster=roster,
        wanted=wanted,
        dataset=dataset,
    )
    expected = image.observations(table.filter(pa.array(wanted)), dataset=dataset)
    observed = rosters.join(blocks)
    assert observed.dtype == expected.dtype
    assert np.array_equal(observed, expected)


def assignments_of(folder: Path, table: pa.Table) -> Path:
    """Every fourth sample is held out, every fifth was dropped."""
    count = table.num_rows
    ledger.write(
        folder / "assignments.parquet",
        sample_ids=table["sample_id"],
        fates=["kept" if row % 5 else "dropped" for row in range(count)],
        reasons="",
        details="",
        extra={
            "split": pa.array(["train" if row % 4 else "test" for row in range(count)]),
            "fold": pa.array([row % 3 if row % 4 else -1 for row in range(count)], pa.int8()),
        },
    )
    return folder / "assignments.parquet"


def test_a_roster_holds_the_survivors_and_chooses_among_train(tmp_path: Path) -> None:
    dataset, table = image_table(num_samples=40)
    write_parts(tmp_path / "samples", dataset, table)
    read = partial(
        rosters.read_roster,
        tmp_path / "samples",
        assignments=assignments_of(tmp_path, table),
        classes=CLASSES,
        key="k",
    )
    left = [row for row in range(40) if row % 5]
    everyone, some = read(max_rows=100), read(max_rows=6)
    assert np.flatnonzero(everyone.is_left).tolist() == left
    assert everyone.labels.tolist() == [row % 3 for row in left]
    assert everyone.splits.tolist() == [0 if row % 4 else 2 for row in left]
    assert everyone.is_taught.tolist() == [row % 4 > 0 for row in left]
    assert some.is_taught.sum() == 6
    assert (everyone.is_taught | ~some.is_taught).all()
