"""Who may become champion."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamill.evaluation.metrics import Predictions
from datamill.promotion.decision import decide
from datamill.promotion.pairing import match
from datamill.promotion.shadow import UNKNOWN, Shadow, estimated_accuracy
from tests.datamill.promotion.candidates import evidence, policy

FEW = policy(num_resamples=100)


def reasons(decision, check):
    return [reason for reason in decision.reasons if reason.check == check]


def only(decision, check):
    (reason,) = reasons(decision, check)
    return reason


def errors(count=60):
    return st.sets(st.integers(0, count - 1), max_size=count)


def test_a_clearly_better_model_is_promoted_and_every_reason_has_its_numbers():
    decision = decide(evidence(range(20)), evidence(range(2)), policy=policy())
    assert decision.promotes
    assert [reason.check for reason in decision.reasons] == ["test set", "headline", "slice", "latency", "size"]
    headline = only(decision, "headline")
    assert headline.numbers["champion"] == 0.8
    assert headline.numbers["challenger"] == 0.98
    assert headline.numbers["gain"] == pytest.approx(0.18)
    assert 0.09 < headline.numbers["low"] < 0.18 < headline.numbers["high"] < 0.28
    assert headline.found.startswith("accuracy 0.9800 against 0.8000, gain +0.1800 (+0.")
    assert headline.found.endswith("over 100 common samples")


def test_a_gain_that_chance_explains_is_refused_and_told_what_was_needed():
    decision = decide(evidence(range(3)), evidence(range(2)), policy=policy())
    assert not decision.promotes
    headline = only(decision, "headline")
    assert not headline.passes
    assert headline.numbers["low"] == 0.0
    assert headline.needed == "accuracy better, the 95% interval of the difference excluding zero"


def test_a_margin_makes_a_gain_enough_that_the_interval_does_not_prove():
    narrow = evidence(range(4)), evidence(range(2))
    assert not decide(*narrow, policy=policy()).promotes
    assert decide(*narrow, policy=policy(margin=0.02)).promotes
    assert not decide(*narrow, policy=policy(margin=0.03)).promotes


@given(wrong=errors(), others=errors(), margin=st.sampled_from([None, 0.001, 0.1]))
@settings(max_examples=60, deadline=None)
def test_of_two_models_at_most_one_replaces_the_other_and_it_is_the_better_one(wrong, others, margin):
    one, other = (evidence(sorted(rows), count=60) for rows in (wrong, others))
    rules = policy(num_resamples=100, margin=margin)
    there, back = decide(one, other, policy=rules), decide(other, one, policy=rules)
    assert not (there.promotes and back.promotes)
    if there.promotes:
        assert len(others) < len(wrong)
    if wrong == others:
        assert not there.promotes


@given(
    wrong=errors(),
    others=errors(),
    metric=st.sampled_from(["accuracy", "f1", "roc_auc", "log_loss", "brier", "calibration_error"]),
)
@settings(max_examples=40, deadline=None)
def test_whatever_the_metric_the_promoted_one_is_better_in_it(wrong, others, metric):
    decision = decide(
        evidence(sorted(wrong), count=60), evidence(sorted(others), count=60), policy=policy(metric=metric)
    )
    if decision.promotes:
        numbers = only(decision, "headline").numbers
        is_lower = numbers["challenger"] < numbers["champion"]
        assert is_lower == (metric in {"log_loss", "brier", "calibration_error"})


@given(order=st.permutations(range(40)))
@settings(max_examples=20, deadline=None)
def test_the_order_of_the_champions_samples_does_not_matter(order):
    champion, challenger = evidence(range(10), count=40), evidence(range(1), count=40)
    shuffled = replace(
        champion,
        sample_ids=tuple(champion.sample_ids[row] for row in order),
        predictions=Predictions(champion.predictions.label[order], champion.predictions.probabilities[order]),
    )
    assert decide(shuffled, challenger, policy=FEW) == decide(champion, challenger, policy=FEW)


def test_the_same_model_is_no_challenger():
    decision = decide(evidence(), evidence(), policy=policy())
    assert not decision.promotes
    assert only(decision, "model").needed == "another model"


def test_equal_answers_of_another_model_are_no_reason_to_change():
    decision = decide(evidence(range(5)), evidence(range(5), version="other"), policy=policy(margin=0.001))
    assert not decision.promotes
    assert only(decision, "headline").numbers["gain"] == 0.0


def test_models_are_compared_on_the_samples_that_both_were_tested_on():
    champion, challenger = evidence(range(20)), evidence([], first=20)  # the champion's mistakes are not among them
    pair = match(champion, challenger)
    assert pair.champion.num_samples == 80
    assert pair.champion.is_correct.all()
    decision = decide(champion, challenger, policy=policy())
    assert only(decision, "test set").passes
    assert only(decision, "headline").numbers["gain"] == 0.0


@pytest.mark.parametrize(
    ("first", "found"),
    [
        (40, "60 test samples in common, of the champion's 100 and the challenger's 100"),
        (500, "0 test samples in common, of the champion's 100 and the challenger's 100"),
    ],
)
def test_too_few_common_samples_are_refused_without_a_comparison(first, found):
    decision = decide(evidence(range(20)), evidence(first=first), policy=policy())
    reason = only(decision, "test set")
    assert not decision.promotes
    assert reason.found == found
    assert reason.needed == "at least 30 and 80% of the champion's"
    assert reasons(decision, "headline") == []


def test_a_test_set_that_has_grown_is_compared_on_the_old_part():
    decision = decide(evidence(range(20)), evidence([], count=150), policy=policy())
    assert decision.promotes
    assert only(decision, "test set").numbers == {"common": 100, "champion": 100, "challenger": 150}


def test_corrected_labels_hold_for_both_and_are_told():
    champion = evidence(range(10))
    mended = evidence(range(10))
    label = mended.predictions.label.copy()
    label[:10] = 1 - label[:10]  # what looked wrong was right
    challenger = replace(mended, version="other", predictions=Predictions(label, mended.predictions.probabilities))
    decision = decide(champion, challenger, policy=policy())
    assert "; 10 have another label now" in only(decision, "test set").found
    assert only(decision, "headline").numbers["champion"] == 1.0


def test_classes_are_matched_by_name_and_one_more_class_does_not_hinder():
    champion, challenger = evidence(range(20)), evidence(range(2))
    probabilities = challenger.predictions.probabilities[:, ::-1]
    with_more = np.hstack([probabilities, np.zeros((100, 1))])
    other = replace(
        challenger,
        classes=("yes", "no", "maybe"),
        predictions=Predictions(1 - challenger.predictions.label, with_more),
    )
    assert only(decide(champion, other, policy=policy()), "headline").numbers["champion"] == 0.8
    assert decide(champion, other, policy=policy()).promotes


def test_a_slice_that_surely_loses_refuses_what_is_better_on_average():
    colours = tuple("red" if row < 20 else "blue" for row in range(100))
    champion = evidence(range(40, 80))
    challenger = replace(evidence(range(12)), slicings=(("colour", colours),))
    decision = decide(champion, challenger, policy=policy())
    assert only(decision, "headline").passes
    (reason,) = reasons(decision, "slice")
    assert not decision.promotes
    assert reason.found == "colour red: accuracy -0.6000 over 20 samples (12 lost, 0 won, chance 0.000)"
    assert reason.needed == "no slice of 10 samples or more surely (90%) loses over 0.05"


def test_a_loss_that_chance_explains_or_that_is_allowed_lets_pass():
    colours = tuple("red" if row < 20 else "blue" for row in range(100))
    challenger = replace(evidence(range(2)), slicings=(("colour", colours),))  # 2 of 20 lost: chance 0.25
    champion = evidence(range(40, 80))
    assert decide(champion, challenger, policy=policy()).promotes
    lost = replace(evidence(range(12)), slicings=(("colour", colours),))
    assert decide(champion, lost, policy=policy(slices__allowance=0.7)).promotes


def test_small_slices_are_counted_and_not_judged():
    colours = tuple("red" if row < 9 else None for row in range(100))
    challenger = replace(evidence(range(9)), slicings=(("colour", colours),))
    decision = decide(evidence(range(40, 80)), challenger, policy=policy())
    assert decision.promotes
    assert only(decision, "slice").found.endswith("; 1 too small to judge")


def test_groups_are_drawn_together_so_that_one_lucky_group_proves_nothing():
    champion, challenger = evidence(range(20)), evidence([])
    groups = tuple(f"g{row // 20 if row < 20 else 1 + row // 8}" for row in range(100))  # all mistakes are of one group
    assert decide(champion, challenger, policy=policy()).promotes
    decision = decide(champion, replace(challenger, groups=groups), policy=policy())
    assert not decision.promotes
    assert only(decision, "headline").found.endswith("over 100 samples in 12 groups")


@pytest.mark.parametrize(
    ("limits", "check", "needed"),
    [
        ({"speed__max_size_ratio": 1.5}, "size", "at most 1.5 times the champion's"),
        ({"speed__max_size_bytes": 1500}, "size", "at most 1500 bytes and at most 2 times the champion's"),
        ({"speed__max_latency_ratio": 1.2}, "latency", "at most 1.2 times the champion's"),
        ({"speed__max_latency_ms": 1.4}, "latency", "at most 1.4 ms"),
    ],
)
def test_a_better_model_that_is_too_slow_or_too_large_is_refused(limits, check, needed):
    heavy = evidence([], size_bytes=1900, latency_ms=1.5)
    assert decide(evidence(range(20)), heavy, policy=policy()).promotes
    decision = decide(evidence(range(20)), heavy, policy=policy(**limits))
    assert [reason.check for reason in decision.reasons if not reason.passes] == [check]
    assert only(decision, check).needed == needed


@pytest.mark.parametrize(
    ("metric", "floor", "promotes"),
    [("accuracy", 0.9, True), ("accuracy", 0.91, False), ("log_loss", 0.4, True), ("log_loss", 0.2, False)],
)
def test_the_first_model_needs_the_floor_and_nothing_else(metric, floor, promotes):
    decision = decide(None, evidence(range(10)), policy=policy(metric=metric, floor=floor))
    assert decision.promotes is promotes
    assert only(decision, "champion").found == "no champion"


def test_the_first_model_has_absolute_limits_too():
    assert not decide(None, evidence(), policy=policy(speed__max_size_bytes=999)).promotes


SHADOWED = {"shadow__num_windows": 4}


def shadow(*, agreeing: int, label=UNKNOWN, confidence: float = 0.9, count: int = 100):
    says = np.where(np.arange(count) < agreeing, 0, 1)
    challenger = np.full((count, 2), 1 - confidence)
    challenger[np.arange(count), says] = confidence
    champion = np.tile([0.9, 0.1], (count, 1))
    return Shadow(("w1", "w2"), champion, challenger, np.full(count, label))


def judged(recent, **changes):
    return decide(evidence(range(20)), evidence([]), policy=policy(**SHADOWED, **changes), shadow=recent)


def test_labelled_recent_inputs_decide_by_accuracy():
    decision = judged(shadow(agreeing=95, label=0))
    assert decision.promotes
    assert only(decision, "shadow").numbers == {"champion": 1.0, "challenger": 0.95, "labelled": 100}
    assert not judged(shadow(agreeing=85, label=0)).promotes


def test_without_labels_agreement_and_estimated_accuracy_decide():
    agreement, estimate = reasons(judged(shadow(agreeing=95)), "shadow")
    assert agreement.found == "both name the same class for 95.0% of 100 recent inputs"
    assert estimate.numbers["challenger"] == pytest.approx(1.0)
    assert not judged(shadow(agreeing=40)).promotes
    unsure = judged(shadow(agreeing=95, confidence=0.6))
    assert [reason.numbers.get("challenger") for reason in unsure.reasons if not reason.passes] == [pytest.approx(0.7)]


def test_few_recent_inputs_pass_unless_they_are_required():
    assert judged(shadow(agreeing=5, count=5)).promotes
    assert judged(None).promotes
    decision = judged(None, shadow__is_required=True)
    assert only(decision, "shadow").found == "0 recent inputs, too few to compare"
    assert not decision.promotes


def test_the_estimate_moves_with_mean_confidence_and_stays_a_share():
    measured = evidence(range(20)).predictions
    assert estimated_accuracy(np.array([[0.9, 0.1]]), predictions=measured) == pytest.approx(0.8)
    assert estimated_accuracy(np.array([[0.6, 0.4]]), predictions=measured) == pytest.approx(0.5)
    assert estimated_accuracy(np.array([[1.0, 0.0]]), predictions=evidence().predictions) == 1.0


RECENT = {"recent": {"min_labels": 80, "max_loss": 0.02}}


def lately(*, champion_wrong: int, challenger_wrong: int, count: int = 200):
    """Answers to labelled recent inputs, all of class 0."""
    rows = np.arange(count)
    champion, challenger = (
        np.where((rows < wrong)[:, None], [0.1, 0.9], [0.9, 0.1]) for wrong in (champion_wrong, challenger_wrong)
    )
    return Shadow(("w1",), champion, challenger, np.zeros(count, np.int64))


def retrained(answers, *, before=range(10), now=range(10, 20), count=1000, **changes):
    """The decision about a model that is as good on the frozen test set."""
    one, other = evidence(before, count=count), evidence(now, count=count)
    return decide(one, other, policy=policy(**{**SHADOWED, **RECENT, **changes}), shadow=answers)


def test_a_gain_on_recent_windows_is_enough_where_the_test_set_rules_out_a_loss():
    better = lately(champion_wrong=60, challenger_wrong=10)
    decision = retrained(better)
    assert decision.promotes
    assert only(decision, "headline").numbers["gain"] == 0.0
    recent = only(decision, "recent")
    assert recent.numbers["gain"] == pytest.approx(0.25)
    assert recent.numbers["labelled"] == 200
    assert recent.found.startswith("accuracy 0.9500 against 0.7000, gain +0.2500 (+0.")
    assert not retrained(better, recent=None).promotes


def test_a_gain_on_recent_windows_that_chance_explains_is_not_enough():
    decision = retrained(lately(champion_wrong=12, challenger_wrong=10))
    assert not decision.promotes
    assert not only(decision, "recent").passes


def test_a_loss_on_the_test_set_that_is_not_ruled_out_stops_it_although_recent_windows_gained():
    better = lately(champion_wrong=60, challenger_wrong=10)
    decision = retrained(better, now=range(10, 45), slices__allowance=0.9)
    assert not decision.promotes
    headline = only(decision, "headline")
    assert headline.numbers["low"] < -0.02
    assert headline.needed.endswith("; or better on recent windows, and here surely no loss of more than 0.02")
    few = retrained(better, before=range(2), now=range(2, 4), count=100)  # as good, and too few to be sure
    assert not few.promotes


def test_too_few_labels_are_no_gain_and_say_so():
    decision = retrained(lately(champion_wrong=30, challenger_wrong=0, count=60))
    assert not decision.promotes
    assert only(decision, "recent").found == "60 labelled recent inputs, too few to prefer the challenger for"
    assert only(retrained(None), "recent").numbers == {"labelled": 0}


def test_a_model_that_the_test_set_prefers_needs_no_recent_labels():
    decision = retrained(None, before=range(200), now=range(2))
    assert decision.promotes
    assert reasons(decision, "recent") == []
