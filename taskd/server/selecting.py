"""Selecting: the tasks that a filter is for, read in pieces from a cursor on.

Where they are read depends on the filter: the tasks it names, the list of a group of
dead ones, or all tasks by id. What a cursor means differs likewise; to others it is bytes.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from taskd.core import records
from taskd.core.filters import spec_fits
from taskd.core.records import SpecRecord
from taskd.store import codec
from taskd.store.interface import Store
from taskd_protocol.filtering import TaskFilter
from taskd_protocol.ids import TASK_ID_BYTES, TaskId, task_id_unix_ms

FIRST_ENTRIES = 16
"""Read before it is known how large tasks are."""

ENTRIES_MAX = 4_096
"""Read at once after that."""

BYTES_MAX = 8 * 1024 * 1024
"""Arguments that one piece of a listing or a count reads, roughly."""

EVER_MS = (1 << 48) - 1
"""No id and no end is later."""

PAUSE_SECONDS = 0.001
"""Between two pieces of what takes long: a flush that ends beside it gets the interpreter's lock then. At each look for
I/O the loop lets that go, too, but has it back before a thread wakes."""

AHEAD_MS = 60_000
"""An id, which a client makes by the server's clock as it knows it, may say that it was made so much after it came."""

_NUMBER_BYTES = 8


class Candidate(NamedTuple):
    """A task that fits by its spec."""

    cursor: bytes
    """To read on behind it."""
    id: bytes
    spec: SpecRecord


class Piece(NamedTuple):
    """Some tasks of a filter."""

    found: list[Candidate]
    looked_at: int
    """Fitting or not."""
    cursor: bytes
    """How far was read."""
    last: bool
    """There are no more."""


class _Entry(NamedTuple):
    cursor: bytes
    id: bytes
    at_ms: int
    """When it was submitted; of a dead one: when it died."""
    value: bytes | None
    """Its SPEC, if that was read."""


async def select(
    store: Store,
    wanted: TaskFilter,
    after: bytes,
    limit: int,
    *,
    bytes_max: int = BYTES_MAX,
    until_ms: int = EVER_MS,
    newest_first: bool = False,
) -> Piece:
    """Read tasks that fit by what never changes of them.

    Args:
        store: To read from.
        wanted: Its state and error are not looked at.
        after: A cursor; empty: from the first on.
        limit: Tasks to look at.
        bytes_max: Stop once so many bytes of arguments are read.
        until_ms: None that was submitted, or died, later.
        newest_first: Backwards; named tasks come in the order in which they are named all the same.

    Raises:
        StoreCorrupt: A record is not what was written.
    """
    found: list[Candidate] = []
    cursor, looked_at, read_bytes = after, 0, 0
    needles = needles_of(wanted)
    if wanted.before_ms:
        until_ms = min(until_ms, wanted.before_ms + AHEAD_MS)
    while looked_at < limit and read_bytes < bytes_max:
        count = min(count_to_read(looked_at, read_bytes, bytes_max), limit - looked_at)
        entries = await _read_entries(store, wanted, cursor, count, newest_first=newest_first)
        for entry in entries:
            if (newest_first and not wanted.group and entry.at_ms < wanted.since_ms) or (
                not newest_first and entry.at_ms > until_ms
            ):
                return Piece(found, looked_at, cursor, last=True)
            cursor = entry.cursor
            looked_at += 1
            read_bytes += len(entry.value or b"")
            if entry.value is not None and all(needle in entry.value for needle in needles):
                spec = codec.decode_as(SpecRecord, records.SPEC, entry.id, entry.value)
                if spec_fits(wanted, spec):
                    found.append(Candidate(cursor, entry.id, spec))
        if len(entries) < count:
            return Piece(found, looked_at, cursor, last=True)
    return Piece(found, looked_at, cursor, last=False)


def newest_of(wanted: TaskFilter) -> bytes:
    """Return where a walk from the newest task on begins; empty: at the newest there is."""
    return (wanted.before_ms + AHEAD_MS).to_bytes(6, "big") + b"\xff" * 10 if wanted.before_ms else b""


def needles_of(wanted: TaskFilter) -> list[bytes]:
    """Return what the SPEC of each task that fits holds somewhere: to look for that takes a tenth of reading it."""
    literal = max(re.split(r"[*?]|\[[^\]]*\]?", wanted.name), key=len)
    texts = (wanted.queue, literal, wanted.key, wanted.label.partition("=")[0])
    return [text.encode() for text in texts if text]


def count_to_read(read: int, read_bytes: int, bytes_max: int) -> int:
    """Return how many entries to read next, if they are as large as those before."""
    if not read:
        return FIRST_ENTRIES
    fitting = (bytes_max - read_bytes) * read // max(read_bytes, 1)
    return min(max(fitting, 1), ENTRIES_MAX)


async def _read_entries(
    store: Store, wanted: TaskFilter, after: bytes, count: int, *, newest_first: bool
) -> Sequence[_Entry]:
    if wanted.ids:
        start = int.from_bytes(after, "big")
        ids = wanted.ids[start : start + count]
        cursors = [(start + 1 + index).to_bytes(_NUMBER_BYTES, "big") for index in range(len(ids))]
        named = [(cursor, task_id, 0) for cursor, task_id in zip(cursors, ids, strict=True)]
        return await _with_specs(store, named)
    if wanted.group:
        dead = await store.scan(records.DEAD, wanted.group, after=after, limit=count, reverse=newest_first)
        listed = [
            (dead_id, dead_id[-TASK_ID_BYTES:], int.from_bytes(dead_id[-TASK_ID_BYTES - _NUMBER_BYTES :][:8], "big"))
            for dead_id, _ in dead
        ]
        return await _with_specs(store, listed)
    if not after and newest_first:
        after = newest_of(wanted)
    elif not after and wanted.since_ms and not newest_first:
        after = (wanted.since_ms - 1).to_bytes(6, "big") + b"\xff" * 10
    specs = await store.scan(records.SPEC, after=after, limit=count, reverse=newest_first)
    return [_Entry(task_id, task_id, task_id_unix_ms(TaskId(task_id)), value) for task_id, value in specs]


async def _with_specs(store: Store, tasks: Sequence[tuple[bytes, bytes, int]]) -> Sequence[_Entry]:
    values = await store.load([(records.SPEC, task_id) for _, task_id, _ in tasks])
    return [_Entry(*task, value) for task, value in zip(tasks, values, strict=True)]
