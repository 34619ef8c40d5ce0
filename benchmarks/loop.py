"""The loop on real servers: a drifted batch leads to an alert, a retrain, a challenger, a decision, with nobody at it.

    python benchmarks/loop.py --check             one loop undisturbed, then one for each service that is killed
    python benchmarks/loop.py --quick --check     the undisturbed loop alone
    python benchmarks/loop.py --kill worker       one loop for each service named

PostgreSQL, S3 (moto), MLflow, a Prefect server and a worker run on 127.0.0.1, with passwords, as `deployments/` says.
A table of three numbers is learnt and made champion; then a file of rows whose classes have moved is dropped into the
watched folder. The watch deployment is started as its schedule would, every minute instead of every 15. From there on
everything happens by itself. A service is killed twice in its loop: between judging and alerting, and while the
training runs. Each time it is away for some seconds; runs that died with it are noticed after 90 s, not 600.

An alert counts where it arrives: in the JSON-lines file, as a Prefect event, and at a web server. The time to it counts
from the moment when the dropped file has settled. Starting servers and training the champion are not part of it. The
last line names each figure beside its bar; with `--check` the exit status is 1 when one is missed.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.pipeline import BIN, Figure, conclude, timed
from benchmarks.servers import (
    WEBHOOK,
    Inbox,
    at_work,
    deploy,
    events,
    model_versions,
    start_deployment,
    start_worker,
    trainings,
)
from datamill import config
from datamill.alerts.alert import read_verdict as read_alerts
from datamill.monitoring.verdicts import read_verdict
from datamill.promotion import history
from datamill.retraining.requests import is_training
from flows.workspace import create_workspace
from tasks import PIPELINE
from tests.datamill.sources.drain import TABLE_FIELDS
from tests.deployments import services as deployment
from tests.deployments.services import Services

SETTLE_S = 2.0  # age at which a dropped file is read
EVERY_S = 60.0  # in place of the schedule's 15 minutes
AWAY_S = 5.0  # before a killed service is started again
PATIENCE_S = 600.0  # for a whole loop
QUIET_S = 10.0  # after the last step, in which nothing may come twice
VICTIMS = ("mlflow", "prefect", "postgres", "s3", "worker")
ALERTS = ".datamill/watch/alerts.jsonl"
SOURCE = {**TABLE_FIELDS, "path": "table", "target": "kind"}
SMALL = (
    f"ingest.source={json.dumps(SOURCE)}",
    "validate.expectations=[]",
    "audit.policy=off",
    "synthesize.method=off",
    "split.strategy=hash",
    "split.fractions.train=0.4",
    "split.fractions.validation=0.2",
    "split.fractions.test=0.4",
    "train.epochs=5",
    "evaluate.num_resamples=100",
)


@dataclass
class Found:
    """What one loop came to.

    Attributes:
        victim: Service that was killed; empty for none.
        seconds: From the drop, less the time to settle, to each step that was reached.
        lost: Alerts of the verdict that a channel does not have, over all channels.
        twice: Alerts that a channel has more than once, over all channels.
        retrains: Trainings that were asked for, less those that died.
        alerts: What the verdict gave reason to tell (count).
        kills: How often the victim was killed (count).
    """

    victim: str
    seconds: dict[str, float] = field(default_factory=dict)
    lost: int = 0
    twice: int = 0
    retrains: int = 0
    alerts: int = 0
    kills: int = 0

    def __str__(self) -> str:
        steps = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.seconds.items())
        told = f"{self.alerts} alerts, {self.lost} lost, {self.twice} sent twice, {self.retrains} retrains"
        return f"{self.victim or 'nothing'} killed: {steps}; {told}"


class Loop:
    """One workspace on its way around.

    Attributes:
        root: The workspace.
        found: What it came to so far.
    """

    def __init__(self, root: Path, *, services: Services, inbox: Inbox, victim: str) -> None:
        """A loop in the workspace ``root``, whose worker runs already."""
        self.root = root
        self.found = Found(victim)
        self._services = services
        self._inbox = inbox
        self._start = self._next = 0.0
        self._began = datetime.now(UTC)
        self._kills: list[Callable[[], bool]] = [self._is_judged, self._is_training] if victim else []
        self._planned = len(self._kills)

    def run(self) -> Found:
        """Drop the batch, and watch what becomes of it."""
        write_rows(self.root / "incoming/batch.csv", count=240, seed=8, shift=3.0)
        time.sleep(SETTLE_S)
        self._start = self._next = time.monotonic()
        steps = {
            "alert": self._is_alerted,
            "retrain": self._is_training,
            "decision": self._is_decided,
            "challenger": self._is_registered,
        }
        for name, is_reached in steps.items():
            self._wait(name, is_reached)
        self._wait("all told", lambda: not self._kills and self._is_told())
        self._wait("rest", lambda: not at_work(self._services))
        time.sleep(QUIET_S)
        self._count()
        return self.found

    def _wait(self, name: str, is_reached: Callable[[], bool]) -> None:
        """Note when a step is reached; meanwhile do what the schedule does, and what kills."""
        while not is_reached():
            if time.monotonic() > self._start + PATIENCE_S:
                print(f"{self.found.victim or 'nothing'} killed: no {name} within {PATIENCE_S:g} s", flush=True)
                return
            if time.monotonic() >= self._next:
                start_deployment(self._services, "watch")
                self._next = time.monotonic() + EVERY_S
            self._kill_when_due()
            time.sleep(0.1)
        self.found.seconds[name] = self._reached(name) - self._start

    def _reached(self, name: str) -> float:
        told = self._inbox.of(self.root.name)
        return told[0][0] if name == "alert" else time.monotonic()

    def _kill_when_due(self) -> None:
        if not self._kills or not self._kills[0]():
            return
        self._kills.pop(0)
        victim = self.found.victim
        self._services.kill(victim)
        print(f"{victim} killed {time.monotonic() - self._start:.1f} s after the drop", flush=True)
        time.sleep(AWAY_S)
        if victim == "worker":
            start_worker(self._services, self.root, inbox=self._inbox)
        else:
            self._services.start(victim)

    def _is_judged(self) -> bool:
        return any((self.root / "reports/windows").glob("[0-9]*"))

    def _is_alerted(self) -> bool:
        self._kill_when_due()  # before the alert, which may follow at once
        return bool(self._inbox.of(self.root.name))

    def _is_training(self) -> bool:
        return is_training(self.root)

    def _is_decided(self) -> bool:
        return len(history.read(self.root)) == 2  # the first made the champion

    def _is_registered(self) -> bool:
        """Whether MLflow has the challenger, with the decision on it."""
        entry = history.read(self.root)[-1]
        versions = model_versions(self._services, self.root.name)
        tags = [{tag["key"]: tag["value"] for tag in one.get("tags", [])} for one in versions]
        return any(
            one.get("datamill.version") == entry["to"] and f"datamill.decision.{entry['number']:06d}" in one
            for one in tags
        )

    def _is_told(self) -> bool:
        """Whether every channel has every alert."""
        wanted = self._wanted()
        return bool(wanted) and all(wanted <= set(told) for told in self._told().values())

    def _wanted(self) -> set[str]:
        """What the verdicts give reason to tell: topics with the window that raised them first."""
        raised: dict[str, str] = {}
        for folder in sorted((self.root / "reports/windows").glob("[0-9]*")):
            judged = read_verdict(folder)
            reading = read_alerts(judged.verdict, workspace=self.root.name, model="", window=judged.window, links={})
            for alert in reading.alerts:
                raised.setdefault(alert.topic, judged.window)
        return {f"{window} {topic}" for topic, window in raised.items()}

    def _told(self) -> dict[str, list[str]]:
        """What each channel has got."""
        log = self.root / ALERTS
        lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        told = {
            "log": lines,
            "web server": [message for _, message in self._inbox.of(self.root.name)],
            "Prefect": events(self._services, self.root.name, since=self._began),
        }
        return {name: [f"{one['window']} {one['topic']}" for one in messages] for name, messages in told.items()}

    def _count(self) -> None:
        wanted, told = self._wanted(), self._told()
        self.found.alerts = len(wanted)
        self.found.lost, self.found.twice = tally(wanted, told)
        self.found.kills = self._planned - len(self._kills)
        self.found.retrains = len(trainings(self._services, since=self._began))


def tally(wanted: set[str], told: dict[str, list[str]]) -> tuple[int, int]:
    """How many of the alerts that are wanted are missing, and how many are there too often, over all channels."""
    lost = sum(len(wanted - set(one)) for one in told.values())
    return lost, sum(count - 1 for one in told.values() for count in Counter(one).values())


def write_rows(path: Path, *, count: int, seed: int, shift: float = 0.0) -> None:
    """Rows of two classes; moved, one class lies where a model takes it for the other."""
    rng = np.random.default_rng(seed)
    lines = ["height,width,depth,kind"]
    for row in range(count):
        side = (-1, 1)[row % 2]
        numbers = rng.normal((side + shift, -side, shift), 1.0)
        lines.append(",".join([*(f"{number:.6f}" for number in numbers), ("no", "yes")[row % 2]]))
    path.write_text("\n".join(lines) + "\n")


def make_workspace(root: Path) -> Path:
    """A workspace with a small table, not trained yet, and a watch.yaml that looks into ``incoming``."""
    create_workspace(root, example="breast-cancer")
    for name in ("table", "incoming"):
        (root / name).mkdir()
    write_rows(root / "table/first.csv", count=600, seed=7)
    config.set_params(list(SMALL), stages=PIPELINE, root=root)
    watch = config.parse_yaml((root / "watch.yaml").read_text())
    watch["source"] |= {"settle_s": SETTLE_S}
    watch["source"]["data"] |= {"target": "kind"}
    watch["retrain"] |= {"include": {"watched": "incoming", "into": "table"}}
    hook = {"kind": "webhook", "sends": "all", "digest": False, "url_variable": WEBHOOK, "token_variable": None}
    watch["alerts"]["channels"] |= {"web": hook}
    (root / "watch.yaml").write_text(yaml.safe_dump(watch, sort_keys=False))
    timed("python", "-m", "tasks", "render", root=root)
    return root


@contextmanager
def training(root: Path) -> Iterator[subprocess.Popen[bytes]]:
    """``dvc repro`` at work in a workspace; ended with the block."""
    environment = {**os.environ, "DATAMILL_TRACKING": "off", "DATAMILL_DEVICE": "cpu"}
    environment["PATH"] = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    with (root.parent / "training.log").open("wb") as log:
        command = [sys.executable, "-m", "dvc", "repro"]
        process = subprocess.Popen(command, cwd=root, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.terminate()
            process.wait()


def go_round(root: Path, *, services: Services, inbox: Inbox, victim: str) -> Found:
    """One loop in a workspace of its own, from the first champion on."""
    command = [str(BIN / "datamill"), "promote", "--root", str(root)]
    environment = {**os.environ, **services.client_environment}
    environment.pop("DATAMILL_TRACKING", None)
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    start_worker(services, root, inbox=inbox)
    try:
        return Loop(root, services=services, inbox=inbox, victim=victim).run()
    finally:
        services.kill("worker")


def figures_of(found: Found) -> list[Figure]:
    """The bars of one loop; those of time hold where nothing is killed."""
    label = f"{found.victim} killed: " if found.victim else ""
    steps = ("alert", "retrain", "decision", "challenger")
    figures = [
        Figure(f"{label}steps", sum(name in found.seconds for name in steps), len(steps), at_most=False),
        Figure(f"{label}alerts", found.alerts, 1, at_most=False),
        Figure(f"{label}alerts lost", found.lost, 0, at_most=True),
        Figure(f"{label}alerts sent twice", found.twice, 0, at_most=True),
        Figure(f"{label}retrains off one", abs(found.retrains - 1), 0, at_most=True),
    ]
    if found.victim:
        return [Figure(f"{label}times", found.kills, 2, at_most=False), *figures]
    seconds = found.seconds.get("alert", PATIENCE_S)
    return [Figure(f"drop to alert s (and {SETTLE_S:g} s to settle)", seconds, 20, at_most=True), *figures]


def measure(folder: Path, *, victims: tuple[str, ...]) -> list[Figure]:
    """One loop for each victim, all on the same servers."""
    start = time.monotonic()
    trained = make_workspace(folder / "trained")
    (folder / "services").mkdir(mode=0o755)
    figures: list[Figure] = []
    with training(trained) as process, deployment.serving(folder / "services") as services:
        deploy(services)
        assert process.wait() == 0, (folder / "training.log").read_text()[-3000:]
        print(f"servers and champion are there after {time.monotonic() - start:.0f} s", flush=True)
        inbox = Inbox()
        try:
            for victim in victims:
                root = folder / f"loop-{victim or 'undisturbed'}"
                shutil.copytree(trained, root, symlinks=True)
                found = go_round(root, services=services, inbox=inbox, victim=victim)
                print(found, flush=True)
                figures += figures_of(found)
        finally:
            inbox.close()
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one loop, in which nothing is killed")
    parser.add_argument("--kill", nargs="+", choices=VICTIMS, help="one loop for each of these, which is killed in it")
    parser.add_argument("--keep", action="store_true", help="keep workspaces and logs")
    parser.add_argument("--check", action="store_true", help="exit with status 1 when a bar is missed")
    options = parser.parse_args()
    if lacking := deployment.missing():
        print(f"skipped: {lacking}")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers end as at Ctrl-C
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}", flush=True)
    victims = ("",) if options.quick else tuple(options.kill or ("", *VICTIMS))
    folder = Path(tempfile.mkdtemp(prefix="datamill-loop-"))
    try:
        figures = measure(folder, victims=victims)
    finally:
        if options.keep:
            print(f"workspaces and logs: {folder}", flush=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return conclude(figures, check=options.check)


if __name__ == "__main__":
    sys.exit(main())
