"""The page about a window, and its charts."""

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamill.monitoring import charts
from datamill.monitoring.verdicts import read_verdict, recent, write_verdict
from tests.watched import change_watch, drop_images, look, new_rows, write_csv

FINITE = st.floats(-1e9, 1e9)


class Tags(HTMLParser):
    """Names and attributes of every tag, and all that is written."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(root: Path, window: str) -> Tags:
    """A window's report, parsed."""
    page = Tags()
    page.feed((root / "reports/windows" / window / "report.html").read_text(encoding="utf-8"))
    return page


def test_the_page_needs_nothing_from_outside(images: Path) -> None:
    drop_images(images / "incoming", count=12)
    look(images)
    page = page_of(images, "000001")
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    sources = [attributes["src"] for _, attributes in page.tags if "src" in attributes]
    assert sources
    assert all(source is not None and source.startswith("data:image/png;base64,") for source in sources)
    assert "url(" not in (images / "reports/windows/000001/report.html").read_text()


def test_the_page_shows_what_moved_examples_and_the_trend(images: Path) -> None:
    for seed in range(1, 4):
        drop_images(images / "incoming", count=30, seed=seed)
        look(images, minutes=seed)
    calm = page_of(images, "000003")
    assert "No drift" in calm.text
    for file in (images / "incoming").iterdir():
        file.unlink()
    import cv2

    for key in drop_images(images / "incoming", count=60, seed=9):
        path = images / "incoming" / key
        pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        cv2.imwrite(str(path), 255 - pixels)
    look(images, minutes=9)
    page = page_of(images, "000004")
    assert "Drift" in page.text or "Performance at risk" in page.text
    assert "brightness" in page.text
    assert "Over the last windows" in page.text
    assert len([1 for tag, _ in page.tags if tag == "img"]) > 12  # examples and the reference
    circles = [attributes for tag, attributes in page.tags if tag == "circle"]
    assert len(circles) >= 8  # four windows, two trends at least


def test_names_from_the_data_are_shown_and_not_obeyed(tables: Path) -> None:
    change_watch(tables, source__max_reject_share=0.01)
    table = new_rows(count=30).append_column("<script>alert(1)</script>", [["x"] * 30])
    table = table.set_column(3, "colour", [["<img src=http://x>"] * 30])
    write_csv(tables / "incoming/a.csv", table)
    look(tables)
    page = page_of(tables, "000001")
    assert not {"script"} & {tag for tag, _ in page.tags}
    assert all(not (attributes.get("src") or "").startswith("http") for _, attributes in page.tags)
    assert "<script>alert(1)</script>" in page.text


def test_rows_that_moved_are_shown_with_their_columns(tables: Path) -> None:
    rows = new_rows(count=60).to_pandas()
    rows["height"] += 50
    rows.to_csv(tables / "incoming/a.csv", index=False)
    look(tables)
    page = page_of(tables, "000001")
    assert "shown for" in page.text
    assert "height" in page.text
    assert re.search(r"5\d\.\d", page.text)


@pytest.mark.parametrize("count", [0, 1])
def test_a_window_of_rejects_or_of_one_row_has_a_page(tables: Path, count: int) -> None:
    rows = new_rows(count=4).to_pandas().astype({"height": object})
    rows.loc[count:, "height"] = "tall"
    rows.to_csv(tables / "incoming/a.csv", index=False)
    look(tables)
    page = page_of(tables, "000001")
    assert "Rejects" in page.text
    assert "not_a_number" in page.text


def test_a_verdict_comes_back_from_disk_as_it_was(images: Path, tmp_path: Path) -> None:
    drop_images(images / "incoming", count=30)
    found = look(images)
    stored = read_verdict(images / "reports/windows/000001")
    assert found.judged is not None
    (tmp_path / "again").mkdir()
    write_verdict(tmp_path / "again/verdict.json", stored)
    assert read_verdict(tmp_path / "again") == stored
    assert stored.verdict.outcomes[0] == found.judged.verdict.outcomes[0]
    assert (images / "reports/windows/000001/verdict.json").read_bytes() == (
        tmp_path / "again/verdict.json"
    ).read_bytes()


def test_a_damaged_verdict_is_left_out_of_the_trend(images: Path) -> None:
    for seed in (1, 2):
        drop_images(images / "incoming", count=2, seed=seed)
        look(images, minutes=seed)
    (images / "reports/windows/000001/verdict.json").write_text("{")
    assert [judged.number for judged in recent(images, count=9)] == [2]


@given(st.lists(st.one_of(FINITE, st.just(np.nan), st.just(np.inf)), max_size=30), st.lists(FINITE, max_size=30))
def test_a_histogram_is_well_formed_for_any_values(reference: list[float], window: list[float]) -> None:
    svg = charts.histogram(np.array(reference, float), np.array(window, float))
    tree = ElementTree.fromstring(svg)  # noqa: S314 - our own
    assert "nan" not in str(svg)
    assert len([one for one in tree.iter() if one.tag.endswith("polygon")]) == 2


@given(
    st.lists(
        st.tuples(st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=20), FINITE), max_size=12
    )
)
def test_bars_are_well_formed_for_any_names(pairs: list[tuple[str, float]]) -> None:
    shares = np.abs(np.array([share for _, share in pairs], float))
    ElementTree.fromstring(charts.bars([name for name, _ in pairs], reference=shares, window=shares))  # noqa: S314


@given(st.lists(st.tuples(FINITE, st.booleans()), min_size=1, max_size=12), st.one_of(st.none(), FINITE))
def test_a_trend_has_a_dot_for_every_window(values: list[tuple[float, bool]], reference: float | None) -> None:
    points = [
        charts.Point(number, value, value - 1, value + 1, is_bad) for number, (value, is_bad) in enumerate(values)
    ]
    tree = ElementTree.fromstring(charts.trend(points, reference=reference))  # noqa: S314
    dots = [one.attrib["class"] for one in tree.iter() if one.tag.endswith("circle")]
    assert dots == ["dot marked" if is_bad else "dot" for _, is_bad in values]


def test_the_halves_of_a_histogram_lie_where_the_values_are() -> None:
    svg = charts.histogram(np.zeros(10), np.full(10, 100.0))
    first, second = re.findall(r'polygon class="area (ref|win)" points="([^"]*)"', svg)
    peaks = {}
    for name, points in (first, second):
        pairs = [tuple(map(float, pair.split(","))) for pair in points.split()]
        peaks[name] = min(pairs, key=lambda pair: pair[1])[0]
    assert peaks["ref"] < 30
    assert peaks["win"] > 300
