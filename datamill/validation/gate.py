"""From findings to one verdict per sample, and to the decision whether the run may go on."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamill import parts
from datamill.errors import StageError
from datamill.fates import Fates
from datamill.validation.checking import Finding
from datamill.validation.rules import SEVERITIES

NUM_SOURCES = 5  # sources named per rule
NUM_LINES = 12  # rules named

Reject = tuple[str, str]  # source, reason


def judge(findings: Iterable[Finding], *, num_samples: int) -> Fates:
    """A verdict for every sample: quarantined by a critical rule, kept with the reason after a warning.

    Where several rules fail, the first of the heaviest severity is the reason and the others are in the detail.
    """
    fates = Fates(num_samples)
    for finding in sorted(findings, key=lambda one: SEVERITIES.index(one.rule.severity)):
        rule = finding.rule
        if rule.severity == "info":
            continue
        fates.decide(
            finding.rows,
            fate="quarantined" if rule.severity == "critical" else "kept",
            reason=rule.name,
            details=partial(_details, finding),
        )
    return fates


def share_bad(fates: Fates, *, rejects: Sequence[Reject]) -> float:
    """Quarantined samples and rejected items as a share of all items of the source."""
    num_items = len(fates) + len(rejects)
    return _num_bad(fates, rejects) / num_items if num_items else 0.0


def require_samples(num_samples: int, *, rejects: Sequence[Reject]) -> None:
    """Refuse a source of which nothing became a sample.

    Raises:
        StageError: There is no sample; the message says what ingest rejected.
    """
    if not num_samples:
        lines = "".join(f"\n  {line}" for line in _reject_lines(rejects)[:NUM_LINES])
        raise StageError(f"the source gave no sample, and {len(rejects):,} items that were rejected{lines}")


def read_sources(samples: Path, rows: NDArray[np.int64]) -> list[str]:
    """Source keys of a few samples, by row."""
    found: list[str] = []
    start = 0
    for table in parts.iter_tables(samples, columns=["source"]):
        here = rows[(rows >= start) & (rows < start + table.num_rows)] - start
        found += table["source"].take(pa.array(here)).to_pylist()
        start += table.num_rows
    return found


def check_gate(
    findings: Sequence[Finding],
    *,
    fates: Fates,
    sources: Callable[[NDArray[np.int64]], list[str]],
    rejects: Sequence[Reject],
    max_bad_share: float,
) -> None:
    """Let the run go on, or stop it with the rules, counts and sources that are to blame.

    Args:
        findings: What became of every rule.
        fates: Verdict of each sample.
        sources: Source keys of some samples, by row.
        rejects: Source and reason of each item that could not become a sample.
        max_bad_share: Share of quarantined samples and rejects among all items that is still accepted.

    Raises:
        StageError: The share is higher, or a critical rule about the whole data set failed.
    """
    whole = [one for one in findings if not one.success and not len(one.rows) and one.rule.severity == "critical"]
    bad, num_items = _num_bad(fates, rejects), len(fates) + len(rejects)
    complaints = []
    if whole:
        complaints.append(f"{len(whole)} critical rule(s) about the whole data set failed")
    if share_bad(fates, rejects=rejects) > max_bad_share:
        complaints.append(
            f"{bad:,} of {num_items:,} items are bad ({bad / num_items:.2%}), "
            f"validate.max_bad_share accepts {max_bad_share:.2%}"
        )
    if complaints:
        lines = [*_whole_lines(whole), *_row_lines(findings, sources=sources), *_reject_lines(rejects)]
        shown = lines[:NUM_LINES] + ([f"and {len(lines) - NUM_LINES} more rules"] if len(lines) > NUM_LINES else [])
        raise StageError(
            f"the validation gate stopped the run: {'; '.join(complaints)}\n"
            + "".join(f"  {line}\n" for line in shown)
            + "Mend or remove these items at the source, or change the rule's severity or limit, or "
            "validate.max_bad_share, in params.yaml."
        )


def _num_bad(fates: Fates, rejects: Sequence[Reject]) -> int:
    return fates.count("quarantined") + len(rejects)


def _details(finding: Finding, rows: NDArray[np.int64]) -> list[str]:
    """What some of the rows hold that break a rule, and what it expects."""
    rule = finding.rule
    values = [finding.values[place] for place in np.searchsorted(finding.rows, rows)]
    names = ", ".join(rule.columns)  # Great Expectations lists the first values alone where very many rows break a rule
    return [f"{names}{f' = {value},' if value else ':'} expected {rule.claim}" for value in values]


def _whole_lines(whole: Sequence[Finding]) -> list[str]:
    return [
        f"whole data set, rule {one.rule.name} ({', '.join(one.rule.columns) or one.rule.type}): "
        f"expected {one.rule.claim}, observed {one.observed}"
        for one in whole
    ]


def _row_lines(findings: Sequence[Finding], *, sources: Callable[[NDArray[np.int64]], list[str]]) -> list[str]:
    failed = [one for one in findings if len(one.rows) and one.rule.severity == "critical"]
    return [
        f"{len(one.rows):,} sample(s), rule {one.rule.name} ({', '.join(one.rule.columns)}, "
        f"expected {one.rule.claim}): {_some(sources(one.rows[:NUM_SOURCES]), total=len(one.rows))}"
        for one in sorted(failed, key=lambda one: -len(one.rows))
    ]


def _reject_lines(rejects: Sequence[Reject]) -> list[str]:
    by_reason: dict[str, list[str]] = defaultdict(list)
    for source, reason in rejects:
        by_reason[reason].append(source)
    return [
        f"{len(named):,} item(s) rejected by ingest, reason {reason}: {_some(named[:NUM_SOURCES], total=len(named))}"
        for reason, named in sorted(by_reason.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    ]


def _some(named: Sequence[str], *, total: int) -> str:
    rest = total - len(named)
    return ", ".join(named) + (f" and {rest:,} more" if rest else "")
