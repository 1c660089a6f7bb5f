"""Reading and writing a socket in as few rounds of trio's scheduler as there are waits.

trio's own stream first tries to read what cannot be there yet, and after a write that took everything
lets all others have a turn. Of the rounds that a task's way through the server takes, these were a third.
"""

import os

import trio


def receive_nowait(stream: trio.SocketStream, max_bytes: int) -> bytes | None:
    """Return what has come, up to so much; None: nothing has; empty: it is the end of the stream.

    Raises:
        trio.BrokenResourceError: The connection broke.
        trio.ClosedResourceError: The stream was closed.
    """
    try:
        return os.read(descriptor(stream), max_bytes)
    except BlockingIOError:
        return None
    except OSError as error:
        raise trio.BrokenResourceError("the connection broke") from error


async def receive_some(stream: trio.SocketStream, max_bytes: int) -> bytes:
    """Wait until there is something, and return it; empty at the end of the stream.

    Raises:
        trio.BrokenResourceError: The connection broke.
        trio.ClosedResourceError: The stream was closed.
    """
    while True:
        await trio.lowlevel.wait_readable(descriptor(stream))
        data = receive_nowait(stream, max_bytes)
        if data is not None:
            return data


def send_nowait(stream: trio.SocketStream, data: bytes) -> int:
    """Have the kernel take what it takes at once; return how many bytes that were.

    Raises:
        trio.BrokenResourceError: The connection broke.
        trio.ClosedResourceError: The stream was closed.
    """
    try:
        return os.write(descriptor(stream), data)
    except BlockingIOError:
        return 0
    except OSError as error:
        raise trio.BrokenResourceError("the connection broke") from error


async def send_all(stream: trio.SocketStream, data: bytes) -> None:
    """Return when the kernel has taken everything: without waiting, if it does so at once.

    Raises:
        trio.BrokenResourceError: The connection broke.
        trio.ClosedResourceError: The stream was closed.
    """
    sent = send_nowait(stream, data)
    if sent < len(data):
        await stream.send_all(memoryview(data)[sent:])


def descriptor(stream: trio.SocketStream) -> int:
    """Return what the kernel knows the socket by.

    Raises:
        trio.ClosedResourceError: The stream was closed.
    """
    number = stream.socket.fileno()
    if number < 0:
        raise trio.ClosedResourceError("the stream was closed")
    return number
