"""A worker's link to its agent: two pipes and a page of shared memory.

The page tells without a system call what runs here, even after this process is
gone, and lets the agent take back what has not started while user code holds
this thread. For that the order matters: a worker stores what it is about to run
*before* it looks whether the batch was recalled, and the agent recalls *before*
it looks, some milliseconds later, at what runs.
"""

import mmap
import os
from threading import RLock

import msgspec

from taskd.agent import wire
from taskd_protocol.framing import FrameDecoder
from taskd_protocol.limits import FRAME_HEADER_BYTES

_DECODER = msgspec.msgpack.Decoder(wire.ToWorker)


class Link:
    """The inherited descriptors.

    Attributes:
        page: 64-bit words, as ``wire.PAGE_RUNNING`` and its like number them.
        fd: What to wait on for the agent's messages.
        stacks: What the stacks of this process's threads are written to.
        outputs: Pipes for what attempts print: standard output, standard error.
        places: Attempts that run in one call, each with a word to be cancelled by.
        forked: This process is a child that user code forked: it must not speak.
    """

    def __init__(self, inherited: str) -> None:
        self.fd, self._out, page, self.stacks, *outputs = map(int, inherited.split(","))
        self.outputs = tuple(outputs)
        for fd in (self.fd, self._out, page, self.stacks, *outputs):
            os.set_inheritable(fd, False)  # noqa: FBT003 - processes that user code starts have no part in this
        self.page = memoryview(mmap.mmap(page, wire.PAGE_BYTES)).cast("Q")
        os.close(page)
        self.places = 1
        self.forked = False
        self._writing = RLock()
        self._frames = FrameDecoder(wire.FRAME_BYTES)
        os.register_at_fork(after_in_child=self._fall_silent)

    def receive(self) -> list[wire.ToWorker]:
        """Return the messages that are whole after one read.

        Raises:
            EOFError: The agent closed the pipe, or is gone: end.
        """
        data = os.read(self.fd, wire.READ_BYTES)
        if not data:
            raise EOFError
        return [_DECODER.decode(body) for body in self._frames.feed(data)]

    def receive_setup(self) -> wire.Setup:
        """Return the first message, and leave in the pipe what follows it: an event loop will wait for that.

        Raises:
            EOFError: The agent closed the pipe, or is gone: end.
        """
        length = int.from_bytes(self._read(FRAME_HEADER_BYTES), "big")
        setup = _DECODER.decode(self._read(length))
        assert isinstance(setup, wire.Setup)
        return setup

    def tell(self, message: wire.FromWorker) -> None:
        """Send one message; returns when the kernel has all of it."""
        self.write(wire.encode(message))

    def write(self, frames: bytes) -> None:
        """Send frames, from any thread; what the kernel has reaches the agent even if this process dies."""
        with self._writing:
            written = os.write(self._out, frames)
            if written < len(frames):
                rest = memoryview(frames)
                while written < len(frames):
                    written += os.write(self._out, rest[written:])

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = os.read(self.fd, count - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def _fall_silent(self) -> None:
        if self.forked:  # as its parent was: that is done
            return
        self.forked = True
        os.close(self.fd)
        os.close(self._out)
