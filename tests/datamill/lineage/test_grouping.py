import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from datamill.lineage.grouping import Property, folders, groups, texts


def test_touched_samples_of_one_folder_are_told_apart_from_the_others():
    folder = Property("folder", np.repeat([0, 1, 2, 3], 50), ["a", "b", "c", "d"])
    touched = np.zeros(200, bool)
    touched[50:90] = True
    touched[[3, 120, 170]] = True
    first, rest = groups(touched, [folder])
    assert (first.name, first.value, len(first.rows), first.num_members) == ("folder", "b", 40, 50)
    assert (rest.name, rest.rows.tolist()) == ("", [3, 120, 170])


def test_samples_touched_everywhere_are_one_group():
    folder = Property("folder", np.repeat([0, 1], 100), ["a", "b"])
    touched = np.zeros(200, bool)
    touched[::10] = True
    assert [(one.name, len(one.rows)) for one in groups(touched, [folder])] == [("", 20)]


def test_of_two_properties_the_more_telling_one_is_named():
    coarse = Property("class", np.repeat([0, 1], 100), ["cat", "dog"])
    fine = Property("folder", np.repeat([0, 1, 2, 3], 50), ["p", "q", "r", "s"])
    touched = np.zeros(200, bool)
    touched[100:150] = True
    assert [(one.name, one.value) for one in groups(touched, [coarse, fine])] == [("folder", "r")]


def test_folders_are_read_level_by_level_and_a_table_row_names_its_file():
    levels = folders(pa.array(["cat/p1/1.png", "cat/p2/2.png", "dog/p1/3.png"]))
    assert [(one.name, list(one.values), one.codes.tolist()) for one in levels] == [
        ("folder0", ["cat", "dog"], [0, 0, 1]),
        ("folder1", ["p1", "p2"], [0, 1, 0]),
    ]
    (file,) = folders(pa.array(["a.csv#1", "a.csv#2", "b.csv#1"]))
    assert (list(file.values), file.codes.tolist()) == (["a.csv", "b.csv"], [0, 0, 1])


def test_a_column_of_one_value_says_nothing():
    assert texts("class", pa.array(["x", "x"])) == []
    assert texts("group", pa.array(["x", None, "y"]))[0].codes.tolist() == [0, -1, 1]


@given(touched=st.lists(st.booleans(), min_size=1, max_size=80), seed=st.integers(0, 9))
def test_every_touched_sample_is_in_exactly_one_group(touched, seed):
    codes = np.random.default_rng(seed).integers(0, 4, len(touched))
    found = groups(np.array(touched), [Property("class", codes, ["a", "b", "c", "d"])])
    rows = sorted(row for one in found for row in one.rows.tolist())
    assert rows == np.flatnonzero(touched).tolist()
