"""The server's disk: durable when a flush says so, and as slow, full or broken as the seed wants it."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from simulation.journal import Journal
from simulation.trace import Trace
from taskd.core import records
from taskd.core.records import Key, Kind
from taskd.store.disk import Space
from taskd.store.interface import Write
from taskd.store.memory import MemoryStore
from taskd_protocol.errors import StoreFailed, StoreStalled

Reach = Callable[[str], None]
"""Counts a rare state."""

ROOMY = Space(100 << 30, 100 << 30)
SHORT = Space(1 << 20, 100 << 30)

_WINDOWS = {records.READY: "a line read beyond its window", records.TIMER: "timers read beyond their horizon"}


@dataclass(slots=True, kw_only=True)
class Condition:
    """What state the disk is in.

    Attributes:
        flush_s: A flush takes up to so long.
        read_s: A read takes up to so long; what it finds is what was there when it began.
        stalls: So many batches more are refused as too many.
        fail_flush: The next flush fails, and nobody knows what of it is on the disk.
        fail_stage: The next batch fails, as on a disk without a free byte.
        space: What is left of it.
        failed: It has failed, in this life of the server.
    """

    flush_s: float = 0.001
    read_s: float = 0.0
    stalls: int = 0
    fail_flush: bool = False
    fail_stage: bool = False
    space: Space = ROOMY
    failed: bool = False


class Disk(MemoryStore):
    """One life's store."""

    def __init__(self, condition: Condition, journal: Journal, rng: random.Random, trace: Trace, reach: Reach) -> None:
        super().__init__(lineage=bytes(range(16)), sync=self._reach_disk)
        self.condition = condition
        self.flushing = False
        self._journal = journal
        self._rng = rng
        self._trace = trace
        self._reach = reach
        self._refused: Sequence[Write] = ()

    async def load(self, keys: Sequence[Key]) -> list[bytes | None]:
        self._reach("records read for a command")
        found = await super().load(keys)
        await self._read()
        return found

    async def scan(
        self, kind: Kind, prefix: bytes = b"", *, after: bytes = b"", limit: int, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        found = await super().scan(kind, prefix, after=after, limit=limit, reverse=reverse)
        if after and found and kind in _WINDOWS:
            self._reach(_WINDOWS[kind])
        await self._read()
        return found

    def stage(self, writes: Sequence[Write]) -> int:
        condition = self.condition
        if condition.stalls:
            condition.stalls -= 1
            self._refused = writes
            raise StoreStalled("write stall")
        if condition.fail_stage:
            condition.fail_stage = False
            condition.failed = True
            raise StoreFailed("No space left on device")
        if self._refused:
            assert self._refused == writes, "a batch that was refused comes again before any other"
            self._refused = ()
            self._reach("a batch written again after a write stall")
        sequence = super().stage(writes)
        self._journal.stage(sequence, writes)
        return sequence

    async def flush(self) -> int:
        covered = await super().flush()
        self._journal.commit(covered)
        self._trace.add("durable", covered)
        return covered

    async def checkpoint(self, folder: Path) -> None:
        """Refuse: there are no files to link."""
        raise StoreFailed(f"{folder} is on no disk")

    def note_loss(self, sequence: int) -> None:
        """Nothing to note: a server that was rolled back ends, and that it does is a find."""

    def restart(self, *, power_cut: bool) -> "Disk":
        """Return what the next life finds: all that was staged, or a random part of what is not durable.

        The latter after a power cut, and after an error: what of it had reached the disk is unknown.
        """
        durable = self.durable_sequence
        if not power_cut and not self.condition.failed:
            if self.staged_sequence > durable:
                self._reach("killed between a write and its flush")
            self.durable_sequence = self.staged_sequence
            self._undo.clear()
        left = self.crash(self._rng)
        self._journal.commit(left.durable_sequence)
        if self._journal.drop():
            self._reach("writes lost that were not flushed")
        if power_cut and left.durable_sequence > durable:
            self._reach("writes kept that were not flushed")
        again = Disk(self.condition, self._journal, self._rng, self._trace, self._reach)
        again._values, again._sorted = left._values, left._sorted
        again.staged_sequence, again.durable_sequence = left.staged_sequence, left.durable_sequence
        self.condition.failed = self.condition.fail_flush = self.condition.fail_stage = False
        self.condition.stalls = 0
        return again

    async def _reach_disk(self) -> None:
        self.flushing = True
        await trio.sleep(self.condition.flush_s * self._rng.random())
        self.flushing = False
        if self.condition.fail_flush:
            self.condition.fail_flush = False
            self.condition.failed = True
            raise StoreFailed("IO error: fsync")

    async def _read(self) -> None:
        if self.condition.read_s:
            await trio.sleep(self.condition.read_s * self._rng.random())
