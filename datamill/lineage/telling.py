"""An explanation as a page: Markdown for the console and Prefect, and one HTML file that needs nothing else."""

from collections.abc import Sequence
from pathlib import Path

from datamill import files
from datamill.lineage.decomposition import sign_test
from datamill.lineage.explanation import Explanation
from datamill.lineage.figures import PARTS, bridge_figure, causes_figure
from datamill.lineage.ranking import Ranked
from datamill.reporting.cards import Block, Card, Picture, Section, Table, Text, Tile, Tiles, plot, render

MAX_ROWS = 12
CHANCE = 0.05  # a sign test above this says no more than chance
EXACT = (
    "Every step below was measured on the runs' predictions, and together they are the difference: first the samples "
    "that are tested in one run only, then truth and model exchanged on the common ones, in both orders."
)
JUDGED = (
    "Exact is what a cause's own test samples account for. Judged is its part of what the model accounts for: nobody "
    "can take that apart without training again, so it is dealt out by score. The score is the share of samples "
    "touched (of train or of test, whichever is larger) times the lift: how much more the metric moved in the classes "
    "it touches than in all, where chance gives 1. The order goes by exact and judged together, with the model's gains "
    "and losses both counted. Causes that stand equal cannot be told apart by these two runs."
)
IDLE = "These differ as well, and provably change nothing that is measured: no result that leads to the number differs."
FOLLOWED = (
    "Decisions about samples that both runs have. Where a sample came to a stage unchanged, the difference began "
    "there; the others followed from an earlier one."
)


def why_card(found: Explanation, *, is_drawn: bool) -> Card:
    """The page; without pictures where they cannot be shown."""
    return Card(
        title=f"Why {found.metric} {_verb(found)}",
        subtitle=f"From {found.a} to {found.b}",
        sections=[
            Section("At a glance", [_tiles(found), Text(_verdict(found))]),
            Section("Exact parts", _parts(found, is_drawn=is_drawn)),
            Section("Ranked causes", _causes(found, is_drawn=is_drawn)),
            Section("Without effect", _idle(found)),
            Section("What followed", _followed(found)),
            Section("Where the model moved", _where(found)),
            Section("Samples", _samples(found)),
            Section("Notes", [Text("\n\n".join(found.notes))] if found.notes else []),
        ],
    )


def to_markdown(found: Explanation) -> str:
    """The page as Markdown without pictures."""
    return render(why_card(found, is_drawn=False), template="card.md.j2")


def write_html(path: Path, found: Explanation) -> None:
    """Write the page as one HTML file with everything inside."""
    text = render(why_card(found, is_drawn=True), template="card.html.j2")
    with files.atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _verb(found: Explanation) -> str:
    if not found.difference:
        return f"stayed at {found.value_a:.4f}"
    return f"went from {found.value_a:.4f} to {found.value_b:.4f}"


def _tiles(found: Explanation) -> Tiles:
    model = found.decomposition.parts.get("model")
    tiles = [
        Tile("Before", f"{found.value_a:.4f}", found.a),
        Tile("After", f"{found.value_b:.4f}", found.b),
        Tile("Difference", f"{found.difference:+.4f}", found.metric),
    ]
    if model is not None:
        common = found.decomposition.num_common
        tiles.append(Tile("Of it the model", f"{model:+.4f}", f"on {common:,} common test samples"))
    return Tiles(tiles)


def _verdict(found: Explanation) -> str:
    first = found.ranked[0] if found.ranked else None
    lines = []
    if first is None:
        lines.append("Nothing that leads to the number differs between these runs.")
    else:
        equal = [one for one in found.ranked[1:] if one.weight == first.weight]
        also = f", together with {len(equal)} of equal weight" if equal else ""
        lines.append(
            f"Ranked first{also}: {first.cause.title} ({_touches(first)}). It accounts for {first.total:+.4f} of the "
            f"{found.difference:+.4f}, of which {first.exact:+.4f} is exact."
        )
    lost, won = found.decomposition.num_lost, found.decomposition.num_won
    if found.decomposition.num_common:
        p_value = sign_test(lost, won)
        word = "no more than chance would give" if p_value > CHANCE else "more than chance would give"
        num_common = found.decomposition.num_common
        lines.append(f"Of {num_common:,} common test samples {lost:,} became wrong and {won:,} right.")
        lines += [f"By the sign test that is {word} (p = {p_value:.2g})."] if lost + won else []
    return " ".join(lines)


def _parts(found: Explanation, *, is_drawn: bool) -> list[Block]:
    parts = found.decomposition.parts
    if is_drawn and any(parts.values()):
        return [Text(EXACT), *_picture("bridge", found, caption="Exact parts of the difference")]
    rows = [[PARTS[name], f"{value:+.4f}"] for name, value in parts.items()]
    return [Text(EXACT), Table(["part", "accounts for"], [*rows, ["the difference", f"{found.difference:+.4f}"]])]


def _causes(found: Explanation, *, is_drawn: bool) -> list[Block]:
    if not found.ranked:
        return [Text("Source, parameters, code and libraries are the same, as far as they are on record.")]
    columns = ["", "cause", "touches", "share", "lift", "exact", "judged", "in all"]
    rows = [
        [
            f"{number}.",
            one.cause.title + (f" ({one.cause.detail})" if one.cause.detail else ""),
            _touches(one),
            f"{one.share:.1%}",
            f"{one.lift:.2f}",
            *(f"{value:+.4f}" for value in (one.exact, one.judged, one.total)),
        ]
        for number, one in enumerate(found.ranked[:MAX_ROWS], start=1)
    ]
    rest = found.ranked[MAX_ROWS:]
    if rest:
        totals = [sum(values) for values in zip(*((one.exact, one.judged, one.total) for one in rest), strict=True)]
        rows.append(["", f"{len(rest)} smaller ones", "", "", "", *(f"{value:+.4f}" for value in totals)])
    drawn = _picture("causes", found, caption="What each cause accounts for") if is_drawn and found.difference else []
    return [*drawn, Table(columns, rows), Text(JUDGED)]


def _idle(found: Explanation) -> list[Block]:
    return (
        [Text(IDLE), Table(["difference"], [[line] for line in found.without_effect])] if found.without_effect else []
    )


def _followed(found: Explanation) -> list[Block]:
    rows = [
        [
            one.stage,
            f"{one.count:,}",
            f"{one.num_own:,}",
            "; ".join(f"{before} -> {after} ({count:,})" for before, after, count in one.transitions),
        ]
        for one in found.followed
    ]
    return [Text(FOLLOWED), Table(["stage", "decides otherwise", "began there", "most often"], rows)] if rows else []


def _where(found: Explanation) -> list[Block]:
    blocks: list[Block] = []
    moved = sorted(
        (one for one in found.classes if one.right_a != one.right_b or one.share), key=lambda one: -abs(one.share)
    )
    if moved:
        rows = [
            [one.name, f"{one.num_common:,}", f"{one.right_a:,}", f"{one.right_b:,}", f"{one.share:+.4f}"]
            for one in moved[:MAX_ROWS]
        ]
        blocks.append(
            Table(["class", "common test samples", "right before", "right after", "of the model's part"], rows)
        )
    if found.slices:
        rows = [
            [
                f"{one.property}: {one.value}",
                f"{one.num_a:,}",
                f"{one.num_b:,}",
                f"{one.accuracy_a:.4f}",
                f"{one.accuracy_b:.4f}",
                f"{one.accuracy_b - one.accuracy_a:+.4f}",
            ]
            for one in found.slices[:MAX_ROWS]
        ]
        blocks.append(Table(["slice", "samples before", "after", "accuracy before", "after", "difference"], rows))
    return blocks


def _samples(found: Explanation) -> list[Block]:
    sizes = [[name, f"{a:,}", f"{b:,}", f"{b - a:+,}"] for name, (a, b) in found.sizes.items()]
    blocks: list[Block] = [Table(["samples", "before", "after", "difference"], sizes)]
    if found.shares:
        rows = [
            [f"{one.property} {one.value}", f"{one.num_a:,}", f"{one.num_b:,}", f"{one.num_b - one.num_a:+,}"]
            for one in found.shares
        ]
        blocks.append(Table(["of the source", "before", "after", "difference"], rows))
    if found.features:
        rows = [[one.feature, f"{one.mean_a:.5g}", f"{one.mean_b:.5g}", f"{one.effect:+.3f}"] for one in found.features]
        blocks.append(Table(["feature", "mean before", "mean after", "in standard deviations"], rows))
    return blocks


def _touches(one: Ranked) -> str:
    if one.cause.is_everywhere:
        return "every sample"
    told = ", ".join(
        f"{split} {one.touched[split]:,}" for split in ("train", "validation", "test") if one.touched[split]
    )
    return told or f"{one.touched['all']:,} that are in no split"


def _picture(name: str, found: Explanation, *, caption: str) -> Sequence[Picture]:
    figure = {"bridge": bridge_figure, "causes": causes_figure}[name](found)
    return [plot(name, figure, caption=caption)]
