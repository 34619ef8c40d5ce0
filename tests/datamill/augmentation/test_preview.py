"""The samples a preview shows are drawn across the classes."""

from pathlib import Path

import numpy as np
import pytest

from datamill import parts
from datamill.augmentation.preview import choose_across_classes
from datamill.reading import read_in_order
from tests.builders import image_table, write_parts

LABELS = {f"{name}{row}": name for name, count in (("a", 50), ("b", 3), ("c", 1)) for row in range(count)}


@pytest.mark.parametrize(
    ("count", "expected"), [(2, "ab"), (3, "abc"), (5, "aabbc"), (9, "aaaaabbbc"), (100, "a" * 50 + "bbbc")]
)
def test_classes_take_turns_until_they_run_out(count: int, expected: str) -> None:
    chosen = choose_across_classes(LABELS, classes=["a", "b", "c", "d"], count=count, rng=np.random.default_rng(0))
    assert "".join(LABELS[key] for key in chosen) == expected
    assert len(set(chosen)) == len(chosen)


def test_the_choice_does_not_depend_on_the_order_of_the_samples() -> None:
    backwards = dict(reversed(LABELS.items()))
    first, second = (
        choose_across_classes(labels, classes=["a", "b"], count=6, rng=np.random.default_rng(1))
        for labels in (LABELS, backwards)
    )
    assert first == second


def test_samples_are_read_in_the_asked_order(tmp_path: Path) -> None:
    dataset, table = image_table(num_samples=10)
    write_parts(tmp_path / "samples", dataset, table)
    write_parts(tmp_path / "repairs", dataset, dataset.arrow_schema().empty_table())
    wanted = parts.read_table(tmp_path / "samples")["sample_id"].to_pylist()[7:2:-2]
    read = read_in_order([tmp_path / "samples"], wanted=wanted, repairs=tmp_path / "repairs")
    assert read["sample_id"].to_pylist() == wanted
    assert read_in_order([tmp_path / "samples"], wanted=[], repairs=tmp_path / "repairs").num_rows == 0
