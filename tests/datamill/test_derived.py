"""Samples made by the pipeline: identity, parents."""

from pathlib import Path

import pyarrow as pa

from datamill import derived, ledger
from datamill.augmentation.policy import Policy, Transform

JITTER = Policy(kind="tabular", seed=7, transforms=(Transform(name="jitter", probability=1, arguments={"share": 0.1}),))
FLIP = Policy(kind="image", seed=7, transforms=(Transform(name="VerticalFlip", probability=1, arguments={}),))


def test_only_surviving_training_samples_have_a_training_label(tmp_path: Path) -> None:
    ledger.write(
        tmp_path / "audited.parquet",
        sample_ids=["a", "b", "c", "d"],
        fates=["kept", "dropped", "kept", "repaired"],
        reasons=[""] * 4,
        details=[""] * 4,
        extra={"split": pa.array(["train", "train", "test", "train"]), "label": pa.array(["0", "1", "2", "3"])},
    )
    assert derived.train_labels(tmp_path / "audited.parquet") == {"a": "0", "d": "3"}


def test_equal_payloads_share_a_content_hash() -> None:
    rows = {"feature:x": pa.array([1.0, 1.0, None]), "feature:c": pa.array(["a", "a", "a"])}
    first, second, third = derived.payload_hashes(rows)
    assert first == second != third


def test_ids_become_bytes() -> None:
    assert derived.id_bytes(["00ff" + "00" * 14])[0, :3].tolist() == [0, 255, 0]
    assert derived.id_bytes([]).shape == (0, 16)
