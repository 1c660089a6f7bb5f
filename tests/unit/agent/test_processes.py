"""Runners and warden: nothing is left of a process, however it detached itself and whoever died."""

import dataclasses
import gc
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from taskd.agent.clock import SystemClock
from taskd.agent.platform import CommandPlan, Exit
from taskd.agent.processes import Command, Worker
from taskd.agent.spawner import RealSpawner, open_spawner
from taskd_protocol.errors import ConfigInvalid
from unit.agent.workshop import PATIENCE_S, is_alive, wait_until

DETACH = """
import os, signal, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with open(sys.argv[1] + ".new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(sys.argv[1] + ".new", sys.argv[1])
    time.sleep(1000)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.005)
"""
"""Leaves a grandchild that no signal to a group or session would find; then goes on with what follows."""


def in_ms(length_ms: int) -> int:
    return SystemClock().mono_ns() // 1_000_000 + length_ms


def python(code: str, *args: str) -> CommandPlan:
    return CommandPlan(argv=[sys.executable, "-c", code, *args])


async def output(command: Command, stream: int = 1) -> str:
    pieces = []
    with trio.fail_after(PATIENCE_S):
        while piece := await command.read(stream):
            pieces.append(piece)
    return b"".join(pieces).decode()


async def end_of(command: Command) -> Exit:
    with trio.fail_after(PATIENCE_S):
        how = await command.wait()
    command.close()
    return how._replace(peak_bytes=0)  # which is the machine's business


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def descriptors() -> set[Path]:
    return set(Path("/proc/self/fd").iterdir())


async def detached(path: Path) -> int:
    await wait_until(path.exists)
    return int(path.read_text())  # noqa: ASYNC240 - a small file


async def test_a_command_gets_its_environment_its_folder_and_no_input(tmp_path: Path) -> None:
    async with open_spawner([]) as spawner:
        code = (
            "import os, sys; print(os.environ['X'], os.getcwd(), repr(sys.stdin.read())); print('err', file=sys.stderr)"
        )
        plan = CommandPlan(argv=[sys.executable, "-c", code], environ={"X": "ü"}, cwd=str(tmp_path))
        command = await spawner.command(plan)
        assert await output(command) == f"ü {tmp_path} ''\n"
        assert await output(command, 2) == "err\n"
        assert await end_of(command) == Exit(0, ordered=False)


@pytest.mark.parametrize(
    ("argv", "cwd", "reason"),
    [
        (["/no/such/program"], None, "No such file"),
        (["/etc"], None, "ermission"),
        (["true"], "/no/such/folder", "folder"),
    ],
)
async def test_what_cannot_be_started_is_told_by_the_system(argv: list[str], cwd: str | None, reason: str) -> None:
    async with open_spawner([]) as spawner:
        with pytest.raises(OSError, match=reason):
            await spawner.command(CommandPlan(argv=argv, cwd=cwd))


async def test_exit_codes_and_signals_are_told() -> None:
    async with open_spawner([]) as spawner:
        assert (await end_of(await spawner.command(python("raise SystemExit(3)")))).code == 3
        suicide = python("import os; os.kill(os.getpid(), 9)")
        assert await end_of(await spawner.command(suicide)) == Exit(-9, ordered=False)


async def test_term_reaches_the_group_and_kill_whatever_there_is(tmp_path: Path) -> None:
    async with open_spawner([]) as spawner:
        polite = await spawner.command(python("import time; print('up', flush=True); time.sleep(1000)"))
        assert (await polite.read(1)).startswith(b"up")
        polite.terminate()
        assert await end_of(polite) == Exit(-signal.SIGTERM, ordered=False)
        daemon = tmp_path / "daemon"
        stubborn = await spawner.command(python(DETACH + "time.sleep(1000)", str(daemon)))
        pid = await detached(daemon)
        stubborn.kill()
        assert await end_of(stubborn) == Exit(-signal.SIGKILL, ordered=True)
        assert not is_alive(pid), "told only when nothing is left"


async def test_what_a_command_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    async with open_spawner([]) as spawner:
        daemon = tmp_path / "daemon"
        command = await spawner.command(python(DETACH, str(daemon)))
        assert (await end_of(command)).code == 0
        assert not is_alive(await detached(daemon))


async def test_hanging_up_on_a_runner_kills_what_it_watches_over(tmp_path: Path) -> None:
    async with open_spawner([]) as spawner:
        daemon = tmp_path / "daemon"
        command = await spawner.command(python(DETACH + "time.sleep(1000)", str(daemon)))
        pid = await detached(daemon)
        command.close()
        await wait_until(lambda: not is_alive(pid) and not is_alive(command.pid))


async def test_a_runner_kills_everything_at_the_time_that_was_set_last(tmp_path: Path) -> None:
    """Another time may follow, and that there is none."""
    async with open_spawner([]) as spawner:
        daemon = tmp_path / "daemon"
        forked = python(DETACH + "time.sleep(1000)", str(daemon))
        command = await spawner.command(dataclasses.replace(forked, live_until_ms=in_ms(1_000_000)))
        pid = await detached(daemon)
        command.live_until(soon := in_ms(300))
        assert await end_of(command) == Exit(-signal.SIGKILL, ordered=True)
        assert in_ms(0) >= soon
        assert not is_alive(pid)
        brief = python("import time; time.sleep(0.6)")
        freed = await spawner.command(dataclasses.replace(brief, live_until_ms=in_ms(300)))
        freed.live_until(0)
        assert await end_of(freed) == Exit(0, ordered=False)
        late = await spawner.command(dataclasses.replace(brief, live_until_ms=in_ms(-1)))
        assert await end_of(late) == Exit(-signal.SIGKILL, ordered=True)


async def test_who_kills_a_runner_kills_its_process_and_the_warden_sees_to_the_rest(tmp_path: Path) -> None:
    async with open_spawner([]) as spawner:
        daemon = tmp_path / "daemon"
        command = await spawner.command(python(DETACH + "time.sleep(1000)", str(daemon)))
        pid = await detached(daemon)
        runner = parent_of(command.pid)
        os.kill(runner, signal.SIGKILL)
        assert (await end_of(command)).code == -signal.SIGKILL
        await wait_until(lambda: not is_alive(pid) and not is_alive(command.pid))


async def test_a_worker_that_was_let_go_of_has_no_stacks() -> None:
    """Who asks for them may have been told a moment ago that it was there."""
    async with open_spawner([sys.executable, "-c", ""]) as spawner:
        worker = await spawner.worker()
        worker.close()
        assert await worker.stacks() == b""


async def test_stacks_that_are_written_bit_by_bit_are_whole(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A worker on a busy machine stands still in between."""
    assert autojump_clock.rate == 0
    control, runner = socket.socketpair()
    to_worker, from_worker, stacks = [
        os.open(tmp_path / name, os.O_RDWR | os.O_CREAT) for name in ("to", "from", "stacks")
    ]
    page = memoryview(bytearray(8)).cast("Q")
    worker = Worker(control, to_worker, from_worker, page, stacks=stacks, outputs=[])

    async def show() -> None:
        for line in (b"File one", b", line 1 in first\n", b"File two", b", line 2 in second\n"):
            await trio.sleep(0.09)
            os.write(stacks, line)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(show)
        assert await worker.stacks() == b"File one, line 1 in first\nFile two, line 2 in second\n"
    worker.close()
    runner.close()


async def test_what_was_opened_for_a_process_that_got_no_runner_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent tries again and again: it must not run out of descriptors."""

    async def refuse(*_: object) -> None:
        raise ConfigInvalid("no runner")

    monkeypatch.setattr(RealSpawner, "_runner", refuse)
    spawner = RealSpawner([sys.executable, "-c", ""])
    gc.collect()  # what other tests left behind is none of ours
    before = descriptors()
    with pytest.raises(ConfigInvalid):
        await spawner.worker()
    with pytest.raises(ConfigInvalid):
        await spawner.command(python("pass"))
    gc.collect()  # the page that was shared
    assert descriptors() == before


async def test_a_warden_that_was_killed_is_replaced() -> None:
    async with open_spawner([]) as spawner:
        command = await spawner.command(python("pass"))
        runner_parent = spawner._warden
        assert runner_parent is not None
        assert (await end_of(command)).code == 0
        runner_parent.kill()
        runner_parent.wait()
        assert (await end_of(await spawner.command(python("pass")))).code == 0


HOST = """
import sys, trio
from taskd.agent import wire
from taskd.agent.platform import CommandPlan
from taskd.agent.spawner import open_spawner
from unit.agent.workshop import call

async def main():
    async with open_spawner([sys.executable, "-m", "taskd.agent.worker", "jobs"]) as spawner:
        worker = await spawner.worker()
        worker.send(wire.encode(wire.Setup("process", 1)))
        worker.send(wire.encode(wire.Batch(1, 0, 1000, [call(1, "daemon", sys.argv[1])])))
        argv = [sys.executable, "-c", sys.argv[3] + "time.sleep(1000)", sys.argv[2]]
        command = await spawner.command(CommandPlan(argv=argv))
        print(worker.pid, command.pid, flush=True)
        await trio.sleep_forever()

trio.run(main)
"""
"""Stands for an agent: one worker and one command, each with a daemon."""


async def test_kill_9_of_the_agent_leaves_nothing_behind(project: Path) -> None:
    daemons = [project / "of-worker", project / "of-command"]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    argv = [sys.executable, "-c", HOST, *map(str, daemons), DETACH]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=environ) as host:  # noqa: ASYNC220 - a fork, no more
        assert host.stdout is not None
        line = await trio.to_thread.run_sync(host.stdout.readline)
        pids = [*map(int, line.split()), *[await detached(path) for path in daemons]]
        assert all(map(is_alive, pids))
        host.kill()
    await wait_until(lambda: not any(map(is_alive, pids)))
