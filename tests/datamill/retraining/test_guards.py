import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from datamill.retraining import RetrainParams
from datamill.retraining.guards import State, causes, decide, revive
from tests.verdicts import AT_RISK, CALM, HOUR, MOVED, START, outcome, verdict


def retrain_params(**changes):
    values = {
        "is_enabled": True,
        "at_risk": True,
        "kinds": ["prediction", "label", "concept"],
        "thresholds": {"wasserstein": 0.3},
        "refuse_on": ["schema"],
        "cooldown_h": 24,
        "min_new_samples": 100,
        "max_trainings": 2,
        "period_days": 7,
        "start_within_h": 2,
        "include": None,
    }
    return RetrainParams.model_validate(values | changes)


class Watch:
    """Windows one after the other."""

    def __init__(self, **changes):
        self.params = retrain_params(**changes)
        self.state = State()
        self.is_training = False

    def see(self, seen, *, hours, num_new=100, window=""):
        decision, self.state = decide(
            self.state,
            verdict=seen,
            num_new=num_new,
            window=window,
            now=START + hours * HOUR,
            is_training=self.is_training,
            params=self.params,
        )
        return decision

    def end(self, how="finished"):
        last = self.state.requests[-1].model_copy(update={"ended": how})
        self.state = self.state.model_copy(update={"requests": (*self.state.requests[:-1], last)})


def test_performance_at_risk_asks_for_a_training_and_so_does_drift_above_the_threshold():
    seen = verdict(
        outcome("prediction", "", effect=0.4),
        outcome("label", "", effect=0.2),
        outcome("concept", "", effect=0.9, is_drift=False),
        outcome("input", "age", effect=0.9),
        outcome("prediction", "cat", effect=0.01, effect_name="psi"),
        is_at_risk=True,
    )
    assert causes(seen, params=retrain_params()) == (
        "performance is at risk",
        "prediction ks wasserstein 0.4",
        "prediction ks cat psi 0.01",
    )
    assert causes(seen, params=retrain_params(at_risk=False, kinds=[])) == ()
    assert causes(CALM, params=retrain_params()) == ()


def test_an_effect_that_is_no_number_is_no_large_one():
    seen = verdict(outcome("prediction", "", effect=math.nan))
    assert causes(seen, params=retrain_params()) == ()
    assert causes(seen, params=retrain_params(thresholds={})) == ("prediction ks wasserstein",)


def test_a_request_names_its_reasons_and_the_new_samples():
    watch = Watch()
    assert watch.see(CALM, hours=0, num_new=60).result == "not needed"
    decision = watch.see(AT_RISK, hours=1, num_new=50)
    assert decision.result == "requested"
    assert decision.request.num_new == 110
    assert decision.request.reasons == ("performance is at risk", "prediction ks wasserstein 0.5")
    assert watch.state.num_new == 0


def test_what_is_switched_off_asks_for_nothing():
    assert Watch(is_enabled=False).see(AT_RISK, hours=0).reasons == ("retraining is switched off",)


def test_every_guard_that_stands_against_it_is_told():
    watch = Watch(max_trainings=1)
    watch.see(AT_RISK, hours=0)
    watch.is_training = True
    broken = verdict(outcome("quality", "", detector="schema"), is_at_risk=True)
    decision = watch.see(broken, hours=1, num_new=10)
    assert decision.result == "refused"
    assert decision.reasons == (
        "a training is at work",
        "the training asked for at 2026-03-01 08:00 UTC has not begun",
        "cool-down: the latest was asked for 1 h ago, at least 24 h ask",
        "new data: 10 samples since the latest, at least 100 ask",
        "budget: 1 of 1 within 7 days are spent",
        "data quality: schema failed; mend the data first",
    )


@pytest.mark.parametrize(
    ("guard", "changes"),
    [
        ("cool-down", {"max_trainings": 9}),
        ("budget", {"cooldown_h": 0, "max_trainings": 1}),
    ],
)
def test_cooldown_and_budget_end_with_time(guard, changes):
    watch = Watch(**changes)
    watch.see(AT_RISK, hours=0)
    watch.end("failed")
    (reason,) = watch.see(AT_RISK, hours=23.9).reasons
    assert reason.startswith(guard)
    assert watch.see(AT_RISK, hours=7 * 24).result == "requested"


def test_new_data_adds_up_over_refusals():
    watch = Watch(min_new_samples=250)
    assert [watch.see(AT_RISK, hours=n).result for n in range(3)] == ["refused", "refused", "requested"]


def test_a_window_counts_once():
    watch = Watch(min_new_samples=150)
    assert watch.see(AT_RISK, hours=0, window="w0").result == "refused"
    assert watch.see(AT_RISK, hours=0, window="w0").result == "refused"
    assert watch.state.num_new == 100
    assert watch.see(AT_RISK, hours=0, window="w1").result == "requested"


def test_a_window_asks_once():
    watch = Watch(cooldown_h=0, min_new_samples=0, max_trainings=9)
    assert watch.see(AT_RISK, hours=0, window="w0").result == "requested"
    watch.end()
    assert watch.see(AT_RISK, hours=1, window="w0").reasons == ("window w0 has asked already",)
    assert watch.see(AT_RISK, hours=1, window="w1").result == "requested"


def test_a_request_that_no_training_takes_up_stands_in_the_way_for_a_while_only():
    watch = Watch(max_trainings=1)
    watch.see(AT_RISK, hours=0)
    assert watch.see(AT_RISK, hours=2).result == "refused"
    assert watch.see(AT_RISK, hours=2.1).result == "requested"
    assert [request.ended for request in watch.state.requests] == ["expired", "pending"]


def test_a_training_whose_process_died_does_not_stand_in_the_way():
    watch = Watch()
    watch.see(AT_RISK, hours=0)
    watch.end("started")
    assert watch.see(AT_RISK, hours=24).result == "requested"


def test_a_training_that_died_is_asked_for_again_but_not_for_ever():
    watch = Watch()
    watch.see(AT_RISK, hours=0)
    ids = []
    for attempt in range(3):
        watch.end("started")
        again = revive(watch.state, now=START + attempt * HOUR, is_training=True, params=watch.params)
        assert again == watch.state  # it may be the one that is at work
        watch.state = revive(watch.state, now=START + attempt * HOUR, is_training=False, params=watch.params)
        (request,) = watch.state.requests
        ids.append((request.ended, request.attempts, request.event_id))
    assert [one[:2] for one in ids] == [("pending", 1), ("pending", 2), ("failed", 2)]
    assert ids[0][2] != ids[1][2]


def test_a_request_that_nobody_took_up_is_told_again_then_given_up():
    watch = Watch()
    watch.see(AT_RISK, hours=0)
    seen = []
    for hours in (2, 3, 4, 5.1, 8):
        watch.state = revive(watch.state, now=START + hours * HOUR, is_training=False, params=watch.params)
        (request,) = watch.state.requests
        seen.append((request.ended, request.attempts))
    assert seen == [("pending", 0), ("pending", 1), ("pending", 1), ("pending", 2), ("expired", 2)]


def test_a_clock_that_jumps_back_shortens_no_guard_and_blocks_for_no_longer_than_they_do():
    watch = Watch()
    watch.see(AT_RISK, hours=10_000)
    watch.end()
    assert watch.see(AT_RISK, hours=0).result == "refused"
    assert watch.see(AT_RISK, hours=23).result == "refused"
    assert watch.see(AT_RISK, hours=24).result == "requested"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kinds": ["predictions"]}, "kinds \\['predictions'\\] do not exist; there are quality, input"),
        ({"include": {"watched": "in", "into": "in/side"}}, "one lies in the other"),
        ({"max_trainings": 0}, "greater than or equal to 1"),
    ],
)
def test_wrong_parameters_are_told(changes, message):
    with pytest.raises(ValidationError, match=message):
        retrain_params(**changes)


steps = st.lists(
    st.tuples(
        st.sampled_from([AT_RISK, AT_RISK, AT_RISK, MOVED, CALM]),
        st.floats(-20, 60),  # hours; negative where the clock jumps back
        st.integers(50, 200),
        st.sampled_from(["", "started", "finished", "failed"]),  # what became of the latest request
        st.sampled_from([False, False, True]),
    ),
    max_size=40,
)


@given(steps=steps)
def test_whatever_happens_no_guard_is_passed(steps):
    watch, hours = Watch(), 0.0
    for seen, elapsed, num_new, ended, is_training in steps:
        hours += elapsed
        if ended and watch.state.requests and watch.state.requests[-1].ended == "pending":
            watch.end(ended)
        watch.is_training = is_training
        decision = watch.see(seen, hours=hours, num_new=num_new)
        if decision.result == "requested":
            counted = [one for one in watch.state.requests[:-1] if one.ended != "expired"]
            assert not is_training
            assert seen is AT_RISK
            assert decision.request.num_new >= 100
            assert all(one.ended != "pending" for one in counted)
            ages = [START + hours * HOUR - one.at for one in counted]
            assert min(ages, default=timedelta(days=99)) >= timedelta(hours=24)
            assert sum(age < timedelta(days=7) for age in ages) < 2
        assert State.model_validate_json(watch.state.model_dump_json()) == watch.state
