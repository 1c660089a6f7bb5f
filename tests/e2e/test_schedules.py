"""Schedules between real processes: defined in code, made by program and by hand, over a kill of the server."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import cast

import pytest

from e2e.house import House, Json, Running, house, wait_until

MODULE = """
from pathlib import Path

from taskd import App, Cron, Every, Schedule, current

app = App()


@app.task(schedule=[Every(1), Schedule(when=Cron("0 3 * * *", tz="Europe/Oslo"), name="nightly", args=("night",))])
def tick(what="beat"):
    ctx = current()
    with Path("said.txt").open("a") as said:
        print(what, ctx.schedule, ctx.scheduled_for.isoformat(timespec="milliseconds"), file=said, flush=True)


@app.task
def work(n):
    return n
"""

PROGRAM = """
import shop
from taskd import Every

handle = shop.app.schedule("by-program", Every(3600), shop.work, args=(7,), overlap="allow")
assert handle.next() is not None
print(handle.trigger().result(timeout=30), handle.state())
handle.pause()
print(handle.state())
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path) as here:
        (here.work / "shop.py").write_text(MODULE)
        yield here


def listed(home: House) -> dict[str, Json]:
    views = cast("list[Json]", json.loads(home.ask("schedule", "ls", "--json")))
    return {str(view["name"]): view for view in views}


def history(home: House, name: str) -> list[Json]:
    return cast("list[Json]", json.loads(home.ask("schedule", "history", name, "--limit", "1000", "--json")))


def serve(home: House, *words: str) -> Running:
    return home.serve("--data-dir", str(home.home / "data"), *words)


def test_schedules_from_code_to_history(home: House) -> None:
    """An agent makes them known, the server fires them, each time once, also over `kill -9`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = serve(home, "--listen", f"127.0.0.1:{port}")
    agent = home.start("agent", "shop", "--processes", "1")
    wait_until(lambda: {"shop.tick", "nightly"} <= listed(home).keys())
    views = listed(home)
    assert views["nightly"]["source"] == "shop"
    assert cast("Json", views["nightly"]["timing"])["tz"] == "Europe/Oslo"
    wait_until(lambda: len(history(home, "shop.tick")) >= 3)
    server.end(signal.SIGKILL)
    server = serve(home, "--listen", f"127.0.0.1:{port}")
    before = len(history(home, "shop.tick"))
    wait_until(lambda: len(history(home, "shop.tick")) >= before + 2)

    decided = history(home, "shop.tick")[::-1]
    times = [(str(firing["at"]), str(firing["until"])) for firing in decided]
    assert times == sorted(times)
    assert all(earlier < later for (_, earlier), (later, _) in pairwise(times))
    fired = [str(firing["task"]) for firing in decided if firing["outcome"] == "fired"]
    assert len(set(fired)) == len(fired)

    said = wait_until(lambda: (home.work / "said.txt").read_text() if (home.work / "said.txt").exists() else "")
    what, name, nominal = said.splitlines()[0].split()
    assert (what, name) == ("beat", "shop.tick")
    assert nominal.removesuffix("+00:00") in {at.removesuffix("Z") for at, _ in times}

    home.ask("schedule", "pause", "shop.tick")
    assert listed(home)["shop.tick"]["state"] == "paused"
    task_id = home.ask("schedule", "trigger", "nightly")
    assert home.ask("task", "wait", task_id, "--timeout", "30") == "null"
    assert "night nightly" in (home.work / "said.txt").read_text()

    (home.work / "shop.py").write_text(MODULE.replace("Every(1), ", ""))
    told = home.run("schedule", "sync", "shop")
    assert told.stdout == "shop: no longer defined shop.tick; 1 as before\n"
    assert "shop.tick is kept, and fires no more: taskd schedule rm shop.tick removes it" in told.stderr
    assert (listed(home)["shop.tick"]["state"], listed(home)["shop.tick"]["orphaned"]) == ("paused", True)
    assert "source    no longer defined in code: shop" in home.ask("schedule", "show", "shop.tick")
    assert home.ask("schedule", "sync", "shop", "--prune") == "shop: removed shop.tick; 1 as before"
    assert "shop.tick" not in listed(home)
    assert agent.end() == 0
    assert server.end() == 0
    checked = home.run("fsck", "--data-dir", str(home.home / "data"))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_schedules_by_hand_and_by_program(home: House) -> None:
    """Made, refused, changed, shown, previewed, filled in and removed; each command has its document."""
    serve(home)
    add = ("schedule", "add", "report", "shop.work", "[1]", "--cron", "*/5 * * * *", "--tz", "America/New_York")
    made = cast("Json", json.loads(home.ask(*add, "--overlap", "queue_one", "--json")))
    assert (made["state"], made["task"], made["overlap"]) == ("active", "shop.work", "queue_one")
    assert "is as it was" in home.ask(*add, "--overlap", "queue_one")
    refused = home.run(*add)
    assert refused.returncode == 2
    assert "replace it, or choose another name" in refused.stderr
    assert "is changed" in home.ask(*add, "--replace")

    shown = home.ask("schedule", "show", "report")
    assert "America/New_York, gap next, fold auto" in shown
    assert "AMERICA/NEW_YORK" in shown
    preview = cast("list[Json]", json.loads(home.ask("schedule", "preview", "report", "--count", "3", "--json")))
    assert len(preview) == 3
    assert preview[0]["at"] == made["next_at"]

    day = ("--from", "2026-03-08T00:00", "--to", "2026-03-08T03:59:59")  # an hour of it does not exist there
    dry = cast("Json", json.loads(home.ask("schedule", "backfill", "report", *day, "--dry-run", "--json")))
    assert len(cast("list[str]", dry["times"])) == 36
    assert home.ask("schedule", "backfill", "report", *day) == "submitted 36 tasks"
    [filled] = history(home, "report")
    assert (filled["outcome"], filled["count"]) == ("backfilled", 36)

    for name, words, says in (
        ("a", ("--cron", "0 0 30 2 *"), "names no day that there is"),
        ("b", ("--every", "0"), "exactly one of the three"),
        ("c", ("--cron", "@daily", "--tz", "Mars/Olympus"), "'Mars/Olympus' is unknown"),
        ("d", ("--at", "2020-01-01"), "would never fire"),
        ("e", (), "say when"),
    ):
        ended = home.run("schedule", "add", name, "shop.work", *words)
        assert ended.returncode == 2
        assert says in ended.stderr
        assert ended.stderr.count("\n") == 1

    home.start("agent", "shop", "--processes", "1")
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=home.env,
        cwd=home.work,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.stdout == "7 active\npaused\n", ran.stderr
    gone = cast("Json", json.loads(home.ask("schedule", "rm", "by-program", "--json")))
    assert gone == {"name": "by-program", "removed": True}
    missing = home.run("schedule", "pause", "by-program")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert "no schedule named 'by-program' is kept" in missing.stderr

    env = {**home.env, "_TASKD_COMPLETE": "bash_complete", "COMP_WORDS": "taskd schedule pause re", "COMP_CWORD": "3"}
    completed = home.run(env=env)
    assert completed.stdout == "plain,report\n"
