"""Whether a window of new data still looks like what the model was measured on, and whether that matters."""

from datamill.drift.observations import Observations
from datamill.drift.verdict import Estimate, Kind, Outcome, Verdict

__all__ = ["Estimate", "Kind", "Observations", "Outcome", "Verdict"]
