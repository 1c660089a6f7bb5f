"""Limits between real processes: said in code, made known by an agent, held by key, and kept over `kill -9`."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from e2e.house import House, Json, Running, house, wait_until

MODULE = """
from taskd import App, Limit

app = App()


@app.task(concurrency=20, limits=[Limit(key="customer:{customer}", concurrency=5, rate="3/h", burst=3)])
def charge(customer, amount=1):
    return customer


@app.task
def other(n):
    return n
"""

PROGRAM = """
import shop

print(*[shop.charge.submit(7).id for _ in range(5)], shop.charge.submit(8).id)
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path) as here:
        (here.work / "shop.py").write_text(MODULE)
        yield here


def said(home: House) -> dict[str, Json]:
    views = cast("list[Json]", json.loads(home.ask("limit", "ls", "--json")))
    return {str(view["name"]): view for view in views}


def states(home: House, ids: list[str]) -> list[str]:
    return [str(home.task(task_id)["state"]) for task_id in ids]


def serve(home: House, port: int) -> Running:
    return home.serve("--data-dir", str(home.home / "data"), "--listen", f"127.0.0.1:{port}")


def test_limits_from_code_hold_by_key_and_over_a_kill(home: House) -> None:
    """Three of a customer begin in an hour, whatever becomes of the server; another customer is not held up."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = serve(home, port)
    agent = home.start("agent", "shop", "--processes", "2")
    wait_until(lambda: {"shop.charge", "task:shop.charge"} <= said(home).keys())
    assert (said(home)["shop.charge"]["source"], said(home)["shop.charge"]["rate"]) == ("shop", "3/h")
    assert "defined in code by shop" in home.ask("limit", "ls")
    bought = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=home.env, cwd=home.work, capture_output=True, text=True, check=True
    )
    ids = bought.stdout.split()
    expected = ["succeeded"] * 3 + ["ready"] * 2 + ["succeeded"]
    wait_until(lambda: states(home, ids) == expected)
    assert "limit shop.charge customer:7: as many have begun" in home.ask("task", "explain", ids[3])
    server.end(signal.SIGKILL)
    server = serve(home, port)
    task_id = home.ask("submit", "shop.other", "[1]")
    assert home.ask("task", "wait", task_id, "--timeout", "30") == "1"
    assert states(home, ids) == expected, "the bucket is as empty as it was"
    home.ask("limit", "set", "shop.charge", "--concurrency", "1")
    wait_until(lambda: states(home, ids) == ["succeeded"] * 6)
    assert "shop.charge stays as a person" in home.run("limit", "sync", "shop").stderr
    assert agent.end() == 0
    assert server.end() == 0
    checked = home.run("fsck", "--data-dir", str(home.home / "data"))
    assert checked.returncode == 0, checked.stdout + checked.stderr
