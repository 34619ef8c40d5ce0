"""One window against the reference, from the clearest drift to the oddest input."""

import dataclasses
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from datamill.drift import Control, Observations, Outcome, Verdict, backends, judge, judge_labels
from datamill.drift.observations import take
from tests.datamill.drift.made import any_effect, observations, only, params

NOW = datetime(2026, 3, 1, tzinfo=UTC)
REFERENCE = observations(2_000)


def verdict(window: Observations, *, reference: Observations = REFERENCE, **changes: Any) -> Verdict:
    return judge(reference, window, params=params(**changes), control=Control(), now=NOW)[0]


def drifted(found: Verdict) -> set[tuple[str, str, str]]:
    return {(one.kind, one.detector, one.subject) for one in found.outcomes if one.is_drift}


def outcome(found: Verdict, kind: str, detector: str, subject: str = "") -> Outcome:
    (one,) = [one for one in found.outcomes if (one.kind, one.detector, one.subject) == (kind, detector, subject)]
    return one


def test_a_window_like_the_reference_is_no_drift() -> None:
    found = verdict(observations(500, seed=1))
    assert drifted(found) == set()
    assert (found.is_drift, found.is_at_risk, found.notes) == (False, False, ())
    assert {one.kind for one in found.outcomes} == {"quality", "input", "embedding", "prediction", "label", "concept"}


def test_a_moved_number_is_named_with_its_size_and_examples() -> None:
    found = verdict(observations(500, seed=1, move=0.5))
    one = outcome(found, "input", "ks", "size")
    assert one.is_drift
    assert one.effect == pytest.approx(0.5, abs=0.1)
    assert one.detail["mean_after"] - one.detail["mean_before"] == pytest.approx(0.5, abs=0.1)
    assert sum(one.detail["after"]) == pytest.approx(1.0)
    assert one.detail["grown"] == 9
    assert len(one.detail["examples"]) == 3
    assert not outcome(found, "input", "ks", "weight").is_drift
    assert outcome(found, "embedding", "mmd").is_drift


def test_a_moved_category_is_named_with_the_value_that_grew() -> None:
    window = observations(500, seed=1, colours=(0.2, 0.3, 0.5))
    found = verdict(window)
    one = outcome(found, "input", "chi2", "colour")
    assert (one.is_drift, one.detail["grown"], one.detail["values"]) == (True, "blue", ["red", "green", "blue"])
    colour = dict(zip(window.sample_ids, window.features["colour"].to_pylist(), strict=True))
    assert [colour[key] for key in one.detail["examples"]] == ["blue"] * 3
    assert found.slices[0].name == "colour = blue"
    assert (found.slices[0].reference_share, found.slices[0].window_share) == (0.202, 0.5)


def test_a_model_that_hesitates_is_at_risk_without_any_label() -> None:
    window = dataclasses.replace(observations(500, seed=1, accuracy=0.7), labels=None)
    found = verdict(window)
    assert found.performance is not None
    assert found.performance.estimated == pytest.approx(0.7, abs=0.06)
    assert (found.performance.is_measured, found.is_at_risk) == (False, True)
    assert "prediction" in {kind for kind, _, _ in drifted(found)}


def test_a_class_that_is_no_longer_predicted_is_named_with_its_shares() -> None:
    window = observations(600, seed=1)
    assert window.probabilities is not None
    rows = np.flatnonzero(window.probabilities.argmax(axis=1) != 2)
    found = verdict(take(window, rows), detectors=only(prediction=("fet",)))
    one = outcome(found, "prediction", "fet", "shirt")
    assert (one.is_drift, one.detail["after"]) == (True, 0.0)
    assert one.detail["before"] == pytest.approx(1 / 3, abs=0.05)
    assert "predicted = shirt" in {found.name for found in found.slices}


def test_with_labels_performance_is_measured_and_concept_is_told_from_inputs() -> None:
    window = observations(600, seed=1)
    assert window.labels is not None
    wrong = np.random.default_rng(0).random(600) < 0.3
    window = dataclasses.replace(window, labels=np.where(wrong, (window.labels + 1) % 3, window.labels))
    found = verdict(window)
    assert found.performance is not None
    assert (found.performance.is_measured, found.is_at_risk) == (True, True)
    assert drifted(found) == {("concept", "residual", "")}
    assert len(outcome(found, "concept", "residual").detail["examples"]) == 3


def test_shifted_class_shares_are_label_drift() -> None:
    window = observations(600, seed=1)
    assert window.labels is not None
    window = dataclasses.replace(window, labels=np.where(window.labels == 0, 1, window.labels))
    one = outcome(verdict(window), "label", "chi2")
    assert (one.is_drift, one.detail["grown"]) == (True, "coat")


def test_equal_arguments_give_equal_verdicts() -> None:
    window = observations(300, seed=1, move=0.3)
    first, second = verdict(window), verdict(window)
    assert json.dumps(dataclasses.asdict(first)) == json.dumps(dataclasses.asdict(second))


def test_a_verdict_is_json() -> None:
    window = observations(300, seed=1, move=0.3, colours=(0.2, 0.2, 0.6), accuracy=0.7)
    assert json.loads(json.dumps(dataclasses.asdict(verdict(window)), allow_nan=False))["num_samples"] == 300


def test_an_empty_window_is_said_to_be_empty_and_costs_nothing() -> None:
    found, control = judge(REFERENCE, observations(0), params=params(), control=Control(), now=NOW)
    assert (found.outcomes, found.is_drift) == ((), False)
    assert found.notes == ("nothing to compare: 0 samples in the window, 2000 in the reference",)
    assert (control.num_windows, control.spent) == (0, 0.0)


def test_one_row_is_checked_and_not_tested() -> None:
    found = verdict(observations(1, seed=1))
    assert {one.kind for one in found.outcomes} == {"quality"}
    assert not found.is_drift
    assert "1 samples in the window: fewer than 20, so that no test was made" in found.notes


def test_only_nan_is_broken_data_and_no_test_fails_over_it() -> None:
    window = observations(100, seed=1)
    features = pa.table(
        {"size": np.full(100, np.nan), "weight": pa.nulls(100, pa.float64()), "colour": pa.nulls(100, pa.string())}
    )
    nan = np.full((100, 4), np.nan, np.float32)
    window = dataclasses.replace(window, features=features, embeddings=nan, probabilities=nan[:, :3])
    found = verdict(window, detectors={"joint": ["mmd", "novelty"], "embedding": ["mmd", "novelty"]})
    assert {
        ("quality", "non_finite", "size"),
        ("quality", "null_share", "weight"),
        ("quality", "null_share", "colour"),
        ("quality", "non_finite", "(embeddings)"),
        ("quality", "non_finite", "(probabilities)"),
    } <= drifted(found)
    assert found.performance is None


def test_an_unknown_class_is_data_quality() -> None:
    window = observations(200, seed=1)
    assert window.labels is not None
    window.labels[:20] = -2
    one = outcome(verdict(window), "quality", "unknown_class")
    assert (one.is_drift, one.detail["examples"]) == (True, ["1-0", "1-1", "1-2"])


def test_a_new_schema_is_drift_and_what_is_left_is_still_compared() -> None:
    window = observations(300, seed=1)
    features = window.features.drop_columns(["weight"]).append_column("height", pa.array(np.ones(300)))
    found = verdict(dataclasses.replace(window, features=features))
    assert drifted(found) == {("quality", "schema", "weight"), ("quality", "schema", "height")}
    assert outcome(found, "input", "ks", "size").p_value is not None


def test_a_reference_from_another_model_is_told_and_not_compared() -> None:
    window = dataclasses.replace(observations(200, seed=1), classes=("boot", "coat", "hat"))
    found = verdict(window)
    assert ("quality", "schema", "(classes)") in drifted(found)
    assert {"prediction", "label", "concept"}.isdisjoint({one.kind for one in found.outcomes})
    assert found.performance is None
    assert any("of other classes" in note for note in found.notes)


def test_features_alone_are_enough() -> None:
    sides = [Observations(one.sample_ids, one.features) for one in (REFERENCE, observations(300, seed=1, move=0.5))]
    found = verdict(sides[1], reference=sides[0])
    assert ("input", "ks", "size") in drifted(found)
    assert found.performance is None
    assert len(found.notes) == 3


def test_nothing_but_embeddings_is_enough() -> None:
    sides = [
        Observations(one.sample_ids, pa.table({}), embeddings=one.embeddings)
        for one in (REFERENCE, observations(300, seed=1, move=0.5))
    ]
    assert drifted(verdict(sides[1], reference=sides[0])) == {("embedding", "mmd", "")}


def test_seasons_are_compared_with_their_like() -> None:
    night = np.asarray(REFERENCE.times).astype("datetime64[h]").astype(int) % 24 < 6
    moved = REFERENCE.features.set_column(
        0, "size", pa.array(np.where(night, 3.0, 0.0) + REFERENCE.features["size"].to_numpy())
    )
    reference = dataclasses.replace(REFERENCE, features=moved)
    rows = np.flatnonzero(night)[::2]
    window = dataclasses.replace(
        observations(len(rows), seed=1, move=3.0), times=np.asarray(REFERENCE.times)[rows], embeddings=None
    )
    changes = {"detectors": only(numbers=("ks",))}
    assert ("input", "ks", "size") in drifted(verdict(window, reference=reference, **changes))
    matched = verdict(window, reference=reference, seasonality="hour", **changes)
    assert drifted(matched) == set()
    assert matched.num_reference < 600


def test_a_season_that_the_reference_hardly_has_is_said_so() -> None:
    window = dataclasses.replace(observations(100, seed=1), times=np.full(100, np.datetime64("NaT", "us")))
    assert "no times" in verdict(window, seasonality="hour").notes[0]
    short = observations(60)
    assert "fewer than 50" in verdict(observations(100, seed=1), reference=short, seasonality="weekday").notes[0]


def test_control_is_charged_for_a_window_and_time_going_back_is_borne() -> None:
    control = Control()
    chosen = params(false_alarms_per_month=1.0, windows_per_month=100, detectors=only(numbers=("ks",)))
    for step, day in enumerate((0, 1, -400, 2)):
        found, control = judge(
            REFERENCE, observations(100, seed=step), params=chosen, control=control, now=NOW + timedelta(days=day)
        )
        assert found.level == pytest.approx(0.9 * 0.35536 / 100, rel=1e-3)
    assert (control.num_windows, control.last) == (1, NOW + timedelta(days=2))  # 402 days after the one before
    assert Control.model_validate_json(control.model_dump_json()) == control


def test_drift_too_small_to_matter_is_none() -> None:
    window = observations(2_000, seed=1, move=0.15)
    changes = {"detectors": only(numbers=("ks",))}
    assert drifted(verdict(window, min_effect=any_effect(), **changes)) == {("input", "ks", "size")}
    assert drifted(verdict(window, min_effect={"wasserstein": 0.3}, **changes)) == set()


def test_a_detector_that_is_not_there_is_left_out_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "is_alibi_installed", lambda: False)
    found = verdict(observations(100, seed=1), backend="auto", detectors=only(embedding=("lsdd", "mmd")))
    assert [one.detector for one in found.outcomes if one.kind == "embedding"] == ["mmd"]
    assert any("'lsdd'" in note for note in found.notes)


@pytest.mark.slow
def test_alibi_judges_as_native_does() -> None:
    pytest.importorskip("alibi_detect")
    window = observations(300, seed=1, move=0.5, colours=(0.2, 0.3, 0.5))
    left, right = (verdict(window, backend=backend) for backend in ("native", "alibi"))
    assert drifted(left) == drifted(right)
    assert outcome(right, "input", "ks", "size").backend == "alibi"
    assert outcome(right, "input", "ks", "size").p_value == pytest.approx(
        outcome(left, "input", "ks", "size").p_value, rel=1e-4
    )


def later(num: int = 300, *, accuracy: float = 0.9, shift: int = 0) -> Observations:
    """Labels that came later: no features."""
    whole = observations(num, seed=5, accuracy=0.9)
    assert whole.labels is not None
    is_wrong = np.random.default_rng(0).random(num) > accuracy / 0.9
    labels = np.where(is_wrong, (whole.labels + 1) % 3, whole.labels)
    labels = np.where(np.arange(num) < shift, 0, labels)
    return dataclasses.replace(whole, features=pa.table({}), embeddings=None, labels=labels)


def labels_verdict(window: Observations, control: Control | None = None) -> Verdict:
    return judge_labels(REFERENCE, window, params=params(), control=control or Control(), now=NOW)[0]


def test_labels_that_come_later_are_judged_by_class_concept_and_true_performance() -> None:
    calm = labels_verdict(later())
    assert drifted(calm) == set()
    assert {one.kind for one in calm.outcomes} == {"quality", "label", "concept"}
    assert calm.performance is not None
    assert calm.performance.is_measured
    worse = labels_verdict(later(accuracy=0.6))
    assert worse.is_at_risk
    assert ("concept", "residual", "") in drifted(worse)
    moved = labels_verdict(later(shift=200))
    assert ("label", "chi2", "") in drifted(moved)


def test_labels_verdicts_spend_the_months_allowance_as_windows_do() -> None:
    strict = params(false_alarms_per_month=1.0, windows_per_month=30)
    verdict, control = judge_labels(REFERENCE, later(), params=strict, control=Control(), now=NOW)
    assert (control.num_windows, control.spent) == (1, verdict.level)
    assert verdict.level < 0.02


def test_unknown_classes_among_late_labels_are_a_fault_of_the_data() -> None:
    window = later()
    assert window.labels is not None
    labels = np.where(np.arange(len(window)) < 100, -2, window.labels)
    assert ("quality", "unknown_class", "") in drifted(labels_verdict(dataclasses.replace(window, labels=labels)))
