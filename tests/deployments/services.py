"""The servers of a deployment, for real and on 127.0.0.1 alone: PostgreSQL, S3, MLflow, Prefect, and a worker.

Each is a process of its own that can be killed and started again. Commands and settings are those of
``deployments/systemd``; for S3, which a machine does not bring, stands moto.
"""

import base64
import importlib.util
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg2

from datamill import warm

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
POSTGRES_BIN = Path("/usr/lib/postgresql/15/bin")
POSTGRES_USER = "postgres"  # PostgreSQL refuses to run as root
START_TIMEOUT_S = 180.0  # a first start makes its tables, on a machine that may be busy
STOP_TIMEOUT_S = 15.0
PASSWORDS = ("postgres", "prefect_db", "mlflow_db", "s3", "mlflow", "prefect")
BUCKET = "mlflow"
POOL = "datamill"


def missing() -> str | None:
    """What the services need and this machine lacks, in words; ``None`` when nothing."""
    if not (POSTGRES_BIN / "postgres").exists():
        return f"PostgreSQL 15 is not in {POSTGRES_BIN} (apt-get install postgresql-15)"
    needed = ("psycopg2", "asyncpg", "boto3", "moto", "flask_wtf")
    absent = [name for name in needed if importlib.util.find_spec(name) is None]
    return f"{', '.join(absent)} not installed" if absent else None


class Services:
    """The servers, their addresses and their passwords.

    Attributes:
        folder: Logs and state; ``<name>.log`` is what a server printed.
        passwords: Of every server, made up for this run.
        ports: Where each listens.
    """

    def __init__(self, folder: Path) -> None:
        """Choose ports and passwords; nothing is started yet."""
        self.folder = folder
        self.passwords = {name: f"{name}-{secrets.token_hex(12)}" for name in PASSWORDS}
        self.ports = _free_ports("postgres", "s3", "mlflow", "prefect")
        self._data = Path(tempfile.mkdtemp(prefix="datamill-postgres-"))  # a place that PostgreSQL's user may enter
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def prefect_url(self) -> str:
        """The address of Prefect's API."""
        return f"http://{HOST}:{self.ports['prefect']}/api"

    @property
    def mlflow_url(self) -> str:
        """The address of MLflow, without a password."""
        return f"http://{HOST}:{self.ports['mlflow']}"

    @property
    def client_environment(self) -> dict[str, str]:
        """What a worker, a flow or a person at a terminal is told."""
        return {
            "PREFECT_API_URL": self.prefect_url,
            "PREFECT_API_AUTH_STRING": f"admin:{self.passwords['prefect']}",
            "PREFECT_HOME": str(self.folder / "prefect"),
            "MLFLOW_TRACKING_URI": self.mlflow_url,
            "MLFLOW_TRACKING_USERNAME": "admin",
            "MLFLOW_TRACKING_PASSWORD": self.passwords["mlflow"],
        }

    @property
    def s3_environment(self) -> dict[str, str]:
        """What a client of the S3 server is told; datamill itself is none, MLflow stands between."""
        return {
            "MLFLOW_S3_ENDPOINT_URL": f"http://{HOST}:{self.ports['s3']}",
            "AWS_ACCESS_KEY_ID": "datamill",
            "AWS_SECRET_ACCESS_KEY": self.passwords["s3"],
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def start(self, name: str) -> None:
        """Start ``postgres``, ``s3``, ``mlflow``, ``prefect`` or ``worker``; returns once it answers."""
        getattr(self, f"_start_{name}")()

    def start_all(self) -> None:
        """Start everything but workers, in the order in which they need each other."""
        for name in ("postgres", "s3", "mlflow", "prefect"):
            self.start(name)

    def kill(self, name: str) -> None:
        """End a server, or a worker, and all that it started, as when its machine dies.

        The S3 server keeps everything in memory: once killed, it comes back empty.
        """
        process = self._processes.pop(name)
        _kill(process, family=_family(process))

    def stop_all(self) -> None:
        """End everything that runs, those that need others first."""
        for name in reversed(list(self._processes)):
            self._stop(name)
        shutil.rmtree(self._data, ignore_errors=True)

    def log(self, name: str) -> str:
        """What a server has printed."""
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def call(self, *command: str, **extra: str) -> str:
        """The output of a command of this environment, run as a client; an error when it fails."""
        return _output([sys.executable, "-m", *command], environment=_environment(**self.client_environment, **extra))

    def shell(self, script: str, **extra: str) -> str:
        """The output of a script of the shell, which says by itself where servers are; an error when it fails."""
        told = {"PREFECT_HOME": self.client_environment["PREFECT_HOME"], **extra}
        return _output(["bash", "-euc", script], environment=_environment(**told))

    def ask_prefect(self, path: str, **question: Any) -> Any:
        """The answer of Prefect's API to a POST."""
        credentials = base64.b64encode(f"admin:{self.passwords['prefect']}".encode()).decode()
        headers = {"Content-Type": "application/json", "Authorization": f"Basic {credentials}"}
        request = urllib.request.Request(self.prefect_url + path, data=json.dumps(question).encode(), headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def flow_runs(self) -> list[dict[str, Any]]:
        """Every flow run that Prefect knows, the latest last."""
        runs: list[dict[str, Any]] = self.ask_prefect("/flow_runs/filter", sort="EXPECTED_START_TIME_ASC")
        return runs

    def _start_postgres(self) -> None:
        if not (self._data / "PG_VERSION").exists():
            self._initialise_postgres()
        options = {
            "listen_addresses": HOST,
            "port": self.ports["postgres"],
            "unix_socket_directories": "",
            "shared_buffers": "32MB",
            "fsync": "off",  # the machine does not crash in a test
        }
        flags = [word for key, value in options.items() for word in ("-c", f"{key}={value}")]
        self._run(
            "postgres", [str(POSTGRES_BIN / "postgres"), "-D", str(self._data), *flags], identity=_postgres_identity()
        )
        self._wait("postgres", lambda: self._connect("postgres").close())
        if "mlflow_auth" not in self._query("select datname from pg_database"):
            self._make_databases()

    def _initialise_postgres(self) -> None:
        password = self._data.with_suffix(".password")
        password.write_text(self.passwords["postgres"])
        identity = _postgres_identity()
        if identity:
            for path in (self._data, password):
                shutil.chown(path, POSTGRES_USER, POSTGRES_USER)
        command = [POSTGRES_BIN / "initdb", "-D", self._data, "-U", "postgres", f"--pwfile={password}"]
        flags = ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]
        subprocess.run([*command, *flags], check=True, capture_output=True, cwd=self._data, **identity)
        password.unlink()

    def _make_databases(self) -> None:
        environment = {
            "PGHOST": HOST,
            "PGPORT": str(self.ports["postgres"]),
            "PGPASSWORD": self.passwords["postgres"],
            "PREFECT_DB_PASSWORD": self.passwords["prefect_db"],
            "MLFLOW_DB_PASSWORD": self.passwords["mlflow_db"],
        }
        command = [POSTGRES_BIN / "psql", "--username=postgres", "--dbname=postgres"]
        script = f"--file={ROOT / 'deployments/postgres/databases.sql'}"
        subprocess.run([*command, script], env=environment, check=True, capture_output=True)

    def _connect(self, database: str) -> "psycopg2.extensions.connection":
        return psycopg2.connect(
            host=HOST,
            port=self.ports["postgres"],
            user="postgres",
            password=self.passwords["postgres"],
            dbname=database,
            connect_timeout=5,
        )

    def _query(self, statement: str) -> set[str]:
        connection = self._connect("postgres")
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            found = {row[0] for row in cursor.fetchall()} if cursor.description else set()
        connection.close()
        return found

    def _start_s3(self) -> None:
        command = [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(self.ports["s3"])]
        self._run("s3", command, **self.s3_environment)
        url = self.s3_environment["MLFLOW_S3_ENDPOINT_URL"]
        self._wait("s3", lambda: urllib.request.urlopen(f"{url}/moto-api/", timeout=5).close())
        script = str(ROOT / "deployments/mlflow/make_bucket.py")
        subprocess.run(
            [sys.executable, script], env=_environment(**self.s3_environment), check=True, capture_output=True
        )

    def s3(self) -> Any:
        """A client of the S3 server."""
        import boto3

        told = self.s3_environment
        return boto3.client(
            "s3",
            endpoint_url=told["MLFLOW_S3_ENDPOINT_URL"],
            aws_access_key_id=told["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=told["AWS_SECRET_ACCESS_KEY"],
            region_name=told["AWS_DEFAULT_REGION"],
        )

    def _start_mlflow(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--workers", "1"]
        place = ["--host", HOST, "--port", str(self.ports["mlflow"]), "--artifacts-destination", f"s3://{BUCKET}"]
        environment = {
            "MLFLOW_BACKEND_STORE_URI": "postgresql+psycopg2:///mlflow",  # libpq reads the rest from PGHOST
            "MLFLOW_AUTH_CONFIG_PATH": str(ROOT / "deployments/mlflow/basic_auth.ini"),
            "MLFLOW_AUTH_ADMIN_USERNAME": "admin",
            "MLFLOW_AUTH_ADMIN_PASSWORD": self.passwords["mlflow"],
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(16),
            "PGHOST": HOST,
            "PGPORT": str(self.ports["postgres"]),
            "PGUSER": "mlflow",
            "PGPASSWORD": self.passwords["mlflow_db"],
        }
        self._run("mlflow", [*command, *place], **environment, **self.s3_environment)
        self._wait("mlflow", lambda: urllib.request.urlopen(f"{self.mlflow_url}/health", timeout=5).close())

    def _start_prefect(self) -> None:
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST]
        environment = {
            "PREFECT_HOME": str(self.folder / "prefect-server"),
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
            "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "1",
            "PREFECT_SERVER_API_AUTH_STRING": f"admin:{self.passwords['prefect']}",
            "PREFECT_SERVER_DATABASE_DRIVER": "postgresql+asyncpg",
            "PREFECT_SERVER_DATABASE_HOST": HOST,
            "PREFECT_SERVER_DATABASE_PORT": str(self.ports["postgres"]),
            "PREFECT_SERVER_DATABASE_USER": "prefect",
            "PREFECT_SERVER_DATABASE_PASSWORD": self.passwords["prefect_db"],
            "PREFECT_SERVER_DATABASE_NAME": "prefect",
        }
        self._run("prefect", [*command, "--port", str(self.ports["prefect"])], **environment)
        self._wait("prefect", lambda: urllib.request.urlopen(f"{self.prefect_url}/health", timeout=5).close())

    def start_worker(self, *, workspace: Path, **extra: str) -> None:
        """Start a worker that serves ``workspace``; ``extra`` goes into its environment."""
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--name", "test"]
        patience = {"PREFECT_CLIENT_MAX_RETRIES": "8", "PREFECT_CLIENT_RETRY_EXTRA_CODES": "500"}
        told = {"DATAMILL_WORKSPACE": str(workspace), "PREFECT_WORKER_QUERY_SECONDS": "2", **patience, **extra}
        self._run("worker", command, **{**self.client_environment, **told})

    def _run(
        self, name: str, command: list[str], *, identity: Mapping[str, Any] | None = None, **environment: str
    ) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                command,
                env=_environment(**environment),
                cwd=self._data if name == "postgres" else self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **(identity or {}),
            )

    def _wait(self, name: str, knock: Callable[[], None]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                return knock()
            except (OSError, psycopg2.OperationalError):
                assert self._processes[name].poll() is None, f"{name} ended:\n{self.log(name)[-4000:]}"
                assert time.monotonic() < deadline, f"{name} does not answer:\n{self.log(name)[-4000:]}"
                time.sleep(0.3)

    def _stop(self, name: str) -> None:
        process = self._processes.pop(name)
        family = _family(process)  # asked now, because a worker that ends leaves its flow runs alone
        process.send_signal(signal.SIGINT if name == "postgres" else signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=STOP_TIMEOUT_S)
        _kill(process, family=family)


@contextmanager
def serving(folder: Path) -> Iterator[Services]:
    """Every server, answering; stopped when the block ends, however it ends."""
    services = Services(folder)
    try:
        services.start_all()
        yield services
    finally:
        services.stop_all()


def _output(command: list[str], *, environment: Mapping[str, str]) -> str:
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def _family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """What a process has started, in whatever session, and the stages that its flows had forked; those first."""
    with suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
        hosts = [one for one in psutil.process_iter() if _keeper(one) in {member.pid for member in family}]
        return [stage for host in hosts for stage in host.children(recursive=True)] + hosts + family
    return []


def _keeper(process: psutil.Process) -> int | None:
    """The flow that a host (``datamill.warm``) works for; ``None`` for any other process."""
    with suppress(psutil.Error):
        if process.cmdline()[-2:] == ["tasks", "host"]:
            return int(process.environ().get(warm.KEEPER, 0))
    return None


def _kill(process: subprocess.Popen[bytes], *, family: list[psutil.Process]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()


def _environment(**extra: str) -> dict[str, str]:
    """This process's environment less whatever speaks of servers, quiet, on one thread; and ``extra``."""
    foreign = ("PREFECT_", "MLFLOW_", "AWS_", "PG", "DATAMILL_TRACKING", "DATAMILL_SESSION")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    quiet = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1"}
    path = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    return {**kept, **path, **quiet, "DATAMILL_DEVICE": "cpu", "DATAMILL_THREADS": "1", "OMP_NUM_THREADS": "1", **extra}


def _postgres_identity() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    return {"user": POSTGRES_USER, "group": POSTGRES_USER, "extra_groups": ()}


def _free_ports(*names: str) -> dict[str, int]:
    probes = {name: socket.create_server((HOST, 0)) for name in names}
    ports = {name: int(probe.getsockname()[1]) for name, probe in probes.items()}
    for probe in probes.values():
        probe.close()
    return ports
