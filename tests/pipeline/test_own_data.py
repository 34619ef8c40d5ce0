"""A user's own data, flaws included, from `datamill init` to the exported model, outside the checkout."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from datamill import config, ledger
from datamill.errors import StageError
from datamill.execute import execute
from datamill.settings import Settings
from flows.workspace import create_workspace
from tasks import PIPELINE
from tasks.__main__ import rendered

ENDINGS = (".png", ".jpg", ".bmp", ".webp")


def write_shapes(folder: Path, *, num_per_class: int = 40) -> None:
    """Discs, squares and triangles of many sizes and colours in four formats, and eight files with something wrong."""
    rng = np.random.default_rng(1)
    for shape in ("disc", "square", "triangle"):
        (folder / shape).mkdir(parents=True)
        for number in range(num_per_class):
            height, width = (int(side) for side in rng.integers(24, 40, 2))
            image = rng.integers(0, 70, (height, width, 3), dtype=np.uint8)
            x, y, r = width // 2, height // 2, int(min(height, width) * rng.uniform(0.25, 0.4))
            colour = tuple(int(value) for value in rng.integers(120, 255, 3))
            if shape == "disc":
                cv2.circle(image, (x, y), r, colour, -1)
            elif shape == "square":
                cv2.rectangle(image, (x - r, y - r), (x + r, y + r), colour, -1)
            else:
                cv2.fillPoly(image, [np.array([[x, y - r], [x - r, y + r], [x + r, y + r]])], colour)
            cv2.imwrite(str(folder / shape / f"{number:03d}{ENDINGS[number % 4]}"), image)
    whole = (folder / "square/001.jpg").read_bytes()
    (folder / "square/cut.jpg").write_bytes(whole[:-200])
    (folder / "square/empty.png").write_bytes(b"")
    (folder / "triangle/text.png").write_text("no image")
    (folder / "triangle/copy.png").write_bytes((folder / "triangle/000.png").read_bytes())
    (folder / "disc/misnamed.png").write_bytes((folder / "disc/001.jpg").read_bytes())
    cv2.imwrite(str(folder / "disc/black.png"), np.zeros((30, 30, 3), np.uint8))
    cv2.imwrite(str(folder / "stray.png"), np.zeros((5, 5, 3), np.uint8))


def write_customers(path: Path) -> None:
    """Who leaves depends on plan and tenure; holes, two rows a customer, and three rows with something wrong."""
    rng = np.random.default_rng(2)
    with path.open("w", newline="", encoding="latin-1") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(["customer", "age", "plan", "tenure", "left"])
        for number in range(300):
            plan = ("basic", "plus", "café")[int(rng.integers(3))]
            tenure = float(rng.exponential(24))
            leaves = (plan == "basic") * 2 - 0.08 * tenure + rng.normal(0, 0.4) > 0
            age = "" if number % 17 == 0 else str(rng.integers(18, 80))
            writer.writerow([f"c{number // 2}", age, plan, f"{tenure:.2f}", "yes" if leaves else "no"])
        file.write("c900;33;basic\n")
        file.write("c901;thirty;plus;3.1;no\n")
        file.write("c902;33;plus;3.1;\n")


def run(root: Path) -> None:
    settings = Settings(tracking="off", num_threads=1, num_workers=2, device="cpu")
    assert rendered(root)
    for stage in PIPELINE:
        execute(stage, root=root, pipeline=PIPELINE, settings=settings)


def point_at(root: Path, source: str, *assignments: str) -> None:
    path = root / "params.yaml"
    text = path.read_text()
    start, end = text.index("  source:"), text.index("  max_pixels:")
    path.write_text(f"{text[:start]}{source}{text[end:]}")
    config.set_params(["train.epochs=3", *assignments], stages=PIPELINE, root=root)


def report(root: Path, stage: str) -> dict:
    return json.loads((root / f"reports/{stage}.json").read_text())


def test_a_folder_of_images_runs_from_init_to_model(tmp_path):
    root = tmp_path / "shapes"
    create_workspace(root, example=None)
    write_shapes(root / "images")
    source = "  source:\n    kind: image_folder\n    path: images\n    group_from: none\n"
    point_at(root, source, "preprocess.image.height=24", "preprocess.image.width=24")
    run(root)
    reasons = {row["source"]: row["reason"] for row in ledger.read(root / "data/ingest/rejects.parquet").to_pylist()}
    assert reasons == {
        "square/cut.jpg": "truncated", "square/empty.png": "zero_byte", "triangle/text.png": "not_an_image",
        "stray.png": "no_class",
    }  # fmt: skip
    assert report(root, "clean")["reasons"] == {"constant": 1, "exact_duplicate": 2}
    assert (root / "models/export/model.onnx").exists()


def test_a_csv_table_runs_from_init_to_model(tmp_path):
    root = tmp_path / "churn"
    create_workspace(root, example=None)
    write_customers(root / "customers.csv")
    source = """  source:
    kind: table
    path: customers.csv
    format: csv
    delimiter: ";"
    encoding: latin-1
    target: left
    target_kind: category
    group: customer
    time: null
    id: null
    exclude: []
    kinds: {}
"""
    point_at(root, source, "train.epochs=30")
    run(root)
    rejects = ledger.read(root / "data/ingest/rejects.parquet").to_pylist()
    assert [row["reason"] for row in rejects] == ["ragged_row", "not_a_number", "target_missing"]
    assert report(root, "evaluate")["accuracy"] > 0.7
    splits = ledger.read(root / "data/split/assignments.parquet", columns=["split"])["split"].to_pylist()
    assert all(left == right for left, right in zip(splits[::2], splits[1::2], strict=True)), "a customer was divided"


def test_the_gate_names_rules_counts_and_sources_and_leaves_the_fate_of_nothing_open(tmp_path):
    root = tmp_path / "shapes"
    create_workspace(root, example=None)
    write_shapes(root / "images", num_per_class=10)
    point_at(root, "  source:\n    kind: image_folder\n    path: images\n    group_from: none\n")
    with pytest.raises(StageError) as caught:
        run(root)
    assert "the validation gate stopped the run: 4 of 37 items are bad" in str(caught.value)
    assert "reason truncated: square/cut.jpg" in str(caught.value)
    assert "What it found is in .datamill/failed/validate." in str(caught.value)
    assert (root / ".datamill/failed/validate/docs/index.html").exists()
