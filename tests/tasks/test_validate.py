import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from datamill import extracting, ledger
from datamill.errors import ParamsError, StageError
from datamill.samples import Dataset
from tasks.validate import STAGE, ValidateParams
from tests.builders import image_table, tabular_table, write_parts
from tests.datamill.validation.limits import DEFAULT
from tests.fakes import InlineEngine, make_context


def validate_params(*, max_bad_share: float = 0.1, expectations: list[Any] | None = None, **limits: Any) -> Any:
    return ValidateParams.model_validate(
        {"max_bad_share": max_bad_share, "limits": DEFAULT | limits, "expectations": expectations or []}
    )


def run(folder: Path, built: tuple[Dataset, pa.Table], params: Any, *, rejects: list[Any] | None = None) -> Any:
    write_parts(folder / "samples", *built)
    ledger.write_rejects(folder / "rejects", rejects or [])
    out = folder / "out"
    out.mkdir()
    outputs = {"schema": out / "schema.json", "verdicts": out / "verdicts.parquet", "docs": out / "docs"}
    extracting.extract(folder / "samples", folder=folder / "features", engine=InlineEngine())
    inputs = {name: folder / name for name in ("samples", "features", "rejects")}
    return STAGE.run(**inputs, **outputs, params=params, context=make_context(folder))


def test_good_images_pass_with_a_schema_verdicts_and_docs(tmp_path: Path) -> None:
    metrics = run(tmp_path, image_table(), validate_params())
    assert (metrics["in"], metrics["kept"], metrics["bad_share"]) == (64, 64, 0.0)
    assert metrics["expectations"]["failed"] == 0
    schema = json.loads((tmp_path / "out" / "schema.json").read_text())
    assert schema["columns"]["height"] == {"type": "int64", "nulls": 0, "distinct": 1, "min": 8, "max": 8}
    assert schema["expectations"][0] == {
        "name": "single_class",
        "type": "expect_column_unique_value_count_to_be_between",
        "kwargs": {"column": "label", "min_value": 2},
        "severity": "critical",
        "claim": "at least 2 classes",
    }
    assert (tmp_path / "out" / "docs" / "index.html").stat().st_size < 100_000


def test_every_row_a_rule_names_gets_its_verdict(tmp_path: Path) -> None:
    dataset, table = tabular_table()
    heights = [1e7, float("inf"), *table["feature:height"].to_pylist()[2:]]
    table = table.set_column(table.column_names.index("feature:height"), "feature:height", pa.array(heights))
    expectation = {
        "type": "expect_column_values_to_be_in_set",
        "kwargs": {"column": "colour", "value_set": ["red", "green", "blue"]},
        "severity": "info",
    }
    params = validate_params(
        expectations=[expectation], range={"severity": "critical", "max_iqr": 10.0}, nulls=DEFAULT["nulls"]
    )
    metrics = run(tmp_path, (dataset, table), params, rejects=[("a.csv#70", "ragged", "3 cells")])
    rows = ledger.read(tmp_path / "out" / "verdicts.parquet").to_pylist()
    assert [(row["fate"], row["reason"]) for row in rows[:3]] == [
        ("quarantined", "range"),
        ("quarantined", "range"),
        ("kept", ""),
    ]
    assert rows[0]["detail"].startswith("height = 1e+07, expected -")
    assert metrics["bad_share"] == 3 / 65
    assert metrics["rejects"] == 1
    ledger.check(
        tmp_path / "out" / "verdicts.parquet", population=[table["sample_id"].combine_chunks()], stage="validate"
    )


def test_too_many_bad_items_stop_the_run(tmp_path: Path) -> None:
    image = {"severity": "critical", "min_height": 9, "min_width": 1, "odd_severity": "off", "usual_share": 0.5}
    message = r"64 of 64 items are bad \(100.00%\)(.|\n)*64 sample\(s\), rule small_image \(height, .*item-0000"
    with pytest.raises(StageError, match=message):
        run(tmp_path, image_table(), validate_params(image=image))


def test_a_single_class_stops_the_run(tmp_path: Path) -> None:
    dataset, table = image_table()
    one = table.filter(pa.array([label == "1" for label in table["label"].to_pylist()]))
    with pytest.raises(StageError, match=r"rule single_class \(label\): expected at least 2 classes, observed 1"):
        run(tmp_path, (dataset, one), validate_params())


def test_labels_outside_the_list_are_quarantined(tmp_path: Path) -> None:
    params = validate_params(max_bad_share=0.5, classes={"severity": "critical", "allowed": ["0", "1"]})
    metrics = run(tmp_path, image_table(), params)
    assert metrics["reasons"] == {"unknown_class": 21}


def test_no_sample_at_all_stops_the_run(tmp_path: Path) -> None:
    dataset, table = image_table()
    with pytest.raises(StageError, match="the source gave no sample, and 1 items that were rejected"):
        run(tmp_path, (dataset, table.slice(0, 0)), validate_params(), rejects=[("a.png", "empty", "0 bytes")])


def test_a_misspelt_expectation_is_refused(tmp_path: Path) -> None:
    expectation = {"type": "expect_colum_to_exist", "kwargs": {"column": "height"}, "severity": "info"}
    with pytest.raises(ParamsError, match="did you mean expect_column_to_exist"):
        run(tmp_path, image_table(), validate_params(expectations=[expectation]))


@pytest.mark.parametrize("builder", [image_table, tabular_table])
def test_equal_inputs_give_equal_bytes(tmp_path: Path, builder: Any) -> None:
    outcomes = []
    for name in ("first", "second"):
        params = validate_params(class_size={"severity": "warning", "min_samples": 22})
        run(tmp_path / name, builder(), params)
        files = sorted((tmp_path / name / "out").rglob("*"))
        outcomes.append({file.name: file.read_bytes() for file in files if file.is_file()})
    assert outcomes[0] == outcomes[1]
    assert len(outcomes[0]) == 4
