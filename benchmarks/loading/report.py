"""Tables of results, and the figures that are held to a bar."""

import statistics
from collections.abc import Callable, Sequence

from benchmarks.loading.measure import MIB, Result
from benchmarks.pipeline import Figure


def finished(results: Sequence[Result], *, role: str) -> list[Result]:
    """Those of a role that did all of the work."""
    return [one for one in results if one.role == role and one.fault is None and one.values]


def ours(results: Sequence[Result]) -> Result | None:
    return next(iter(finished(results, role="ours")), None)


def ratios(one: Result, other: Result) -> list[float]:
    """How many times ``other`` goes into ``one``, for each round that both took part in."""
    return [a / b for a, b in zip(one.values, other.values, strict=False)]


def best(results: Sequence[Result], *, role: str, of: Callable[[Sequence[Result]], Result]) -> Result | None:
    """The best of a role, as ``of`` chooses."""
    return of(found) if (found := finished(results, role=role)) else None


def fastest(results: Sequence[Result]) -> Result:
    return max(results, key=lambda one: one.median)


def quickest(results: Sequence[Result]) -> Result:
    return min(results, key=lambda one: one.median)


def leanest(results: Sequence[Result]) -> Result:
    return min(results, key=peak)


def peak(result: Result) -> float:
    """Median over the rounds of the peak memory."""
    return statistics.median(result.peak_bytes)


def table(title: str, results: Sequence[Result], *, word: str, is_rate: bool = True) -> str:
    """One line for each contender, the best first; those that failed at the end, with the reason."""
    base = ours(results)
    done = [one for one in results if one.fault is None and one.values]
    done.sort(key=lambda one: one.median, reverse=is_rate)
    lines = ["", title, f"  {'':25} {word:>12} {'range':>25} {'datamill is':>24} {'PSS MiB':>9}"]
    for one in done:
        span = f"{min(one.values):,.4g} to {max(one.values):,.4g}"
        memory = f"{peak(one) / MIB:,.0f}" if any(one.peak_bytes) else ""
        name = one.name if one.role in ("ours", "peer") else f"{one.name} ({one.role})"
        lines.append(f"  {name:25} {one.median:>12,.4g} {span:>25} {_times(base, one, is_rate):>24} {memory:>9}")
    lines += [f"  {one.name:25} {one.fault}" for one in results if one.fault is not None]
    return "\n".join(lines)


def _times(base: Result | None, one: Result, is_rate: bool) -> str:
    if base is None or base is one:
        return ""
    times = ratios(base, one) if is_rate else ratios(one, base)
    return f"{statistics.median(times):.2f}x ({min(times):.2f} to {max(times):.2f})"


def against(
    label: str, base: Result | None, other: Result | None, *, bar: float, at_most: bool = False
) -> list[Figure]:
    """The median over the rounds of what ``base`` is of ``other``, beside its bar.

    A figure that cannot be had misses its bar when datamill failed, and is left out when nobody else took part.
    """
    if other is None:
        return []
    value = statistics.median(ratios(base, other)) if base is not None else float("nan")
    return [Figure(f"{label} ({other.name})", value, bar, at_most=at_most)]


def memory_figure(label: str, results: Sequence[Result]) -> list[Figure]:
    """Peak memory of datamill as a multiple of the peer's that needs the least."""
    base, other = ours(results), best(results, role="peer", of=leanest)
    if other is None:
        return []
    value = peak(base) / peak(other) if base is not None else float("nan")
    return [Figure(f"{label}: memory / least peer ({other.name})", value, 1.2, at_most=True)]


def verdict(figure: Figure) -> str:
    """One line: ok or MISSED, the figure, its bar."""
    sign = "<=" if figure.at_most else ">="
    return f"{'ok' if figure.holds else 'MISSED':7}{figure.name} {figure.value:.3g} ({sign} {figure.bar:g})"
