"""What a user says of retraining in ``watch.yaml``."""

from pathlib import Path
from typing import get_args

from pydantic import Field, field_validator, model_validator

from datamill.stage import Params


class IncludeParams(Params):
    """How watched files become training data, where ``ingest`` does not read the watched folder itself."""

    watched: str = Field(min_length=1)
    """Folder of the workspace, or absolute, whose files are copied."""
    into: str = Field(min_length=1)
    """Folder that they are copied into: the source of ingest, or one below it where that names no class."""

    @model_validator(mode="after")
    def _two_folders(self) -> "IncludeParams":
        watched, into = Path(self.watched), Path(self.into)
        if watched == into or into.is_relative_to(watched) or watched.is_relative_to(into):
            raise ValueError(
                f"watched is {self.watched} and into is {self.into}: one lies in the other; use null where ingest "
                "reads the watched folder itself"
            )
        return self


class RetrainParams(Params):
    """Section ``retrain`` of ``watch.yaml``."""

    is_enabled: bool
    """Whether drift asks for a training at all."""
    at_risk: bool
    """Whether performance at risk asks for one, whatever moved."""
    kinds: tuple[str, ...]
    """Kinds of drift that ask for one."""
    thresholds: dict[str, float]
    """Smallest effect that counts, by the effect's name; any effect counts where none is given."""
    refuse_on: tuple[str, ...]
    """Checks of quality (null_share, schema, ...) that forbid a training when they fail: it would learn the fault."""
    cooldown_h: float = Field(ge=0, le=24 * 365)
    """Shortest time (hours) from one request to the next."""
    min_new_samples: int = Field(ge=0)
    """Samples judged since the latest request (count) before there may be another."""
    max_trainings: int = Field(ge=1, le=1000)
    """Budget: most requests within ``period_days`` (count)."""
    period_days: float = Field(gt=0, le=3650)
    """Length of the budget's period (days)."""
    start_within_h: float = Field(gt=0, le=24 * 30)
    """Time (hours) after which a request that no training took up is told again, and after three times given up."""
    include: IncludeParams | None
    """How watched files become training data; null where ingest reads the watched folder itself."""

    @field_validator("kinds")
    @classmethod
    def _kinds_exist(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        from datamill.drift.verdict import Kind  # with all detectors, which those who only train do not need

        unknown = sorted(set(kinds) - set(get_args(Kind)))
        if unknown:
            raise ValueError(f"kinds {unknown} do not exist; there are {', '.join(get_args(Kind))}")
        return kinds
