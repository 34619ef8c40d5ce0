import json
import logging
import socket

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from datamill.alerts.alert import Evidence
from datamill.alerts.channels import DeliveryError
from datamill.alerts.channels.building import build
from datamill.alerts.channels.console import Console
from datamill.alerts.channels.jsonl import JsonLines
from datamill.alerts.channels.mail import Mail
from datamill.alerts.channels.service import Service
from datamill.alerts.channels.webhook import Webhook
from datamill.alerts.messages import Message
from datamill.alerts.params import SmtpChannel
from tests.verdicts import START, alert_params, http_server

COMMON = {"sends": "all", "digest": True}


def message(number=1, **changes):
    values = {
        "id": f"{number:032x}",
        "event": "raised",
        "severity": "page",
        "at": START,
        "workspace": "flowers",
        "title": f"flowers: alert {number}",
        "text": "line one\nline two",
        "evidence": (
            Evidence(kind="input", detector="ks", subject="größe", effect=0.5, effect_name="wasserstein", p_value=None),
        ),
    }
    return Message.model_validate(values | changes)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_the_console_shows_title_and_text(capsys):
    Console().send(message(), attempt=1)
    assert capsys.readouterr().out == "page: flowers: alert 1\n  line one\n  line two\n"


# --- a file of JSON lines


def test_each_message_is_one_line_of_json(tmp_path):
    log = JsonLines(tmp_path / "logs" / "alerts.jsonl")
    for number in (1, 2):
        log.send(message(number), attempt=1)
    lines = (tmp_path / "logs/alerts.jsonl").read_text().splitlines()
    assert [json.loads(line)["title"] for line in lines] == ["flowers: alert 1", "flowers: alert 2"]
    assert json.loads(lines[0])["evidence"][0]["subject"] == "größe"


def test_a_message_that_is_the_last_line_already_is_not_written_again(tmp_path):
    log = JsonLines(tmp_path / "alerts.jsonl")
    log.send(message(1), attempt=1)
    log.send(message(1), attempt=2)
    assert len((tmp_path / "alerts.jsonl").read_text().splitlines()) == 1


def test_a_line_cut_short_anywhere_by_a_kill_is_replaced(tmp_path):
    path = tmp_path / "alerts.jsonl"
    log = JsonLines(path)
    log.send(message(1), attempt=1)
    log.send(message(2, text="long " * 40_000), attempt=1)
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for cut in (first, first + 1, first + 70_000, len(whole) - 1, len(whole)):
        path.write_bytes(whole[:cut])
        log.send(message(2, text="long " * 40_000), attempt=2)
        assert path.read_bytes() == whole


def test_what_somebody_else_left_without_a_newline_stays(tmp_path):
    path = tmp_path / "alerts.jsonl"
    path.write_bytes(b"a note")
    JsonLines(path).send(message(1), attempt=1)
    assert path.read_text().splitlines()[0] == "a note"
    assert json.loads(path.read_text().splitlines()[1])["id"] == message(1).id


# --- HTTP


@pytest.fixture
def hook(monkeypatch):
    with http_server() as server:
        monkeypatch.setenv("OPS_HOOK", server.url)
        monkeypatch.setenv("OPS_TOKEN", "s3cr3t-token")
        yield server


def webhook(timeout_s=1.0):
    return Webhook(url_variable="OPS_HOOK", token_variable="OPS_TOKEN", timeout_s=timeout_s)


def test_a_webhook_gets_json_a_key_and_the_token(hook):
    webhook().send(message(7), attempt=3)
    ((headers, body),) = hook.requests
    assert headers["Idempotency-Key"] == f"{7:032x}"
    assert headers["X-Datamill-Attempt"] == "3"
    assert headers["Authorization"] == "Bearer s3cr3t-token"
    assert headers["Content-Type"] == "application/json"
    assert (body["title"], body["severity"], body["at"]) == ("flowers: alert 7", "page", "2026-03-01T08:00:00Z")


@pytest.mark.parametrize("status", [301, 302, 400, 401, 404, 429, 500, 503])
def test_an_answer_that_is_no_success_is_no_delivery(hook, status):
    hook.answers = [status]
    with pytest.raises(DeliveryError, match=f"^HTTP status {status}$"):
        webhook().send(message(), attempt=1)
    webhook().send(message(), attempt=2)
    assert hook.titles == ["flowers: alert 1"]


def test_a_server_that_does_not_answer_is_left_in_time(hook):
    hook.answers = [0]
    with pytest.raises(DeliveryError, match="no answer"):
        webhook(timeout_s=0.2).send(message(), attempt=1)


def test_a_server_that_is_down_is_told_without_its_address(monkeypatch):
    monkeypatch.setenv("OPS_HOOK", f"http://127.0.0.1:{free_port()}/s3cr3t")
    monkeypatch.setenv("OPS_TOKEN", "s3cr3t")
    with pytest.raises(DeliveryError, match=r"^no answer \(ConnectionRefusedError\)$"):
        webhook().send(message(), attempt=1)


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("", "the variable OPS_HOOK of the environment is not set"),
        ("file:///etc/s3cr3t", "the variable OPS_HOOK holds no address that begins with http or https"),
        ("http://s3cr3t:port/", "the variable OPS_HOOK holds no address"),
        ("http://127.0.0.1:1/s3cr3t path\r\nX: 1", "the variable OPS_HOOK holds no address"),
    ],
)
def test_an_address_that_is_none_is_told_by_its_variable(monkeypatch, address, told):
    monkeypatch.setenv("OPS_HOOK", address)
    monkeypatch.setenv("OPS_TOKEN", "t")
    with pytest.raises(DeliveryError, match=told) as caught:
        webhook().send(message(), attempt=1)
    assert "s3cr3t" not in str(caught.value)


# --- Apprise


def test_apprise_reaches_what_the_variable_names_and_nothing_logs_the_address(hook, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("OPS_CHAT", hook.url.replace("http://", "json://"))
    Service(url_variable="OPS_CHAT").send(message(), attempt=1)
    ((_, body),) = hook.requests
    assert (body["title"], body["message"]) == ("flowers: alert 1", "line one\nline two")
    assert "s3cr3t" not in caplog.text


def test_apprise_failures_are_told_without_the_address(hook, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    service = Service(url_variable="OPS_CHAT")
    monkeypatch.setenv("OPS_CHAT", hook.url.replace("http://", "json://"))
    hook.answers = [500]
    with pytest.raises(DeliveryError, match=r"^the service did not take the message$"):
        service.send(message(), attempt=1)
    monkeypatch.setenv("OPS_CHAT", "nonsense://s3cr3t")
    with pytest.raises(DeliveryError, match=r"^the variable OPS_CHAT holds no address that Apprise knows$"):
        service.send(message(), attempt=1)
    assert "s3cr3t" not in caplog.text


# --- e-mail


class Mailbox:
    """What an SMTP server took; ``statuses`` are its next answers."""

    def __init__(self):
        self.mails = []
        self.statuses = []
        self.refused = set()

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address in self.refused:
            return "550 no such user s3cr3t-name"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        if self.statuses:
            return self.statuses.pop(0)
        self.mails.append((envelope.rcpt_tos, envelope.content.decode()))
        return "250 OK"


def check_login(server, session, envelope, mechanism, data):
    assert isinstance(data, LoginPassword)
    return AuthResult(handled=False, success=(data.login, data.password) == (b"ops", b"s3cr3t"))


@pytest.fixture
def mailbox():
    box = Mailbox()
    controller = Controller(
        box,
        hostname="127.0.0.1",
        port=free_port(),
        authenticator=check_login,
        auth_require_tls=False,
        auth_required=False,
    )
    controller.start()
    box.port = controller.port
    yield box
    controller.stop()


def mail(port, *, login=False, **changes):
    values = {
        "kind": "smtp",
        **COMMON,
        "host": "127.0.0.1",
        "port": port,
        "security": "none",
        "sender": "datamill@example.org",
        "recipients": ["ops@example.org", "boss@example.org"],
        "username_variable": "MAIL_USER" if login else None,
        "password_variable": "MAIL_PASSWORD" if login else None,
    }
    return Mail(SmtpChannel.model_validate(values | changes), timeout_s=2)


def test_a_mail_server_gets_title_text_and_the_same_id_at_every_attempt(mailbox):
    for attempt in (1, 2):
        mail(mailbox.port).send(message(title="flowers:\nalert 1", text="größer"), attempt=attempt)
    (recipients, first), (_, second) = mailbox.mails
    assert recipients == ["ops@example.org", "boss@example.org"]
    assert "Subject: flowers: alert 1" in first
    assert f"Message-ID: <{1:032x}@datamill>" in first
    assert f"Message-ID: <{1:032x}@datamill>" in second


def test_a_mail_server_that_asks_for_a_password_gets_that_of_the_environment(mailbox, monkeypatch):
    monkeypatch.setenv("MAIL_USER", "ops")
    monkeypatch.setenv("MAIL_PASSWORD", "s3cr3t")
    mail(mailbox.port, login=True).send(message(), attempt=1)
    monkeypatch.setenv("MAIL_PASSWORD", "wrong-s3cr3t")
    with pytest.raises(DeliveryError, match=r"^SMTP status 535$"):
        mail(mailbox.port, login=True).send(message(), attempt=1)
    assert len(mailbox.mails) == 1


@pytest.mark.parametrize("status", ["451 try later s3cr3t", "554 no s3cr3t"])
def test_a_refused_mail_is_no_delivery(mailbox, status):
    mailbox.statuses = [status]
    with pytest.raises(DeliveryError, match=f"^SMTP status {status[:3]}$"):
        mail(mailbox.port).send(message(), attempt=1)
    mail(mailbox.port).send(message(), attempt=2)
    assert len(mailbox.mails) == 1


def test_recipients_that_were_taken_do_not_get_it_again_for_one_that_was_not(mailbox, capsys):
    mailbox.refused = {"boss@example.org"}
    mail(mailbox.port).send(message(), attempt=1)
    assert mailbox.mails[0][0] == ["ops@example.org"]
    assert "refused 1 of the recipients" in capsys.readouterr().err
    mailbox.refused = {"boss@example.org", "ops@example.org"}
    with pytest.raises(DeliveryError, match=r"^no delivery \(SMTPRecipientsRefused\)$"):
        mail(mailbox.port).send(message(), attempt=1)


def test_a_mail_server_that_is_down_is_no_delivery():
    with pytest.raises(DeliveryError, match=r"^no delivery \(ConnectionRefusedError\)$"):
        mail(free_port()).send(message(), attempt=1)


def test_without_encryption_where_it_was_asked_for_nothing_is_sent(mailbox):
    with pytest.raises(DeliveryError, match="no delivery"):
        mail(mailbox.port, security="starttls").send(message(), attempt=1)
    assert mailbox.mails == []


def test_the_channels_that_need_no_prefect_are_built(tmp_path):
    channels = {
        "screen": {"kind": "console", **COMMON},
        "log": {"kind": "jsonl", **COMMON, "path": "alerts.jsonl"},
        "events": {"kind": "prefect-event", **COMMON},
        "slack": {"kind": "prefect-block", **COMMON, "block": "slack-webhook/ops"},
    }
    assert list(build(alert_params(channels), root=tmp_path)) == ["screen", "log"]
