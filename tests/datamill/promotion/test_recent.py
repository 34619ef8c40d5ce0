"""Both models on what monitoring keeps of its newest windows."""

import numpy as np
import pyarrow as pa
import pytest

from datamill.monitoring.reference import write_reference
from datamill.monitoring.traits import read_traits
from datamill.promotion import champions
from datamill.promotion.params import ShadowParams
from datamill.promotion.recent import read_shadow
from datamill.promotion.shadow import UNKNOWN
from datamill.shards.entries import Field
from datamill.shards.writing import ShardWriter
from tests.builders import CLASSES, image_table, tabular_table
from tests.datamill.promotion.candidates import policy, write_workspace
from tests.datamill.promotion.test_promoting import GOOD, WORSE, promote

FIELD_ID = Field.array("uint8", (16,))
LIMITS = ShadowParams(num_windows=2, max_rows=100, min_rows=10, is_required=False, max_loss=0.1, min_agreement=0.5)


def write_window(root, name, *, seed, count=30, labels=None):
    dataset, table = tabular_table(num_samples=count, seed=seed)
    true = np.array([CLASSES.index(one) for one in table["label"].to_pylist()], np.int64)
    empty = np.zeros((count, 1), np.float32)
    identity = {
        "sample_id": table["sample_id"],
        "split": ["window"] * count,
        "label": true if labels is None else np.full(count, labels),
        "time": table["time"],
    }
    write_reference(
        root / "reports/windows" / name / "sample",
        identity=identity,
        features=read_traits(table, dataset=dataset),
        arrays={"inputs": empty, "embeddings": empty, "probabilities": empty},
        dataset=dataset,
        model_sha256="",
        preprocessor_sha256="",
        headline=None,
    )
    return true


@pytest.fixture
def root(tmp_path):
    promote(tmp_path, bias=GOOD)
    return write_workspace(tmp_path, bias=WORSE)


def compare(root, limits=LIMITS):
    folder, _ = champions.stage_candidate(root)
    champion = champions.champion_folder(root)
    return read_shadow(root, champion=champion, challenger=folder, limits=limits, num_threads=1)


def test_both_answer_the_inputs_of_the_newest_windows_through_their_own_preprocessors(root):
    for day in (1, 2, 3):
        true = write_window(root, f"2026-01-0{day}T00", seed=day)
    shadow = compare(root)
    assert shadow.windows == ("2026-01-03T00", "2026-01-02T00")
    assert len(shadow.label) == 60
    assert shadow.label[:30].tolist() == true.tolist()
    assert (shadow.champion.argmax(axis=1) == shadow.label).all()
    assert 0.3 < (shadow.challenger.argmax(axis=1) == shadow.label).mean() < 0.7


def test_no_more_inputs_than_asked_for_and_the_newest_ones(root):
    for day in (1, 2):
        true = write_window(root, f"2026-01-0{day}T00", seed=day)
    shadow = compare(root, LIMITS.model_copy(update={"max_rows": 20}))
    assert shadow.windows == ("2026-01-02T00",)
    assert shadow.label.tolist() == true[10:].tolist()


def test_inputs_that_the_challenger_has_learnt_from_are_left_out(root):
    true = write_window(root, "2026-01-01T00", seed=1)
    dataset, table = tabular_table(num_samples=30, seed=1)
    x = np.stack([table["feature:height"].to_numpy(), table["feature:width"].to_numpy()], axis=1).astype(np.float32)
    for split, rows in {"train": slice(0, 12), "validation": slice(12, 15), "test": slice(15, 30)}.items():
        folder = root / "data/shard/shards" / split
        count = len(x[rows])
        ids = np.zeros((count, 16), np.uint8)
        fields = {"x": Field.array("float32", (2,)), "label": Field.array("int32"), "sample_id": FIELD_ID}
        with ShardWriter(folder, split=split, dataset=dataset, fields=fields) as writer:
            writer.write({"x": x[rows], "label": np.zeros(count, np.int32), "sample_id": ids})
    shadow = compare(root)
    assert shadow.num_taught == 15
    assert shadow.label.tolist() == true[15:].tolist()
    assert len(shadow.champion) == len(shadow.challenger) == 15


@pytest.mark.parametrize("label", [-1, -2])
def test_labels_that_are_not_known_or_of_no_class_count_as_none(root, label):
    write_window(root, "2026-01-01T00", seed=1, labels=label)
    assert set(compare(root).label) == {UNKNOWN}


def test_a_damaged_window_is_left_out_and_named(root, capsys):
    write_window(root, "2026-01-01T00", seed=1)
    write_window(root, "2026-01-02T00", seed=2)
    (root / "reports/windows/2026-01-02T00/sample/rows.parquet").write_bytes(b"junk")
    assert compare(root).windows == ("2026-01-01T00",)
    assert "window 2026-01-02T00 is left out of the comparison" in capsys.readouterr().out


def test_without_windows_there_is_nothing_to_compare(root):
    assert compare(root) is None


def test_a_challenger_that_fails_on_recent_inputs_is_refused_for_it(tmp_path):
    promote(tmp_path, bias=GOOD)
    write_window(tmp_path, "2026-01-01T00", seed=1)
    outcome = promote(tmp_path, bias=WORSE, policy=policy(shadow__num_windows=2))
    (reason,) = [reason for reason in outcome.decision.reasons if reason.check == "shadow"]
    assert not reason.passes
    assert reason.found.endswith("against 1.0000 on 30 labelled inputs of 1 windows")
    assert reason.needed == "a loss of at most 0.1"


def test_images_are_resized_for_a_model_that_wants_another_size(tmp_path):
    from datamill.monitoring.reference import read_reference
    from datamill.preprocessing import ImagePreprocessor
    from datamill.promotion.recent import _rows

    dataset, table = image_table(num_samples=4)
    write_reference(
        tmp_path / "w",
        identity={"sample_id": table["sample_id"], "split": ["window"] * 4, "label": [0] * 4, "time": table["time"]},
        features=pa.table({"height": [8.0] * 4}),
        arrays={
            "inputs": np.full((4, 8, 8, 1), 7, np.uint8),
            "embeddings": np.zeros((4, 1), np.float32),
            "probabilities": np.zeros((4, 3), np.float32),
        },
        dataset=dataset,
        model_sha256="",
        preprocessor_sha256="",
        headline=None,
    )
    for size in (8, 6):
        wanted = ImagePreprocessor(height=size, width=size, channels=1, mean=(0.0,), std=(1.0,))
        rows = _rows(read_reference(tmp_path / "w"), preprocessor=wanted)
        assert rows.shape == (4, size, size, 1)
        assert set(rows.ravel()) == {7}
