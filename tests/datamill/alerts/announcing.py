"""Judges windows and delivers what they give, one after the other; goes on where a process before it was killed."""

import sys
from pathlib import Path

from datamill.alerts.channels.building import build
from datamill.alerts.delivery import deliver
from datamill.alerts.store import Store
from tests.verdicts import AT_RISK, CALM, HOUR, START, alert_params, reading

CHANNELS = {
    "log": {"kind": "jsonl", "sends": "all", "digest": False, "path": "alerts.jsonl"},
    "hook": {"kind": "webhook", "sends": "all", "digest": False, "url_variable": "OPS_HOOK", "token_variable": None},
}


def work(root: Path, *, num_windows: int) -> None:
    """Announce windows 0, 1, ... as monitoring does: the window that may have been announced once more at first."""
    params = alert_params(CHANNELS, first_retry_s=0)
    store, channels = Store(root), build(params, root=root)
    store.begin_channels(params.channels)
    first = max(0, len(store.windows_since(None)) - 1)
    print("ready", flush=True)
    for number in range(first, num_windows):
        seen = AT_RISK if number // 3 % 2 == 0 else CALM
        now = START + number * HOUR
        store.record(reading(seen, window=f"w{number}"), params=params, now=now)
        deliver(store, channels=channels, params=params, now=now)


if __name__ == "__main__":
    work(Path(sys.argv[1]), num_windows=int(sys.argv[2]))
