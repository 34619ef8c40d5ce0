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
        ({"DATAMILL_TRACKING": "maybe"}, "DATAMILL_TRACKING is 'maybe'; use 'on', 'off' or 'relay'"),
    ],
)
def test_a_wrong_variable_is_named_with_its_value(variables, message):
    with pytest.raises(ParamsError, match=message):
        Settings.from_environment(variables)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == "cpu"
    with pytest.raises(ParamsError, match="torch sees no GPU here"):
        resolve_device("cuda")
    with pytest.raises(ParamsError, match="use 'auto', 'cpu'"):
        resolve_device("toaster")
