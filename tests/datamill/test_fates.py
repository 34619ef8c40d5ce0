import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamill.fates import WEIGHT, Fates
from datamill.ledger import FATES, Fate


def rows(*places: int) -> np.ndarray:
    return np.array(places, np.int64)


def told(fates: Fates) -> list[tuple[str, str, str]]:
    """Fate, reason and detail of every sample."""
    columns = fates.columns(0, len(fates))
    return list(zip(*(columns[name].to_pylist() for name in ("fates", "reasons", "details")), strict=True))


def test_the_heaviest_decision_names_fate_and_reason_and_the_others_stay_in_the_detail() -> None:
    fates = Fates(2)
    fates.decide(rows(0), fate="kept", reason="near_duplicate", details="of a")
    fates.decide(rows(0), fate="repaired", reason="imputed", details="height")
    fates.decide(rows(0), fate="repaired", reason="clipped", details="width")
    assert told(fates) == [("repaired", "imputed", "height; near_duplicate: of a; clipped: width"), ("kept", "", "")]


def test_a_sample_that_is_out_gets_no_further_decision() -> None:
    fates = Fates(1)
    fates.decide(rows(0), fate="dropped", reason="constant", details="flat")
    fates.decide(rows(0), fate="dropped", reason="missing", details="height")
    assert told(fates) == [("dropped", "constant", "flat")]
    assert fates.counts == {"constant": 1}


def test_surviving_is_kept_or_repaired() -> None:
    fates = Fates(4)
    for row, fate in enumerate(("kept", "repaired", "dropped", "quarantined")):
        fates.decide(rows(row), fate=fate, reason="r")  # type: ignore[arg-type]
    np.testing.assert_array_equal(fates.surviving, [True, True, False, False])
    assert [fates.count(fate) for fate in FATES] == [1, 1, 1, 1]


def test_details_are_asked_for_the_rows_that_are_written() -> None:
    fates, asked = Fates(10), []

    def describe(places: np.ndarray) -> list[str]:
        asked.append(places.tolist())
        return [f"row {place}" for place in places]

    fates.decide(rows(1, 4, 5, 9), fate="kept", reason="odd", details=describe)
    assert fates.columns(4, 6)["details"].to_pylist() == ["row 4", "row 5"]
    assert asked == [[4, 5]]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(FATES), st.sampled_from("abc"), st.sets(st.integers(0, 5)), st.sampled_from(["", "x"])
        ),
        max_size=8,
    ),
    st.integers(0, 6),
)
def test_decisions_equal_those_made_one_sample_at_a_time(
    decisions: list[tuple[Fate, str, set[int], str]], cut: int
) -> None:
    fates = Fates(6)
    expected = [("kept", "", "")] * 6
    for fate, reason, places, detail in decisions:
        fates.decide(rows(*sorted(places)), fate=fate, reason=reason, details=detail)
        for place in places:
            before, why, text = expected[place]
            if before in ("dropped", "quarantined"):
                continue
            if not why or WEIGHT[fate] > WEIGHT[before]:  # type: ignore[index]
                earlier = f"{why}: {text}" if why and text else why
                expected[place] = (fate, reason, "; ".join(one for one in (detail, earlier) if one))
            else:
                later = f"{reason}: {detail}" if detail else reason
                expected[place] = (before, why, "; ".join(one for one in (text, later) if one))
    assert told(fates) == expected
    details = [fates.columns(*part)["details"].to_pylist() for part in ((0, cut), (cut, 6))]
    assert [*details[0], *details[1]] == [detail for _, _, detail in expected]


@pytest.mark.parametrize("num_samples", [0, 3])
def test_nothing_decided_keeps_everything(num_samples: int) -> None:
    assert told(Fates(num_samples)) == [("kept", "", "")] * num_samples
