from hypothesis import given
from hypothesis import strategies as st

from datamill.samples import content_hash, sample_id, sort_classes


def test_classes_are_sorted_by_number_then_by_word():
    assert sort_classes(["10", "9", "b", "a", "9", "-1"]) == ("-1", "9", "10", "a", "b")


@given(st.lists(st.text(max_size=5), max_size=10))
def test_class_order_does_not_depend_on_the_order_of_labels(labels):
    assert sort_classes(labels) == sort_classes(labels[::-1])


def test_identity_depends_on_source_and_content():
    content = content_hash(b"payload")
    assert len({sample_id("a", content), sample_id("b", content), sample_id("a", content_hash(b"other"))}) == 3
    assert sample_id("a", content) == sample_id("a", content)
