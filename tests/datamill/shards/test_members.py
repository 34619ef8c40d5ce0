from dataclasses import dataclass

import pytest

from datamill.shards import members


@dataclass(frozen=True)
class Point:
    x: int
    y: int


def test_values_come_in_the_order_of_the_fields() -> None:
    assert members.values_of({"y": 2, "x": 1}, Point) == [1, 2]


@pytest.mark.parametrize("content", [{"x": 1}, {"x": 1, "y": 2, "z": 3}, [1, 2], None])
def test_a_table_with_other_members_is_refused(content: object) -> None:
    with pytest.raises(ValueError, match="belong"):
        members.values_of(content, Point)


@pytest.mark.parametrize("content", [-1, 10, True, 3.0, "3", None])
def test_what_is_no_whole_number_in_range_is_refused(content: object) -> None:
    assert members.number(9, most=9) == 9
    with pytest.raises(ValueError, match="where a whole number from 0 to 9 belongs"):
        members.number(content, most=9)


def test_a_list_is_no_longer_than_it_may_be() -> None:
    assert members.listed([1, 2], limit=2) == [1, 2]
    with pytest.raises(ValueError, match=r"'\[1, 2, 3\]' where a list of at most 2 belongs"):
        members.listed([1, 2, 3], limit=2)
