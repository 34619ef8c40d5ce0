import json

import pytest
import yaml
from typer.testing import CliRunner

from datamill.alerts.store import Store
from datamill.errors import ParamsError
from flows.alerting import announce, build_channels, deliver_waiting, send_digest
from flows.cli import app
from tests.verdicts import AT_RISK, CALM, HOUR, MOVED, START, alert_params, http_server

LOG = {"kind": "jsonl", "sends": "all", "digest": True, "path": ".datamill/watch/alerts.jsonl"}
SCREEN = {"kind": "console", "sends": "pages", "digest": False}
HOOK = {"kind": "webhook", "sends": "pages", "digest": True, "url_variable": "OPS_HOOK", "token_variable": "OPS_TOKEN"}


@pytest.fixture
def root(tmp_path):
    """A workspace called ``flowers``."""
    root = tmp_path / "flowers"
    root.mkdir()
    return root


def configure(root, channels, **changes):
    values = alert_params(channels, **changes).model_dump(mode="json")
    (root / "watch.yaml").write_text(yaml.safe_dump({"alerts": values, "drift": {"of": "others"}}))


def tell(root, seen, number):
    links = {"report": f"reports/windows/w{number}/report.html", "mlflow": f"1/runs/{number}"}
    announce(root, verdict=seen, window=f"w{number}", model="champion-1", links=links, now=START + number * HOUR)


def logged(root):
    return [json.loads(line) for line in (root / LOG["path"]).read_text().splitlines()]


def test_a_verdict_reaches_every_channel_that_wants_it(root, capsys):
    configure(root, {"log": LOG, "screen": SCREEN})
    tell(root, AT_RISK, 0)
    assert [message["topic"] for message in logged(root)] == ["performance-at-risk", "input", "prediction"]
    page = logged(root)[0]
    assert page["links"] == {"report": "reports/windows/w0/report.html", "mlflow": "1/runs/0"}
    assert (page["workspace"], page["model"], page["severity"]) == ("flowers", "champion-1", "page")
    shown = capsys.readouterr().out
    assert "page: flowers: performance at risk" in shown
    assert "input drift" not in shown


def test_announcing_a_window_again_tells_nothing_again(root):
    configure(root, {"log": LOG})
    for _ in range(2):
        tell(root, AT_RISK, 0)
    assert len(logged(root)) == 3


def test_a_channel_that_is_down_costs_a_verdict_nothing_and_gets_its_messages_later(root, monkeypatch, capsys):
    configure(root, {"hook": HOOK, "log": LOG}, first_retry_s=0)
    tell(root, AT_RISK, 0)  # the variable is not set yet
    assert (
        "channel hook: 1 messages wait (the variable OPS_HOOK of the environment is not set)" in capsys.readouterr().err
    )
    assert len(logged(root)) == 3
    with http_server() as hook:
        monkeypatch.setenv("OPS_HOOK", hook.url)
        monkeypatch.setenv("OPS_TOKEN", "s3cr3t-token")
        deliver_waiting(root, now=START + HOUR)
        deliver_waiting(root, now=START + HOUR)
        assert hook.titles == ["flowers: performance at risk"]


def test_secrets_are_neither_in_the_workspace_nor_on_the_console(root, monkeypatch, capfd, caplog):
    caplog.set_level("DEBUG")
    chat = {"kind": "apprise", "sends": "all", "digest": True, "url_variable": "OPS_CHAT"}
    configure(root, {"hook": HOOK, "chat": chat, "log": LOG}, first_retry_s=0)
    with http_server(answers=[500, 500]) as hook:
        monkeypatch.setenv("OPS_HOOK", hook.url)
        monkeypatch.setenv("OPS_TOKEN", "s3cr3t-token")
        monkeypatch.setenv("OPS_CHAT", hook.url.replace("http://", "json://user:s3cr3t-password@"))
        tell(root, AT_RISK, 0)
        tell(root, MOVED, 1)
        assert hook.titles.count("flowers: performance at risk") == 2
    tell(root, CALM, 2)  # both are down now
    tell(root, CALM, 3)
    outputs = capfd.readouterr()
    assert "messages wait" in outputs.err
    assert "s3cr3t" not in outputs.out + outputs.err + caplog.text
    for path in root.rglob("*"):
        assert path.is_dir() or b"s3cr3t" not in path.read_bytes(), path


def test_a_digest_is_sent_once_for_windows_that_have_something_to_say(root):
    configure(root, {"log": LOG})
    tell(root, MOVED, 0)
    assert send_digest.fn(root=str(root)) is True
    digest = logged(root)[-1]
    assert digest["title"] == "flowers: digest of 1 window"
    assert "notice: input drift in 1 window" in digest["text"]
    tell(root, CALM, 1)
    tell(root, CALM, 2)
    send_digest.fn(root=str(root))
    assert "notice: input drift, recovered in w2" in logged(root)[-1]["text"]
    count = len(logged(root))
    assert send_digest.fn(root=str(root)) is False
    assert len(logged(root)) == count


def test_a_quiet_digest_is_sent_where_it_was_asked_for(root):
    configure(root, {"log": LOG}, digest_when_quiet=True)
    assert send_digest.fn(root=str(root)) is True
    assert logged(root)[-1]["text"] == "No window was judged."


def test_the_command_shows_the_digest_and_marks_nothing_as_told(root):
    configure(root, {"log": LOG})
    tell(root, MOVED, 0)
    for _ in range(2):
        done = CliRunner().invoke(app, ["digest", "--root", str(root)])
        assert done.exit_code == 0, done.output
        assert "1 window of 100 samples judged (w0); in 1 of them something moved." in done.stdout
    late = CliRunner().invoke(app, ["digest", "--root", str(root), "--since", "2026-03-02"])
    assert "No window was judged." in late.stdout
    assert "notice: input drift since w0" in late.stdout  # still open
    wrong = CliRunner().invoke(app, ["digest", "--root", str(root), "--since", "lately"])
    assert wrong.exit_code == 1
    assert "--since is 'lately'" in wrong.stderr


def test_without_a_server_events_have_nobody_to_reach_and_nothing_waits(root, capsys):
    configure(root, {"events": {"kind": "prefect-event", "sends": "all", "digest": False}})
    tell(root, AT_RISK, 0)
    assert capsys.readouterr().err == ""
    assert Store(root).waiting({"events": ("page", "notice")}) == []


def test_every_kind_of_channel_is_built(root):
    channels = {
        "events": {"kind": "prefect-event", "sends": "all", "digest": False},
        "slack": {"kind": "prefect-block", "sends": "all", "digest": False, "block": "slack-webhook/ops"},
        "log": LOG,
    }
    assert sorted(build_channels(alert_params(channels), root=root)) == ["events", "log", "slack"]


def test_a_workspace_that_is_not_watched_says_what_is_missing(root):
    with pytest.raises(ParamsError, match=r"watch\.yaml is missing"):
        tell(root, CALM, 0)
