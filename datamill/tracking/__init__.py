"""What happened, told to MLflow: one parent run per session, one child per executed stage.

A session is one flow run or one ``dvc repro``. Everything told is an *event*, and events go one of two ways. A stage on
its own sends them to MLflow as they come. A stage of a flow only keeps them in the spool, a folder below the workspace,
and the flow sends them from there while the stage runs: so fifteen stages do not each pay two seconds to load MLflow.
The spool is also where events wait when MLflow does not answer; the next session sends them first.
"""

import os

from datamill.redaction import redact
from datamill.tracking.session import Session, current_session, numbers, tracking_uri
from datamill.tracking.spool import Relay
from datamill.tracking.tracker import Tracker

__all__ = ["Relay", "Session", "Tracker", "current_session", "numbers", "redact", "tracking_uri"]

# MLflow looks once, while it is imported; whoever imports it here has imported this package before.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
