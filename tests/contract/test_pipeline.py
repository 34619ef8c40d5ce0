"""Rules that every stage obeys, whatever it does."""

import subprocess
import sys
import types
import typing

import pydantic
import pytest

from datamill import catalog, config, dvcfile
from datamill.stage import Artifact, Params, topological
from tasks import PIPELINE
from tasks.__main__ import rendered

HEAVY = (
    "torch", "mlflow", "great_expectations", "albumentations", "alibi_detect", "sklearn", "pandas", "cv2", "pyarrow",
    "matplotlib", "cleanlab", "imblearn", "onnx", "onnxruntime", "numpy", "scipy",
)  # fmt: skip

every_stage = pytest.mark.parametrize("stage", PIPELINE, ids=lambda stage: stage.name)


def models_in(annotation):
    """Pydantic models inside an annotation, at any depth of unions, lists and Annotated."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in models_in(part)]


def models_of(model):
    """A params class and every class nested in it."""
    nested = [inner for field in model.model_fields.values() for inner in models_in(field.annotation)]
    return [model, *(found for inner in nested for found in models_of(inner))]


def test_the_stages_come_in_the_order_of_the_graph():
    assert [stage.name for stage in PIPELINE] == [
        "ingest", "extract", "validate", "clean", "split", "audit", "preprocess", "augment", "synthesize", "balance",
        "shard", "train", "diagnose", "evaluate", "export",
    ]  # fmt: skip


def test_every_artifact_has_exactly_one_earlier_producer():
    needs = topological(PIPELINE)  # raises otherwise
    assert needs["ingest"] == ()
    assert needs["extract"] == ("ingest",)
    assert needs["validate"] == ("ingest", "extract")


def test_every_artifact_of_the_catalog_is_written_by_a_stage():
    declared = {value.path for value in vars(catalog).values() if isinstance(value, Artifact)}
    assert declared == {artifact.path for stage in PIPELINE for artifact in stage.outputs.values()}


def test_what_does_not_depend_on_each_other_is_not_chained():
    needs = topological(PIPELINE)

    def ancestors(name):
        return set(needs[name]).union(*(ancestors(one) for one in needs[name]))

    for left, right in [("audit", "preprocess"), ("diagnose", "evaluate"), ("augment", "synthesize")]:
        assert left not in ancestors(right)
        assert right not in ancestors(left)


@every_stage
def test_a_stage_says_in_one_line_what_it_does(stage):
    assert stage.summary.endswith(".")
    assert 20 <= len(stage.summary) <= 110
    assert sys.modules[stage.module].__doc__


@every_stage
def test_every_parameter_is_described_and_has_no_default(stage):
    for model in models_of(stage.params):
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name} has no docstring"
            assert field.is_required(), f"{model.__name__}.{name} has a default"


@every_stage
def test_every_parameter_class_refuses_unknown_keys_and_changes(stage):
    for model in models_of(stage.params):
        assert issubclass(model, Params), f"{model.__name__} is no Params"


@every_stage
def test_its_default_section_is_complete_and_in_the_order_of_the_class(stage, repository):
    section = config.read_params(repository)[stage.name]
    assert list(section) == list(stage.params.model_fields)
    stage.params.model_validate(section)


@pytest.mark.parametrize("example", ["digits", "fashion-mnist", "breast-cancer"])
def test_every_example_fits_the_declared_parameters(example, repository):
    config.load_params(PIPELINE, root=repository / "flows/examples" / example)


def test_the_checkout_is_the_workspace_of_the_default_example(repository):
    default = config.read_params(repository)
    assert default == config.read_params(repository / "flows/examples" / "digits")


def test_the_committed_dvc_file_equals_the_rendering(repository):
    dvcfile.check(rendered(repository), root=repository)


@every_stage
def test_every_port_that_decides_about_samples_is_accounted_for(stage):
    ledgers = {
        port
        for port, artifact in stage.outputs.items()
        if artifact.path.endswith(("ledger.parquet", "verdicts.parquet"))
    }
    assert ledgers <= {stage.account.ledger if stage.account else None}


@every_stage
def test_annotations_of_a_stage_are_paths_and_its_own_params(stage):
    hints = typing.get_type_hints(stage.run)
    assert hints["params"] is stage.params
    assert isinstance(stage.run, types.FunctionType)


def test_importing_the_stages_imports_no_heavy_library():
    code = f"import sys, tasks; print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@every_stage
def test_every_stage_has_an_output_that_a_fresh_clone_lacks(stage):
    """Otherwise DVC would find the stage done in a clone, and what is not versioned would never be written there."""
    assert any(not artifact.in_git and not artifact.measured for artifact in stage.outputs.values())
