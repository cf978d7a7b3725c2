"""The files for Slurm and Kubernetes: valid, and true about what they name."""

from __future__ import annotations

import copy
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

import sweeper
from sweeper.console import INTERRUPTED
from sweeper.engine.crew import _COPIES_OF_BACKBONE, _WORKER_BYTES
from sweeper.errors import NothingSucceededError, UsageError
from sweeper.home import Home
from tests.compose import ROOT, check_sweeper

KUBERNETES_VERSIONS = ("1.33", "1.37")


DIRECTIVES = {
    "job-name": r"[a-z]+",
    "array": r"\d+-\d+",
    "nodes": r"1",
    "ntasks": r"1",
    "cpus-per-task": r"\d+",
    "mem": r"\d+G",
    "time": r"\d+:\d\d:\d\d",
    "signal": r"TERM@\d+",
    "requeue": None,
    "open-mode": r"append",
    "output": r"[a-z]+-%A_%a\.log",
}


def test_every_directive_of_the_slurm_script_is_known_and_read() -> None:
    script = ROOT / "deploy" / "slurm.sbatch"
    subprocess.run(["bash", "-n", str(script)], check=True)
    lines = script.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    # sbatch reads no directive behind the first command.
    first = next(n for n, line in enumerate(lines) if line.strip() and not line.startswith("#"))
    assert not [line for line in lines[first:] if line.startswith("#SBATCH")]
    found = {}
    for line in (line for line in lines if line.startswith("#SBATCH")):
        name, separator, value = line.removeprefix("#SBATCH --").partition("=")
        assert name not in found
        found[name] = value if separator else None
    assert set(found) == set(DIRECTIVES)
    for name, pattern in DIRECTIVES.items():
        value = found[name]
        assert value is None if pattern is None else value is not None and re.fullmatch(pattern, value), name


SRUN = """#!/bin/sh
printf '%s\\n' "$@"
test -z "$CANCEL" || kill -TERM $PPID
exit "$CODE"
"""


def run_slurm(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the script where ``srun`` and ``scontrol`` print what they are given: there is no Slurm here.

    ``srun`` ends with ``CODE``, and with ``CANCEL`` it signals the script as Slurm does for a cancelled job.
    """
    for name, text in {"srun": SRUN, "scontrol": '#!/bin/sh\necho "scontrol $*"\n'}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SWEEPER_")}
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", str(ROOT / "deploy" / "slurm.sbatch")],
        env={**kept, "PATH": path, "CODE": "0", "CANCEL": "", "SLURM_JOB_ID": "34", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


GIVEN = {"SWEEPER_STUDY": "films", "SWEEPER_STORE": "postgresql://a/b", "SWEEPER_ARTIFACTS": "/shared"}


def test_the_slurm_script_starts_a_worker_and_ends_as_it_does(tmp_path: Path) -> None:
    done = run_slurm(tmp_path, **GIVEN, CODE="7", SLURM_CPUS_PER_TASK="6", SWEEPER_DEVICE="cuda:0")
    assert done.returncode == 7, done.stderr
    arguments = done.stdout.split()
    assert arguments[:2] == ["--ntasks=1", "--cpus-per-task=6"]
    assert arguments[2:] == ["sweeper", "worker", "films", "--device", "cuda:0"]
    check_sweeper(arguments[2:])


@pytest.mark.parametrize("name", GIVEN)
def test_the_slurm_script_stops_without_a_variable(name: str, tmp_path: Path) -> None:
    done = run_slurm(tmp_path, **{key: value for key, value in GIVEN.items() if key != name})
    assert done.returncode != 0
    assert f"{name}: " in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("code", "cancel", "again"),
    [("130", "", True), ("130", "yes", False), ("0", "", False), ("2", "", False), ("137", "", False)],
)
def test_a_job_whose_worker_handed_back_goes_into_the_queue_again_unless_cancelled(
    code: str, cancel: str, again: bool, tmp_path: Path
) -> None:
    done = run_slurm(tmp_path, **GIVEN, CODE=code, CANCEL=cancel)
    assert ("scontrol requeue 34" in done.stdout) is again
    assert done.returncode == int(code)


def manifests() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text(encoding="utf-8")))


def jobs() -> dict[str, Any]:
    return {m["metadata"]["name"]: m["spec"] for m in manifests() if m["kind"] == "Job"}


def containers() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(pod's specification, container) of every container."""
    for job in jobs().values():
        pod = job["template"]["spec"]
        for container in (*pod["initContainers"], *pod["containers"]):
            yield pod, container


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
def test_kubernetes_manifests_follow_its_schema_strictly(version: str) -> None:
    kinds = [manifest["kind"] for manifest in manifests()]
    assert kinds == ["PersistentVolumeClaim", "ConfigMap", "Job", "Job"]
    for manifest in manifests():
        kubernetes_validate.validate(manifest, version, strict=True)
    wrong = copy.deepcopy(manifests()[-1])
    wrong["spec"]["template"]["spec"]["terminationGraceSeconds"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, version, strict=True)


def test_jobs_replace_lost_pods_and_give_up_on_wrong_input() -> None:
    assert set(jobs()) == {"sweeper-run", "sweeper-workers"}
    hopeless = {"sweeper-run": [2, NothingSucceededError.exit_code], "sweeper-workers": [2]}
    assert UsageError.exit_code == 2
    for name, job in jobs().items():
        pod = job["template"]["spec"]
        # Demanded by the failure policy.
        assert pod["restartPolicy"] == "Never"
        evicted, handed_back, wrong = job["podFailurePolicy"]["rules"]
        assert (evicted["action"], evicted["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")
        assert (handed_back["action"], handed_back["onExitCodes"]["values"]) == ("Ignore", [INTERRUPTED])
        assert (wrong["action"], wrong["onExitCodes"]["values"]) == ("FailJob", hopeless[name])
        # No variable of a Service may pass for one of ours.
        assert pod["enableServiceLinks"] is False
    assert "completions" not in jobs()["sweeper-workers"]


def test_pods_take_as_many_threads_as_they_request_and_workers_that_fit_their_memory() -> None:
    [settings] = [m["data"] for m in manifests() if m["kind"] == "ConfigMap"]
    threads = int(settings["OMP_NUM_THREADS"])
    for job in jobs().values():
        [container] = job["template"]["spec"]["containers"]
        assert container["resources"]["requests"]["cpu"] == str(threads)
        gibibytes = int(container["resources"]["limits"]["memory"].removesuffix("Gi"))
        # BERT-base, each of as many workers as there may be on a node with any memory.
        assert threads * (_WORKER_BYTES + _COPIES_OF_BACKBONE * 4 * 110_000_000) < gibibytes << 30


def test_pods_are_confined_and_their_volumes_and_commands_exist() -> None:
    [settings] = [m["data"] for m in manifests() if m["kind"] == "ConfigMap"]
    assert Home.from_environment(settings).artifacts == Path("/artifacts")
    commands = []
    for pod, container in containers():
        assert container["image"] == f"adapter-sweeper:{sweeper.__version__}"
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
        assert mounted <= {volume["name"] for volume in pod["volumes"]}
        command = [
            re.sub(r"\$\((\w+)\)", lambda found: settings[found[1]], word) for word in container["command"]
        ]
        if command[0] == "sh":
            found = re.fullmatch(r'until (sweeper status "\$SWEEPER_STUDY"); do sleep 10; done', command[2])
            assert found
            assert command[1] == "-c"
            command = shlex.split(found[1].replace("$SWEEPER_STUDY", settings["SWEEPER_STUDY"]))
        commands.append(command)
        check_sweeper(command)
    assert {command[1] for command in commands} == {"migrate", "run", "status", "worker"}
