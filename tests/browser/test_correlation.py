"""One trace id, from a program's span to all that is told of its task anywhere: who has one of them finds the rest."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from browser.conftest import Site
from browser.tab import DESKTOP, Tab
from e2e.house import House, Running, house, wait_until
from e2e.test_traces import Receiver, attributes

MODULE = """
import logging
from taskd import App, Retry

app = App()

@app.task
def add(a, b):
    logging.getLogger("shop").info("adding %s", a)
    return a + b

@app.task(retry=Retry(max_attempts=1))
def fail():
    raise ValueError("no")
"""

PROGRAM = """
import logging, sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from taskd import TaskFailed
import shop

trace.set_tracer_provider(TracerProvider())
logging.basicConfig(filename="program.log", level=logging.DEBUG)
with trace.get_tracer("program").start_as_current_span("asking") as span:
    handle = getattr(shop, sys.argv[1]).submit(*map(int, sys.argv[2:]))
    try:
        handle.result(timeout=60)
    except TaskFailed:
        pass
print(handle.id, handle.trace_id, f"{span.get_span_context().trace_id:032x}")
"""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[House]:
    """A user who has a module, and a program that traces."""
    with house(tmp_path / "home") as made:
        (made.work / "shop.py").write_text(MODULE)
        (made.work / "program.py").write_text(PROGRAM)
        yield made


def ask_for(home: House, *words: str) -> tuple[str, str]:
    """Run the program; return the task's id, and the trace's: the handle's is that of the program's own span."""
    program = subprocess.run(
        [sys.executable, "program.py", *words],
        cwd=home.work,
        env=home.env,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert program.returncode == 0, program.stderr
    task_id, told, spans = program.stdout.split()
    assert told == spans
    return task_id, told


def events(running: Running, trace_id: str) -> set[str]:
    """Return what a log in JSON says under a trace."""
    lines = [json.loads(line) for line in running.log.read_text().splitlines() if line.startswith("{")]
    return {line["event"] for line in lines if line.get("trace_id") == trace_id}


def test_one_id_is_shown_everywhere(home: House, receiver: Receiver, browser: Callable[[str], Tab]) -> None:
    """In the logs of client, server, agent and task, in the result, in the API, on the page, and in each span."""
    logs = ("--log-level", "debug", "--log-form", "json")
    server = home.serve(*logs, "--otlp", receiver.url, "--trace-ratio", "1")
    agent = home.start("agent", "shop", "--name", "ash", "--processes", "1", *logs)
    wait_until(lambda: home.agents().get("ash", {}).get("state") == "live")
    task_id, trace_id = ask_for(home, "add", "1", "2")

    told = [line for line in (home.work / "program.log").read_text().splitlines() if trace_id in line]
    assert [("submitted" in line, "succeeded" in line) for line in told] == [(True, False), (False, True)]
    wait_until(lambda: events(server, trace_id) == {"task_submitted", "task_running", "task_succeeded"})
    wait_until(lambda: events(agent, trace_id) == {"attempt_leased", "attempt_succeeded"})
    [line] = json.loads(home.ask("task", "logs", task_id, "--json"))
    assert line["traceparent"][3:35] == trace_id
    assert home.task(task_id)["trace_id"] == trace_id
    spans = {"taskd.submit", "taskd.queue", "taskd.place", "taskd.commit", "taskd.attempt"}
    wait_until(lambda: {span.name for span in list(receiver.spans)} == spans)
    assert {span.trace_id.hex() for span in receiver.spans} == {trace_id}
    assert {attributes(span)["taskd.task.id"] for span in receiver.spans} == {task_id}

    site = Site(home, server, browser(home.profile()["http"]), {"ash": agent})
    assert site.ask("GET", f"/api/v1/tasks/{task_id}")["trace_id"] == trace_id
    site.tab.size(DESKTOP)
    site.log_in()
    site.tab.open(f"/tasks/{task_id}")
    site.tab.see(trace_id, "adding 1")


def test_a_failure_shows_it_in_logs_of_any_level(home: House) -> None:
    """Server and agent at their defaults; and the event tells it to whoever looks on."""
    server = home.serve("--log-form", "json")
    agent = home.start("agent", "shop", "--name", "ash", "--processes", "1", "--log-form", "json")
    wait_until(lambda: home.agents().get("ash", {}).get("state") == "live")
    _, trace_id = ask_for(home, "fail")
    wait_until(lambda: events(server, trace_id) == {"task_dead"})
    wait_until(lambda: events(agent, trace_id) == {"attempt_failed"})
    assert any(trace_id in line and "WARNING" in line for line in (home.work / "program.log").read_text().splitlines())
    dead = json.loads(home.ask("watch", "--after", "0", "--count", "1", "what:task.dead", "--json"))
    assert dead["trace_id"] == trace_id
