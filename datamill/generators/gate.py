"""The admission gate: which generated points are new, and whether a class's points look like the class.

Source: M. Naeem et al., "Reliable Fidelity and Diversity Metrics for Generative Models", 2020 (density, coverage).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCK_VALUES = 4_000_000  # distances held at a time: 32 MB
TYPICAL_ROWS = 500  # training points, in random order, from whose neighbours the typical distance is told


@dataclass(frozen=True)
class Rules:
    """What a class's candidates must reach.

    Attributes:
        num_neighbors: Neighbours that span the ball around a real point (count).
        min_density: Least density; real points reach about 1.
        min_coverage: Least coverage, as a share of what equally many real points would reach.
        near_copy_ratio: A candidate nearer to a training point than this share of the typical distance between
            neighbouring training points is a near copy.
        reject_outside: Reject candidates in no real point's ball one by one.
    """

    num_neighbors: int
    min_density: float
    min_coverage: float
    near_copy_ratio: float
    reject_outside: bool


@dataclass(frozen=True)
class Verdict:
    """The gate's answer for one class.

    Attributes:
        reasons: Why each candidate stays out, ``""`` for the admitted ones; M of them.
        details: The numbers behind each reason.
        nearest: Position of the training point each candidate is nearest to, shape (M,).
        density: Of the candidates that are no copies; 0 where there are none.
        coverage: The same candidates' coverage.
        expected_coverage: What as many real points would reach on average.
    """

    reasons: list[str]
    details: list[str]
    nearest: NDArray[np.int64]
    density: float
    coverage: float
    expected_coverage: float


def min_rows(*, num_neighbors: int) -> int:
    """Fewest training points of a class that the gate can judge by: two halves with that many neighbours each."""
    return 2 * (num_neighbors + 1)


def judge(
    candidates: NDArray[np.float32],
    *,
    train: NDArray[np.float32],
    held_out: NDArray[np.float32],
    is_exact: NDArray[np.bool_],
    rules: Rules,
) -> Verdict:
    """Decide about one class's candidates.

    Copies are rejected first, so that a generator that only memorises cannot score with them. What is left is judged
    as a whole against points the generator has not seen.

    Args:
        candidates: Generated points, shape (M, D).
        train: All training points of the class, shape (N, D), at least two.
        held_out: Those the generator was not fitted on, shape (R, D), more than ``rules.num_neighbors``.
        is_exact: Candidates whose stored bytes equal a training sample or an earlier candidate, shape (M,).
        rules: What to ask for.
    """
    distance, nearest = nearest_neighbors(candidates, train)
    limit = rules.near_copy_ratio * float(np.median(neighbor_radii(train, num_neighbors=1, num_points=TYPICAL_ROWS)))
    is_copy = is_exact | (distance < limit)
    fresh = candidates[~is_copy]
    radii = neighbor_radii(held_out, num_neighbors=rules.num_neighbors)
    balls = np.zeros(len(candidates), np.int64)
    balls[~is_copy] = count_balls(fresh, held_out, radii=radii)
    density = float(balls[~is_copy].mean() / rules.num_neighbors) if len(fresh) else 0.0
    covered = coverage(fresh, held_out, radii=radii)
    expected = expected_coverage(num_real=len(held_out), num_generated=len(fresh), num_neighbors=rules.num_neighbors)
    whole = _judge_whole(density=density, covered=covered, expected=expected, rules=rules)
    pairs = [
        ("exact_copy", "equal to a training sample or to an earlier candidate")
        if is_exact[row]
        else ("near_copy", f"distance {distance[row]:.4g} to a training sample; the limit is {limit:.4g}")
        if is_copy[row]
        else whole
        if whole[0]
        else ("outside_support", f"in no held-out sample's ball of {rules.num_neighbors} neighbours")
        if rules.reject_outside and not balls[row]
        else ("", "")
        for row in range(len(candidates))
    ]
    return Verdict(
        reasons=[reason for reason, _ in pairs],
        details=[detail for _, detail in pairs],
        nearest=nearest,
        density=density,
        coverage=covered,
        expected_coverage=expected,
    )


def _judge_whole(*, density: float, covered: float, expected: float, rules: Rules) -> tuple[str, str]:
    """Reason and detail for which a class's candidates stay out together, or two empty strings."""
    if density < rules.min_density:
        return "low_density", f"the class's density is {density:.3f}, at least {rules.min_density:g} is asked for"
    needed = rules.min_coverage * expected
    if covered < needed:
        return "low_coverage", f"the class's coverage is {covered:.3f}, at least {needed:.3f} is asked for"
    return "", ""


def nearest_neighbors(
    points: NDArray[np.float32], others: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Distance to and position of the nearest of ``others`` for each point, shape (N,) each."""
    distance, nearest = np.zeros(len(points)), np.zeros(len(points), np.int64)
    for rows, block in _distances(points, others):
        nearest[rows] = block.argmin(axis=1)
        distance[rows] = block.min(axis=1)
    return distance, nearest


def neighbor_radii(
    points: NDArray[np.float32], *, num_neighbors: int, num_points: int | None = None
) -> NDArray[np.float64]:
    """Distance from each point, or the first ``num_points``, to its ``num_neighbors``-th nearest other point."""
    assert len(points) > num_neighbors, f"{len(points)} points have no {num_neighbors} neighbours each"
    starts = points[:num_points]
    radii = np.zeros(len(starts))
    for rows, block in _distances(starts, points):
        block[np.arange(len(block)), np.arange(rows.start, rows.start + len(block))] = -1  # itself comes first
        radii[rows] = np.partition(block, num_neighbors, axis=1)[:, num_neighbors]
    return radii


def count_balls(
    points: NDArray[np.float32], real: NDArray[np.float32], *, radii: NDArray[np.float64]
) -> NDArray[np.int64]:
    """How many real points' balls hold each point, shape (M,); their mean divided by k is the density."""
    balls = np.zeros(len(points), np.int64)
    for rows, block in _distances(points, real):
        balls[rows] = (block <= radii).sum(axis=1)
    return balls


def coverage(points: NDArray[np.float32], real: NDArray[np.float32], *, radii: NDArray[np.float64]) -> float:
    """Share of real points whose ball holds at least one of ``points``."""
    if not len(points):
        return 0.0
    return float((nearest_neighbors(real, points)[0] <= radii).mean())


def expected_coverage(*, num_real: int, num_generated: int, num_neighbors: int) -> float:
    """Coverage that real points would reach on average in place of the generated ones.

    A real point stays uncovered when its k nearest among all the others are real points: the chance of drawing k
    of the other ``num_real - 1`` first out of ``num_real - 1 + num_generated``.
    """
    places = np.arange(num_neighbors)
    return float(1 - np.prod((num_real - 1 - places) / (num_real - 1 + num_generated - places)))


def _distances(points: NDArray[np.float32], others: NDArray[np.float32]) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Euclidean distances block by block: which points, and theirs to all others, shape (B, len(others))."""
    centre = others.mean(axis=0, dtype=np.float64)  # near the origin the differences of squares keep their digits
    right = others - centre
    right_squares = (right**2).sum(axis=1)
    rows_per_block = max(1, BLOCK_VALUES // max(1, len(others)))
    for start in range(0, len(points), rows_per_block):
        left = points[start : start + rows_per_block] - centre
        squares = (left**2).sum(axis=1)[:, None] + right_squares - 2 * left @ right.T
        yield slice(start, start + len(left)), np.sqrt(np.maximum(squares, 0))
