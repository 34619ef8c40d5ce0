"""The samples a preview shows are drawn across the classes."""

import pytest

from datamill.augmentation.preview import choose_across_classes
from datamill.derived import TrainClass

MEMBERS = {
    name: TrainClass(size=count, ids=[f"{name}{row}" for row in range(count)])
    for name, count in (("a", 50), ("b", 3), ("c", 1), ("d", 0))
}


@pytest.mark.parametrize(
    ("count", "expected"), [(2, "ab"), (3, "abc"), (5, "aabbc"), (9, "aaaaabbbc"), (100, "a" * 50 + "bbbc")]
)
def test_classes_take_turns_until_they_run_out(count: int, expected: str) -> None:
    chosen = choose_across_classes(MEMBERS, count=count)
    assert "".join(chosen.values()) == expected
    assert all(key in MEMBERS[label].ids for key, label in chosen.items())


def test_the_first_members_of_a_class_are_shown_in_their_order() -> None:
    assert list(choose_across_classes(MEMBERS, count=6)) == ["a0", "a1", "a2", "b0", "b1", "c0"]
