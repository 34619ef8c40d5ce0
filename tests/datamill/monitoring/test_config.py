"""watch.yaml: every section checked at once, nearest names given."""

import typing
from pathlib import Path

import pytest

from datamill import config
from datamill.drift.params import DriftParams
from datamill.errors import DataError, ParamsError
from datamill.monitoring.config import SECTIONS, load_watch, require_source
from datamill.monitoring.params import SourceParams
from datamill.stage import Params
from tests.contract.test_pipeline import models_of


def test_every_fault_of_every_section_is_told_at_once_with_the_nearest_name(repository: Path, tmp_path: Path) -> None:
    text = (repository / "watch.yaml").read_text()
    text = text.replace("settle_s: 10", "setle_s: 10").replace("level: 0.05", "level: 7").replace("promote:", "promot:")
    (tmp_path / "watch.yaml").write_text(text)
    with pytest.raises(ParamsError) as caught:
        load_watch(tmp_path)
    told = str(caught.value)
    assert "section 'promot' is no part of watch.yaml; did you mean 'promote'?" in told
    assert "section 'promote' is missing" in told
    assert "source.settle_s is missing" in told
    assert "source.setle_s is not a parameter; did you mean 'settle_s'?" in told
    assert "drift.level is 7: input should be less than or equal to 0.2" in told


def test_a_missing_and_a_broken_file_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"watch.yaml is missing.*`datamill init` writes one"):
        load_watch(tmp_path)
    (tmp_path / "watch.yaml").write_text("source: [")
    with pytest.raises(ParamsError, match="is not valid YAML"):
        load_watch(tmp_path)
    (tmp_path / "watch.yaml").write_text("- source")
    with pytest.raises(ParamsError, match="must hold sections, found list"):
        load_watch(tmp_path)


def test_a_section_is_found_by_what_it_holds(repository: Path) -> None:
    watch = load_watch(repository)
    assert watch.of(SourceParams).data.kind == "image_folder"
    assert watch.of(DriftParams).level == 0.05


def test_the_checkout_watches_as_the_default_example_and_examples_differ_in_their_source_alone(
    repository: Path,
) -> None:
    def read(folder: Path) -> dict[str, typing.Any]:
        load_watch(folder)
        return dict(config.parse_yaml((folder / "watch.yaml").read_text()))

    default = read(repository)
    assert (repository / "watch.yaml").read_bytes() == (repository / "flows/examples/digits/watch.yaml").read_bytes()
    for example in ("fashion-mnist", "breast-cancer"):
        other = read(repository / "flows/examples" / example)
        assert {name for name in default if default[name] != other[name]} <= {"source"}
    assert read(repository / "flows/examples/breast-cancer")["source"]["data"]["kind"] == "table"


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_every_parameter_is_described_has_no_default_and_stands_in_order(section: typing.Any, repository: Path) -> None:
    for model in models_of(section.params):
        assert issubclass(model, Params)
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name} has no docstring"
            assert field.is_required(), f"{model.__name__}.{name} has a default"
    written = config.parse_yaml((repository / "watch.yaml").read_text())[section.name]
    assert list(written) == list(section.params.model_fields)


def test_a_local_source_that_is_not_there_is_told_before_any_work(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "watch.yaml").write_text((repository / "watch.yaml").read_text())
    params = load_watch(tmp_path).of(SourceParams)
    with pytest.raises(DataError, match=r"incoming does not exist; make it, or correct source.data.path in watch.yaml"):
        require_source(params, root=tmp_path)
    require_source(params, root=tmp_path, source="s3://bucket/incoming")
    (tmp_path / "incoming").mkdir()
    require_source(params, root=tmp_path)
