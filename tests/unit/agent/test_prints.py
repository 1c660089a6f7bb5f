"""What a worker prints is told apart: by its marks, and by what runs before and after a read."""

from collections import deque

import pytest
import trio

from taskd.agent import wire
from taskd.agent.core import AgentCore
from taskd.agent.executors.prints import Prints
from taskd.agent.streams import Streams
from taskd_protocol.task import Pool
from unit.agent.making import grant
from unit.agent.stage import PlayedWorker


class Clock:
    """Stands still."""

    def mono_ns(self) -> int:
        return 0

    def wall_ms(self) -> int:
        return 5

    def thread_cpu_ns(self) -> int:
        return 0

    def cpu_ns(self) -> int:
        return 0


class Worker(PlayedWorker):
    """What runs in it changes from look to look, as the test says."""

    def __init__(self) -> None:
        super().__init__(1, None)
        self.looks: deque[int] = deque()

    def running(self) -> int:
        return self.looks.popleft() if len(self.looks) > 1 else self.looks[0]


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
def core() -> AgentCore:
    core = AgentCore([Pool("process", 2, ["f"])])
    for token in (1, 2, 3):
        core.pools[0].held[token] = grant(token)
    return core


def said(streams: Streams) -> dict[int, bytes]:
    streams.look(lambda _: False)
    logs, _ = streams.take()
    found: dict[int, bytes] = {}
    for piece in logs.pieces if logs is not None else ():
        found[piece.token] = found.get(piece.token, b"") + piece.data
    return found


def mark(token: int) -> bytes:
    return wire.PRINTED_MARK % token


def test_what_has_a_mark_behind_it_is_that_attempts(worker: Worker, core: AgentCore) -> None:
    worker.looks.append(0)
    worker.prints(b"one" + mark(1) + mark(2) + b"three\n" + mark(3))
    Prints(worker, core, 0, Clock(), lambda: None).read()
    assert said(core.streams) == {1: b"one", 3: b"three\n"}


def test_what_has_none_is_that_of_what_runs_all_the_while(worker: Worker, core: AgentCore) -> None:
    worker.looks.append(2)
    worker.prints(b"one\n" + mark(1) + b"two")
    Prints(worker, core, 0, Clock(), lambda: None).read()
    assert said(core.streams) == {1: b"one\n", 2: b"two"}


def test_what_was_read_while_one_followed_another_waits_for_its_mark(worker: Worker, core: AgentCore) -> None:
    prints = Prints(worker, core, 0, Clock(), lambda: None)
    worker.looks.extend([1, 2, 1, 2, 2])
    worker.prints(b"of one or two, ")
    prints.read()
    assert core.streams.attempts == {}
    worker.prints(b"of one" + mark(1) + b"of two")
    prints.read()
    assert said(core.streams) == {1: b"of one or two, of one", 2: b"of two"}


def test_the_last_words_of_a_dead_worker_are_those_of_what_ran(worker: Worker, core: AgentCore) -> None:
    worker.looks.extend([1, 2, 1, 2, 2])
    worker.prints(b"last words")
    prints = Prints(worker, core, 0, Clock(), lambda: None)
    prints.read(running=2)
    assert said(core.streams) == {2: b"last words"}


def test_what_is_nobodys_goes_to_our_standard_error(
    worker: Worker, core: AgentCore, capfd: pytest.CaptureFixture[str]
) -> None:
    worker.looks.append(0)
    worker.prints(b"of a thread\n" + mark(9) + b"between two\n")
    Prints(worker, core, 0, Clock(), lambda: None).read()
    assert core.streams.attempts == {}
    assert capfd.readouterr().err == "of a thread\nbetween two\n"


async def test_both_outputs_go_on_when_there_is_room_again(
    worker: Worker, core: AgentCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many wait: who prints into one that was forgotten would wait for ever."""
    worker.looks.append(1)
    worker.prints(b"out\n", 1)
    worker.prints(b"err\n", 2)
    prints = Prints(worker, core, 0, Clock(), lambda: None)
    monkeypatch.setattr(Streams, "is_full", True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(prints.follow, 1)
        nursery.start_soon(prints.follow, 2)
        await trio.testing.wait_all_tasks_blocked()
        monkeypatch.setattr(Streams, "is_full", False)
        prints.room()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert sorted(said(core.streams)[1].split()) == [b"err", b"out"]
