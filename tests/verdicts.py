"""Verdicts, readings and channels, for tests of alerts and retraining."""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from datamill.alerts.alert import Reading, read_verdict
from datamill.alerts.params import AlertParams
from datamill.drift import Estimate, Outcome, Verdict

START = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


def outcome(
    kind: str = "input", subject: str = "age", *, effect: float = 0.5, is_drift: bool = True, **more: Any
) -> Outcome:
    """One test; it moved unless told otherwise."""
    given = {"detector": "ks", "statistic": 0.3, "p_value": 1e-6, "effect_name": "wasserstein", **more}
    return Outcome(kind=kind, subject=subject, effect=effect, is_drift=is_drift, **given)  # type: ignore[arg-type]


def estimate(*, is_at_risk: bool) -> Estimate:
    """An estimate of 0.81 where the reference had 0.94, or of 0.94."""
    value = 0.81 if is_at_risk else 0.94
    return Estimate("accuracy", 0.94, value, value - 0.03, value + 0.03, is_measured=False, is_at_risk=is_at_risk)


def verdict(*outcomes: Outcome, is_at_risk: bool | None = False, num_samples: int = 100) -> Verdict:
    """A verdict; ``is_at_risk`` of ``None`` leaves the performance unknown."""
    performance = None if is_at_risk is None else estimate(is_at_risk=is_at_risk)
    return Verdict(num_samples=num_samples, num_reference=500, outcomes=outcomes, performance=performance)


CALM = verdict(outcome(is_drift=False), outcome("prediction", "", is_drift=False))
MOVED = verdict(outcome(), outcome("prediction", "", is_drift=False))
AT_RISK = verdict(outcome(), outcome("prediction", ""), is_at_risk=True)


def reading(seen: Verdict, *, window: str, model: str = "champion-1") -> Reading:
    """A reading of the workspace ``flowers``."""
    return read_verdict(
        seen, workspace="flowers", model=model, window=window, links={"report": f"reports/{window}.html"}
    )


def alert_params(channels: dict[str, Any] | None = None, **changes: Any) -> AlertParams:
    """Parameters with an hour's cool-down and two calm windows."""
    values: dict[str, Any] = {
        "cooldown_h": 1,
        "calm_windows": 2,
        "budget_s": 5,
        "timeout_s": 2,
        "first_retry_s": 60,
        "longest_retry_s": 3600,
        "keep_days": 30,
        "digest_when_quiet": False,
        "channels": channels or {},
    }
    return AlertParams.model_validate(values | changes)


class Hook:
    """What an HTTP server was sent, and how it answers.

    Attributes:
        url: Its address, with a secret in it.
        requests: Header and body of each request, in order.
        answers: Status of the next answers; 200 once they are used up. 0 does not answer before ``release`` is set.
    """

    def __init__(self, port: int) -> None:
        """Nothing was sent yet."""
        self.url = f"http://127.0.0.1:{port}/hooks/s3cr3t-path?token=s3cr3t-query"
        self.requests: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.answers: list[int] = []
        self.release = threading.Event()

    @property
    def titles(self) -> list[str]:
        """Titles of what was taken."""
        return [body["title"] for _, body in self.requests]


@contextmanager
def http_server(*, answers: Sequence[int] = (), port: int = 0) -> Iterator[Hook]:
    """A server on 127.0.0.1 that takes JSON."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status = hook.answers.pop(0) if hook.answers else 200
            if status == 0:
                hook.release.wait(10)
                return
            if status < 300:
                hook.requests.append((dict(self.headers), body))
            self.send_response(status)
            if status in {301, 302}:
                self.send_header("Location", hook.url)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    hook = Hook(server.server_port)
    hook.answers = list(answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hook
    finally:
        hook.release.set()
        server.shutdown()
        thread.join()
        server.server_close()
