"""Printing: whose the output is that an attempt prints, whoever writes it.

Where one attempt runs at a time, descriptors 1 and 2 are pipes to the agent: what C code and other processes write
comes along. Behind the output of each attempt goes a mark. Whether there is any is asked of the kernel, which costs a
microsecond, so an attempt that took no time and printed nothing by way of ``sys.stdout`` or ``sys.stderr`` is not asked
about: what it wrote past those is counted with that of the next.

Where many run in turn, ``sys.stdout`` and ``sys.stderr`` know by context variables whose a line is. What is written
past them, or by threads that were started without a context, is nobody's and goes to the agent's standard error.
"""

import contextlib
import fcntl
import io
import os
import sys
import termios
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from taskd.agent import wire
from taskd.agent.worker.link import Link
from taskd.agent.worker.speech import Speech
from taskd.client.context import running, running_together
from taskd_protocol.limits import LOG_DATA_BYTES_MAX
from taskd_protocol.streams import STDERR, STDOUT

if TYPE_CHECKING:
    from typing_extensions import Buffer

BRIEF_NS: Final = 30_000
"""An attempt that took less, and printed nothing in Python, is not asked about."""

STREAMS: Final = (STDOUT, STDERR)


class _Bytes(io.BufferedWriter):
    """What text goes through on its way to a descriptor; notes that it did."""

    def __init__(self, fd: int, printing: "Printing") -> None:
        super().__init__(io.FileIO(fd, "w", closefd=False))
        self._printing = printing

    def write(self, data: "Buffer", /) -> int:
        self._printing.touched = True
        return super().write(data)


class _Text(io.TextIOWrapper):
    """``sys.stdout`` where one attempt runs at a time; notes that something was written."""

    def __init__(self, fd: int, printing: "Printing", errors: str) -> None:
        super().__init__(_Bytes(fd, printing), encoding="utf-8", errors=errors, line_buffering=True)
        self._printing = printing

    def write(self, text: str, /) -> int:
        self._printing.touched = True
        return super().write(text)


class Printing:
    """The output of a worker in which one attempt runs at a time.

    Attributes:
        touched: Something was written in Python since the last mark.
    """

    def __init__(self, link: Link) -> None:
        """Take the place of ``sys.stdout`` and ``sys.stderr``: before modules are imported that keep them."""
        self.touched = False
        self._link = link
        self._reads = 0
        for kept in (sys.stdout, sys.stderr):  # as sys.__stdout__ and its like, which user code may use
            if isinstance(kept, io.TextIOWrapper):
                kept.reconfigure(line_buffering=True)
        self._texts = [_Text(1, self, "strict"), _Text(2, self, "backslashreplace")]
        sys.stdout, sys.stderr = self._texts
        self._usual: Sequence[int] = ()

    def begin(self) -> None:
        """From now on attempts print."""
        self._usual = [os.dup(fd) for fd in STREAMS]
        self._turn(self._link.outputs)

    def end(self) -> None:
        """No attempt prints any more: what comes at exit goes where it went before."""
        self._turn(self._usual)

    def mark(self, token: int) -> None:
        """Put the mark behind what an attempt has printed, if it has; before its end is told."""
        self._flush()
        self.touched = False
        # In this order: see the agent's side.
        unread = any(map(_unread, self._link.outputs))
        reads = self._link.page[wire.PAGE_READS]
        if unread or reads % 2 or reads != self._reads:
            self._reads = reads
            mark = wire.PRINTED_MARK % token
            for fd in self._link.outputs:
                os.write(fd, mark)  # whole: it is short
            self._link.tell(wire.Printed(token))

    def _turn(self, fds: Sequence[int]) -> None:
        self._flush()
        for fd, number in zip(fds, STREAMS, strict=True):
            os.dup2(fd, number)

    def _flush(self) -> None:
        for text in self._texts:
            with contextlib.suppress(OSError, ValueError):  # user code closed it
                text.flush()


def _unread(fd: int) -> bool:
    count = bytearray(4)
    fcntl.ioctl(fd, termios.FIONREAD, count)
    return any(count)


class _Shared(io.RawIOBase):
    """The bytes of ``sys.stdout`` where many attempts run in turn: whole lines go to whose they are."""

    name, mode = "<shared>", "wb"

    def __init__(self, fd: int, speech: Speech, unfinished: dict[tuple[int, int], bytearray]) -> None:
        self._fd = fd
        self._speech = speech
        self._unfinished = unfinished  # by token and descriptor

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def write(self, data: "Buffer", /) -> int:
        said = bytes(data)
        token = token_here()
        if not token:
            os.write(self._fd, said)
            return len(said)
        line = self._unfinished.get((token, self._fd))
        if line is not None:
            line += said
            said = bytes(line)
        size = len(said) if len(said) >= LOG_DATA_BYTES_MAX else said.rfind(b"\n") + 1
        if size:
            self._say(token, said[:size])
        if size < len(said):
            self._unfinished[token, self._fd] = bytearray(said[size:])
        elif line is not None:
            del self._unfinished[token, self._fd]
        return len(bytes(data))

    def ended(self, token: int) -> None:
        """Say what is left of an attempt that ends."""
        if line := self._unfinished.pop((token, self._fd), None):
            self._say(token, bytes(line))

    def _say(self, token: int, said: bytes) -> None:
        for start in range(0, len(said), LOG_DATA_BYTES_MAX):
            self._speech.say_lines(token, self._fd, said[start : start + LOG_DATA_BYTES_MAX])


class SharedPrinting:
    """The output of a worker in which many attempts run in turn.

    Attributes:
        unfinished: Lines that have begun, by token.
    """

    def __init__(self, speech: Speech) -> None:
        """Take the place of ``sys.stdout`` and ``sys.stderr``."""
        self.unfinished: dict[tuple[int, int], bytearray] = {}
        self._bytes = [_Shared(fd, speech, self.unfinished) for fd in STREAMS]
        texts = [
            io.TextIOWrapper(out, encoding="utf-8", errors="backslashreplace", write_through=True)
            for out in self._bytes
        ]
        for old in (sys.stdout, sys.stderr):
            old.flush()
        sys.stdout, sys.stderr = texts

    def ended(self, token: int) -> None:
        """Say what is left of an attempt that ends; before its end is told."""
        if self.unfinished:
            for out in self._bytes:
                out.ended(token)


def token_here() -> int:
    """Return the token of the attempt that runs in this context; of many in one call, of the first; 0: none does."""
    context = running.get()
    if context is None:
        together = running_together.get()
        context = together[0] if together else None
    return 0 if context is None else context.fencing_token
