"""The commands ``promote`` and ``rollback``, and the decision after a training flow."""

import inspect
import json
import subprocess
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from datamill.promotion import champions, history
from flows import events, promoting
from flows.cli import app
from tests.datamill.promotion.candidates import write_policy, write_workspace
from tests.datamill.promotion.test_promoting import GOOD, WORSE

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def root(tmp_path):
    root = write_workspace(tmp_path / "flowers", bias=WORSE)
    write_policy(root)
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    subprocess.run(["git", "-C", str(root), "config", "user.name", "Ada"], check=True)
    return root


def call(*arguments, root):
    return CliRunner().invoke(app, [*arguments, "--root", str(root)])


def said(done):
    return " ".join(done.output.split())


def test_promote_tells_every_reason_and_who_is_champion(root):
    first = call("promote", root=root)
    assert first.exit_code == 0
    assert "champion passes no champion" in said(first)
    write_workspace(root, bias=GOOD)
    second = call("promote", root=root)
    assert "headline passes accuracy 1.0000 against" in said(second)
    before, now = (entry["to"] for entry in history.read(root))
    assert f"{now} is champion (champion {before} until now)" in said(second)
    assert history.read(root)[-1]["who"] == "Ada"


def test_a_refusal_says_what_was_needed_and_is_exit_status_1(root):
    write_workspace(root, bias=GOOD)
    call("promote", root=root)
    write_workspace(root, bias=WORSE)
    done = call("promote", root=root)
    assert done.exit_code == 1
    assert "headline refuses accuracy" in said(done)
    assert "was refused; champion" in said(done)
    forced = call("promote", "--force", root=root)
    assert "error: promoting whatever the evidence says needs a reason: add --because TEXT" in said(forced)
    assert call("promote", "--force", "--because", "a try", root=root).exit_code == 0


def test_dry_only_tells(root):
    done = call("promote", "--dry", root=root)
    assert done.exit_code == 0
    assert "would be promoted; nothing was done" in said(done)
    assert champions.current(root) is None


def test_rollback_goes_back_and_says_so(root):
    call("promote", root=root)
    first = champions.current(root)
    write_workspace(root, bias=GOOD)
    call("promote", root=root)
    second = champions.current(root)
    done = call("rollback", "--because", "it is slow", root=root)
    assert f"{first} is champion again (instead of {second})" in said(done)
    assert call("rollback", root=root).exit_code == 2  # no reason
    done = call("rollback", "--to", "zz", "--because", "x", root=root)
    assert "error: --to 'zz' names 0 champions; kept are:" in said(done)


def test_without_a_policy_promote_says_where_it_belongs(root):
    (root / "watch.yaml").unlink()
    done = call("promote", root=root)
    assert done.exit_code == 1
    assert "watch.yaml has no section 'promote', which says what a challenger must show" in said(done)


def test_a_wrong_policy_lists_every_fault(root):
    text = (root / "watch.yaml").read_text()
    (root / "watch.yaml").write_text(text.replace("level: 0.95", "levl: 2").replace("keep: 2", "keep: 0"))
    done = call("promote", root=root)
    assert "promote.levl is not a parameter; did you mean 'level'?" in said(done)
    assert "promote.keep is 0" in said(done)


def test_a_training_flow_ends_with_a_decision(root, capsys):
    decision = promoting.challenge(root, now=NOW)
    assert decision is not None
    assert decision.promotes
    assert "is champion: no champion; accuracy" in capsys.readouterr().out
    (entry,) = history.read(root)
    assert entry["time"] == "2026-01-02T00:00:00Z"


def test_a_model_is_judged_once_after_training_whoever_was_killed_in_between(root):
    assert promoting.challenge(root, now=NOW).promotes
    assert promoting.challenge(root, now=NOW) is None
    assert len(history.read(root)) == 1


def test_no_watch_file_or_no_wish_is_no_decision(root):
    write_policy(root, after_training=False)
    assert promoting.challenge(root, now=NOW) is None
    (root / "watch.yaml").write_text("alerts: {}\n")
    assert promoting.challenge(root, now=NOW) is None
    (root / "watch.yaml").unlink()
    assert promoting.challenge(root, now=NOW) is None
    assert not (root / history.HISTORY).exists()


class Server:
    """Stands for a Prefect server that is there, or not."""

    def __init__(self, monkeypatch):
        self.is_well = True
        self.heard = []
        self.signature = inspect.signature(events.emit)
        monkeypatch.setattr(events, "has_server", lambda: True)
        monkeypatch.setattr(events, "emit", self.emit)

    def emit(self, *arguments, **named):
        given = self.signature.bind(*arguments, **named).arguments
        if not self.is_well:
            raise ConnectionError("http://ada:secret@somewhere")
        self.heard.append((given["name"], given["event_id"], json.dumps(given["payload"]), dict(given["labels"])))


def test_a_new_champion_is_an_event_and_a_refusal_is_none(root, monkeypatch):
    server = Server(monkeypatch)
    promoting.challenge(root, now=NOW)
    write_workspace(root, bias=WORSE + 1)
    assert not promoting.challenge(root, now=NOW).promotes
    ((name, event_id, payload, labels),) = server.heard
    entry = history.read(root)[0]
    assert name == "datamill.champion.changed"
    assert event_id == entry["seal"][:32]
    assert json.loads(payload)["to"] == entry["to"]
    assert labels == {"action": "promoted", "model": entry["to"]}


def test_in_a_clone_old_decisions_are_no_news(root, monkeypatch):
    promoting.challenge(root, now=NOW)
    write_workspace(root, bias=GOOD)
    newest = promoting.challenge(root, now=NOW)
    assert newest.promotes
    (root / ".datamill/promotion.announced").unlink()
    server = Server(monkeypatch)
    promoting.announce(root)
    assert [json.loads(payload)["number"] for _, _, payload, _ in server.heard] == [2]


def test_a_server_that_was_away_hears_of_the_change_the_next_time_and_once(root, monkeypatch, capsys):
    server = Server(monkeypatch)
    server.is_well = False
    assert promoting.challenge(root, now=NOW).promotes
    told = capsys.readouterr().out
    assert "the Prefect server was not told yet (ConnectionError); tried again the next time" in told
    assert "secret" not in told
    server.is_well = True
    promoting.announce(root)
    promoting.announce(root)
    assert len(server.heard) == 1
