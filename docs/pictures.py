"""Draws docs/graph.svg from the declared stages; needs Graphviz' `dot`.

python docs/pictures.py
"""

import subprocess
from pathlib import Path

from datamill.stage import topological
from tasks import PIPELINE

SHADES = {
    "ingest": "#e8eef7", "extract": "#e8eef7", "validate": "#e8eef7", "clean": "#e8eef7", "split": "#e8eef7",
    "audit": "#e6f3ea", "preprocess": "#e6f3ea", "augment": "#e6f3ea", "synthesize": "#e6f3ea", "balance": "#e6f3ea",
    "shard": "#fdf1de", "train": "#fdf1de",
    "diagnose": "#f6e6ee", "evaluate": "#f6e6ee", "export": "#f6e6ee",
}  # fmt: skip


def reduced(needs: dict[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    """Edges of the graph without those that a longer way implies."""

    def ancestors(name: str) -> set[str]:
        return set(needs[name]).union(*(ancestors(one) for one in needs[name]))

    edges = []
    for name, before in needs.items():
        implied: set[str] = set().union(*(ancestors(one) for one in before))
        edges += [(one, name) for one in before if one not in implied]
    return edges


def main() -> None:
    """Write the picture."""
    nodes = [f'{name} [fillcolor="{shade}"];' for name, shade in SHADES.items()]
    edges = [f"{left} -> {right};" for left, right in reduced(topological(PIPELINE))]
    style = (
        'graph [rankdir=LR, bgcolor="white", nodesep=0.25, ranksep=0.35, pad=0.2];'
        'node [shape=box, style="rounded,filled", color="#8a94a6", fontname="Helvetica", fontsize=13, height=0.4];'
        'edge [color="#8a94a6", arrowsize=0.6];'
    )
    text = "digraph datamill {" + style + "".join([*nodes, *edges]) + "}"
    out = Path(__file__).with_name("graph.svg")
    subprocess.run(["dot", "-Tsvg", "-o", str(out)], input=text.encode(), check=True)


if __name__ == "__main__":
    main()
