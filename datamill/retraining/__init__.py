"""Drift asks for a training; guards decide, and one training at a time answers."""

from datamill.retraining.guards import Decision, Request
from datamill.retraining.params import IncludeParams, RetrainParams

__all__ = ["Decision", "IncludeParams", "Request", "RetrainParams"]
