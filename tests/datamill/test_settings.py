import pytest

from datamill.errors import ParamsError
from datamill.settings import Settings, cpu_count, resolve_device


def test_an_empty_environment_means_every_core_and_local_tracking():
    settings = Settings.from_environment({})
    assert (settings.tracking_uri, settings.device, settings.num_threads) == ("", "auto", cpu_count())


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"DATAMILL_THREADS": "many"}, "DATAMILL_THREADS is 'many'; use a whole number"),
        ({"DATAMILL_KEEP_RUNS": "all"}, "DATAMILL_KEEP_RUNS is 'all'; use a whole number, or 0 for 200"),
        ({"DATAMILL_TRACKING": "maybe"}, "DATAMILL_TRACKING is 'maybe'; use 'on', 'off' or 'relay'"),
        ({"DATAMILL_ENGINE": "spark"}, "DATAMILL_ENGINE is 'spark'; use 'loky', 'dask' or 'ray'"),
        ({"DATAMILL_ENGINE": "dask"}, "DATAMILL_ENGINE_ADDRESS is empty; give the scheduler's, as tcp://host:8786"),
    ],
)
def test_a_wrong_variable_is_named_with_its_value(variables, message):
    with pytest.raises(ParamsError, match=message):
        Settings.from_environment(variables)


@pytest.mark.parametrize(("text", "count"), [("", 200), ("0", 200), ("1000", 1000)])
def test_two_hundred_runs_stay_on_record_unless_told_otherwise(text, count):
    assert Settings.from_environment({"DATAMILL_KEEP_RUNS": text} if text else {}).keep_runs == count


def test_work_stays_on_this_machine_and_its_disk_unless_told_otherwise():
    settings = Settings.from_environment({})
    assert (settings.engine, settings.engine_address, settings.storage) == ("loky", "", "")


def test_ray_is_found_on_this_machine_unless_an_address_is_given():
    assert Settings.from_environment({"DATAMILL_ENGINE": "ray"}).engine_address == "auto"
    variables = {"DATAMILL_ENGINE": "ray", "DATAMILL_ENGINE_ADDRESS": "ray://head:10001"}
    assert Settings.from_environment(variables).engine_address == "ray://head:10001"


@pytest.mark.parametrize("name", ["DATAMILL_ENGINE_ADDRESS", "DATAMILL_STORAGE"])
@pytest.mark.parametrize("url", ["s3://key:secret@bucket/prefix", "https://host/prefix?token=secret"])
def test_an_address_with_a_secret_is_refused_without_repeating_it(name, url):
    with pytest.raises(ParamsError, match=f"{name} holds a password or a token") as caught:
        Settings.from_environment({name: url})
    assert "secret" not in str(caught.value)


def test_an_address_of_mlflow_that_cannot_be_taken_apart_is_refused_without_repeating_it():
    with pytest.raises(ParamsError, match="percent-encode what is special in its password") as caught:
        Settings.from_environment({"MLFLOW_TRACKING_URI": "http://admin:se/cret@host:5000"})
    assert "cret" not in str(caught.value)
    assert caught.value.__cause__ is None
    whole = "http://admin:se%2Fcret@host:5000"
    assert Settings.from_environment({"MLFLOW_TRACKING_URI": whole}).tracking_uri == whole


def test_a_user_name_in_an_address_is_no_secret():
    url = "abfs://container@account.dfs.core.windows.net/prefix"
    assert Settings.from_environment({"DATAMILL_STORAGE": url}).storage == url


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == "cpu"
    with pytest.raises(ParamsError, match="torch sees no GPU here"):
        resolve_device("cuda")
    with pytest.raises(ParamsError, match="use 'auto', 'cpu'"):
        resolve_device("toaster")
