"""The store in memory: for tests and the simulator, with the rules that hold on disk.

Nothing outlives the process. What a power cut would leave is asked for with
``crash``: all durable batches, and any prefix of the others.
"""

import random
from bisect import bisect_left, bisect_right, insort
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from taskd.core.records import Key, Kind
from taskd.store.interface import Write
from taskd.store.keys import ID_START, make_key, successor
from taskd_protocol.errors import StoreFailed


class _Undo(NamedTuple):
    """What a staged batch replaced, in reverse order."""

    sequence: int
    replaced: list[Write]


async def _at_once() -> None:
    """Be durable without waiting."""


class MemoryStore:
    """An ordered map that knows which of its batches are durable."""

    def __init__(self, *, lineage: bytes = bytes(16), sync: Callable[[], Awaitable[None]] = _at_once) -> None:
        """Begin empty.

        Args:
            lineage: 16 bytes.
            sync: Awaited by each flush in place of the disk: may be slow, or raise ``StoreFailed``.
        """
        self.lineage = lineage
        self.staged_sequence = 0
        self.durable_sequence = 0
        self._sync = sync
        self._values: dict[bytes, bytes] = {}
        self._sorted: dict[bytes, list[bytes]] = {}  # by shard and kind: inserting moves only a kind's keys
        self._undo: list[_Undo] = []  # of the batches that are not durable
        self._flushing = False
        self._finished = ""  # why nothing more is done

    async def load(self, keys: Sequence[Key]) -> list[bytes | None]:
        """See ``Store.load``."""
        self._check_open()
        return [self._values.get(make_key(kind, record_id)) for kind, record_id in keys]

    async def scan(
        self, kind: Kind, prefix: bytes = b"", *, after: bytes = b"", limit: int, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        """See ``Store.scan``."""
        self._check_open()
        lowest = make_key(kind, prefix)
        space = self._sorted.get(lowest[:ID_START], [])
        start, stop = bisect_left(space, lowest), bisect_left(space, successor(lowest))
        if after and reverse:
            stop = min(stop, bisect_left(space, make_key(kind, after)))
        elif after:
            start = max(start, bisect_right(space, make_key(kind, after)))
        found = space[start:stop]
        if reverse:
            found.reverse()
        return [(key[ID_START:], self._values[key]) for key in found[:limit]]

    def stage(self, writes: Sequence[Write]) -> int:
        """See ``Store.stage``."""
        self._check_open()
        replaced = [(key, self._put(key, value)) for key, value in writes]
        replaced.reverse()
        self.staged_sequence += 1
        self._undo.append(_Undo(self.staged_sequence, replaced))
        return self.staged_sequence

    async def flush(self) -> int:
        """See ``Store.flush``."""
        self._check_open()
        assert not self._flushing, "one flush at a time"
        covered = self.staged_sequence
        self._flushing = True
        try:
            await self._sync()
        except StoreFailed as error:
            self._finished = error.message
            raise
        finally:
            self._flushing = False
        self.durable_sequence = covered
        self._undo = [undo for undo in self._undo if undo.sequence > covered]
        return covered

    async def close(self) -> None:
        """See ``Store.close``."""
        if not self._finished:
            await self.flush()
            self._finished = "the store is closed"

    def crash(self, rng: random.Random) -> "MemoryStore":
        """Cut the power, and open what is left: the durable batches and a random prefix of the others."""
        kept = rng.randint(self.durable_sequence, self.staged_sequence)
        after = MemoryStore(lineage=self.lineage, sync=self._sync)
        after._values, after._sorted = self._values, self._sorted
        for undo in reversed(self._undo):
            if undo.sequence > kept:
                for key, value in undo.replaced:
                    after._put(key, value)
        after.staged_sequence = after.durable_sequence = kept
        self._values, self._sorted, self._undo = {}, {}, []
        self._finished = "the store has crashed"
        return after

    def _put(self, key: bytes, value: bytes | None) -> bytes | None:
        """Put or delete; return what was there."""
        before = self._values.get(key)
        if value is None:
            if before is not None:
                space = self._sorted[key[:ID_START]]
                del space[bisect_left(space, key)], self._values[key]
        else:
            if before is None:
                insort(self._sorted.setdefault(key[:ID_START], []), key)
            self._values[key] = value
        return before

    def _check_open(self) -> None:
        if self._finished:
            raise StoreFailed(f"{self._finished}; open it again")
