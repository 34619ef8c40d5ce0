"""How much of the month's allowance of false alarms a window may spend."""

import math
from datetime import datetime, timedelta

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from scipy import stats

from datamill.drift.params import DriftParams

MONTH = timedelta(days=365.25 / 12)
CONFIDENCE = 0.95  # that no more windows are falsely called drifted in a month than were asked for
PLANNED = 0.9  # of the allowance goes to the planned windows; the rest is for those nobody planned


class Control(BaseModel):
    """What has been spent; the caller keeps it between windows, as JSON.

    Time is measured from ``month_start``, which moves with a clock that is set back: no window is tested twice as
    strictly for it, and no allowance comes back.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    month_start: AwareDatetime | None = None
    """When the month of the allowance began; it lasts 30.4 days."""
    last: AwareDatetime | None = None
    """When the last window was judged."""
    num_windows: int = Field(default=0, ge=0)
    """Windows tested in this month."""
    num_drifted: int = Field(default=0, ge=0)
    """Of them, those called drifted."""
    spent: float = Field(default=0.0, ge=0)
    """Sum of the levels of these windows: false alarms to be expected if nothing drifts."""


def advance(control: Control, *, now: datetime) -> Control:
    """The control at ``now``: a new month where the old one is over, shifted where the clock was set back."""
    if control.month_start is None or control.last is None:
        return Control(month_start=now, last=now)
    if now < control.last:
        return control.model_copy(update={"month_start": now - (control.last - control.month_start), "last": now})
    if now - control.month_start >= MONTH:
        return Control(month_start=now, last=now)
    return control.model_copy(update={"last": now})


def window_level(control: Control, *, params: DriftParams) -> float:
    """Chance at which the next window may falsely be called drifted.

    The levels of a month add up to no more than the allowance, however many windows come, so the expected number of
    false alarms is bounded whatever the windows have in common, the reference above all. The allowance is the largest
    mean of a Poisson count that exceeds the number asked for with a chance of 1 - ``CONFIDENCE`` at most. Windows
    beyond the planned number share the rest in a series that never runs out.

    Source: K. K. G. Lan and D. L. DeMets, "Discrete sequential boundaries for clinical trials", 1983 (spending); F.
    Garwood, "Fiducial limits for the Poisson distribution", 1936.
    """
    if params.false_alarms_per_month is None:
        return params.level
    allowance = float(stats.chi2.ppf(1 - CONFIDENCE, 2 * (params.false_alarms_per_month + 1))) / 2
    beyond = control.num_windows + 1 - params.windows_per_month
    if beyond <= 0:
        return min(params.level, PLANNED * allowance / params.windows_per_month)
    return min(params.level, (1 - PLANNED) * allowance * 6 / (math.pi * beyond) ** 2)


def charged(control: Control, *, level: float, is_drift: bool) -> Control:
    """The control after a window was tested at ``level``."""
    return control.model_copy(
        update={
            "num_windows": control.num_windows + 1,
            "num_drifted": control.num_drifted + is_drift,
            "spent": control.spent + level,
        }
    )
