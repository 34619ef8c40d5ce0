import pytest

from flows.dvc import LockedError, explain, is_noise, stage_environment


@pytest.fixture(autouse=True)
def _forgetful():
    stage_environment.cache_clear()


def test_the_stages_own_message_is_the_error_with_all_its_lines():
    lines = [
        "Running stage 'split':",
        "error: split: too few",
        "  a: 1",
        "Mend it.",
        "ERROR: failed to reproduce 'split'",
    ]
    assert str(explain("split", lines)) == "split: too few\n  a: 1\nMend it."


def test_a_held_lock_is_an_error_worth_a_retry():
    assert isinstance(explain("split", ["ERROR: Unable to acquire lock. Most likely another DVC process"]), LockedError)
    assert not isinstance(explain("split", ["error: the lock of the door is broken"]), LockedError)


def test_without_a_message_dvcs_last_words_are_told():
    assert str(explain("split", ["ERROR: no such stage"])) == "split failed:\nERROR: no such stage"


def test_stages_get_this_interpreter_the_session_and_no_stray_run(monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "stray")
    environment = stage_environment(session="key=name")
    assert environment["DATAMILL_SESSION"] == "key=name"
    assert "MLFLOW_RUN_ID" not in environment


def test_stages_are_not_told_what_the_flow_needs_to_log_in(monkeypatch):
    for name in ("PREFECT_API_AUTH_STRING", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, "admin:secret")
    assert "admin:secret" not in stage_environment(session="key=name").values()


def test_all_stages_of_a_session_get_the_same_variables_whatever_the_flow_loads_meanwhile(monkeypatch):
    first = dict(stage_environment(session="key=name"))
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/of/some/library")
    assert stage_environment(session="key=name") == first
    assert stage_environment(session="other=name")["LD_LIBRARY_PATH"] == "/opt/of/some/library"


@pytest.mark.parametrize(
    "line",
    ["WARNING: 'data/shard/exports' is empty.", "Generating lock file 'dvc.lock'", "Stage 'split' didn't change"],
)
def test_what_dvc_says_to_itself_is_not_told(line):
    assert is_noise(line)
    assert not is_noise("split: done in 0.1 s")


def test_a_source_that_is_not_there_is_named_with_what_to_do():
    told = explain("ingest", ["ERROR: failed to reproduce 'ingest': [Errno 2] No such file or directory: '/raw/a.csv'"])
    assert str(told) == "ingest reads /raw/a.csv, which does not exist; put it there, or mend the path in params.yaml"


def test_a_workspace_without_git_is_told_what_makes_it_whole():
    told = explain("observe", ["ERROR: /home/me/flowers is not a git repository"])
    assert str(told) == "/home/me/flowers is not a git repository, which DVC needs; `datamill init` makes it one again"
