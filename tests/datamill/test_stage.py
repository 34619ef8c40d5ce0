from pathlib import Path

import pytest

from datamill.stage import Artifact, Params, Stage, metrics_of, topological


class NoParams(Params):
    pass


A, B = Artifact("a"), Artifact("b")


def first(*, out: Path, params: NoParams) -> dict:
    """Write a."""
    return {}


def second(*, into: Path, out: Path, params: NoParams) -> dict:
    """Read a, write b.

    More words.
    """
    return {}


def test_a_declaration_that_differs_from_the_signature_names_both_sides():
    with pytest.raises(TypeError, match=r"stage first: ports \['output'\] are declared.*arguments \['out'\]"):
        Stage(run=first, params=NoParams, outputs={"output": A})


def test_name_and_summary_come_from_the_function():
    stage = Stage(run=second, params=NoParams, inputs={"into": A}, outputs={"out": B})
    assert (stage.name, stage.summary, stage.wants_context) == ("second", "Read a, write b.", False)
    assert stage.metrics == metrics_of("second")


def test_needs_follow_the_artifacts():
    stages = [
        Stage(run=first, params=NoParams, outputs={"out": A}),
        Stage(run=second, params=NoParams, inputs={"into": A}, outputs={"out": B}),
    ]
    assert topological(stages) == {"first": (), "second": ("first",)}


def test_reading_what_no_earlier_stage_writes_is_refused():
    with pytest.raises(TypeError, match="reads into from a, which no earlier stage writes"):
        topological([Stage(run=second, params=NoParams, inputs={"into": A}, outputs={"out": B})])


def test_two_producers_of_one_artifact_are_refused():
    stage = Stage(run=first, params=NoParams, outputs={"out": A})
    with pytest.raises(TypeError, match="a is written by first and by first"):
        topological([stage, stage])


class AddressParams(Params):
    """Where something is."""

    path: str
    """An address."""
    others: tuple[str, ...]
    """More of them."""


@pytest.mark.parametrize("path", ["s3://key:secret@bucket/x", "postgresql+psycopg2://me:se@cret@host/db"])
def test_a_password_in_a_parameter_is_refused(path):
    AddressParams(path="s3://bucket/a:b", others=("http://me@host:80/x", "images@2x"))
    with pytest.raises(ValueError, match=r"path\n.*it holds a password"):
        AddressParams(path=path, others=())
    with pytest.raises(ValueError, match=r"others\n.*it holds a password"):
        AddressParams(path="images", others=("images", path))
