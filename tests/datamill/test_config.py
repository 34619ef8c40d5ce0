from importlib import import_module
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
from pydantic import Field

from datamill import config
from datamill.errors import ParamsError
from datamill.sources import BundledSource, TableSource
from datamill.stage import Params
from tasks import STAGES
from tests import toys


def load(root):
    return config.load_params(toys.PIPELINE, root=root)


def test_sections_become_typed_parameters(tmp_path):
    toys.write_params(tmp_path, num_rows=7)
    assert load(tmp_path)["make"] == toys.MakeParams(num_rows=7)


def test_every_fault_of_every_section_is_told_at_once(tmp_path):
    (tmp_path / "params.yaml").write_text("make: {num_rows: 0}\nchose: {lose: 0}\ntotal: {colour: red}\n")
    with pytest.raises(ParamsError) as caught:
        load(tmp_path)
    assert str(caught.value).splitlines()[1:] == [
        "  section 'chose' is no stage; did you mean 'choose'?",
        "  make.num_rows is 0: input should be greater than 0",
        "  section 'choose' is missing",
        "  total.colour is not a parameter",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [", "is not valid YAML"), ("- a\n", "must hold one section per stage, found list"), (None, "is missing")],
)
def test_a_file_that_is_no_mapping_is_one_clear_error(tmp_path, text, message):
    if text is not None:
        (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ParamsError, match=message):
        load(tmp_path)


def test_setting_a_value_keeps_comments_and_tells_the_change(tmp_path):
    toys.write_params(tmp_path, num_rows=10)
    assert config.set_params(["make.num_rows=3"], stages=toys.PIPELINE, root=tmp_path) == ["make.num_rows: 10 -> 3"]
    assert "num_rows: 3  # count" in (tmp_path / "params.yaml").read_text()


@pytest.mark.parametrize(
    ("assignment", "before", "after"),
    [
        ("given.value=5", "value: null  # why", "value: 5  # why"),
        ("given.value=5", "value:  # why", "value: 5  # why"),
        ("given.value=null", "value: |\n      two\n      lines", "value: null"),
        ("given.value=off", "value: 'on' # or off", "value: off # or off"),
        ("given.value=[]", "value:  # names\n      - {a: 1}  # first\n      - b: 2  # last", "value: []  # names"),
        ("given.value={b: 's3://x', c: off, d: null}", "value: 1", "value: {b: 's3://x', c: 'off', d: null}"),
        ("given.value='s3://x'", "value: 1", "value: 's3://x'"),
        ("given.value={b: x y}", "value:\n      a: 1", "value: {b: x y}"),
        ("given.value=Größe", "value: [1,\n      2] # px", "value: Größe # px"),
        ("given.value='a: b # c'", 'value: "x"', "value: 'a: b # c'"),
    ],
)
def test_setting_a_value_leaves_every_other_character_alone(tmp_path, assignment, before, after):
    class Given(Params):
        value: Any
        other: Any

    section = SimpleNamespace(name="given", params=Given)
    file = "# top\n\ngiven:\n    {}\n\n    other:  # kept\n    -   null   # odd, but theirs\n"
    (tmp_path / "params.yaml").write_text(file.format(before))
    config.set_params([assignment], stages=[section], root=tmp_path)
    assert (tmp_path / "params.yaml").read_text() == file.format(after)


def test_a_value_that_is_written_elsewhere_is_left_to_its_owner(tmp_path):
    before = "make: &all {num_rows: 10}\nchoose: {<<: *all}\n"
    (tmp_path / "params.yaml").write_text(before)
    stages = [SimpleNamespace(name=name, params=toys.MakeParams) for name in ("make", "choose")]
    with pytest.raises(ParamsError, match="in a way that --set cannot change; edit it by hand"):
        config.set_params(["choose.num_rows=3"], stages=stages, root=tmp_path)
    assert (tmp_path / "params.yaml").read_text() == before


def test_setting_the_value_it_has_changes_nothing(tmp_path):
    toys.write_params(tmp_path, num_rows=10)
    before = (tmp_path / "params.yaml").read_bytes()
    assert config.set_params(["make.num_rows=10"], stages=toys.PIPELINE, root=tmp_path) == []
    assert (tmp_path / "params.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("make.num_row=3", "did you mean 'make.num_rows'"),
        ("make.num_rows", "use section.key=value"),
        ("make.num_rows=-1", "make.num_rows is -1: input should be greater than 0"),
        ("make.num_rows=[1", "'\\[1' is no valid YAML; put quotes around it"),
        ("nowhere.x=1", "with a key of params.yaml"),
    ],
)
def test_a_wrong_assignment_leaves_the_file_alone(tmp_path, assignment, message):
    toys.write_params(tmp_path)
    before = (tmp_path / "params.yaml").read_bytes()
    with pytest.raises(ParamsError, match=message):
        config.set_params([assignment], stages=toys.PIPELINE, root=tmp_path)
    assert (tmp_path / "params.yaml").read_bytes() == before


def test_flatten_joins_keys_with_dots():
    assert config.flatten({"a": {"b": 1, "c": [1, 2]}, "d": None}) == {"a.b": 1, "a.c": [1, 2], "d": None}


def test_a_password_in_an_address_is_refused_and_not_repeated(repository, tmp_path):
    text = (repository / "params.yaml").read_text().replace('owner: ""', "owner: ftp://me:s3c@ret@host/images")
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ParamsError, match=r"export.card.owner is 'ftp://host/images': .*it holds a password") as caught:
        config.load_params([import_module("tasks.export").STAGE], root=tmp_path, others=STAGES)
    assert "s3c" not in str(caught.value)
    assert "ret" not in str(caught.value).partition("ftp")[2]


CSV = "format: csv, delimiter: ',', encoding: utf-8"
PLAIN = "group: a, time: null, id: null, exclude: [], kinds: {}"


class Sourced(Params):
    source: Annotated[BundledSource | TableSource, Field(discriminator="kind")]


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("{kind: tabel}", "given.source.kind is 'tabel': it is one of bundled, table; did you mean 'table'?"),
        ("{name: wine}", "given.source.kind is missing"),
        ("{kind: bundled}", "given.source.name is missing"),
        ("{kind: bundled, name: wine, nam: x}", "given.source.nam is not a parameter; did you mean 'name'?"),
        ("{kind: bundled, name: roses}", "given.source.name is 'roses': input should be 'digits', 'breast_cancer', "),
        ("3", "given.source is 3: "),
        (
            f"{{kind: table, path: a, {CSV}, target: a, target_kind: number, {PLAIN}}}",
            "given.source: columns ['a'] have two roles among target, group, time, id, exclude and kinds",
        ),
    ],
)
def test_a_fault_of_a_source_is_told_where_it_stands(tmp_path, source, fault):
    (tmp_path / "params.yaml").write_text(f"given: {{source: {source}}}\n")
    with pytest.raises(ParamsError) as caught:
        config.load_params([SimpleNamespace(name="given", params=Sourced)], root=tmp_path)
    assert str(caught.value).splitlines()[1].startswith(f"  {fault}")
