"""Whether a window of new data still looks like what the model was measured on, and whether that matters."""

from datamill.drift.control import Control
from datamill.drift.judging import judge, judge_labels
from datamill.drift.observations import Observations
from datamill.drift.params import DriftParams
from datamill.drift.verdict import Estimate, Kind, Outcome, Slice, Verdict

__all__ = [
    "Control",
    "DriftParams",
    "Estimate",
    "Kind",
    "Observations",
    "Outcome",
    "Slice",
    "Verdict",
    "judge",
    "judge_labels",
]
