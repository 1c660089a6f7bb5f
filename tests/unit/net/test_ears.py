"""Ears: everything that comes is heard by the one task that sleeps there, and faults stay with whose they are."""

import socket
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from taskd.net.ears import SOCKETS_MAX, Deaf, Ears, Hearing

BYTES = 100

_ENDS: list[socket.socket] = []


class Listened:
    """A socket that somebody listens to, and what was heard."""

    def __init__(self, ears: Ears) -> None:
        self._ears = ears
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)  # noqa: FBT003 - the socket module's own shape
        _ENDS.extend((self.ours, self.theirs))
        self.heard: list[bytes] = []
        self.ended = ""

    def hear(self) -> bool:
        """Take what is there; "fault" is one."""
        data = self.ours.recv(BYTES)
        self.heard.append(data)
        if data == b"fault":
            raise ValueError("told by the peer")
        return bool(data)

    async def listen(self) -> None:
        """Listen until the end, and say what that was."""
        self.ended = "cancelled"
        try:
            await self._ears.listen(self.ours.fileno(), self.hear)
            self.ended = "over"
        except ValueError:
            self.ended = "fault"


@pytest.fixture
def ears() -> Iterator[Ears]:
    """Those of this machine; what a test has opened is closed after it."""
    yield Ears()
    while _ENDS:
        _ENDS.pop().close()


async def hear_for_ever(ears: Hearing) -> None:
    """Be the one task."""
    while True:
        ears.hear()
        await ears.sleep()


async def settle(*those: Listened, count: int) -> None:
    """Wait until each has heard so often."""
    while any(len(each.heard) < count for each in those):
        await trio.lowlevel.checkpoint()


async def listening(nursery: trio.Nursery, ears: Ears, count: int) -> list[Listened]:
    """Return so many sockets that somebody listens to; each has had something to be heard already."""
    those = [Listened(ears) for _ in range(count)]
    for each in those:
        each.theirs.send(b"before")
        nursery.start_soon(each.listen)
    await settle(*those, count=1)
    return those


async def test_what_came_before_is_heard_at_once(ears: Ears) -> None:
    """A peer's first words may have come with its handshake: nobody has to sleep for them to be heard."""
    async with trio.open_nursery() as nursery:
        [one] = await listening(nursery, ears, 1)
        assert one.heard == [b"before"]
        nursery.cancel_scope.cancel()
    assert one.ended == "cancelled"


async def test_who_sleeps_hears_what_comes(ears: Ears) -> None:
    """More sockets than are heard in one go, each several times."""
    async with trio.open_nursery() as nursery:
        those = await listening(nursery, ears, SOCKETS_MAX + 10)
        nursery.start_soon(hear_for_ever, ears)
        for number in range(3):
            for each in those:
                each.theirs.send(b"%d" % number)
            await settle(*those, count=number + 2)
        nursery.cancel_scope.cancel()
    assert all(each.heard == [b"before", b"0", b"1", b"2"] for each in those)


async def test_a_fault_is_raised_to_whose_it_is(ears: Ears) -> None:
    """The others are heard as before, and the one that slept goes on."""
    async with trio.open_nursery() as nursery:
        bad, good = await listening(nursery, ears, 2)
        nursery.start_soon(hear_for_ever, ears)
        bad.theirs.send(b"fault")
        await settle(bad, count=2)
        good.theirs.send(b"fine")
        bad.theirs.send(b"nobody listens")
        await settle(good, count=2)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert (bad.ended, bad.heard) == ("fault", [b"before", b"fault"])
    assert (good.ended, good.heard) == ("cancelled", [b"before", b"fine"])


async def test_the_end_of_a_stream_ends_the_listening(ears: Ears) -> None:
    """Its descriptor can be used anew by then."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hear_for_ever, ears)
        for _ in range(3):
            [one] = await listening(nursery, ears, 1)
            one.theirs.close()
            await settle(one, count=2)
            while one.ended != "over":
                await trio.lowlevel.checkpoint()
            one.ours.close()  # the next one gets its number
        nursery.cancel_scope.cancel()


async def test_who_has_hung_up_is_heard_to_the_end_at_once(ears: Ears) -> None:
    """All that he said, and that he has gone, before whoever hears it acts on any of it; others are heard once."""
    async with trio.open_nursery() as nursery:
        gone, here = await listening(nursery, ears, 2)
        for each in (gone, here):
            each.theirs.send(b"x" * 3 * BYTES)
        gone.theirs.close()
        ears.hear()
        assert gone.heard[1:] == [b"x" * BYTES] * 3 + [b""]
        assert here.heard[1:] == [b"x" * BYTES]
        nursery.cancel_scope.cancel()
    assert gone.ended == "over"


async def test_who_stops_listening_hears_no_more(ears: Ears) -> None:
    """Cancelled in the moment in which something has come, and before it was heard."""
    one = Listened(ears)
    one.theirs.send(b"before")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.listen)
        await settle(one, count=1)
        one.theirs.send(b"late")
        nursery.cancel_scope.cancel()
    ears.hear()
    assert one.heard == [b"before"]


@pytest.mark.parametrize("make", [Ears, Deaf])
async def test_who_sleeps_is_woken(make: type[Hearing]) -> None:
    """As often as somebody asks, once for several calls together; a call while nobody sleeps is not kept."""
    ears, woken = make(), 0

    async def sleep() -> None:
        nonlocal woken
        while True:
            await ears.sleep()
            woken += 1

    async with trio.open_nursery() as nursery:
        ears.wake()
        nursery.start_soon(sleep)
        for times in range(3):
            await trio.testing.wait_all_tasks_blocked()
            assert woken == times
            ears.wake()
            ears.wake()
        await trio.testing.wait_all_tasks_blocked()
        assert woken == 3
        nursery.cancel_scope.cancel()
