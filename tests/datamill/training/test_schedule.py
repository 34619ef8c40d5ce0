import pytest

from datamill.training.schedule import learning_rate


def course(num_steps: int, *, warmup_share: float) -> list[float]:
    return [learning_rate(s, num_steps=num_steps, peak=2.0, warmup_share=warmup_share) for s in range(num_steps)]


def test_the_rate_rises_to_its_peak_and_falls_along_a_cosine() -> None:
    assert course(8, warmup_share=0.5) == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0, 1.7071068, 1.0, 0.2928932])


def test_without_warm_up_the_first_step_is_at_the_peak() -> None:
    assert course(4, warmup_share=0)[0] == 2.0


def test_one_step_is_enough_for_a_run() -> None:
    assert course(1, warmup_share=0.9) == [2.0]
