import pytest
import yaml

from datamill import dvcfile
from datamill.errors import StageError
from tests import toys


def render(root, **options):
    return yaml.safe_load(dvcfile.render(toys.PIPELINE, root=root, **options))["stages"]


def test_outputs_persist_so_that_a_failed_stage_leaves_the_previous_ones(tmp_path):
    stage = render(tmp_path)["choose"]
    assert stage["outs"] == [{"data/choose/choice.parquet": {"persist": True}}]
    assert stage["metrics"] == [{"reports/choose.json": {"cache": False, "persist": True}}]


def test_outside_the_checkout_code_enters_as_an_observed_parameter(tmp_path):
    stages = render(tmp_path)
    assert list(stages) == ["observe", "make", "choose", "total"]
    assert stages["observe"]["always_changed"] is True
    assert stages["make"]["params"] == ["make", {".datamill/observed.yaml": ["code.make"]}]


def test_local_sources_are_dependencies_and_remote_ones_are_observed(tmp_path):
    assert render(tmp_path, sources=["raw"])["make"]["deps"] == ["raw"]
    assert render(tmp_path, remote=True)["make"]["params"][1] == {
        ".datamill/observed.yaml": ["code.make", "source"],
    }


def test_a_stale_file_is_refused_with_the_command_that_renews_it(tmp_path):
    text = dvcfile.render(toys.PIPELINE, root=tmp_path)
    with pytest.raises(StageError, match="python -m tasks render"):
        dvcfile.check(text, root=tmp_path)
    assert dvcfile.write(text, root=tmp_path) is True
    assert dvcfile.write(text, root=tmp_path) is False
    dvcfile.check(text, root=tmp_path)


def test_observing_writes_one_digest_a_stage(tmp_path):
    dvcfile.observe(toys.PIPELINE, root=tmp_path, source="abc")
    seen = yaml.safe_load((tmp_path / dvcfile.OBSERVED).read_text())
    assert list(seen["code"]) == ["make", "choose", "total"]
    assert seen["source"] == "abc"


def test_a_lock_is_read_as_dvc_writes_it():
    text = "stages: {train: {params: {params.yaml: {train: {policy: off, flag: true, word: 'yes', none: null}}}}}"
    ran = dvcfile.parse_lock(text)["train"]["params"]["params.yaml"]["train"]
    assert ran == {"policy": "off", "flag": True, "word": "yes", "none": None}
