import numpy as np

from datamill.fates import Fates


def test_the_heaviest_decision_names_fate_and_reason_and_the_others_stay_in_the_detail() -> None:
    fates = Fates(2)
    fates.decide([0], fate="kept", reason="near_duplicate", details=["of a"])
    fates.decide([0], fate="repaired", reason="imputed", details=["height"])
    fates.decide([0], fate="repaired", reason="clipped", details=["width"])
    assert (fates.fates, fates.reasons) == (["repaired", "kept"], ["imputed", ""])
    assert fates.details == ["height; near_duplicate: of a; clipped: width", ""]


def test_a_sample_that_is_out_gets_no_further_decision() -> None:
    fates = Fates(1)
    fates.decide([0], fate="dropped", reason="constant", details=["flat"])
    fates.decide([0], fate="dropped", reason="missing", details=["height"])
    assert (fates.reasons, fates.details, fates.counts) == (["constant"], ["flat"], {"constant": 1})


def test_surviving_is_kept_or_repaired() -> None:
    fates = Fates(4)
    for row, fate in enumerate(("kept", "repaired", "dropped", "quarantined")):
        fates.decide([row], fate=fate, reason="r", details=[""])  # type: ignore[arg-type]
    np.testing.assert_array_equal(fates.surviving, [True, True, False, False])
