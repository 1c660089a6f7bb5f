"""Sockets: as trio's own stream, in fewer rounds of its scheduler."""

import socket

import pytest
import trio
import trio.testing

from taskd.net import sockets

BYTES = 1024 * 1024
"""More than a pair of sockets holds."""


def pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Return both ends of a connection."""
    ends = socket.socketpair()
    one, other = (trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in ends)
    return one, other


async def test_what_is_sent_is_received() -> None:
    """More than the kernel takes at once arrives whole and in order, then the end."""
    ours, theirs = pair()
    data = bytes(range(256)) * (BYTES // 256)
    received = bytearray()

    async def send() -> None:
        await sockets.send_all(ours, data)
        await ours.aclose()

    async with theirs, trio.open_nursery() as nursery:
        nursery.start_soon(send)
        while piece := await sockets.receive_some(theirs, 100_000):
            assert len(piece) <= 100_000
            received += piece
    assert received == data


async def test_what_fits_is_sent_at_once() -> None:
    """A small message goes out though its sender was cancelled: there is nothing that it waits for."""
    ours, theirs = pair()
    async with ours, theirs:
        with trio.CancelScope() as scope:
            scope.cancel()
            await sockets.send_all(ours, b"now")
        assert await sockets.receive_some(theirs, 10) == b"now"


async def test_a_broken_connection_is_told_as_one() -> None:
    """A peer that is gone with bytes unread breaks both directions."""
    ours, theirs = pair()
    await sockets.send_all(ours, b"never read")
    await theirs.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await sockets.receive_some(ours, 10)
    with pytest.raises(trio.BrokenResourceError):
        await sockets.send_all(ours, b"x")
    await ours.aclose()


async def test_a_closed_stream_is_told_as_one() -> None:
    """What was closed here is not waited for, nor is it when it closes during a wait."""
    ours, theirs = pair()
    async with theirs:
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await sockets.receive_some(ours, 10)

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            await ours.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await sockets.receive_some(ours, 10)
        with pytest.raises(trio.ClosedResourceError):
            await sockets.send_all(ours, b"x")
