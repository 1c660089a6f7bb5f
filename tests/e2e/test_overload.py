"""More than a server can take: it says so and is believed, finishes what it has, and stays within bounds."""

import random
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import trio

from e2e.disks import small_disk
from e2e.house import House, Running, house, wait_until
from e2e.peers import connected
from taskd.server.clock import SystemClock
from taskd_protocol import messages as m
from taskd_protocol.connection_messages import Error, Welcome
from taskd_protocol.ids import make_task_ids
from taskd_protocol.task import TaskSpec

BACKLOG = 50
SMALL_SERVER = f"""
import taskd.server.intake as intake
from taskd.cli.main import main

intake.BACKLOG_WEIGHT_MAX = {BACKLOG}
main()
"""

CLIENTS, SUBMITS, TASKS = 8, 12, 40
MODULE = """
import time
from pathlib import Path
from taskd import App

app = App()

@app.task
def work(number):
    return number

@app.task
def wait_for(name):
    Path(f"{name}.started").touch()
    while not Path(name).exists():
        time.sleep(0.02)
    return name
"""
FLOOD = f"""
import threading
from shop import work

kept = []

def flood():
    for _ in range({SUBMITS}):
        kept.extend(handle.id for handle in work.map(range({TASKS})))

threads = [threading.Thread(target=flood) for _ in range({CLIENTS})]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(set(kept)))
"""

DISK_MIB = 220
KEPT_MIB = 40
"""Below what the server keeps for what it has accepted, and enough for that."""

FLOOD_BYTES = 160 * 1024 * 1024
PAYLOAD_BYTES = 64 * 1024
RSS_BYTES_MAX = 700 * 1024 * 1024
"""What a server weighs at rest, RocksDB's memtables, and what may wait: of all that is sent a fraction."""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path / "home") as made:
        (made.work / "shop.py").write_text(MODULE)
        yield made


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of this test alone."""
    with small_disk(tmp_path / "disk", DISK_MIB) as point:
        yield point


def specs(count: int, payload: bytes = b"args") -> list[TaskSpec]:
    ids = make_task_ids(count, SystemClock().wall_ms(), random.randbytes(10 * count))
    return [TaskSpec(task_id, "nobody.has_it", payload) for task_id in ids]


async def test_who_is_told_to_wait_waits_and_is_served(tmp_path: Path) -> None:
    """Submits beyond the backlog are refused with a time to wait; clients obey, and lose or double nothing."""
    with house(tmp_path / "home", [sys.executable, "-c", SMALL_SERVER]) as home:
        (home.work / "shop.py").write_text(MODULE)
        home.serve("--data-dir", "data")
        async with connected(home) as peer:
            await peer.take(Welcome)
            await peer.send(*[m.Submit(number, specs(TASKS)) for number in range(1, 11)])
            answers = [await peer.answer(m.Submit(number, []), object) for number in range(1, 11)]
        refused = [answer for answer in answers if isinstance(answer, Error)]
        assert {(error.code, error.retryable) for error in refused} == {("server.busy", True)}
        assert all(error.retry_after_ms > 0 for error in refused)
        words = [sys.executable, "-c", FLOOD]
        flood = await trio.run_process(words, env=home.env, cwd=home.work, capture_stdout=True)
        kept = CLIENTS * SUBMITS * TASKS
        assert int(flood.stdout) == kept
        listed = await trio.to_thread.run_sync(home.ask, "queue", "ls", "--json")
        assert f'"ready": {kept + TASKS * (len(answers) - len(refused))}' in listed


def test_a_disk_that_is_nearly_full_takes_no_new_work_and_keeps_what_was_done(home: House, disk: Path) -> None:
    """A submit is refused with a reason, a result that is reported is recorded; with room again all is as before."""
    home.serve("--data-dir", str(disk / "data"))
    home.start("agent", "shop", "--name", "ash", "--processes", "1")
    running = home.ask("submit", "shop.wait_for", '["done"]')
    wait_until((home.work / "done.started").exists)
    eaten = disk / "eaten"
    free = psutil.disk_usage(str(disk)).free - KEPT_MIB * 1024 * 1024
    with eaten.open("wb") as file:
        for _ in range(free // 65_536):
            file.write(bytes(65_536))
    refused = refusal(home)
    assert re.search(r"has \d+ MiB left and keeps \d+ MiB", refused)
    (home.work / "done").touch()
    assert home.ask("task", "wait", running) == '"done"'
    eaten.unlink()
    assert home.ask("submit", "shop.work", "[1]", "--wait") == "1"


def refusal(home: House) -> str:
    """Return why a submit is refused; clients wait and try again, a peer is told at once."""

    async def ask() -> str:
        async with connected(home) as peer:
            await peer.take(Welcome)
            while True:
                number = peer.number()
                answer = await peer.ask(m.Submit(number, specs(1)), object)
                if isinstance(answer, Error):
                    assert (answer.code, answer.retryable) == ("server.disk_full", True)
                    assert answer.retry_after_ms > 0
                    return answer.message

    return trio.run(ask)


async def test_memory_stays_bounded_whatever_is_sent_and_not_read(home: House) -> None:
    """A flood of submits from peers that read none of their answers."""
    server = home.serve("--data-dir", "data")
    payload = random.randbytes(PAYLOAD_BYTES)
    watched = Watched(server)
    sent = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watched.run)
        while sent < FLOOD_BYTES:
            async with connected(home, reads=False) as peer:
                with suppress(trio.BrokenResourceError), trio.move_on_after(10):
                    while sent < FLOOD_BYTES:
                        await peer.send(m.Submit(peer.number(), specs(3, payload)))
                        sent += 3 * PAYLOAD_BYTES
        nursery.cancel_scope.cancel()
    assert watched.highest < RSS_BYTES_MAX
    async with connected(home) as peer:
        await peer.take(Welcome)
        with trio.fail_after(30):
            await peer.ask(m.Submit(peer.number(), specs(1)), m.Accepted)


class Watched:
    """How much memory a process has had, at its highest."""

    def __init__(self, server: Running) -> None:
        self._process = psutil.Process(server.pid)
        self.highest = 0

    async def run(self) -> None:
        """Look now and again, until cancelled."""
        while True:
            self.highest = max(self.highest, self._process.memory_info().rss)
            await trio.sleep(0.05)
