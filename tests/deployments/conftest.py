"""Every server once for all tests here; a workspace of the smallest example."""

from collections.abc import Iterator

import pytest

from tests.deployments import services
from tests.deployments.services import Services


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """PostgreSQL, S3, MLflow and Prefect, answering."""
    if lacking := services.missing():
        pytest.skip(lacking)
    with services.serving(tmp_path_factory.mktemp("services")) as running:
        yield running
