"""Time limits, cancels and checkpoints between real processes, as a user's program meets them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from e2e.house import House, Running, house, wait_until

MODULE = """
import asyncio
import os
import signal
import subprocess
import time
from pathlib import Path

from taskd import App, Retry, current

app = App()


def say(line):
    with Path("said.txt").open("a") as said:
        print(line, file=said, flush=True)


@app.task(timeout=1, retry=Retry(max_attempts=1))
def stuck(seconds):
    say(f"pid {os.getpid()}")
    time.sleep(seconds)


@app.task(heartbeat=1, retry=Retry(max_attempts=3, base=0.05))
def steps():
    ctx = current()
    done = ctx.heartbeat_details or []
    if len(done) == 2:
        return done
    ctx.heartbeat([*done, ctx.attempt])
    if ctx.attempt == 1:
        time.sleep(1000)
    raise ValueError("again")


@app.task
def polite():
    say("working")
    while not current().cancelled:
        time.sleep(0.01)
    say("tidied up")
    current().raise_if_cancelled()


@app.task
async def apolite():
    say("working")
    try:
        await asyncio.sleep(1000)
    finally:
        say("tidied up")


@app.task(exclusive=True)
def alone():
    say(f"attempt {current().attempt} pid {os.getpid()}")
    if current().attempt == 1:
        time.sleep(1000)


def lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@app.task(exclusive=True)
def family():
    # It has a child that has left its session; the next attempt sees whether any of the two lives.
    family = Path("family.txt")
    if current().attempt > 1:
        return [lives(pid) for pid in family.read_text().split()]
    child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    family.write_text(f"{os.getpid()} {child.pid}")
    say("family")
    time.sleep(1000)


@app.task
def long(seconds):
    say(f"long attempt {current().attempt}")
    time.sleep(seconds)
    say(f"long ended {current().attempt}")
    return current().attempt


@app.task(ttl=0.5)
def soon():
    pass


@app.task(deadline=1.5, retry=Retry(max_attempts=100, base=0.2, factor=1))
def by():
    raise ValueError("not yet")
"""

PRELUDE = """
import json
from taskd import TaskCancelled, TaskExpired, TaskFailed
import jobs

def end(handle):
    try:
        return ["done", handle.result(60)]
    except (TaskFailed, TaskExpired) as error:
        return [error.code, handle.id]
    except TaskCancelled:
        return ["cancelled", handle.id]
"""


@pytest.fixture
def server(home: House) -> Running:
    return home.serve("--data-dir", "one")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path / "home") as made:
        (made.work / "jobs.py").write_text(MODULE)
        yield made


def python(home: House, script: str) -> list[list[object]]:
    """Run a program of the user's; return what it printed, a JSON document a line."""
    program = [sys.executable, "-c", PRELUDE + script]
    ended = subprocess.run(
        program, env=home.env, cwd=home.work, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


def said(home: House) -> list[str]:
    path = home.work / "said.txt"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.usefixtures("server")
def test_limits_are_kept_and_told(home: House) -> None:
    """A timeout with its stacks, a deadline over many attempts, and what never started."""
    [[expired, expired_id]] = python(home, "print(json.dumps(end(jobs.soon.submit())))")
    assert expired == "task.expired"
    assert home.task(str(expired_id))["state"] == "expired"
    home.start("agent", "jobs", "--processes", "2")
    ends = python(home, "print(*[json.dumps(end(h)) for h in [jobs.stuck.submit(1000), jobs.by.submit()]], sep='\\n')")
    (timed_out, stuck_id), (late, by_id) = ends
    assert timed_out == "task.timed_out"
    assert late in {"task.deadline", "task.raised"}
    assert home.task(str(by_id))["state"] == "dead"
    logs = home.run("task", "logs", str(stuck_id))
    assert logs.stdout == ""
    assert "in stuck" in logs.stderr
    [pid] = [int(line.split()[1]) for line in said(home)]
    assert pid not in {process.pid for process in home.processes()}


@pytest.mark.usefixtures("server")
def test_an_attempt_goes_on_where_the_one_before_was(home: House) -> None:
    """After a stall, and after an error."""
    home.start("agent", "jobs", "--processes", "1")
    [end, [task_id]] = python(home, "h = jobs.steps.submit(); print(json.dumps(end(h))); print(json.dumps([h.id]))")
    assert end == ["done", [1, 2]]
    assert home.task(str(task_id))["attempt"] == 3
    assert "in steps" in home.run("task", "logs", str(task_id)).stderr


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("name", ["polite", "apolite"])
def test_a_cancelled_task_may_tidy_up(home: House, name: str) -> None:
    home.start("agent", "jobs", "--processes", "1")
    task_id = home.ask("submit", f"jobs.{name}")
    wait_until(lambda: said(home) == ["working"])
    home.ask("task", "cancel", task_id)
    wait_until(lambda: home.task(task_id)["state"] == "cancelled")
    assert said(home) == ["working", "tidied up"]


def test_an_exclusive_task_never_runs_twice_at_a_time_while_its_agent_is_stopped(home: House) -> None:
    """Its agent and all that comes from it are stopped: it is given to another, and gone when they go on."""
    home.serve("--data-dir", "one", "--heartbeat", "1s")
    first = home.start("agent", "jobs", "--name", "first", "--processes", "1")
    [[task_id]] = python(home, "print(json.dumps([jobs.alone.submit().id]))")
    wait_until(lambda: said(home))
    stopped = [first.process.pid, *[process.pid for process in first.family()]]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    home.start("agent", "jobs", "--name", "second", "--processes", "1")
    wait_until(lambda: home.task(str(task_id))["state"] == "succeeded", 60)
    [before, after] = said(home)
    assert after.startswith("attempt 2")
    old = int(before.split()[-1])
    for pid in stopped:
        with suppress(ProcessLookupError):  # its runner, that goes on before it, may have ended it already
            os.kill(pid, signal.SIGCONT)
    wait_until(lambda: old not in {process.pid for process in home.processes()}, 10)
    assert home.task(str(task_id))["attempt"] == 2


def test_an_agent_that_alone_is_stopped_leaves_no_exclusive_task_running(home: House) -> None:
    """It is gone when another agent gets it; plain work runs on meanwhile, and counts once when the agent goes on."""
    home.serve("--data-dir", "one", "--heartbeat", "1s")
    first = home.start("agent", "jobs", "--name", "first", "--processes", "2")
    [[family_id, long_id]] = python(home, "print(json.dumps([jobs.family.submit().id, jobs.long.submit(3).id]))")
    wait_until(lambda: {"family", "long attempt 1"} <= set(said(home)))
    os.kill(first.pid, signal.SIGSTOP)
    try:
        wait_until(lambda: "long ended 1" in said(home))
        old = [int(pid) for pid in (home.work / "family.txt").read_text().split()]
        wait_until(lambda: not {process.pid for process in home.processes()}.intersection(old))
        home.start("agent", "jobs", "--name", "second", "--processes", "2")
        wait_until(lambda: home.task(str(family_id))["state"] == "succeeded")
        wait_until(lambda: home.task(str(long_id))["state"] == "succeeded")
        ends = [home.task(str(each)) for each in (family_id, long_id)]
        assert [end["attempt"] for end in ends] == [2, 2]
        assert ends[0]["result"] == [False, False]
    finally:
        os.kill(first.pid, signal.SIGCONT)
    wait_until(lambda: home.agents().get("first", {}).get("state") == "live")
    assert first.end() == 0  # with all that it had to report
    assert [home.task(str(each)) for each in (family_id, long_id)] == ends


def test_a_server_that_is_stopped_for_longer_than_agents_may_be_silent_takes_nothing_back(home: House) -> None:
    """Plain work goes on and counts once; exclusive work is killed by its agent, and begun again after."""
    server = home.serve("--data-dir", "one", "--heartbeat", "1s")
    home.start("agent", "jobs", "--processes", "2")
    [[long_id, alone_id]] = python(home, "print(json.dumps([jobs.long.submit(6).id, jobs.alone.submit().id]))")
    wait_until(lambda: len(said(home)) == 2)
    [alone] = [int(line.split()[-1]) for line in said(home) if "pid" in line]
    os.kill(server.pid, signal.SIGSTOP)
    try:
        wait_until(lambda: alone not in {process.pid for process in home.processes()})
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(3)  # in all longer than an agent may be silent
    finally:
        os.kill(server.pid, signal.SIGCONT)
    wait_until(lambda: all(home.task(str(each))["state"] == "succeeded" for each in (long_id, alone_id)))
    assert home.task(str(long_id))["attempt"] == 1
    assert home.task(str(alone_id))["attempt"] == 2
