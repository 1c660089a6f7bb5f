import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from taskd.agent import wire
from taskd.agent.executors import command, coroutine, seat
from taskd.agent.executors.seat import Hand
from taskd.agent.processes import Worker
from taskd.agent.spawner import open_spawner
from unit.agent.workshop import JOBS, Bench

Hire = Callable[[str], Awaitable[Bench]]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's project, with tasks in `jobs.py`, as the working directory."""
    (tmp_path / "jobs.py").write_text(JOBS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who takes no notice of a cancel, or runs on beside one who takes none, is waited for a second or two only."""
    for executor in (command, coroutine, seat):
        monkeypatch.setattr(executor, "TERM_S", 1.0)
    monkeypatch.setattr(coroutine, "DRAIN_S", 2.0)


@pytest.fixture
async def hire(project: Path) -> AsyncIterator[Hire]:
    """Starts real workers of one kind, without an agent."""
    assert Path.cwd() == project
    async with open_spawner([sys.executable, "-m", "taskd.agent.worker", "jobs"]) as spawner:
        started = list[Worker]()

        async def start(kind: str) -> Bench:
            process = await spawner.worker()
            started.append(process)
            bench = Bench(Hand(process), process)
            ready = await bench.next()
            assert isinstance(ready, wire.Ready)
            assert not ready.error
            bench.tell(wire.Setup(kind, 100))
            return bench

        yield start
        for process in started:
            process.close()
