"""Cores and memory of a container or a batch job, of which the machine has more."""

from pathlib import Path

import psutil
import pytest

from sweeper.available import cpu_cores, memory_bytes

MIB = 2**20


def group(folder: Path, limit: str, used: int, files: str, *, version: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("max", "current") if version == 2 else ("limit_in_bytes", "usage_in_bytes")
    for name, value in zip(names, (limit, str(used)), strict=True):
        (folder / f"memory.{name}").write_text(f"{value}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{files}\n")


def machine(root: Path, groups: str) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    return root / "sys/fs/cgroup"


def test_a_job_has_what_the_tightest_of_its_groups_leaves_it(tmp_path: Path) -> None:
    mount = machine(tmp_path, "0::/slurm/job_7/step_0\n")
    group(mount / "slurm/job_7/step_0", "max", 100 * MIB, "inactive_file 0", version=2)
    group(mount / "slurm/job_7", str(300 * MIB), 200 * MIB, f"inactive_file {50 * MIB}", version=2)
    group(mount / "slurm", str(900 * MIB), 200 * MIB, "inactive_file 0", version=2)
    assert memory_bytes(tmp_path) == 150 * MIB
    group(mount / "slurm", str(250 * MIB), 400 * MIB, "inactive_file 0", version=2)
    assert memory_bytes(tmp_path) == 0


def test_a_container_of_the_first_version_sees_its_own_group_as_the_outermost(tmp_path: Path) -> None:
    mount = machine(tmp_path, "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/\n")
    group(mount / "memory", str(300 * MIB), 200 * MIB, f"total_inactive_file {20 * MIB}", version=1)
    assert memory_bytes(tmp_path) == 120 * MIB
    group(mount / "memory", str(2**63 - 4096), 200 * MIB, "total_inactive_file 0", version=1)
    assert memory_bytes(tmp_path) > 200 * MIB


@pytest.mark.parametrize("groups", [None, "", "0::/", "4:memory:/\n", "nonsense"])
def test_without_limits_it_is_what_the_machine_has(groups: str | None, tmp_path: Path) -> None:
    if groups is not None:
        machine(tmp_path, groups)
    assert memory_bytes(tmp_path) > psutil.virtual_memory().total // 1000


def test_this_machine_has_memory_and_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < memory_bytes() <= psutil.virtual_memory().total
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert 1 <= cpu_cores() <= (psutil.cpu_count() or 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert cpu_cores() == 3
