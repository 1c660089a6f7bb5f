"""Sending: what the core and others have to say on one connection goes out, at once where nothing is in the way.

A task that sends comes to what is to be sent one round of trio's scheduler after it was woken, which is as long as all
the rest of a report's way from a worker's pipe to the socket. So who has something to tell after a while of silence
writes it, without waiting, if that is little and the kernel takes it. All else is the task's, which sends together what
is told in one round.
"""

import trio

from taskd.agent.core import AgentCore
from taskd.agent.diary import Diary
from taskd.net.tls_stream import TlsStream
from taskd_protocol.connection import Connection
from taskd_protocol.errors import TaskdError
from taskd_protocol.messages import Message, ToPeer

BUSY_BYTES = 4_096
BUSY_PAUSE_S = 0.001
"""After so many bytes at once more will follow: let it come together."""

SILENCE_S = 0.0005
"""Who tells something sooner than this after what was told before may not be the last to do so in this round."""


class Sender:
    """Of one connection."""

    def __init__(self, stream: trio.abc.Stream, wire: Connection[ToPeer], core: AgentCore, diary: Diary) -> None:
        """Prepare.

        Args:
            stream: Where to.
            wire: Has what others than the core say in its outbox.
            core: Whose messages are sent.
            diary: Sees them.
        """
        self._stream = stream
        self._wire = wire
        self._core = core
        self._diary = diary
        self._bell = trio.Event()
        self._rests = False  # `run` waits for the bell, and that was not rung
        self._left_over = False  # the stream has something that the kernel did not take, or the connection is broken
        self._failure: TaskdError | None = None
        self._sent_s = 0.0  # when something was sent last

    def say(self, message: Message) -> None:
        """Have something sent, soon, that the core does not know of.

        Raises:
            FrameTooLarge: It cannot be sent.
        """
        self._wire.send(message)
        self._wake()

    def tell(self) -> None:
        """Send what there is now, or have it sent soon. Raises nothing: what breaks ends ``run``."""
        stream = self._stream
        now_s = trio.current_time()
        if not self._rests or not isinstance(stream, TlsStream) or now_s - self._sent_s < SILENCE_S:
            if self._core.has_news:
                self._wake()
            return
        try:
            self._take()
        except TaskdError as error:
            self._failure = error
            self._wake()
        else:
            if self._wire.outbox_bytes and not self._send_nowait(stream, now_s):
                self._wake()

    async def run(self) -> None:
        """Send, for ever.

        Raises:
            TaskdError: The core has a message that cannot be sent.
            trio.BrokenResourceError: The connection broke.
            trio.ClosedResourceError: It was closed.
        """
        try:
            while True:
                sent = 0
                while True:
                    if self._failure is not None:
                        raise self._failure
                    self._take()
                    data = self._wire.data_to_send()
                    if not data and not self._left_over:
                        break
                    self._left_over = False
                    await self._stream.send_all(data)
                    sent += len(data)
                self._sent_s = trio.current_time()
                if sent >= BUSY_BYTES:
                    await trio.sleep(BUSY_PAUSE_S)
                self._rests = not self._bell.is_set()
                await self._bell.wait()
                self._bell = trio.Event()
        finally:
            self._rests = False

    def _wake(self) -> None:
        self._rests = False
        self._bell.set()

    def _take(self) -> None:
        """Put the core's messages into the outbox."""
        for message in self._core.messages():
            self._wire.send(message)
            self._diary.sent(message, trio.current_time)

    def _send_nowait(self, stream: TlsStream, now_s: float) -> bool:
        """Send what is in the outbox; tell whether that is all there is to do."""
        if self._wire.outbox_bytes > BUSY_BYTES:
            return False
        self._sent_s = now_s
        try:
            self._left_over = not stream.send_nowait(self._wire.data_to_send())
        except trio.BrokenResourceError:
            self._left_over = True  # so that `run` meets it
        return not self._left_over
