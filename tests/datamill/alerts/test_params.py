import re

import pytest
import yaml
from pydantic import ValidationError

from datamill import config
from datamill.alerts.params import AlertParams
from datamill.errors import ParamsError
from datamill.retraining import IncludeParams, RetrainParams
from datamill.watchfile import load_section
from tests.verdicts import alert_params

COMMON = {"sends": "all", "digest": True}
SMTP = {
    "kind": "smtp",
    **COMMON,
    "host": "mail.example.org",
    "port": 587,
    "security": "starttls",
    "sender": "datamill@example.org",
    "recipients": ["ops@example.org"],
    "username_variable": "MAIL_USER",
    "password_variable": "MAIL_PASSWORD",
}


def test_every_kind_of_channel_is_read():
    params = alert_params(
        {
            "screen": {"kind": "console", **COMMON},
            "log": {"kind": "jsonl", **COMMON, "path": "alerts.jsonl"},
            "events": {"kind": "prefect-event", **COMMON},
            "slack": {"kind": "prefect-block", **COMMON, "block": "slack-webhook/ops"},
            "chat": {"kind": "apprise", **COMMON, "url_variable": "OPS_CHAT"},
            "hook": {"kind": "webhook", **COMMON, "url_variable": "OPS_HOOK", "token_variable": None},
            "mail": SMTP,
        }
    )
    assert list(params.channels) == ["screen", "log", "events", "slack", "chat", "hook", "mail"]


@pytest.mark.parametrize(
    "channel",
    [
        {"kind": "apprise", **COMMON, "url_variable": "slack://s3cr3t/a/b"},
        {"kind": "apprise", **COMMON, "url_variable": "s3cr3t"},
        {"kind": "webhook", **COMMON, "url_variable": "https://hooks.example.org/s3cr3t", "token_variable": None},
        {"kind": "webhook", **COMMON, "url_variable": "OPS_HOOK", "token_variable": "s3cr3t"},
        {**SMTP, "password_variable": "s3cr3t"},
        {**SMTP, "host": "smtp://u:s3cr3t@mail.example.org"},
        {**SMTP, "recipients": ["mailto://u:s3cr3t@example.org"]},
    ],
)
def test_a_secret_in_the_file_is_refused_and_not_shown(channel):
    with pytest.raises(ValidationError, match="put it into a variable of the environment") as caught:
        alert_params({"ops": channel})
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize(
    "channel",
    [
        {"kind": "slack", **COMMON, "url": "https://hooks.slack.example/s3cr3t"},
        {"kind": "webhook", **COMMON, "url": "https://hooks.example.org/s3cr3t", "token_variable": None},
        {"kind": "smtp", "password": "s3cr3t"},
        {"password": "s3cr3t", "token": ["s3cr3t"]},
    ],
)
def test_no_error_shows_what_may_be_a_secret(channel, tmp_path):
    with pytest.raises(ValidationError) as caught:
        alert_params({"ops": channel})
    assert "s3cr3t" not in str(caught.value)
    values = alert_params().model_dump() | {"channels": {"ops": channel}}
    (tmp_path / "watch.yaml").write_text(yaml.safe_dump({"alerts": values}))
    with pytest.raises(ParamsError) as told:
        load_section(tmp_path, "alerts", AlertParams)
    assert "s3cr3t" not in str(told.value)


def test_the_error_of_a_file_names_the_field_and_the_way_out(tmp_path):
    channel = {"kind": "apprise", **COMMON, "url_variable": "slack://s3cr3t/a/b"}
    (tmp_path / "watch.yaml").write_text(
        yaml.safe_dump({"alerts": alert_params().model_dump() | {"channels": {"ops": channel}}})
    )
    with pytest.raises(ParamsError) as told:
        load_section(tmp_path, "alerts", AlertParams)
    assert "alerts.channels.ops.url_variable is <not shown>: " in str(told.value)
    assert "give the variable's name here, in capitals" in str(told.value)


def test_a_file_that_is_no_yaml_is_not_quoted(tmp_path):
    (tmp_path / "watch.yaml").write_text("alerts:\n  a: [https://s3cr3t\n")
    with pytest.raises(ParamsError, match="is not valid YAML; look at its line") as told:
        load_section(tmp_path, "alerts", AlertParams)
    assert "s3cr3t" not in str(told.value)


def test_a_missing_file_and_a_missing_section_are_told_apart(tmp_path):
    with pytest.raises(ParamsError, match=r"watch\.yaml is missing; it says how the model is watched"):
        load_section(tmp_path, "alerts", AlertParams)
    (tmp_path / "watch.yaml").write_text("drift: {}\n")
    with pytest.raises(ParamsError, match="section 'alerts' is missing"):
        load_section(tmp_path, "alerts", AlertParams)


def test_two_channels_cannot_write_to_one_file():
    log = {"kind": "jsonl", **COMMON, "path": "alerts.jsonl"}
    with pytest.raises(ValidationError, match="give each a file of its own"):
        alert_params({"one": log, "two": log})


def test_a_name_without_a_password_is_refused():
    with pytest.raises(ValidationError, match="username_variable and password_variable go together"):
        alert_params({"mail": {**SMTP, "password_variable": None}})


def test_what_the_documentation_shows_is_valid(repository):
    text = (repository / "docs/alerts.md").read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    sections = {name: values for block in blocks for name, values in config.parse_yaml(block).items()}
    assert len(AlertParams.model_validate(sections["alerts"]).channels) == 7
    assert RetrainParams.model_validate(sections["retrain"]).include is None
    (included,) = re.findall(r"`include: (\{.*?\})`", text)
    assert IncludeParams.model_validate(config.parse_yaml(included)).into == "images"
