from pathlib import Path

import pyarrow as pa
import pytest

from datamill import extracting
from datamill.samples import Dataset, Feature
from datamill.validation import properties
from tests.builders import image_table, tabular_table, write_parts
from tests.fakes import InlineEngine


@pytest.mark.parametrize("builder", [image_table, tabular_table])
def test_blocks_follow_each_other_without_a_gap(
    tmp_path: Path, builder: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(properties, "BLOCK_ROWS", 10)
    write_parts(tmp_path / "samples", *builder(num_samples=25))  # type: ignore[operator]
    extracting.extract(tmp_path / "samples", folder=tmp_path / "features", engine=InlineEngine())
    blocks = list(properties.iter_properties(tmp_path / "samples", features=tmp_path / "features"))
    assert [block.index.tolist() for block in blocks] == [[*range(10)], [*range(10, 20)], [*range(20, 25)]]
    assert all(block["label"].notna().all() for block in blocks)


def test_samples_carry_the_size_of_their_class() -> None:
    frame = properties.frame_of(pa.table({"x": [1.0, 2.0, 3.0]}), labels=pa.chunked_array([["a", "b", "a"]]), start=7)
    (sized,) = properties.with_class_sizes([frame], classes={"a": 5, "b": 2})
    assert sized["class_size"].tolist() == [5, 2, 5]
    assert sized.index.tolist() == [7, 8, 9]


def test_a_feature_named_like_a_column_of_ours_is_told_apart() -> None:
    features = (Feature(name="label", kind="number"), Feature(name="x", kind="number"))
    dataset = Dataset(name="rows", modality="tabular", classes=("0",), features=features)
    assert properties.names_of(dataset) == ["feature:label", "x"]
