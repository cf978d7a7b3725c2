"""The very commands of docker-compose.yml, as local processes: there is no container engine here.

What stands in for the containers' network is said where it is used: names of hosts lead to 127.0.0.1, and
ports and folders to free ones. The rest is the file's: its init script, its commands, its variables.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import sweeper
from sweeper.home import Home
from sweeper.session import open_study
from sweeper.study import load_study
from tests import compose
from tests.command_line import CommandLine
from tests.fork_server import fork_server
from tests.mlflow_server import free_port, picture_of
from tests.password_server import PasswordServer, password_server
from tests.tiny_folder import write_study

PASSWORDS = {
    "POSTGRES_PASSWORD": "super$user-c4n4ry",
    # What would break a URL or a statement, if it were put into one.
    "SWEEPER_DATABASE_PASSWORD": "o'brien@c4n4ry:/?#%40 \\x",
    "MLFLOW_DATABASE_PASSWORD": 'mlflow"c4n4ry;--',
}


@dataclass
class Deployed:
    """The services of the file with their variables, on a server that runs."""

    services: dict[str, Any]
    database: PasswordServer
    folder: Path

    def environment(self, name: str) -> dict[str, str]:
        """A service's variables, and those that stand in for the network and the volumes."""
        return {
            **self.services[name]["environment"],
            **self.database.environment(),
            "SWEEPER_HOME": str(self.folder / "sweeps"),
            "SWEEPER_ARTIFACTS": str(self.folder / "artifacts"),
        }

    def sweeper(self, name: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a service's command, or another one in its place."""
        given = list(command) or self.services[name]["command"]
        assert given[0] == "sweeper"
        return CommandLine(self.folder, self.environment(name))(*given[1:])


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """The database as its first start leaves it."""
    variables = {**PASSWORDS, "SWEEPER_STUDY": "tiny", "MLFLOW_PORT": str(free_port())}
    services = compose.filled_in(variables)["services"]
    with password_server(services["database"]["command"]) as server:
        script = services["database"]["volumes"][1].split(":")[0]
        done = server.psql(
            "--dbname", "postgres", "-f", str(compose.ROOT / script), **services["database"]["environment"]
        )
        assert done.returncode == 0, done.stderr
        folder = tmp_path_factory.mktemp("compose")
        write_study(folder, budget={"trials": 2}, train={"epochs": 1})
        yield Deployed(services, server, folder)


@pytest.fixture(scope="module")
def migrated(deployed: Deployed) -> Deployed:
    done = deployed.sweeper("migrate")
    assert done.returncode == 0, done.stderr
    deployed.services["migrate"]["said"] = done.stdout + done.stderr
    return deployed


def query(deployed: Deployed, database: str, sql: str) -> list[str]:
    done = deployed.database.psql("--dbname", database, "-Atc", sql)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_init_script_makes_two_databases_of_two_roles_that_see_one_each(deployed: Deployed) -> None:
    owners = "SELECT datname, pg_get_userbyid(datdba) FROM pg_database WHERE NOT datistemplate ORDER BY 1"
    assert query(deployed, "postgres", owners) == ["mlflow|mlflow", "postgres|postgres", "sweeper|sweeper"]
    roles = "SELECT rolname FROM pg_roles WHERE rolcanlogin AND NOT rolsuper ORDER BY 1"
    assert query(deployed, "postgres", roles) == ["mlflow", "sweeper"]
    powers = "rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls"
    assert query(deployed, "postgres", f"SELECT rolname FROM pg_roles WHERE rolcanlogin AND ({powers})") == [
        "postgres"
    ]
    for role in ("sweeper", "mlflow"):
        allowed = "SELECT datname FROM pg_database WHERE has_database_privilege('%s', datname, 'CONNECT')"
        assert {role} == {*query(deployed, "postgres", allowed % role)} - {"template0", "template1"}
    assert query(deployed, "postgres", "SHOW max_connections") == ["300"]


def test_the_init_script_stops_without_a_password() -> None:
    script = str(compose.ROOT / "deploy" / "init.sql")
    with password_server() as server:
        # In this order, since what comes before the error is there afterwards.
        for missing in ("SWEEPER_DATABASE_PASSWORD", "MLFLOW_DATABASE_PASSWORD"):
            given = {key: value for key, value in PASSWORDS.items() if key != missing}
            done = server.psql("--dbname", "postgres", "-f", script, **given)
            assert done.returncode == 3
            assert "c4n4ry" not in done.stdout + done.stderr
        assert "syntax error" in server.log.read_text() and "c4n4ry" not in server.log.read_text()


def test_a_wrong_password_is_refused_with_one_sentence(deployed: Deployed) -> None:
    environment = {**deployed.environment("migrate"), "PGPASSWORD": "wrong-c4n4ry"}
    done = CommandLine(deployed.folder, environment)("migrate")
    assert done.returncode == 4, done.stderr
    assert "password authentication failed" in done.stderr
    assert "c4n4ry" not in done.stderr and len(done.stderr.splitlines()) == 1


def test_the_migration_job_makes_the_tables_and_can_be_repeated(migrated: Deployed) -> None:
    tables = "SELECT tableowner || '.' || tablename FROM pg_tables WHERE schemaname = 'public'"
    before = set(query(migrated, "sweeper", tables))
    assert {"sweeper.places", "sweeper.trials", "sweeper.sweeper_alembic_version"} <= before
    assert "postgresql+psycopg://sweeper@database/sweeper" in migrated.services["migrate"]["said"]
    again = migrated.sweeper("migrate")
    assert again.returncode == 0, again.stderr
    assert set(query(migrated, "sweeper", tables)) == before
    status = migrated.sweeper("worker", "sweeper", "status", "--json")
    assert (status.returncode, status.stdout.strip()) == (0, "[]"), status.stderr


@contextmanager
def mlflow(deployed: Deployed, port: int) -> Iterator[str]:
    """The service's server on a free port, with a folder of ours as its volume."""
    service = deployed.services["mlflow"]
    stands_in = {"0.0.0.0": "127.0.0.1", "5000": str(port), "/mlartifacts": str(deployed.folder / "mlart")}
    command = [stands_in.get(word, word) for word in service["command"]]
    assert command[0] == "python"
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "PG"))}
    with (deployed.folder / "mlflow.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, *command[1:]],
            env={**kept, **service["environment"], **deployed.database.environment()},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        # The health check of the file, where its port is this one.
        check = [word.replace(":5000/", f":{port}/") for word in service["healthcheck"]["test"][1:]]
        while subprocess.run([sys.executable, *check[1:]], capture_output=True, check=False).returncode:
            assert server.poll() is None, (deployed.folder / "mlflow.log").read_text()
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def answer(address: str, host: str) -> int:
    request = urllib.request.Request(
        f"{address}/api/2.0/mlflow/experiments/get?experiment_id=0", headers={"Host": host}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def begin(deployed: Deployed) -> None:
    """Begins the study and trains nothing, as a coordinator does that is killed at once."""
    variables = CommandLine(deployed.folder, deployed.environment("worker")).variables()
    process = fork_server().Process(target=_begin, args=(deployed.folder, variables))
    process.start()
    process.join()
    assert process.exitcode == 0


def _begin(folder: Path, variables: Mapping[str, str]) -> None:
    os.environ.update(variables)
    os.chdir(folder)
    open_study(load_study(Path("study.yaml")), Home.from_environment())


def test_a_study_runs_against_the_servers_and_a_worker_of_the_file_joins_it(migrated: Deployed) -> None:
    hosts = migrated.services["mlflow"]["command"][-1].split(",")
    port = int(hosts[1].rpartition(":")[2])
    with mlflow(migrated, port) as address:
        assert [answer(address, host) for host in hosts] == [200, 200, 200]
        assert answer(address, "mlflow.example.org:5000") == 403
        # The one name that no variable of PostgreSQL's can lead elsewhere.
        migrated.services["worker"]["environment"]["MLFLOW_TRACKING_URI"] = address
        assert migrated.sweeper("worker").returncode == 2  # no study yet: compose starts it again
        begin(migrated)
        worked = migrated.sweeper("worker")
        assert worked.returncode == 0, worked.stderr
        followed = migrated.sweeper("worker", "sweeper", "run", "study.yaml", "--device", "cpu", "--json")
        assert followed.returncode == 0, followed.stderr
        assert "trial-0001 complete" in worked.stderr and "trial-" not in followed.stderr
        drawn = picture_of(address, "tiny")
        assert sum("trial-" in name for name in drawn) == 2
        assert any(part.name == "adapter.safetensors" for part in (migrated.folder / "mlart").rglob("*"))
    said = migrated.database.log.read_text() + (migrated.folder / "mlflow.log").read_text()
    said += worked.stdout + worked.stderr + followed.stdout + followed.stderr
    assert "c4n4ry" not in said


def test_the_image_s_install_steps_work_from_what_it_copies(tmp_path: Path) -> None:
    """In a new environment that finds the packages of this one: they are those that the constraints pin.

    The image's operating system and the download of those packages are not covered.
    """
    text = (compose.ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    source = tmp_path / "src"
    source.mkdir()
    for line in re.findall(r"^COPY (.*)", text, re.MULTILINE):
        *names, target = line.split()
        for name in names:
            if (compose.ROOT / name).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(compose.ROOT / name, source / target, ignore=ignored)
            else:
                shutil.copy(compose.ROOT / name, source / target)
    python = make_environment(tmp_path)
    [install] = re.findall(r"^RUN (python -m pip install .*)", text, re.MULTILINE)
    done = subprocess.run(
        [str(python), *shlex.split(install)[1:], "--disable-pip-version-check"],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = re.search(r"Successfully installed (.*)", done.stdout)
    # The environment has a setuptools of its own, which is older than the pinned one.
    installed = {name for name in (said[1].split() if said else ()) if not name.startswith("setuptools-")}
    assert installed == {f"adapter-sweeper-{sweeper.__version__}"}, done.stdout
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["SWEEPER_HOME"] = str(tmp_path / "sweeps")
    for command in compose.raw()["services"]["migrate"]["command"], ["sweeper", "--version"]:
        program = python.with_name(command[0])
        ran = subprocess.run(
            [str(program), *command[1:]],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "sweeps" / "store.db").is_file()


def make_environment(folder: Path) -> Path:
    """A virtual environment that sees every package of this one but ours; returns its Python."""
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    others = folder / "packages"
    others.mkdir()
    for package in Path(sysconfig.get_path("purelib")).iterdir():
        if not re.match(
            r"_*(editable_*)?adapter_sweeper|pip\b|pip-|setuptools|_distutils|distutils", package.name
        ):
            (others / package.name).symlink_to(package)
    [site] = (folder / "venv" / "lib").glob("python*/site-packages")
    (site / "packages.pth").write_text(f"{others}\n")
    return folder / "venv" / "bin" / "python"
