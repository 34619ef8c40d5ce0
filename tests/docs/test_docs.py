"""What README and docs say is true: blocks run, files exist, names are real."""

import re
from pathlib import Path

import pytest
from typer.main import get_command

from datamill import config
from flows import workspace
from flows.cli import app
from flows.training import needed_by
from tasks.ingest import IngestParams

LIMITS = {"max_pixels": 1, "max_file_bytes": 1}
ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
CARDS = [*sorted(ROOT.glob("data/*/README.md")), *sorted(ROOT.glob("models/*/README.md"))]

every_page = pytest.mark.parametrize("page", [*PAGES, *CARDS], ids=lambda page: str(page.relative_to(ROOT)))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


@every_page
def test_every_link_and_picture_leads_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


@every_page
def test_every_python_block_runs(page):
    names = {"__name__": "docs"}  # of the whole page: a later block goes on where an earlier one ended
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), names)  # noqa: S102 - our own pages


def test_every_source_shown_in_the_readme_is_valid():
    shown = [config.parse_yaml(block) for block in blocks(ROOT / "README.md", "yaml")]
    assert [one["ingest"]["source"]["kind"] for one in shown] == ["image_folder", "table", "query"]
    for one in shown:
        IngestParams.model_validate(one["ingest"] | LIMITS)


def test_every_source_shown_in_a_new_workspace_is_valid():
    shown = [
        config.parse_yaml(block)["ingest"]
        for block in re.findall(r"```yaml\n(.*?)```", workspace.README.format(name="w", example="e"), flags=re.DOTALL)
    ]
    assert [IngestParams.model_validate(one | LIMITS).source.kind for one in shown] == ["image_folder", "table"]


@every_page
def test_every_command_named_exists(page):
    text = page.read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z-]+)", text, flags=re.MULTILINE)) <= targets
    verbs = set(get_command(app).commands)
    assert set(re.findall(r"(?:`|^)datamill ([a-z]+)", text, flags=re.MULTILINE)) <= verbs


def test_the_readme_lists_every_stage_in_order():
    rows = re.findall(r"^\| `([a-z]+)` \|", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    assert rows == list(needed_by(None))


def test_every_stage_folder_has_a_card():
    from tasks import PIPELINE

    folders = {"/".join(artifact.path.split("/")[:2]) for stage in PIPELINE for artifact in stage.outputs.values()}
    wanted = {folder for folder in folders if folder.startswith(("data/", "models/"))}
    wanted.add("models/champions")  # no stage writes these: promotion does
    assert wanted == {str(card.parent.relative_to(ROOT)) for card in CARDS}


def test_every_environment_variable_named_is_read():
    code = "".join(path.read_text() for path in [*ROOT.glob("datamill/*.py"), *ROOT.glob("flows/*.py")])
    for name in re.findall(r"`DATAMILL_([A-Z]+)`", (ROOT / "README.md").read_text()):
        assert f'"{name}"' in code or f'"DATAMILL_{name}"' in code or f"}}{name}" in code, name
