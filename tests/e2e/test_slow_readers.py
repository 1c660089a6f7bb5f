"""Who reads slowly, or not for a while, hurts nobody, and is told all of it in order."""

import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from e2e.house import House, house, wait_until
from taskd import App
from taskd.server.clock import SystemClock
from taskd_protocol.ids import format_task_id, make_task_ids
from taskd_protocol.payload import pack
from taskd_protocol.task import TaskSpec

MODULE = """
import time
from taskd import App

app = App()

@app.task
def lines(count):
    for n in range(count):
        print("line", n, "x" * 200, flush=True)

@app.task
def carry(kilobytes):
    began = time.monotonic()
    for n in range(kilobytes):
        print(n, "y" * (1023 - len(str(n)) - 1))
        time.sleep(max(0.0, began + n / 1024 - time.monotonic()))
"""

BATCH = 2_000
BATCHES = 25
"""Six megabytes of events: more than sockets between a reader and its server hold."""

ATTEMPTS = 20
KILOBYTES = 3 * 1024
"""That each says, 1 MiB a second: less than what is let through at once, so that no load of the machine makes a cut."""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path / "home") as made:
        (made.work / "shop.py").write_text(MODULE)
        yield made


def app_of(home: House) -> App:
    profile = home.profile()
    ca = home.home / "ca.pem"
    ca.write_text(profile["ca_pem"])
    return App(f"taskd://{profile['token']}@{profile['address']}?ca={quote(str(ca))}")


def submit(app: App, count: int, name: str = "shop.none", *args: int) -> list[str]:
    """Submit tasks; without a name: that nobody runs."""
    ids = list(make_task_ids(count, SystemClock().wall_ms(), os.urandom(10 * count)))
    app.client.submit([TaskSpec(task_id, name, pack([list(args), {}])) for task_id in ids])
    return [format_task_id(task_id) for task_id in ids]


class Tab:
    """A page that follows events, as a browser does; it reads when it is told to."""

    def __init__(self, home: House, after: int) -> None:
        profile = home.profile()
        url = urlsplit(profile["http"])
        assert url.hostname is not None
        assert url.port is not None
        self.socket = socket.create_connection((url.hostname, url.port), timeout=60)
        head = [
            "GET /api/v1/events?topics=task.submitted HTTP/1.1",
            f"Host: {url.netloc}",
            f"Authorization: Bearer {profile['token']}",
            "Accept: text/event-stream",
            f"Last-Event-ID: {after}",
        ]
        self.socket.sendall("\r\n".join([*head, "", ""]).encode())
        self.stream = self.socket.makefile("rb")
        self.last_id = after

    def read(self, count: int) -> list[str]:
        """Return the ids of the next so many tasks; fail where some are said to be missing."""
        ids: list[str] = []
        while len(ids) < count:
            line = self.stream.readline()
            assert line, "the stream ended"
            assert b"missed" not in line
            if line.startswith(b"id: "):
                self.last_id = int(line[4:])
            if line.startswith(b'data: {"'):
                ids += json.loads(line[6:]).get("ids", [])
        return ids

    def close(self) -> None:
        self.stream.close()
        self.socket.close()


def test_a_reader_that_stops_hurts_nobody_and_reads_all_of_it_later(home: House) -> None:
    """A page that does not read, a program that does not, a terminal that is stopped; and one that keeps up."""
    home.serve()
    app = app_of(home)
    slow, quick = Tab(home, 0), Tab(home, 0)
    stopped = home.start("watch", "--after", "0", "--json", "what:task.submitted")
    idle = app.events(["task.submitted"], after=0)
    sent = submit(app, 1)
    assert json.loads(stopped.read_line())["ids"] == sent
    assert list(next(idle).ids) == sent
    stopped.process.send_signal(signal.SIGSTOP)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.extend(quick.read(1 + BATCH * BATCHES)))
    reader.start()
    for _ in range(BATCHES):
        sent += submit(app, BATCH)
    reader.join(60)
    assert read == sent, "one that reads is told all of it while the others do not"
    assert slow.read(len(sent)) == sent
    stopped.process.send_signal(signal.SIGCONT)
    told = sent[:1]
    while len(told) < len(sent):
        told += json.loads(stopped.read_line())["ids"]
    assert told == sent
    told = sent[:1]
    while len(told) < len(sent):
        told += next(idle).ids
    assert told == sent
    later = Tab(home, slow.last_id)
    sent = submit(app, 1)
    assert later.read(1) == sent, "a page that connects again goes on where it was"
    for tab in (slow, quick, later):
        tab.close()
    app.client.close()


def test_output_that_is_followed_by_who_stops_or_goes_is_whole(home: House) -> None:
    """As by `| head`, which ends it quietly, and by ctrl-Z, after which it goes on where it was."""
    home.serve()
    home.start("agent", "shop", "--processes", "2")
    task_id = home.ask("submit", "shop.lines", "[10000]")
    follower = home.start("task", "logs", task_id, "-f")
    assert follower.read_line().startswith("line 0 ")
    follower.process.send_signal(signal.SIGSTOP)
    words = " ".join([*home.program, "task", "logs", task_id, "-f"])
    head = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{words} | head -n 3"],
        env=home.env, cwd=home.work, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert [line.split()[1] for line in head.stdout.splitlines()] == ["0", "1", "2"]
    assert head.stderr == ""
    assert home.run("task", "wait", task_id, "--timeout", "55s").returncode == 0
    follower.process.send_signal(signal.SIGCONT)
    assert follower.process.stdout is not None
    assert [int(line.split()[1]) for line in follower.process.stdout.read().splitlines()] == list(range(1, 10_000))
    assert follower.process.wait(30) == 0


def test_a_mebibyte_a_second_of_each_of_twenty_attempts_is_carried_whole(home: House) -> None:
    home.serve()
    home.start("agent", "shop", "--processes", str(ATTEMPTS))
    app = app_of(home)
    for task_id in submit(app, ATTEMPTS, "shop.carry", KILOBYTES):
        handle = app.handle(task_id)
        handle.result(timeout=100)
        lines = list(handle.logs())
        assert [line.stream for line in lines] == ["stdout"] * KILOBYTES
        assert [line.text.split(" ")[0] for line in lines] == [str(n) for n in range(KILOBYTES)]
        assert {len(line.text) for line in lines} == {1023}
    app.client.close()


def test_output_goes_by_its_size_and_what_runs_keeps_its_own(home: House) -> None:
    """And an attempt says no more than its agent lets it, which is counted."""
    home.serve("--log-retention-size", "1MiB")
    home.start("agent", "shop", "--processes", "3", "--log-size", "1MiB")
    running = home.ask("submit", "shop.carry", "[1000000]")
    first, second = (home.ask("submit", "shop.lines", "[9000]") for _ in range(2))
    for task_id in (first, second):
        assert home.run("task", "wait", task_id, "--timeout", "55s").returncode == 0

    def texts(task_id: str) -> list[tuple[str, str]]:
        lines = json.loads(home.ask("task", "logs", task_id, "--json"))
        return [(line["stream"], line["text"]) for line in lines]

    wait_until(lambda: len(texts(running)) > 500)
    gone = wait_until(lambda: [each for each in (first, second) if len(texts(each)) == 1])
    assert ["no longer kept" in text for task_id in gone for _, text in texts(task_id)] == [True] * len(gone)
    kept = texts(running)
    assert [text.split(" ")[0] for stream, text in kept if stream == "stdout"][:500] == [str(n) for n in range(500)]
    assert home.task(running)["state"] == "running"
    assert all(home.task(each)["state"] == "succeeded" for each in gone)
