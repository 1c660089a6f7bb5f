"""A person at the command line, with a server and an agent: one story after another on the same two processes."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import psutil
import pytest

from e2e.house import House, house, wait_until

MODULE = """
import os, signal, time
from taskd import App, NonRetryable, Retry, RetryAfter, current

app = App()

app = App()

class Declined(NonRetryable):
    pass

@app.task
def add(a, b=0):
    return a + b

@app.task
async def double(x):
    return {"twice": 2 * x}

@app.task
def fail(word):
    raise LookupError(f"no {word} here")

@app.task(retry=Retry(max_attempts=5, base=0.01))
def recover(path):
    if current().attempt == 1:
        os.kill(os.getpid(), signal.SIGSEGV)
    if current().attempt == 2:
        raise RetryAfter(0.2, "not yet")
    if current().attempt == 3:
        raise Declined("the card was declined")

@app.task(at_most_once=True, retry=Retry(max_attempts=9, base=0.01))
def charge(path):
    with open(path, "a") as file:
        file.write("charged ")
    os._exit(3)

@app.task
def sleep(seconds):
    time.sleep(seconds)

@app.task
def whoami():
    return current().id
"""

FIELDS = [
    "id",
    "name",
    "queue",
    "state",
    "priority",
    "attempt",
    "max_attempts",
    "agent",
    "created_at",
    "started_at",
    "finished_at",
    "result",
    "error",
    "trace_id",
]
DETAILS = [
    "attempts",
    "arguments",
    "result_value",
    "waits_for",
    "due_at",
    "failures",
    "crashes",
    "crash_limit",
    "key",
    "traceparent",
]
ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A server, and an agent called ash that has the module."""
    with house(tmp_path_factory.mktemp("home")) as made:
        (made.work / "shop.py").write_text(MODULE)
        made.serve()
        made.start("agent", "shop", "--name", "ash", "--processes", "2", "--label", "zone=a")
        wait_until(lambda: "ash" in made.agents())
        yield made


def test_a_task_is_submitted_and_its_result_is_printed(home: House) -> None:
    assert home.ask("submit", "shop.add", "[20, 22]", "--wait") == "42"
    assert json.loads(home.ask("submit", "shop.double", '{"x": 4}', "--wait")) == {"twice": 8}


def test_an_id_finds_its_task_from_another_command(home: House) -> None:
    """Its fields are those that scripts rely on."""
    task_id = home.ask("submit", "shop.whoami", "--queue", "q7", "--priority", "3")
    assert ID.fullmatch(task_id)
    assert json.loads(home.ask("task", "wait", task_id)) == task_id
    shown = home.task(task_id)
    assert list(shown) == [*FIELDS, *DETAILS]
    expected = {"id": task_id, "name": "shop.whoami", "queue": "q7", "state": "succeeded", "priority": 3, "attempt": 1}
    assert {name: shown[name] for name in expected} == expected
    assert (shown["agent"], shown["result"], shown["error"]) == ("ash", task_id, None)
    instants = [str(shown[name]) for name in ("created_at", "started_at", "finished_at")]
    assert all(INSTANT.fullmatch(instant) for instant in instants)
    assert re.fullmatch("[0-9a-f]{32}", str(shown["trace_id"]))


def test_a_task_that_fails_is_one(home: House) -> None:
    """The line tells what was raised; the task tells where."""
    ended = home.run("submit", "shop.fail", '["cake"]', "--max-attempts", "1", "--wait")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.count("\n") == 1
    assert "LookupError: no cake here" in ended.stderr
    (dead,) = json.loads(home.ask("task", "ls", "--state", "dead", "--name", "shop.fail", "--json"))
    error = home.task(dead["id"])["error"]
    assert isinstance(error, dict)
    assert (error["type"], error["message"], error["code"]) == ("builtins.LookupError", "no cake here", "task.raised")
    assert "shop.py" in error["traceback"]


def test_every_attempt_is_shown_with_its_cause(home: House) -> None:
    """A crash, a failure that asks for time, and one that is final, whatever is left of the budget."""
    task_id = home.ask("submit", "shop.recover", '["x"]', "--max-attempts", "5")
    assert home.run("task", "wait", task_id, "--timeout", "20").returncode == 1
    shown = home.task(task_id)
    attempts = cast("list[dict[str, object]]", shown["attempts"])
    errors = [cast("dict[str, object]", attempt["error"]) for attempt in attempts]
    assert [attempt["outcome"] for attempt in attempts] == ["crashed", "failed", "failed"]
    assert [error["code"] for error in errors] == ["worker.killed", "task.raised", "task.raised"]
    assert (errors[1]["message"], errors[2]["type"]) == ("not yet", "shop.Declined")
    assert shown["state"] == "dead"
    table = home.ask("task", "show", task_id)
    assert re.search(r"^1 +crashed +ash ", table, re.MULTILINE)


def test_what_may_run_once_runs_once(home: House) -> None:
    """Its worker died in the middle of it: that is the end, and it says so."""
    made = home.work / "charges"
    code = f"import shop; h = shop.charge.submit({str(made)!r}); print(h.id); h.result(timeout=20)"
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, env=home.env, cwd=home.work, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert made.read_text() == "charged "
    error = cast("dict[str, object]", home.task(ended.stdout.strip())["error"])
    assert error["code"] == "task.maybe_ran"
    assert "exited with code 3" in str(error["message"])


def test_a_key_finds_the_first_task(home: House) -> None:
    first = home.ask("submit", "shop.add", "[1, 1]", "--key", "once")
    assert home.ask("submit", "shop.add", "[1, 1]", "--key", "once") == first
    assert home.run("submit", "shop.add", "[1, 2]", "--key", "once").returncode == 65


def test_a_task_that_no_agent_has_waits_and_says_so(home: House) -> None:
    task_id = home.ask("submit", "shop.bake", "[]")
    assert "shop.bake" in re.search(r"^waits .*$", home.ask("task", "show", task_id), re.MULTILINE)[0]  # type: ignore[index]
    assert home.run("task", "wait", task_id, "--timeout", "0.2").returncode == 4
    assert home.ask("task", "cancel", task_id) == f"{task_id} cancelled"
    assert home.run("task", "wait", task_id).returncode == 1


def test_a_delayed_task_is_not_started_before(home: House) -> None:
    task_id = home.ask("submit", "shop.add", "[1]", "--delay", "1h")
    assert home.task(task_id)["state"] == "scheduled"
    (queue,) = [queue for queue in json.loads(home.ask("queue", "ls", "--json")) if queue["name"] == "default"]
    assert queue["scheduled"] >= 1
    assert home.ask("task", "cancel", task_id).endswith(" cancelled")


def test_a_running_task_is_cancelled(home: House) -> None:
    """Its worker is killed, and the next task has one all the same."""
    task_id = home.ask("submit", "shop.sleep", "[600]")
    wait_until(lambda: home.task(task_id)["state"] == "running")
    assert home.ask("task", "cancel", task_id).split()[1] in {"cancelling", "cancelled"}
    assert home.run("task", "wait", task_id, "--timeout", "20").returncode == 1
    assert home.task(task_id)["state"] == "cancelled"
    assert home.ask("submit", "shop.add", "[1]", "--wait") == "1"


def test_agents_are_listed(home: House) -> None:
    agent = home.agents()["ash"]
    fields = ["name", "boot_id", "state", "slots", "running", "cpu_percent", "memory_used", "memory_total", "labels"]
    assert list(agent) == [*fields, "resources", "pressed", "task_names", "queues"]
    labels = agent["labels"]
    assert isinstance(labels, dict)
    assert (agent["state"], labels["zone"], labels["taskd.agent"]) == ("live", "a", agent["name"])


def test_a_command_runs_as_if_it_ran_here(home: House) -> None:
    """Output of both kinds, exit code, folder and environment."""
    script = 'echo "$GREETING from $(pwd)"; echo oops >&2; exit 7'
    ended = home.run("run", "--cwd", "/usr", "--env", "GREETING=hello", "--", "sh", "-c", script)
    assert (ended.returncode, ended.stdout, ended.stderr) == (7, "hello from /usr\n", "oops\n")
    assert home.run("run", "true").returncode == 0
    assert home.run("run", "--", "sh", "-c", "kill -9 $$").returncode == 137
    assert home.run("run", "--", "/no/such/program").returncode == 127


def test_a_commands_output_comes_while_it_runs(home: House) -> None:
    """And Ctrl-C ends it where it runs, with what it started."""
    script = "echo started $$; sleep 600 & echo child $!; wait"
    running = home.start("run", "--", "sh", "-c", script)
    pids = [int(running.read_line().split()[1]), int(running.read_line().split()[1])]
    assert all(psutil.pid_exists(pid) for pid in pids)
    assert running.end(signal.SIGINT) == 130
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids))


def test_a_wait_that_is_left_tells_the_task(home: House) -> None:
    """Ctrl-C ends the waiting, not the task: what it prints finds it again."""
    waiting = home.start("submit", "nobody.has_this", "--wait")
    wait_until(lambda: "nobody.has_this" in home.run("task", "ls").stdout)
    assert waiting.end(signal.SIGINT) == 130
    words = waiting.log.read_text().split()
    assert words[:5] == ["taskd:", "the", "task", "goes", "on;"]
    assert home.ask("task", "cancel", words[-1]) == f"{words[-1]} cancelled"


def test_a_reader_that_leaves_ends_the_command(home: House) -> None:
    """`taskd run -- yes | head -1` ends, here and there."""
    running = home.start("run", "--", "sh", "-c", "echo $$; exec yes")
    pid = int(running.read_line())
    assert running.process.stdout is not None
    running.process.stdout.close()
    assert running.process.wait(30) == 141
    wait_until(lambda: not psutil.pid_exists(pid))


def test_doctor_finds_nothing_wrong(home: House) -> None:
    report = json.loads(home.ask("doctor", "--json"))
    found = {check["name"]: check["status"] for check in report["checks"]}
    names = ("profile", "data", "server", "clock", "certificate", "agents", "queues", "waiting", "CA", "http")
    assert [found[name] for name in names] == ["ok"] * len(names)


def test_doctor_names_what_no_agent_can_run(home: House) -> None:
    task_id = home.ask("submit", "shop.forgotten", "[]")
    report = json.loads(home.ask("doctor", "--json"))
    waiting = next(check for check in report["checks"] if check["name"] == "waiting")
    assert waiting["status"] == "warn"
    assert waiting["message"].startswith("no agent can run: shop.forgotten (")
    home.ask("task", "cancel", task_id)


def test_programs_of_this_user_find_the_server_too(home: House) -> None:
    """The library and the command line speak of the same tasks."""
    code = "import shop; h = shop.add.submit(2, b=3); print(h.id, h.result(timeout=20))"
    out = subprocess.run(
        [sys.executable, "-c", code],
        env=home.env,
        cwd=home.work,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert out[1] == "5"
    assert home.task(out[0])["result"] == 5


def test_a_profile_is_for_its_user_alone(home: House) -> None:
    (profile,) = (home.home / ".config/taskd/profiles").iterdir()
    assert profile.stat().st_mode & 0o777 == 0o600
    assert Path(profile).parent.stat().st_mode & 0o777 == 0o700
