"""Cards and their two formats."""

import numpy as np
from matplotlib.figure import Figure

from datamill.reporting import plots
from datamill.reporting.cards import (
    Card,
    Document,
    Section,
    Table,
    Text,
    demote_headings,
    escape_markdown,
    plot,
    render,
)


def test_sections_without_blocks_are_left_out() -> None:
    card = Card("T", "s", [Section("Empty", []), Section("Full", [Text("words")])])
    page = render(card, template="card.md.j2")
    assert "Empty" not in page
    assert "## Full\n\nwords\n" in page


def test_a_table_is_a_table_in_markdown() -> None:
    page = render(
        Card("T", "s", [Section("S", [Table(["a", "b"], [["x", "1.5"], ["y", "-2"]])])]), template="card.md.j2"
    )
    assert "| a | b |\n|---|--:|\n| x | 1.5 |\n| y | -2 |\n" in page


def test_signs_of_markdown_are_escaped_and_lines_joined() -> None:
    assert escape_markdown("a|b *c*\n<d>") == r"a\|b \*c\* \<d\>"


def test_tags_in_a_document_are_shown() -> None:
    assert Document("**bold** <script>").html == "<p><strong>bold</strong> &lt;script&gt;</p>"


def test_a_report_becomes_part_of_a_section() -> None:
    assert demote_headings("# Title\n\nfine\n\n## More\n") == "fine\n\n### More"


def test_two_plots_of_one_page_share_no_identifier() -> None:
    figure = plots.confusion_figure(np.eye(3, dtype=np.int64), classes=["a", "$b$", "<c>"])
    one, two = plot("one", figure, caption="x").svg, plot("two", figure, caption="x").svg
    assert 'id="one-' in one
    assert 'id="one-' not in two
    assert "currentColor" in one
    assert "#1f2328" not in one
    assert "&lt;c&gt;" in one
    assert "<c>" not in one


def test_equal_figures_give_equal_bytes() -> None:
    def drawn() -> Figure:
        return plots.confusion_figure(np.eye(3, dtype=np.int64), classes=["a", "b", "c"])

    assert plots.to_png(drawn()) == plots.to_png(drawn())
    assert plots.to_svg(drawn(), name="n") == plots.to_svg(drawn(), name="n")


def test_a_sign_that_the_font_lacks_is_no_error() -> None:
    assert plots.to_png(plots.confusion_figure(np.eye(2, dtype=np.int64), classes=["猫", "犬"])).startswith(b"\x89PNG")
