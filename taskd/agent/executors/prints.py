"""Prints: what the attempts of a worker print, told apart.

The worker puts a mark behind what each attempt has printed, if it finds that there is something: unread, or read by us
since it looked last. What has no mark yet is that of the attempt which runs, if the same one does before and after the
read: one that ended before would have left its mark, and a read takes all that is there. Else it waits for the next.
"""

import os
import re
from collections.abc import Callable
from typing import Final

import trio

from taskd.agent.clock import Clock
from taskd.agent.core import AgentCore
from taskd.agent.platform import WorkerProcess
from taskd.agent.streams import GATHER_S

STREAMS: Final = (1, 2)

_MARK: Final = re.compile(rb"\x00\x1etaskd:([0-9a-f]{16})\x1e\x00")  # as ``wire.PRINTED_MARK``

_STDERR: Final = 2


class Prints:
    """What one worker prints.

    Attributes:
        waits: For room: there is more to be read.
    """

    def __init__(
        self, process: WorkerProcess, core: AgentCore, pool: int, clock: Clock, ring: Callable[[], None]
    ) -> None:
        self._process = process
        self._core = core
        self._pool = pool
        self._clock = clock
        self._ring = ring
        self.waits = False
        self._room = trio.Event()
        self._pending = dict.fromkeys(STREAMS, b"")

    def room(self) -> None:
        """Take note that there may be room for more."""
        self.waits = False
        self._room.set()

    async def follow(self, stream: int) -> None:
        """Read an output as it comes, until its end."""
        while True:
            if not self._pending[stream]:
                await self._process.wait_printed(stream)
            while self._core.streams.is_full:
                if not self.waits:
                    self.waits, self._room = True, trio.Event()
                await self._room.wait()
            if not self._read(stream):
                return
            await trio.sleep(GATHER_S)  # what is written meanwhile comes in one read

    def read(self, *, running: int = 0) -> None:
        """Take in what was printed until now.

        Args:
            running: What has no mark belongs to this attempt: the worker is dead.
        """
        for stream in STREAMS:
            self._read(stream)
            if running and self._pending[stream]:
                self._said(running, stream, self._pending[stream])
                self._pending[stream] = b""

    def _read(self, stream: int) -> bool:
        """Take in what one output holds now; tell whether there may be more."""
        before = self._process.running()
        data = self._process.read_printed(stream)
        after = self._process.running()
        *marked, rest = _MARK.split(self._pending[stream] + (data or b""))
        for said, token in zip(marked[::2], marked[1::2], strict=True):
            self._said(int(token, 16), stream, said)
        if before == after:
            self._said(after, stream, rest)
            rest = b""
        self._pending[stream] = rest
        return data is not None

    def _said(self, token: int, stream: int, data: bytes) -> None:
        if not data:
            return
        grant = self._core.pools[self._pool].held.get(token)
        if grant is None:  # nobody's: of a thread that outlived its attempt, or of what was taken away from us
            os.write(_STDERR, data)
            return
        self._core.said(grant, stream, data, self._clock.wall_ms(), self._clock.mono_ns() // 1_000_000)
        self._ring()
