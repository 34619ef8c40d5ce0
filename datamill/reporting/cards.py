"""A card: a page of facts, written once and rendered as Markdown with pictures beside it and as one HTML file."""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import jinja2
import markdown
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from datamill import files
from datamill.reporting import plots

TEMPLATES = Path(__file__).parent / "templates"
FIGURES = "figures"  # folder of the pictures that the Markdown shows
MARKDOWN_SIGNS = re.compile(r"([\\`*_{}\[\]<>#|~$&])")


@dataclass(frozen=True)
class Text:
    """Paragraphs of plain text, separated by empty lines."""

    kind: ClassVar[str] = "text"
    text: str

    @property
    def paragraphs(self) -> list[str]:
        """The paragraphs, each on one line."""
        return [" ".join(part.split()) for part in re.split(r"\n\s*\n", self.text) if part.strip()]


@dataclass(frozen=True)
class Tile:
    """One number that matters."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Tiles:
    """Numbers side by side."""

    kind: ClassVar[str] = "tiles"
    tiles: Sequence[Tile]


@dataclass(frozen=True)
class Table:
    """Rows of cells, as many in each as there are columns."""

    kind: ClassVar[str] = "table"
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def is_number(self) -> list[bool]:
        """Whether each column holds numbers only, and so is set flush right; the first column names the row."""
        columns = [[row[index] for row in self.rows] for index in range(len(self.columns))]
        return [
            index > 0 and all(re.match(r"[-+]?\d|$", cell) for cell in cells) for index, cells in enumerate(columns)
        ]


@dataclass(frozen=True)
class Picture:
    """A picture: a PNG, and for plots an SVG beside it."""

    kind: ClassVar[str] = "picture"
    name: str
    caption: str
    png: bytes
    svg: str = ""

    @property
    def inline(self) -> Markup:
        """The picture as an element that needs no other file."""
        if self.svg:
            label = escape(self.caption)
            svg = self.svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
            return Markup(svg)  # noqa: S704 matplotlib escapes the names that it draws
        data = base64.b64encode(self.png).decode("ascii")
        return Markup('<img class="raster" alt="{}" src="data:image/png;base64,{}">').format(self.caption, data)


@dataclass(frozen=True)
class Code:
    """A listing."""

    kind: ClassVar[str] = "code"
    text: str
    language: str


@dataclass(frozen=True)
class Document:
    """Markdown of our own making (a stage's report); its headings must fit below a section's."""

    kind: ClassVar[str] = "document"
    text: str

    @property
    def html(self) -> Markup:
        """The text as HTML; tags in it are shown, not obeyed."""
        html = markdown.markdown(str(escape(self.text)), extensions=["tables"])
        return Markup(html)  # noqa: S704 escaped before it became HTML


Block = Text | Tiles | Table | Picture | Code | Document


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Card:
    """A page.

    Attributes:
        title: Its heading.
        subtitle: One line below it.
        sections: What it says; sections without blocks are left out.
    """

    title: str
    subtitle: str
    sections: Sequence[Section] = field(default_factory=list)

    @property
    def pictures(self) -> list[Picture]:
        """Every picture on the page."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, Picture)]


def plot(name: str, figure: Figure, *, caption: str) -> Picture:
    """A figure as a picture."""
    return Picture(name=name, caption=caption, png=plots.to_png(figure), svg=plots.to_svg(figure, name=name))


def write_card(folder: Path, name: str, *, card: Card) -> None:
    """Write ``<name>.html`` (everything inside), ``<name>.md`` and the pictures it shows."""
    contents = {
        f"{name}.html": render(card, template="card.html.j2").encode(),
        f"{name}.md": render(card, template="card.md.j2").encode(),
        **{f"{FIGURES}/{picture.name}.png": picture.png for picture in card.pictures},
    }
    for path, content in contents.items():
        with files.atomic_write(folder / path) as partial:
            partial.write_bytes(content)


def render(card: Card, *, template: str) -> str:
    """The card through one of the templates; names from the data are escaped for the format."""
    is_html = template.endswith(".html.j2")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=is_html,  # noqa: S701 Markdown has its own filter
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = escape_markdown
    environment.globals["figures"] = FIGURES
    return environment.get_template(template).render(card=card)


def demote_headings(text: str) -> str:
    """A stage's Markdown report as part of a section: without its title, other headings one level lower."""
    body = re.sub(r"\A# .*\n+", "", text)
    return re.sub(r"^(#+ )", r"#\1", body, flags=re.MULTILINE).strip()


def escape_markdown(text: str) -> str:
    """``text`` on one line, shown by Markdown as it is."""
    return MARKDOWN_SIGNS.sub(r"\\\1", " ".join(text.split()))
