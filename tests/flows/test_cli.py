import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from datamill import catalog, config, ledger
from flows.cli import app
from tests.lineages import write_workspace


def call(*arguments):
    return CliRunner().invoke(app, list(arguments))


def test_help_answers_at_once():
    start = time.monotonic()
    subprocess.run([sys.executable, "-m", "flows.cli", "--help"], check=True, capture_output=True)
    assert time.monotonic() - start < 2  # half a second alone on the machine; tests share it


def test_help_names_every_verb():
    text = call("--help").stdout
    for verb in ("init", "run", "watch", "digest", "promote", "rollback", "trace", "why", "report", "ui"):
        assert verb in text


def test_a_missing_params_file_is_one_message_without_a_traceback(tmp_path):
    done = call("run", "--root", str(tmp_path))
    assert done.exit_code == 1
    assert "params.yaml is missing; `datamill init` makes a workspace with one" in done.stderr
    assert "Traceback" not in done.stderr


def test_debug_lets_the_error_through(tmp_path):
    done = call("run", "--root", str(tmp_path), "--debug")
    assert type(done.exception).__name__ == "ParamsError"


def test_an_unknown_example_lists_the_ones_there_are(tmp_path):
    done = call("init", str(tmp_path / "x"), "--example", "digit")
    assert "no example is called 'digit'; there are breast-cancer, digits, fashion-mnist" in done.stderr


def test_a_workspace_inside_the_checkout_is_refused(repository):
    done = call("init", str(repository / "mine"))
    assert done.exit_code == 1
    assert "lies inside datamill's checkout" in " ".join(done.stderr.split())


def test_init_makes_a_workspace_and_a_second_call_changes_nothing(tmp_path):
    root = tmp_path / "mine"
    assert call("init", str(root)).exit_code == 0
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert {"params.yaml", "dvc.yaml", "README.md", ".gitignore", ".dvcignore"} <= {path.name for path in before}
    assert (root / ".git").is_dir()
    done = call("init", str(root))
    assert "already; nothing to do" in done.stdout
    assert {path: path.read_bytes() for path in before} == before
    ignored = (root / ".gitignore").read_text()
    assert "/reports/windows/" in ignored
    assert "promotions" not in ignored  # of a workspace of one's own, Git keeps the decisions


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trace", "abc"], "no sample has an id that begins with, or a source that ends with, 'abc'"),
        (["report"], "model_card.html is not there; `datamill run` writes it at its end"),
        (["report", "--card", "post"], "--card is 'post'; use 'model' or 'data'"),
    ],
)
def test_asking_before_anything_ran_is_one_clear_message(tmp_path, arguments, message):
    done = call(*arguments, "--root", str(tmp_path))
    assert done.exit_code == 1
    assert message in " ".join(done.stderr.split())


def test_a_file_whose_name_looks_like_a_style_is_told_to_the_letter(tmp_path):
    root, name = write_workspace(tmp_path / "ws"), "cat[bold]/[/red].png"
    ledger.write_rejects(root / catalog.INGEST_REJECTS.path, [(name, "unreadable", "cut short")])
    done = call("trace", f"source:{name}", "--root", str(root))
    assert done.exit_code == 0
    assert done.stdout.splitlines()[0].rstrip() == f"source {name}"


def test_a_dry_run_supposes_what_is_set_and_changes_no_file(tmp_path, monkeypatch):
    root = tmp_path / "mine"
    call("init", str(root))
    before = {path: path.read_bytes() for path in (root / "params.yaml", root / "dvc.yaml")}
    seen = []
    monkeypatch.setattr(
        "flows.forecasting.forecast", lambda needs, *, root: seen.append(config.read_params(root)) or []
    )
    done = call("run", "--dry", "--set", "train.epochs=3", "--root", str(root))
    assert "params.yaml: train.epochs: 30 -> 3 (only supposed)" in done.stdout
    assert [params["train"]["epochs"] for params in seen] == [3]
    assert {path: path.read_bytes() for path in before} == before


def test_a_report_says_where_its_pictures_are(tmp_path):
    cards = tmp_path / catalog.EXPORT_CARDS.path
    cards.mkdir(parents=True)
    (cards / "model_card.md").write_text("# Card\n\n![Loss by epoch](figures/curves.png)\n")
    (cards / "model_card.html").write_text("")
    shown = call("report", "--root", str(tmp_path)).stdout
    assert "Picture on the HTML page: Loss by epoch." in shown
    assert "figures/" not in shown
