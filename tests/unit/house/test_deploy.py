"""docker-compose.yml and the image: valid, and true about what they name."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import sweeper
from sweeper.home import Home
from tests import compose

ROOT = compose.ROOT
SERVICES = compose.raw()["services"]
PASSWORDS = ("POSTGRES_PASSWORD", "SWEEPER_DATABASE_PASSWORD", "MLFLOW_DATABASE_PASSWORD")
SET = dict.fromkeys((*PASSWORDS, "SWEEPER_STUDY"), "something")


def check_mlflow(command: list[str]) -> None:
    from mlflow.cli import cli

    assert command[:3] == ["python", "-m", "mlflow"]
    cli.commands[command[3]].make_context(command[3], command[4:])


# docker-compose.yml


def validate_compose(file: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_compose_follows_the_schema_of_the_compose_specification(tmp_path: Path) -> None:
    done = validate_compose(compose.FILE)
    assert done.returncode == 0, done.stdout
    wrong = tmp_path / "docker-compose.yml"
    wrong.write_text(compose.FILE.read_text().replace("healthcheck:", "healthchecks:", 1))
    assert validate_compose(wrong).returncode == 1


@pytest.mark.parametrize("name", SET)
@pytest.mark.parametrize("value", [None, ""])
def test_compose_stops_with_a_message_while_a_variable_is_unset_or_empty(
    name: str, value: str | None
) -> None:
    variables = {key: text for key, text in {**SET, name: value}.items() if text is not None}
    with pytest.raises(compose.MissingVariable, match=rf"{name}: .*\.env"):
        compose.filled_in(variables)


def test_no_password_has_a_default_and_the_example_names_every_variable_and_no_value() -> None:
    written = compose.written_variables()
    assert {name for name, kind, _ in written if kind == "?"} == set(SET)
    assert all(kind == "?" for name, kind, _ in written if "PASSWORD" in name)
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    assigned = dict(line.split("=", 1) for line in example.splitlines() if line and not line.startswith("#"))
    assert assigned == dict.fromkeys(SET, "")
    for name, default in {(name, rest) for name, kind, rest in written if kind == "-"}:
        assert f"# {name} ({default} if unset)" in example
    assert ".env" in (ROOT / ".gitignore").read_text().split()


def test_passwords_are_in_no_command_line_and_no_url() -> None:
    for name, service in compose.filled_in({**SET, **dict.fromkeys(PASSWORDS, "canary")})["services"].items():
        holding = {key for key, value in service["environment"].items() if "canary" in value}
        assert holding <= {*PASSWORDS, "PGPASSWORD"}, name
        service["environment"] = {}
        assert "canary" not in str(service), name


def test_only_mlflow_is_published_and_on_loopback_alone() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"mlflow": ["127.0.0.1:${MLFLOW_PORT:-5000}:5000"]}
    assert all("network_mode" not in service for service in SERVICES.values())


def test_images_are_pinned() -> None:
    project = f"adapter-sweeper:{sweeper.__version__}"
    for service in SERVICES.values():
        assert service["image"] == project or re.fullmatch(r"postgres:\d+\.\d+-bookworm", service["image"])
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    assert re.findall(r"^FROM (.*)", dockerfile, re.MULTILINE) == ["python:3.11.14-slim-bookworm"]
    assert f"-t {project} ." in dockerfile


def test_every_long_lived_server_has_a_health_check_that_others_wait_for() -> None:
    for name in ("database", "mlflow"):
        assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"
    waits = {
        (name, other): condition["condition"]
        for name, service in SERVICES.items()
        for other, condition in service.get("depends_on", {}).items()
    }
    assert waits == {
        ("mlflow", "database"): "service_healthy",
        ("migrate", "database"): "service_healthy",
        ("worker", "migrate"): "service_completed_successfully",
        ("worker", "mlflow"): "service_healthy",
        ("worker-gpu", "migrate"): "service_completed_successfully",
        ("worker-gpu", "mlflow"): "service_healthy",
    }


def test_a_worker_is_told_how_many_cores_are_its_own() -> None:
    filled = compose.filled_in({**SET, "SWEEPER_THREADS": "3"})["services"]
    assert {name for name, one in filled.items() if one["environment"].get("OMP_NUM_THREADS") == "3"} == {
        "worker", "worker-gpu",
    }  # fmt: skip


def test_a_folder_of_the_host_is_there_before_docker_makes_it_root_s() -> None:
    page = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8")
    [folder] = re.findall(r'--volume "\$PWD/(\w+):', page)
    assert page.index(f"mkdir -p {folder} && docker compose run") < page.index(f"$PWD/{folder}:")


def test_volumes_are_declared_and_files_exist() -> None:
    named, paths = set(), set()
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            (paths if source.startswith("./") else named).add(source)
        if "build" in service:
            paths |= {service["build"]["dockerfile"], service["build"]["context"]}
    assert named == set(compose.raw()["volumes"])
    assert [path for path in paths if not (ROOT / path).exists()] == []
    artifacts = {name for name, s in SERVICES.items() if "artifacts:/artifacts" in s.get("volumes", [])}
    assert artifacts == {"worker", "worker-gpu"}


def test_mlflow_answers_to_its_service_s_name_and_to_the_published_port() -> None:
    services = compose.filled_in({**SET, "MLFLOW_PORT": "5999"})["services"]
    command = services["mlflow"]["command"]
    allowed = command[command.index("--allowed-hosts") + 1].split(",")
    assert allowed == ["mlflow:5000", "127.0.0.1:5999", "localhost:5999"]
    asked = {service["environment"].get("MLFLOW_TRACKING_URI") for service in services.values()} - {None}
    assert asked == {f"http://{allowed[0]}"}
    assert services["mlflow"]["ports"] == ["127.0.0.1:5999:5000"]


def test_every_command_is_one_that_the_programs_take() -> None:
    services = compose.filled_in(SET)["services"]
    commands = {name: service["command"] for name, service in services.items()}
    assert commands.pop("database")[0] == "postgres"
    check_mlflow(commands.pop("mlflow"))
    assert set(commands) == {"migrate", "worker", "worker-gpu"}
    for command in commands.values():
        compose.check_sweeper(command)


def test_the_environment_of_a_worker_is_a_home_on_the_server() -> None:
    services = compose.filled_in(SET)["services"]
    for name in ("worker", "worker-gpu"):
        home = Home.from_environment(services[name]["environment"])
        assert home.store_url == "postgresql://sweeper@database/sweeper"
        assert home.artifacts == Path("/artifacts")
        mounted = {volume.split(":")[1] for volume in services[name]["volumes"]}
        sweeps = "/var/lib/sweeper/sweeps"
        assert mounted == {"/studies", "/artifacts", f"{sweeps}/cache", f"{sweeps}/logs"}
    assert services["worker-gpu"]["profiles"] == ["gpu"]
    assert "profiles" not in services["worker"]


# The image


def test_the_image_runs_as_a_user_and_takes_along_what_it_installs() -> None:
    text = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [shlex.split(line) for line in text.splitlines() if line and not line.startswith("#")]
    assert [line[1] for line in lines if line[0] == "USER"] == ["10001"]
    copied = {source.removeprefix("./") for line in lines if line[0] == "COPY" for source in line[1:-1]}
    kept = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert kept[1] == "*"
    assert copied == {line[1:] for line in kept if line.startswith("!")}
    assert [name for name in copied if not (ROOT / name).exists()] == []
    owned = next(line for line in lines if "install" in line and "-d" in line)
    # Folders on the way to a folder would be root's.
    home = Path("/var/lib/sweeper")
    for service in SERVICES.values():
        volumes = [volume.split(":") for volume in service.get("volumes", [])]
        for source, target, *_ in volumes:
            if source not in ("database", "./studies", "./deploy/init.sql"):
                on_the_way = [folder for folder in Path(target).parents if home in folder.parents]
                assert {target, *map(str, on_the_way)} <= set(owned)
