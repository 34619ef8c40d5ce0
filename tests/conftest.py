"""What holds for every test: no tracking unless asked for, no server of anybody else's."""

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("datamill", deadline=None)  # a busy machine is no fault of what is tested
settings.load_profile("datamill")


@pytest.fixture(autouse=True)
def _quiet_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("DATAMILL_TRACKING", "off")
    for name in (
        "MLFLOW_TRACKING_URI",
        "MLFLOW_EXPERIMENT_NAME",
        "MLFLOW_RUN_ID",
        "DATAMILL_SESSION",
        "PREFECT_API_URL",
        "OPENLINEAGE_URL",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")


@pytest.fixture
def repository() -> Path:
    """The checkout these tests lie in."""
    return Path(__file__).resolve().parent.parent
