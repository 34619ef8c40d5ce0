"""How long each stage took in this workspace: what a forecast goes by, and nothing else."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from datamill import files

FOLDER = "durations"


class Durations(BaseModel):
    """Seconds of a stage's runs."""

    model_config = ConfigDict(frozen=True)

    latest_s: float
    quickest_s: float
    slowest_s: float


def note(stage: str, *, seconds: float, state: Path) -> None:
    """Remember a run that took ``seconds``, in the workspace's folder ``state``."""
    known = recall(stage, state=state)
    noted = Durations(
        latest_s=seconds,
        quickest_s=min(seconds, known.quickest_s) if known else seconds,
        slowest_s=max(seconds, known.slowest_s) if known else seconds,
    )
    files.write_json(state / FOLDER / f"{stage}.json", {name: round(s, 2) for name, s in noted.model_dump().items()})


def recall(stage: str, *, state: Path) -> Durations | None:
    """What is remembered of a stage; ``None`` before its first run, or where the note cannot be read."""
    try:
        return Durations.model_validate_json((state / FOLDER / f"{stage}.json").read_bytes())
    except (OSError, ValidationError):
        return None
