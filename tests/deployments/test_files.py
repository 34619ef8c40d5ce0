"""What the files of deployments/ say, checked without starting anything: names, flags, ports, secrets, schedules."""

import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOYMENTS = ROOT / "deployments"
COMPOSE = yaml.safe_load((DEPLOYMENTS / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
PREFECT = yaml.safe_load((DEPLOYMENTS / "prefect.yaml").read_text())
UNITS = sorted((DEPLOYMENTS / "systemd").glob("*.service"))
PAGES = [DEPLOYMENTS / "README.md", DEPLOYMENTS / "kubernetes/README.md"]
SECRET_WORDS = ("PASSWORD", "SECRET", "AUTH_STRING")

every_unit = pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
every_deployment = pytest.mark.parametrize("deployment", PREFECT["deployments"], ids=lambda one: one["name"])


def exec_start(unit: Path) -> list[str]:
    (line,) = re.findall(r"^ExecStart=(.*)$", unit.read_text(), flags=re.MULTILINE)
    return shlex.split(line)


def shell_commands(page: Path) -> list[list[str]]:
    """Every command of a page's shell blocks, in words."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


def commands() -> list[tuple[str, list[str]]]:
    """Every call of prefect or mlflow in the files, with the place it stands in."""
    found = [(unit.name, [Path(words[0]).name, *words[1:]]) for unit in UNITS for words in [exec_start(unit)]]
    found += [(name, one["command"]) for name, one in SERVICES.items() if isinstance(one.get("command"), list)]
    for page in PAGES:
        for words in shell_commands(page):
            starts = [place for place, word in enumerate(words) if word in {"prefect", "mlflow"}]
            if starts and (starts[0] == 0 or words[:2] == ["docker", "compose"]):
                found.append((page.parent.name, words[starts[0] :]))
    return [(place, words) for place, words in found if words[0] in {"prefect", "mlflow"}]


@cache
def flags_of(*command: str) -> set[str]:
    """The flags that a command of this environment takes."""
    done = subprocess.run(
        [sys.executable, "-m", *command, "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    return set(re.findall(r"--[a-z][a-z0-9-]*", done.stdout))


# Prefect


@every_deployment
def test_every_entry_point_is_a_flow_that_takes_the_parameters(deployment):
    from prefect import Flow

    module, _, name = deployment["entrypoint"].partition(":")
    flow = getattr(importlib.import_module(module), name)
    assert isinstance(flow, Flow)
    flow.validate_parameters(deployment["parameters"])


def test_schedules_are_what_the_documentation_says_and_name_their_time_zone():
    from zoneinfo import ZoneInfo

    times = {one["name"]: [schedule["cron"] for schedule in one["schedules"]] for one in PREFECT["deployments"]}
    assert times == {"train": ["0 2 * * *"], "watch": ["*/15 * * * *"], "digest": ["0 7 * * *"]}
    for one in PREFECT["deployments"]:
        (schedule,) = one["schedules"]
        assert ZoneInfo(schedule["timezone"]).key == "UTC"
        assert schedule["slug"]


@every_deployment
def test_every_deployment_runs_once_at_a_time_in_a_queue_of_the_pool(deployment):
    assert deployment["concurrency_limit"]["limit"] == 1
    expected = {"train": ("gpu", "ENQUEUE"), "watch": ("cpu", "CANCEL_NEW"), "digest": ("cpu", "CANCEL_NEW")}
    pool = deployment["work_pool"]
    found = (pool["work_queue_name"], deployment["concurrency_limit"]["collision_strategy"])
    assert (pool["name"], found) == ("datamill", expected[deployment["name"]])


def test_prefect_yaml_holds_only_what_prefect_knows():
    from prefect.cli.deploy._models import DeploymentConfig, PrefectYamlModel
    from prefect.cli.deploy._triggers import _initialize_deployment_triggers

    assert set(PREFECT) <= set(PrefectYamlModel.model_fields)
    PrefectYamlModel.model_validate(PREFECT)
    for one in PREFECT["deployments"]:
        assert set(one) <= set(DeploymentConfig.model_fields)
    (trigger,) = _initialize_deployment_triggers("train", PREFECT["deployments"][0]["triggers"])
    assert trigger.expect == {"datamill.retrain.requested"}


def test_sqlalchemy_is_one_with_which_prefects_scheduler_makes_runs():
    assert version("sqlalchemy").startswith("2.0.")  # 2.1: every pass of the scheduler fails, and nothing ever starts


def test_the_automation_crashes_runs_of_which_nothing_is_heard_for_longer_than_a_heartbeat():
    from prefect.events.schemas.automations import AutomationCore
    from prefect.settings import get_current_settings

    (one,) = yaml.safe_load((DEPLOYMENTS / "automations.yaml").read_text())["automations"]
    automation = AutomationCore.model_validate(one)
    heartbeat_s = type(get_current_settings().flows)().heartbeat_frequency
    assert automation.trigger.within.total_seconds() >= 3 * heartbeat_s
    assert {"prefect.flow-run.Pending", "prefect.flow-run.Running"} <= automation.trigger.after  # before the first one
    assert automation.actions[0].state.value == "CRASHED"


# commands


@pytest.mark.slow
def test_every_flag_of_a_command_exists():
    for place, words in commands():
        flags = {word.partition("=")[0] for word in words if word.startswith("--")} - {"--no-prompt"}
        plain = [word for word in words[1:] if not word.startswith("-") and re.fullmatch(r"[a-z-]+", word)]
        num_verbs = 1 if words[0] == "mlflow" or plain[0] == "deploy" else 2
        missing = flags - flags_of(words[0], *plain[:num_verbs])
        assert not missing, (place, words)


def test_no_secret_is_an_argument():
    for place, words in commands():
        for word in words:
            assert "$" not in word or not any(secret in word for secret in SECRET_WORDS), (place, word)


# Compose


def test_every_variable_of_compose_is_in_the_example_and_every_one_of_the_example_is_used():
    used = set(re.findall(r"\$\{([A-Z0-9_]+)", (DEPLOYMENTS / "compose.yaml").read_text()))
    offered = set(re.findall(r"^([A-Z0-9_]+)=", (DEPLOYMENTS / ".env.example").read_text(), flags=re.MULTILINE))
    assert used == offered


def test_a_variable_that_is_not_set_stops_compose():
    for use in re.findall(r"\$\{[^}]*\}", (DEPLOYMENTS / "compose.yaml").read_text()):
        assert use.endswith(":?}"), use


def test_every_port_of_compose_is_on_127_0_0_1():
    ports = [port for one in SERVICES.values() for port in one.get("ports", [])]
    assert len(ports) == 2
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in ports)


def test_every_image_is_pinned_to_a_version():
    froms = [re.findall(r"^FROM (\S+)", path.read_text(), flags=re.M) for path in DEPLOYMENTS.glob("*/Dockerfile")]
    images = [one["image"] for one in SERVICES.values()] + [image for (image,) in froms]
    assert len(images) == len(SERVICES) + 2
    for image in images:
        assert re.fullmatch(r"[a-z/-]+:\d+\.\d+(\.\d+)?(-[a-z-]+)?", image), image


def test_every_service_that_stays_has_a_health_check_and_a_dependency_waits_for_it():
    staying = {name for name, one in SERVICES.items() if one.get("restart") == "unless-stopped"}
    assert set(SERVICES) - staying == {"bucket"}
    assert {name for name in staying if "healthcheck" not in SERVICES[name]} == {"worker"}  # Prefect tells of it
    for name, one in SERVICES.items():
        for needed, how in one.get("depends_on", {}).items():
            expected = "service_healthy" if needed in staying else "service_completed_successfully"
            assert how["condition"] == expected, (name, needed)


def test_every_volume_of_compose_is_declared_and_every_file_mounted_exists():
    for one in SERVICES.values():
        for volume in one.get("volumes", []):
            source = volume["source"] if isinstance(volume, dict) else volume.partition(":")[0]
            if source.startswith("."):
                assert (DEPLOYMENTS / source).is_file(), source
            else:
                assert source in COMPOSE["volumes"] or source == "${DATAMILL_WORKSPACE:?}"


def test_the_file_of_passwords_is_made_as_the_readme_says_and_git_does_not_see_it(tmp_path):
    (tmp_path / "deployments").mkdir()
    shutil.copy(DEPLOYMENTS / ".env.example", tmp_path / "deployments")
    (command,) = [line for line in (DEPLOYMENTS / "README.md").read_text().splitlines() if line.startswith("awk ")]
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)  # noqa: S602 - the page's own words
    lines = (tmp_path / "deployments/.env").read_text().splitlines()
    values = dict(line.split("=") for line in lines if "=" in line and not line.startswith("#"))
    made = [value for name, value in values.items() if not name.startswith("DATAMILL_")]
    assert len(set(made)) == 7
    assert all(re.fullmatch("[0-9a-f]{48}", value) for value in made)
    ignored = subprocess.run(["git", "check-ignore", "-q", "deployments/.env"], cwd=ROOT, check=False)
    assert ignored.returncode == 0


def test_images_do_not_run_as_root_and_copy_only_what_exists():
    for dockerfile in DEPLOYMENTS.glob("*/Dockerfile"):
        text = dockerfile.read_text()
        assert re.findall(r"^USER (\S+)", text, flags=re.M)[-1] == "1000:1000"
        for line in re.findall(r"^COPY (.*)$", text, flags=re.M):
            assert all((ROOT / name).exists() for name in line.split()[:-1]), line
        allowed = re.findall(r"^!(.*)$", dockerfile.with_name("Dockerfile.dockerignore").read_text(), flags=re.M)
        assert all((ROOT / name).exists() for name in allowed), dockerfile
        assert "constraints.txt" in text


# systemd


@every_unit
def test_systemd_takes_the_unit_and_finds_it_hardened(unit, tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed (apt-get install systemd)")
    here = tmp_path / unit.name
    here.write_text(unit.read_text().replace("/opt/datamill/.venv/bin", str(Path(sys.executable).parent)))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", here], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    told = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", here],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stdout[-300:]  # exposure at most 2.0 of 10


@every_unit
def test_a_unit_takes_its_secrets_from_a_file_that_the_example_shows(unit):
    text = unit.read_text()
    (path,) = re.findall(r"^EnvironmentFile=(.*)$", text, flags=re.MULTILINE)
    example = unit.with_name(f"{Path(path).name}.example").read_text()
    assert path in example.splitlines()[0]
    assert not [name for name in re.findall(r"^Environment=(\w+)", text, flags=re.M) if name.endswith(SECRET_WORDS)]
    host = [word for word in exec_start(unit) if word == "--host"]
    assert len(host) == ("server" in exec_start(unit))
    assert exec_start(unit)[exec_start(unit).index("--host") + 1] == "127.0.0.1" if host else "worker" in unit.stem


def test_by_hand_the_servers_are_told_the_same_as_by_systemd():
    blocks = re.findall(r"```sh\n(.*?)```", (DEPLOYMENTS / "README.md").read_text(), flags=re.DOTALL)
    for kind, calls in {
        "prefect": ["prefect server start"],
        "mlflow": ["mlflow server"],
        "worker": ["prefect work-pool create", "prefect worker start"],
    }.items():
        unit = (DEPLOYMENTS / f"systemd/datamill-{kind}.service").read_text()
        example = (DEPLOYMENTS / f"systemd/{kind}.env.example").read_text()
        by_systemd = set(re.findall(r"^Environment=(\w+)", unit, flags=re.M))
        by_systemd |= set(re.findall(r"^(\w+)=", example, flags=re.M))
        texts = [block for block in blocks for call in calls if call in block]
        by_hand = {name for text in texts for line in text.splitlines() for name in exported(line)}
        assert by_hand == by_systemd - {"PREFECT_HOME", "HOME", "PATH"}


def exported(line: str) -> list[str]:
    return re.findall(r"(\w+)=", line) if line.startswith("export ") else []


# Kubernetes


def test_the_job_template_has_the_fields_prefect_knows_and_names_only_variables_it_declares():
    import prefect

    shipped = Path(prefect.__file__).parent / "server/api/collections_data/views/aggregate-worker-metadata.json"
    known = json.loads(shipped.read_text())["prefect-kubernetes"]["kubernetes"]["default_base_job_configuration"]
    template = json.loads((DEPLOYMENTS / "kubernetes/base-job-template.json").read_text())
    assert set(template["job_configuration"]) == set(known["job_configuration"])
    named = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(template["job_configuration"])))
    assert named == set(template["variables"]["properties"])
    pod = template["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert volumes == {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}


def test_the_kubernetes_objects_belong_to_one_namespace():
    namespace, claim = yaml.safe_load_all((DEPLOYMENTS / "kubernetes/workspace.yaml").read_text())
    template = json.loads((DEPLOYMENTS / "kubernetes/base-job-template.json").read_text())
    properties = template["variables"]["properties"]
    assert namespace["metadata"]["name"] == claim["metadata"]["namespace"] == properties["namespace"]["default"]
    assert claim["metadata"]["name"] == properties["workspace_claim"]["default"]


# pages


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_every_link_and_file_named_on_a_page_exists(page):
    text = page.read_text()
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)\)", text):
        assert (page.parent / target).exists(), target
    for target in re.findall(r"(?<![\w/])deployments/[\w./-]*\w", text):
        assert (ROOT / target).exists() or target == "deployments/.env", target
