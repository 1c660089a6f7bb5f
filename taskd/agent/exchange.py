"""One question and its answer on a new connection: how every conversation with a server begins."""

import trio

from taskd_protocol.connection import Connection, UnknownMessage
from taskd_protocol.connection_messages import Error
from taskd_protocol.errors import ConnectionLost, TaskdError, error_from_code
from taskd_protocol.messages import Message, ToPeer

Incoming = ToPeer | UnknownMessage


async def exchange(stream: trio.abc.Stream, wire: Connection[ToPeer], message: Message) -> list[Incoming]:
    """Send one message; return what comes next, at least one.

    Raises:
        ConnectionLost: The connection broke.
    """
    wire.send(message)
    try:
        while data := wire.data_to_send():
            await stream.send_all(data)
        while data := bytes(await stream.receive_some()):
            messages = wire.receive(data)
            if messages:
                return messages
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    raise ConnectionLost("the server closed the connection")


def told(error: Error) -> TaskdError:
    """Return the error that the server told."""
    return error_from_code(error.code, error.message, retryable=error.retryable, retry_after_ms=error.retry_after_ms)
