import math

from datamill.alerts.alert import read_verdict
from tests.verdicts import AT_RISK, CALM, MOVED, outcome, reading, verdict


def alerts(seen, **more):
    return {alert.topic: alert for alert in reading(seen, window="w1", **more).alerts}


def test_only_performance_at_risk_is_a_page():
    assert {topic: alert.severity for topic, alert in alerts(AT_RISK).items()} == {
        "input": "notice",
        "prediction": "notice",
        "performance-at-risk": "page",
    }


def test_the_page_comes_first():
    assert next(iter(alerts(AT_RISK))) == "performance-at-risk"


def test_nothing_is_wrong_with_a_calm_window():
    assert alerts(CALM) == {}


def test_which_of_many_features_moved_makes_no_other_alert():
    one = verdict(*(outcome(subject=f"f{n}", is_drift=n in {3, 5}) for n in range(64)))
    other = verdict(*(outcome(subject=f"f{n}", is_drift=n in {8, 60, 61}) for n in range(64)))
    (first,), (second,) = alerts(one).values(), alerts(other).values()
    assert first.fingerprint == second.fingerprint
    assert [evidence.subject for evidence in first.evidence] == ["f3", "f5"]
    assert (second.num_moved, second.num_tested) == (3, 64)


def test_fingerprints_differ_by_topic_model_and_workspace():
    input_, prediction, at_risk = (
        alerts(AT_RISK)[topic].fingerprint for topic in ("input", "prediction", "performance-at-risk")
    )
    other_model = alerts(AT_RISK, model="champion-2")["input"].fingerprint
    elsewhere = (
        read_verdict(AT_RISK, workspace="birds", model="champion-1", window="w1", links={}).alerts[0].fingerprint
    )
    assert len({input_, prediction, at_risk, other_model, elsewhere}) == 5


def test_each_check_of_quality_is_a_topic_of_its_own():
    seen = verdict(
        outcome("quality", "age", detector="null_share", p_value=None),
        outcome("quality", "size", detector="null_share", p_value=None),
        outcome("quality", "", detector="schema", p_value=None),
    )
    assert {topic: alert.num_moved for topic, alert in alerts(seen).items()} == {
        "quality/null_share": 2,
        "quality/schema": 1,
    }


def test_evidence_begins_with_the_largest_effect_and_is_bounded():
    seen = verdict(*(outcome(subject=f"f{n}", effect=(-1) ** n * n / 100) for n in range(64)))
    alert = alerts(seen)["input"]
    assert [evidence.subject for evidence in alert.evidence] == [f"f{n}" for n in range(63, 53, -1)]
    assert alert.num_moved == 64


def test_numbers_that_are_not_finite_become_unknown():
    evidence = alerts(verdict(outcome(effect=math.inf, p_value=math.nan)))["input"].evidence[0]
    assert (evidence.effect, evidence.p_value) == (None, None)


def test_what_could_not_be_judged_is_not_judged():
    seen = reading(verdict(outcome(is_drift=False), is_at_risk=None), window="w1")
    assert seen.is_judged("input")
    assert not seen.is_judged("performance-at-risk")
    assert not seen.is_judged("embedding")


def test_a_check_of_quality_that_says_nothing_found_nothing_unless_the_window_is_empty():
    assert reading(MOVED, window="w1").is_judged("quality/schema")
    assert not reading(verdict(is_at_risk=None, num_samples=0), window="w1").is_judged("quality/schema")
