"""What every store offers, whatever is behind it.

One writer. Writes are staged in order, a batch at a time, and are durable when a
flush that began after them has come back. Keys sort bytewise by kind, then id.
A store knows keys and bytes; what they mean is the core's.

The rules that hold for each:
- A batch is atomic; a crash keeps a prefix of the staged batches, and all that were flushed.
- Staged batches are visible to ``load`` and ``scan`` at once, durable or not.
- After ``StoreFailed`` the store is finished: what reached the disk is unknown.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from taskd.core.records import Key, Kind

_T = TypeVar("_T")

Write = tuple[bytes, bytes | None]
"""Key (shard, kind, id) and value: a put, or a delete when the value is None. ``codec.encode`` makes them."""


class Offload(Protocol):
    """Runs a blocking call in a thread, and is not cancelled before it has come back."""

    def __call__(self, work: Callable[[], _T], /) -> Awaitable[_T]:
        """Return what ``work`` returns."""


class Store(Protocol):
    """Ordered keys and values, atomic batches, group commit."""

    @property
    def staged_sequence(self) -> int:
        """Number of the last batch staged, over the life of the store; 0 before the first."""

    @property
    def durable_sequence(self) -> int:
        """Number of the last batch known to be durable."""

    @property
    def lineage(self) -> bytes:
        """16 bytes: this store since its creation or last restore."""

    async def load(self, keys: Sequence[Key]) -> list[bytes | None]:
        """Read values in one go, None where there is none, in the order of the keys.

        Raises:
            StoreCorrupt: A block does not hold what was written.
        """

    async def scan(
        self, kind: Kind, prefix: bytes = b"", *, after: bytes = b"", limit: int, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        """Read up to ``limit`` entries whose id begins with ``prefix``, in order, as they are at the call.

        What was deleted before ``after`` costs nothing; what was deleted beyond it may have to be stepped
        over. So a queue that is eaten from its head is read on from where it was read last.

        Args:
            kind: Whose space.
            prefix: Of the ids wanted; empty: all.
            after: Begin beyond this id (before it, when reverse); empty: at the first.
            limit: At most so many.
            reverse: From the last to the first.

        Returns:
            (id, value) pairs; fewer than ``limit`` means that there are no more.

        Raises:
            StoreCorrupt: A block does not hold what was written.
        """

    def stage(self, writes: Sequence[Write]) -> int:
        """Apply one atomic batch, not yet durable; return its number. Of two writes to a key the later counts.

        Raises:
            StoreStalled: The store asks to wait; nothing was written; stage the same batch again.
            StoreFailed: Anything else.
        """

    async def flush(self) -> int:
        """Make all that was staged before the call durable; return the number of the last of it.

        One at a time: a second call while one is under way is a bug of the caller.

        Raises:
            StoreFailed: What is durable is unknown.
        """

    async def close(self) -> None:
        """Flush and close; calling it twice is harmless."""
