"""Tells MLflow of champions and decisions, now or when it is back."""

from pathlib import Path
from typing import Any

from datamill import files
from datamill.promotion import history
from datamill.settings import STATE, Settings
from datamill.tracking import Session, Tracker

RUN_NAME = "promote"
TOLD = f"{STATE}/promotion.told"  # the seal of the last entry that was told


def tell(
    root: Path, *, session: Session, home: Path, evidence: dict[str, Any], params: dict[str, Any], alias: str
) -> None:
    """Tell MLflow of a model, and of every decision that it has not been told of.

    Args:
        root: The workspace.
        session: Whose run the record belongs to.
        home: The model's files.
        evidence: What speaks for it.
        params: What it had to show, flat.
        alias: What the registry calls it from now on; empty for nothing.
    """
    settings = Settings.from_environment()
    if settings.tracking == "off":
        return
    noted = root / TOLD
    last = noted.read_text(encoding="utf-8") if noted.exists() else ""
    entries = history.read(root)
    tracker = Tracker(root, settings, session, RUN_NAME)
    tracker.start(params=params)
    tracker.register_model(home / "model.onnx", example=home / "example.npy", evidence=evidence, alias=alias)
    for entry in history.after(entries, seal=last):
        tracker.log_decision(entry)
    tracker.finish(status="executed", summary=_numbers(entries[-1]))
    with files.atomic_write(noted) as partial:
        partial.write_text(entries[-1]["seal"], encoding="utf-8")


def _numbers(entry: history.Entry) -> dict[str, float]:
    return {
        f"{reason['check'].replace(' ', '_')}.{key}": float(value)
        for reason in entry["reasons"]
        for key, value in reason["numbers"].items()
    }
