"""The port: signs of progress that tell something are told, and no others."""

import pytest

from taskd.agent import wire
from taskd.agent.worker.link import Link
from taskd.agent.worker.port import SIGN_NS, Port
from taskd.agent.worker.speech import ROOM_LOOK_S
from taskd_protocol.errors import ServerBusy


class Ear(Link):
    """A link that keeps what it was to tell."""

    def __init__(self) -> None:
        self.forked = False
        self.places = 1
        self.told: list[wire.FromWorker] = []
        self.page = memoryview(bytearray(wire.PAGE_BYTES)).cast("Q")

    def tell(self, message: wire.FromWorker) -> None:
        self.told.append(message)


class Watch:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.ns = 0

    def mono_ns(self) -> int:
        return self.ns

    def wall_ms(self) -> int:
        return self.ns // 1_000_000


def test_coroutines_that_beat_in_turn_tell_no_more_than_one_alone() -> None:
    """Each has its own last sign; what it says in words is told at once all the same."""
    ear, watch = Ear(), Watch()
    port = Port(ear, watch)
    for _ in range(100):
        for token in (1, 2, 3):
            port.beat(token, b"")
        watch.ns += SIGN_NS // 50
    assert ear.told == [wire.Beat(token, b"") for token in (1, 2, 3)] * 2
    port.beat(2, b"x")
    assert ear.told[6:] == [wire.Beat(2, b"x")]


def test_signs_of_attempts_that_are_over_are_forgotten() -> None:
    ear, watch = Ear(), Watch()
    port = Port(ear, watch)
    for token in range(1, 1_000):
        port.beat(token, b"")
        watch.ns += SIGN_NS // 10
    assert len(ear.told) == 999
    assert len(port._sent_ns) == 10


def test_a_blocking_call_waits_until_its_agent_takes_more_of_what_it_spawns(monkeypatch: pytest.MonkeyPatch) -> None:
    ear = Ear()
    port = Port(ear, Watch())
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        ear.page[wire.PAGE_SPAWNS_FULL] = len(looks) < 3

    monkeypatch.setattr("time.sleep", sleep)
    port.wait_for_room(7)
    assert looks == []
    ear.page[wire.PAGE_SPAWNS_FULL] = 1
    port.wait_for_room(7)
    assert looks == [ROOM_LOOK_S] * 3


def test_a_call_that_waits_has_not_fallen_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is held up: no limit on its silence ends it, however long its agent takes nothing."""
    ear, watch = Ear(), Watch()
    port = Port(ear, watch)
    ear.page[wire.PAGE_SPAWNS_FULL] = 1

    def sleep(seconds: float) -> None:
        watch.ns += round(seconds * 1e9)
        ear.page[wire.PAGE_SPAWNS_FULL] = watch.ns < 10 * SIGN_NS

    monkeypatch.setattr("time.sleep", sleep)
    port.wait_for_room(7)
    assert ear.told == [wire.Beat(7, b"")] * 10


def test_a_cancelled_call_waits_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    ear = Ear()
    port = Port(ear, Watch())
    ear.page[wire.PAGE_SPAWNS_FULL] = 1

    def sleep(_: float) -> None:
        ear.page[wire.PAGE_CANCELLED] = 7

    monkeypatch.setattr("time.sleep", sleep)
    with pytest.raises(ServerBusy):
        port.wait_for_room(7)


def test_a_coroutine_is_refused_at_once() -> None:
    """Waiting it would hold up its neighbours."""
    ear = Ear()
    port = Port(ear, Watch(), may_block=False)
    port.wait_for_room(7)
    ear.page[wire.PAGE_SPAWNS_FULL] = 1
    with pytest.raises(ServerBusy) as refused:
        port.wait_for_room(7)
    assert (refused.value.code, refused.value.retryable) == ("server.busy", True)
