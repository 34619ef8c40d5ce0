"""The ``promote`` section of ``watch.yaml``."""

from typing import get_args

import pytest

from datamill import config
from datamill.evaluation.metrics import HEADLINES
from datamill.promotion.params import Metric, PromoteParams, read_policy
from datamill.stage import Params


def classes(params: type[Params]) -> list[type[Params]]:
    nested = [field.annotation for field in params.model_fields.values()]
    return [params, *(one for one in nested if isinstance(one, type) and issubclass(one, Params))]


@pytest.mark.parametrize("params", classes(PromoteParams))
def test_every_value_is_described_and_has_no_default(params):
    for name, field in params.model_fields.items():
        assert field.description, name
        assert field.is_required(), name


def test_any_headline_metric_can_decide():
    assert get_args(Metric) == HEADLINES


@pytest.mark.parametrize("example", ["digits", "fashion-mnist", "breast-cancer"])
def test_every_example_says_what_a_challenger_must_show_in_the_order_of_the_class(example, repository):
    root = repository / "flows/examples" / example
    assert read_policy(root) is not None
    section = config.parse_yaml((root / "watch.yaml").read_text())["promote"]
    assert list(section) == list(PromoteParams.model_fields)


def test_without_a_watch_file_or_the_section_there_is_no_policy(tmp_path):
    assert read_policy(tmp_path) is None
    (tmp_path / "watch.yaml").write_text("alerts: {}\n")
    assert read_policy(tmp_path) is None
