import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamill.diagnosis import Finding, Thresholds, diagnose_run
from datamill.diagnosis.report import render_report, tell, verdict
from datamill.training.history import EpochResult

THRESHOLDS = Thresholds(
    max_accuracy_gap=0.05,
    max_loss_rise=0.25,
    min_train_accuracy=0.9,
    min_gradient_norm=0.0001,
    max_gradient_growth=10,
    max_halfway_share=0.4,
    max_validation_noise=0.2,
    max_late_improvement=0.05,
    max_loading_share=0.3,
)
TIMES = {"seconds": 12.5, "epochs": 10, "samples_per_s": 960.0, "loading_share": 0.1, "step_ms_median": 8.25}


def sound(num_epochs: int = 10) -> list[EpochResult]:
    """A run that falls fast and settles: nothing to find."""
    return [
        EpochResult(
            epoch=number,
            train_loss=0.1 + 0.5**number,
            validation_loss=0.12 + 0.5**number,
            train_accuracy=0.97,
            validation_accuracy=0.96,
            learning_rate=0.001,
            gradient_norm=1.0,
        )
        for number in range(1, num_epochs + 1)
    ]


def losses(*values: float) -> list[EpochResult]:
    return [replace(sound(1)[0], epoch=number, validation_loss=value) for number, value in enumerate(values, start=1)]


def found(history: list[EpochResult], times: dict[str, float] | None = None) -> dict[str, Finding]:
    return {finding.name: finding for finding in diagnose_run(history, times=times, thresholds=THRESHOLDS)}


def test_nothing_is_found_in_a_sound_run() -> None:
    assert {finding.severity for finding in found(sound(), TIMES).values()} == {"ok"}
    assert not any(finding.action for finding in found(sound(), TIMES).values())


def test_every_check_shows_its_numbers() -> None:
    assert set(found(sound(), TIMES)) == {
        "non_finite",
        "underfitting",
        "vanishing_gradients",
        "exploding_gradients",
        "slow_convergence",
        "overfitting",
        "noisy_validation",
        "stopped_too_early",
        "slow_loading",
    }
    assert found(sound())["overfitting"].evidence["accuracy_gap"] == pytest.approx(0.01)


def test_a_loss_that_is_not_finite_is_critical_and_the_only_finding() -> None:
    history = sound()
    history[6] = replace(history[6], train_loss=math.nan)
    history[7] = replace(history[7], train_loss=math.inf)
    (finding,) = diagnose_run(history, times=None, thresholds=THRESHOLDS)
    assert (finding.name, finding.severity) == ("non_finite", "critical")
    assert finding.evidence == {"first_epoch": 7, "epochs": 2}
    assert finding.summary == "train_loss is not finite from epoch 7 on"


def test_a_gap_between_training_and_validation_is_overfitting() -> None:
    history = [replace(result, validation_accuracy=0.9) for result in sound()]
    assert found(history)["overfitting"].severity == "warning"
    assert found(history)["overfitting"].evidence["accuracy_gap"] == pytest.approx(0.07)


def test_a_validation_loss_that_rises_again_is_overfitting() -> None:
    finding = found(losses(0.9, 0.5, 0.4, 0.4, 0.45, 0.5, 0.55, 0.6))["overfitting"]
    assert finding.severity == "warning"
    assert finding.evidence["loss_rise"] == pytest.approx(0.5)


def test_low_training_accuracy_is_underfitting() -> None:
    finding = found([replace(result, train_accuracy=0.6) for result in sound()])["underfitting"]
    assert finding.severity == "warning"
    assert "0.600" in finding.summary
    assert "train.network.width" in finding.action


def test_small_gradients_vanish_only_while_there_is_much_to_learn() -> None:
    small = [replace(result, gradient_norm=1e-6) for result in sound()]
    assert found(small)["vanishing_gradients"].severity == "ok"
    stuck = [replace(result, train_accuracy=0.4) for result in small]
    assert found(stuck)["vanishing_gradients"].severity == "warning"


def test_an_epoch_of_huge_gradients_explodes() -> None:
    history = sound()
    history[3] = replace(history[3], gradient_norm=50.0)
    assert found(history)["exploding_gradients"].severity == "warning"
    assert found(history)["exploding_gradients"].evidence["growth"] == 50.0


def test_a_loss_that_falls_late_is_slow_convergence() -> None:
    history = [replace(result, train_loss=1.0 if result.epoch < 8 else 0.2) for result in sound()]
    finding = found(history)["slow_convergence"]
    assert (finding.severity, finding.evidence["halfway_epoch"]) == ("note", 8)


def test_zigzag_is_noise_and_a_trend_is_not() -> None:
    assert found(losses(1.0, 0.8, 0.4, 0.9, 0.4, 0.9, 0.4, 0.9))["noisy_validation"].severity == "note"
    steady = found(losses(1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3))["noisy_validation"]
    assert steady.evidence["noise"] == pytest.approx(0, abs=1e-12)


def test_a_loss_still_falling_at_the_end_stopped_too_early() -> None:
    finding = found(losses(1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.25, 0.2))["stopped_too_early"]
    assert finding.severity == "note"
    assert finding.evidence["late_improvement"] == pytest.approx(1 - 0.2 / 0.3)


def test_waiting_for_data_is_found_and_marked_as_timing() -> None:
    finding = found(sound(), TIMES | {"loading_share": 0.5})["slow_loading"]
    assert (finding.severity, finding.is_timing) == ("note", True)
    assert finding.summary.startswith("50% of training time was spent waiting for batches")


def test_without_durations_loading_is_not_checked() -> None:
    assert "slow_loading" not in found(sound(), None)


def test_without_validation_that_is_said() -> None:
    history = [replace(result, validation_loss=None, validation_accuracy=None) for result in sound()]
    assert found(history)["no_validation"].severity == "note"
    assert "overfitting" not in found(history)


def test_a_short_run_is_judged_by_what_it_has() -> None:
    assert set(found(sound(1))) == {
        "non_finite",
        "underfitting",
        "vanishing_gradients",
        "exploding_gradients",
        "overfitting",
    }


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(
        st.tuples(*[st.floats(0, 1e6)] * 2, *[st.floats(0, 1)] * 2, st.floats(0, 1e6)), min_size=1, max_size=12
    )
)
def test_evidence_is_always_finite_and_the_worst_comes_first(values: list[tuple[float, ...]]) -> None:
    history = [EpochResult(n, v[0], v[1], v[2], v[3], 0.1, v[4]) for n, v in enumerate(values, start=1)]
    findings = diagnose_run(history, times=TIMES, thresholds=THRESHOLDS)
    assert all(math.isfinite(number) for finding in findings for number in finding.evidence.values())
    ranks = [("critical", "warning", "note", "ok").index(finding.severity) for finding in findings]
    assert ranks == sorted(ranks)


def test_the_report_starts_with_its_verdict_and_says_what_to_do() -> None:
    history = [replace(result, train_accuracy=0.6) for result in sound()]
    findings = diagnose_run(history, times=TIMES, thresholds=THRESHOLDS)
    lines = render_report(findings, history=history, times=TIMES).splitlines()
    assert lines[:3] == ["# Training diagnosis", "", "**The run finished, with 1 warning:** underfitting."]
    assert lines[4] == "## What to do next"
    assert "10 epochs in 12.5 s, 960 samples/s; a step took 8.2 ms (median), 10% of it loading." in lines


def test_verdicts_follow_the_worst_finding() -> None:
    def of(severity: str) -> str:
        return verdict([Finding("x", severity, "", {})])  # type: ignore[arg-type]

    assert of("critical") == "**The run is broken.** Its network should not be used."
    assert of("note") == "**The run is sound**, with 1 remark."
    assert of("ok") == "**The run is sound.** Nothing was found in any check."


def test_the_report_says_when_durations_are_missing() -> None:
    findings = diagnose_run(sound(), times=None, thresholds=THRESHOLDS)
    assert "so loading was not checked." in render_report(findings, history=sound(), times=None)


def test_the_verdict_and_every_warning_are_told_in_plain_lines() -> None:
    assert tell(list(found(sound()).values())) == ["The run is sound. Nothing was found in any check."]
    warned = [replace(found(sound())["overfitting"], severity="warning", summary="it gapes", action="Add data.")]
    assert tell(warned) == ["The run finished, with 1 warning: overfitting.", "overfitting: it gapes. Add data."]
