"""Real processes as the agent sees them, each through the runner that watches over it."""

import contextlib
import fcntl
import os
import signal
import socket
import sys
import termios
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
import trio

from taskd.agent import wire
from taskd.agent.platform import Exit
from taskd_protocol import limits
from taskd_protocol.framing import FrameDecoder
from taskd_protocol.streams import STDERR, STDOUT

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskd.agent.cells import Cell

STREAMS = (STDOUT, STDERR)

STACKS_S = 2.0
"""A worker shows its stacks in milliseconds; one that does not is stopped, or deep in the kernel."""

STACKS_LOOK_S = 0.02

STACKS_STILL_LOOKS = 5
"""Nothing tells that they are whole. On a busy machine the worker may not run for a while in the middle of a line."""

_FROM_RUNNER = msgspec.msgpack.Decoder(wire.FromRunner)


class Runner:
    """The agent's end of one runner's control socket: a process, and all that comes from it.

    Attributes:
        pid: Of the process; 0: it was not started.
        gone: To be told that when this is closed.
        cell: The control group that it is in alone; None: it has none.
    """

    def __init__(self, control: socket.socket) -> None:
        self.pid = 0
        self.gone: Callable[[int], None] | None = None
        self.cell: Cell | None = None
        self._control = control
        self._frames = FrameDecoder(wire.FRAME_BYTES)
        self._heard: deque[wire.FromRunner] = deque()
        self._exit: Exit | None = None
        self._killed = False
        self._live_until_ms = 0

    async def start(self, run: wire.Run) -> None:
        """Have it start the process.

        Raises:
            OSError: The system refused.
        """
        self._live_until_ms = run.live_until_ms
        data = memoryview(wire.encode(run))
        while data:
            await trio.lowlevel.wait_writable(self._control)
            data = data[self._control.send(data) :]
        match await self._next():
            case wire.Launched(pid):
                self.pid = pid
            case wire.NotStarted(reason):
                raise OSError(reason)
            case _:
                raise OSError("its runner was killed")

    async def wait(self) -> Exit:
        """Wait until nothing is left of the process."""
        while self._exit is None:
            match await self._next():
                case wire.Exited(code, killed, peak_bytes):
                    self._exit = Exit(code, killed, peak_bytes)
                case None:  # somebody killed the runner, and so the kernel its process
                    self._exit = Exit(-signal.SIGKILL, self._killed)
                case _:
                    pass
        return self._exit

    def terminate(self) -> None:
        """Send TERM to the process's group."""
        self._order(wire.Signal(kill=False))

    def kill(self) -> None:
        """Kill the process and all that came from it."""
        self._killed = True
        self._order(wire.Signal(kill=True))

    def live_until(self, mono_ms: int) -> None:
        """See ``Process``."""
        if mono_ms != self._live_until_ms:
            self._live_until_ms = mono_ms
            self._order(wire.LiveUntil(mono_ms))

    def limit_memory(self, memory_bytes: int) -> None:
        """See ``Process``."""
        if self.cell is not None:
            self.cell.limit(memory_bytes)

    def close(self) -> None:
        """Hang up: the runner kills what is left."""
        if self.gone is not None:
            self.gone(self.pid)
        self._control.close()
        if self.cell is not None:
            self.cell.leave()

    async def _next(self) -> wire.FromRunner | None:
        while not self._heard:
            await trio.lowlevel.wait_readable(self._control)
            try:
                data = self._control.recv(wire.READ_BYTES)
            except ConnectionError:
                data = b""
            if not data:
                return None
            self._heard.extend(_FROM_RUNNER.decode(body) for body in self._frames.feed(data))
        return self._heard.popleft()

    def _order(self, order: wire.Signal | wire.ShowStacks | wire.LiveUntil) -> None:
        with contextlib.suppress(OSError):  # it has ended: nothing is left to be ordered
            self._control.send(wire.encode(order))


class Worker(Runner):
    """A worker process: its runner, its pipes, and the page."""

    def __init__(
        self,
        control: socket.socket,
        to_worker: int,
        from_worker: int,
        page: "memoryview[int]",
        *,
        stacks: int,
        outputs: Sequence[int],
    ) -> None:
        super().__init__(control)
        self._outputs = list(outputs)
        self._stacks = stacks
        self._to: int | None = to_worker
        self._from = from_worker
        self._page = page
        self._unsent = bytearray()
        self._more = trio.Event()

    def send(self, frames: bytes) -> None:
        """Hand over frames without waiting."""
        if self._to is None:
            return
        written = 0
        if not self._unsent:
            try:
                written = os.write(self._to, frames)
            except BlockingIOError:
                pass
            except BrokenPipeError:
                return  # it is dead: its runner tells
        if written < len(frames):
            self._unsent += frames[written:]
            self._more.set()

    async def pump(self) -> None:
        """Write what did not fit into the pipe, for ever."""
        while True:
            await self._more.wait()
            self._more = trio.Event()
            while self._unsent and self._to is not None:
                await trio.lowlevel.wait_writable(self._to)
                try:
                    written = os.write(self._to, self._unsent)
                except BrokenPipeError:
                    return
                del self._unsent[:written]

    async def receive(self) -> bytes:
        """Wait for bytes; empty: the worker has closed its end."""
        while True:
            await trio.lowlevel.wait_readable(self._from)
            try:
                return os.read(self._from, wire.READ_BYTES)
            except BlockingIOError:
                continue  # read by `receive_nowait` meanwhile

    def receive_nowait(self) -> bytes:
        """Return bytes that are there."""
        pieces: list[bytes] = []
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self._from, wire.READ_BYTES):
                pieces.append(piece)
        return b"".join(pieces)

    def running(self) -> int:
        """Return the token that runs, or ran at the end."""
        return self._page[wire.PAGE_RUNNING]

    def recall(self, batch: int) -> None:
        """Take back batches up to this one."""
        self._page[wire.PAGE_RECALLED] = batch

    def cancel(self, token: int, place: int = 0) -> None:
        """Have the blocking call of that token, if it runs, see that it is to end; see ``Platform``."""
        self._page[wire.PAGE_CANCELLED + place] = token

    def hold_spawns(self, *, full: bool) -> None:
        """Have attempts spawn no more for now, or go on."""
        self._page[wire.PAGE_SPAWNS_FULL] = full

    def hold_output(self, *, full: bool) -> None:
        """Have attempts say no more for now, or go on."""
        self._page[wire.PAGE_OUTPUT_FULL] = full

    async def wait_printed(self, stream: int) -> None:
        """Wait until there is something to read in an output, or its end."""
        if self._outputs:
            await trio.lowlevel.wait_readable(self._outputs[stream - 1])

    def read_printed(self, stream: int) -> bytes | None:
        """Return all that is there now of an output; None: it has ended. The worker can tell that it was read."""
        if not self._outputs:
            return None
        page, fd = self._page, self._outputs[stream - 1]
        page[wire.PAGE_READS] += 1
        try:
            fcntl.ioctl(fd, termios.FIONREAD, count := bytearray(4))
            return os.read(fd, int.from_bytes(count, sys.byteorder) or 1) or None
        except BlockingIOError:
            return b""
        finally:
            page[wire.PAGE_READS] += 1

    async def stacks(self) -> bytes:
        """Return the Python stacks of its threads as they are now, as text; empty if it cannot show them in time."""
        if self._from < 0:
            return b""  # it was let go of meanwhile
        os.ftruncate(self._stacks, 0)
        self._order(wire.ShowStacks())
        seen, still = 0, 0
        with trio.move_on_after(STACKS_S):
            while self._from >= 0 and still < STACKS_STILL_LOOKS:
                await trio.sleep(STACKS_LOOK_S)
                size = os.fstat(self._stacks).st_size if self._from >= 0 else 0
                still = still + 1 if size and size == seen else 0
                seen = size
        return os.pread(self._stacks, limits.LOG_DATA_BYTES_MAX, 0) if self._from >= 0 else b""

    def hang_up(self) -> None:
        """Close the pipe to the worker."""
        if self._to is not None:
            trio.lowlevel.notify_closing(self._to)
            os.close(self._to)
            self._to = None

    def close(self) -> None:
        """Let go of everything."""
        self.hang_up()
        if self._from >= 0:
            os.close(self._from)
            os.close(self._stacks)
            self._from = -1
        while self._outputs:
            os.close(self._outputs.pop())
        super().close()


class Command(Runner):
    """A command: its runner, and its two outputs."""

    def __init__(self, control: socket.socket, stdout: int, stderr: int) -> None:
        super().__init__(control)
        self._outputs = [stdout, stderr]

    async def read(self, stream: int) -> bytes:
        """Wait for output of stream 1 or 2; empty: its end."""
        fd = self._outputs[stream - 1]
        while True:
            await trio.lowlevel.wait_readable(fd)
            with contextlib.suppress(BlockingIOError):
                return os.read(fd, limits.LOG_DATA_BYTES_MAX)

    def close(self) -> None:
        """Let go of everything."""
        while self._outputs:
            os.close(self._outputs.pop())
        super().close()
