"""One window against the reference: every test, every check, and what they come to."""

from datetime import datetime

from datamill.drift.control import Control, advance
from datamill.drift.observations import Observations
from datamill.drift.params import DriftParams
from datamill.drift.verdict import Verdict


def judge(
    reference: Observations, window: Observations, *, params: DriftParams, control: Control, now: datetime
) -> tuple[Verdict, Control]:
    """What is found about a window, and what is left of the month's allowance of false alarms.

    Equal arguments give equal verdicts; nothing is read or written.

    Args:
        reference: What the model was measured on.
        window: New samples; may be empty.
        params: What to test, and how strictly.
        control: What the window before left; ``Control()`` for the first.
        now: Time of the verdict, with its zone.
    """
    verdict = Verdict(num_samples=len(window), num_reference=len(reference), outcomes=())
    return verdict, advance(control, now=now)
