"""Limits of control groups are found in both versions, wherever they are mounted, and in every group above ours."""

from pathlib import Path

import pytest

from taskd.agent.cgroup import Cgroups


class Machine:
    """A machine's /proc and mounts, in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.proc = root / "proc"
        self.mounts: list[str] = []
        self.proc.mkdir()

    def mount(self, kind: str, options: str, at: str, root: str = "/") -> Path:
        folder = self.root / at
        folder.mkdir(parents=True)
        self.mounts.append(f"32 31 0:29 {root} {folder} rw,relatime shared:1 - {kind} cgroup {options}")
        return folder

    def groups(self, *lines: str) -> Cgroups:
        (self.proc / "mountinfo").write_text(
            "".join(f"{line}\n" for line in ["1 0 8:1 / / rw - ext4 /dev/sda rw", *self.mounts])
        )
        (self.proc / "cgroup").write_text("".join(f"{line}\n" for line in lines))
        return Cgroups(self.proc)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def group(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")
    return folder


def test_version_2_with_a_limit_above_ours(machine: Machine) -> None:
    top = machine.mount("cgroup2", "rw", "sys/fs/cgroup")
    group(top / "user", cpu__max="150000 100000", memory__max="1000000", memory__current="700000")
    group(top / "user", memory__stat="anon 1\ninactive_file 100000\nactive_file 3")
    group(
        top / "user/agent", cpu__max="max 100000", memory__max="max", memory__current="5", memory__events="oom_kill 2"
    )
    groups = machine.groups("0::/user/agent")
    assert groups.cpus() == 1.5
    assert groups.memory() == 1_000_000
    assert groups.memory_used() == 600_000, "files that were read once are given back when somebody needs the memory"
    assert groups.oom_kills() == 2


def test_version_1_beside_an_empty_version_2(machine: Machine) -> None:
    cpu = machine.mount("cgroup", "rw,cpu,cpuacct", "sys/fs/cgroup/cpu,cpuacct")
    memory = machine.mount("cgroup", "rw,memory", "sys/fs/cgroup/memory")
    machine.mount("cgroup2", "rw", "sys/fs/cgroup/unified")
    group(cpu / "a", cpu__cfs_quota_us="50000", cpu__cfs_period_us="100000")
    group(memory, memory__limit_in_bytes="9223372036854771712", memory__usage_in_bytes="3")
    group(memory / "a", memory__limit_in_bytes="2000000", memory__usage_in_bytes="1500000")
    group(memory / "a", memory__stat="inactive_file 1\ntotal_inactive_file 500000", memory__oom_control="oom_kill 7")
    groups = machine.groups("4:memory:/a", "1:cpu,cpuacct:/a", "0::/")
    assert (groups.cpus(), groups.memory(), groups.memory_used(), groups.oom_kills()) == (0.5, 2_000_000, 1_000_000, 7)


def test_a_container_sees_its_own_group_as_the_mounts_root(machine: Machine) -> None:
    """Its path is told as the host knows it, or as ``/``; both are the folder that is mounted."""
    top = machine.mount("cgroup2", "rw", "sys/fs/cgroup", root="/docker/abc")
    group(top, cpu__max="200000 100000", memory__max="1000000", memory__current="1")
    for path in ("/docker/abc", "/", "/../elsewhere"):
        assert (machine.groups(f"0::{path}").cpus(), machine.groups(f"0::{path}").memory()) == (2.0, 1_000_000)


def test_processes_are_limited_by_the_least_group_of_both_versions(machine: Machine) -> None:
    top = machine.mount("cgroup2", "rw", "sys/fs/cgroup")
    pids = machine.mount("cgroup", "rw,pids", "sys/fs/cgroup/pids")
    group(top / "a", pids__max="max")
    assert machine.groups("0::/a").processes() is None
    assert machine.groups("0::/a").versions == [2]
    group(pids / "a", pids__max="700")
    groups = machine.groups("0::/a", "8:pids:/a")
    assert (groups.processes(), groups.versions) == (700, [1, 2])


def test_without_a_limit_there_is_none(machine: Machine) -> None:
    assert (machine.groups().cpus(), machine.groups().memory(), machine.groups().oom_kills()) == (None, None, 0)
    top = machine.mount("cgroup2", "rw", "sys/fs/cgroup")
    group(top, cpu__max="max 100000", memory__max="max")
    groups = machine.groups("0::/")
    assert (groups.cpus(), groups.memory(), groups.memory_used()) == (None, None, None)


def test_nothing_readable_is_no_limit(tmp_path: Path) -> None:
    groups = Cgroups(tmp_path)
    assert (groups.cpus(), groups.memory(), groups.oom_kills()) == (None, None, 0)
