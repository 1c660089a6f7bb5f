"""The port: signs of progress that tell something are told, and no others."""

from taskd.agent import wire
from taskd.agent.worker.link import Link
from taskd.agent.worker.port import SIGN_NS, Port


class Ear(Link):
    """A link that keeps what it was to tell."""

    def __init__(self) -> None:
        self.forked = False
        self.told: list[wire.FromWorker] = []

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
