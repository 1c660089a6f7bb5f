"""Cells: where groups can be divided the kernel holds processes to their memory; elsewhere it is told why not."""

import os
import sys
from pathlib import Path

import pytest

from taskd.agent.cells import open_cells, why_not
from taskd.agent.cgroup import Cgroups
from taskd.agent.platform import CommandPlan
from taskd.agent.spawner import open_spawner
from unit.agent.test_cgroup import Machine, group

MIB = 1 << 20
ME = str(os.getpid())


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def version_2(machine: Machine, procs: str = ME, controllers: str = "cpu memory") -> tuple[Path, Cgroups]:
    top = machine.mount("cgroup2", "rw", "sys/fs/cgroup")
    home = group(
        top / "agent.service", cgroup__procs=procs, cgroup__controllers=controllers, cgroup__subtree_control=""
    )
    return home, machine.groups("0::/agent.service")


def test_a_delegated_group_is_divided_when_the_agent_has_left_it(machine: Machine) -> None:
    home, groups = version_2(machine)
    (home / "taskd-9").mkdir()
    assert why_not(groups) == ""
    cells = open_cells(groups)
    assert cells is not None
    assert (home / "taskd-agent/cgroup.procs").read_text() == "0", "this process"
    assert (home / "cgroup.subtree_control").read_text() == "+memory"
    first, second = cells.make(), cells.make()
    assert first is not None
    assert second is not None
    assert [first.path, second.path] == [home / "taskd-1", home / "taskd-2"]
    assert not (home / "taskd-9").exists(), "an agent that was killed had left it"
    assert (first.path / "memory.oom.group").read_text() == "1"


def test_a_limit_is_set_and_taken_away(machine: Machine) -> None:
    _, groups = version_2(machine)
    cells = open_cells(groups)
    assert cells is not None
    cell = cells.make()
    assert cell is not None
    files = cell.path / "memory.max", cell.path / "memory.swap.max"
    cell.limit(0)
    assert not files[0].exists(), "it has none to begin with"
    cell.limit(64 * MIB)
    assert [file.read_text() for file in files] == [str(64 * MIB), "0"]
    cell.limit(0)
    assert [file.read_text() for file in files] == ["max", "max"]


def test_a_group_that_others_are_in_stays_as_it_is(machine: Machine) -> None:
    home, groups = version_2(machine, procs=f"{ME}\n1\n2")
    assert why_not(groups) == "2 other processes are in its control group"
    assert open_cells(groups) is None
    assert not (home / "taskd-agent").exists()


def test_a_group_that_the_kernel_does_not_divide_is_as_it_was(machine: Machine) -> None:
    home, groups = version_2(machine)
    (home / "cgroup.subtree_control").unlink()
    (home / "cgroup.subtree_control").mkdir()  # nobody can write to that
    assert open_cells(groups) is None
    assert (home / "cgroup.procs").read_text() == "0", "this process is back"


@pytest.mark.parametrize("controllers", ["cpu pids", ""])
def test_without_the_memory_controller_there_are_none(machine: Machine, controllers: str) -> None:
    _, groups = version_2(machine, controllers=controllers)
    assert why_not(groups) == "no control group of version 2 counts memory here"
    assert open_cells(groups) is None


def test_what_was_not_delegated_is_left_alone(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    _, groups = version_2(machine)
    monkeypatch.setattr("taskd.agent.cells.os.access", lambda _path, _mode: False)
    assert why_not(groups) == "its control group is not delegated"
    assert open_cells(groups) is None


def test_a_group_that_another_agent_divides_is_left_to_it(machine: Machine) -> None:
    home, groups = version_2(machine)
    group(home / "taskd-agent", cgroup__procs="77")
    assert why_not(groups) == "another agent divides its control group"


def test_version_1_alone_is_not_divided(machine: Machine) -> None:
    """There the kernel kills one process of a group, and what is left of a task goes on as if nothing had been."""
    group(machine.mount("cgroup", "rw,memory", "sys/fs/cgroup/memory") / "job")
    assert open_cells(machine.groups("4:memory:/job")) is None


async def test_where_it_can_the_kernel_ends_what_holds_more_than_it_was_given() -> None:
    """On this very machine: it is killed where there are cells, and nowhere else; and no group is left behind."""
    async with open_spawner([]) as spawner:
        assert (spawner.cells is None) == bool(why_not(Cgroups()))
        codes = []
        for memory_bytes in (0, 64 * MIB):
            argv = [sys.executable, "-c", f"len(bytearray({256 * MIB}))"]
            command = await spawner.command(CommandPlan(argv=argv, memory_bytes=memory_bytes))
            codes.append((await command.wait()).code)
            command.close()
    assert codes == ([0, 0] if spawner.cells is None else [0, -9])
    home = Cgroups().folder("")
    assert home is None or not list(home.glob("taskd-*"))
