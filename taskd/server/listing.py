"""Listing: a page of tasks that fit a filter, the newest first.

Invariants:
- A page takes a bounded time, whatever fits: it goes on in the next one, from its cursor.
- Where few tasks can fit, only those are looked at: the leased ones in memory, the dead, waiting and ready ones by
  their indexes, as long as there are not many of them. No index is kept for listings alone.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Final

import trio
from msgspec.structs import replace

from taskd.core import records
from taskd.core.filters import spec_fits, standing, standing_fits
from taskd.core.lifecycle import State
from taskd.core.records import Kind, SpecRecord
from taskd.server.selecting import PAUSE_SECONDS, Candidate, Piece, needles_of, newest_of, select
from taskd.server.services import Services
from taskd.server.views import WaitTexts, task_counts, task_view
from taskd.store import codec
from taskd_protocol import limits
from taskd_protocol import messages as m
from taskd_protocol.filtering import TaskFilter, check_filter
from taskd_protocol.ids import TASK_ID_BYTES, TaskId, task_id_unix_ms

LIST_NS: Final = 150_000_000
"""A page that is not full is told after so long."""

ROWS_MAX: Final = 100_000
"""Tasks looked at for one page."""

STEP_ROWS: Final = 512
"""Looked at between two pauses: some milliseconds."""

INDEXED_MAX: Final = 5_000
"""So many entries of an index are read for each page rather than tasks by id: some tens of milliseconds."""

_INDEXES: Final[Mapping[str, Kind]] = {
    State.DEAD: records.DEAD,
    State.SCHEDULED: records.TIMER,
    State.READY: records.READY,
}
_LEASED: Final = frozenset({State.RUNNING, State.CANCELLING})
_BY_STATE: Final = frozenset({State.SUCCEEDED, State.CANCELLED, State.EXPIRED})
"""Ends of which the STATE records tell."""


async def list_tasks(services: Services, message: m.TaskList) -> m.TaskPage:
    """Answer TASK_LIST.

    Raises:
        BadRequest: The filter is out of range.
    """
    wanted = _wanted(message)
    limit = min(max(message.limit, 1), limits.PAGE_ROWS_MAX)
    clock = services.platform.clock
    until_ns, rows_left, step = clock.mono_ns() + LIST_NS, ROWS_MAX, limit
    views: list[m.TaskView] = []
    texts = WaitTexts(services.loop.now())
    cursor = message.cursor
    few = await _few(services, wanted)
    while True:
        piece = await _piece(services, wanted, few, cursor, min(step, STEP_ROWS, rows_left))
        fitting = await _that_stand_so(services, wanted, piece.found)
        seen = 0
        while seen < len(fitting) and len(views) < limit:
            shown = fitting[seen : seen + limit - len(views)]
            views += await _views(services, wanted, shown, texts)
            seen, cursor = seen + len(shown), shown[-1].cursor
        if piece.last and seen == len(fitting):
            return m.TaskPage(message.request_id, views, b"")
        if len(views) == limit:
            return m.TaskPage(message.request_id, views, cursor)
        cursor = piece.cursor
        rows_left, step = rows_left - piece.looked_at, step * 2
        if rows_left <= 0 or clock.mono_ns() >= until_ns:
            return m.TaskPage(message.request_id, views, cursor)
        await trio.sleep(PAUSE_SECONDS)


async def _views(
    services: Services, wanted: TaskFilter, shown: Sequence[Candidate], texts: WaitTexts
) -> list[m.TaskView]:
    """Return the tasks as they stand now, without those that do not fit any more."""
    rows = await services.reader.read_now([(kind, c.id) for c in shown for kind in (records.SPEC, records.STATE)])
    w = services.working
    fitting = [c.id for c in shown if standing_fits(wanted, standing(w, c.id, rows))]
    views = [task_view(w, task_id, rows, texts, whole=False) for task_id in fitting]
    return [view for view in views if view is not None]


async def _that_stand_so(services: Services, wanted: TaskFilter, found: Sequence[Candidate]) -> Sequence[Candidate]:
    """Return those that also fit by where they stand, of which the records are not read if nothing is asked of it."""
    if not (wanted.state or wanted.error or wanted.agent or wanted.group):
        return found
    rows = await services.reader.read_now([(records.STATE, candidate.id) for candidate in found])
    return [c for c in found if standing_fits(wanted, standing(services.working, c.id, rows))]


async def _piece(services: Services, wanted: TaskFilter, few: list[bytes] | None, after: bytes, count: int) -> Piece:
    """Return tasks that fit by what never changes of them."""
    if few is not None:
        end = bisect_left(few, after) if after else len(few)
        ids = few[max(0, end - count) : end][::-1]
        return await _of(services, wanted, ids, len(ids), ids[-1] if ids else after, last=end <= count)
    if wanted.state in _BY_STATE and not (wanted.ids or wanted.group or needles_of(wanted)):
        return await _by_state(services, wanted, after, count)
    return await select(services.store, wanted, after, count, newest_first=True)


async def _few(services: Services, wanted: TaskFilter) -> list[bytes] | None:
    """Return the ids of all tasks that can fit, rising, if these are few and easily found; None: they are not."""
    if wanted.ids or wanted.group or not wanted.state:
        return None
    w = services.working
    if wanted.state in _LEASED:
        return sorted([task_id for task_id, task in w.tasks.items() if task.token])
    index = _INDEXES.get(wanted.state)
    if index is None or task_counts(w).get(wanted.state, 0) > INDEXED_MAX:
        return None
    found = await _entries(services, index)
    parked = await _entries(services, records.PARKED) if index == records.READY else []
    if found is None or parked is None:
        return None
    ids = {value if index == records.READY else entry[-TASK_ID_BYTES:] for entry, value in found}
    return sorted(ids.union([value for _, value in parked]))


async def _entries(services: Services, index: Kind) -> list[tuple[bytes, bytes]] | None:
    """Return all entries of an index, of which TIMER tells of more than one thing; None: there are too many."""
    found: list[tuple[bytes, bytes]] = []
    while len(found) < 2 * INDEXED_MAX:
        part = await services.store.scan(index, after=found[-1][0] if found else b"", limit=STEP_ROWS)
        found += part
        if len(part) < STEP_ROWS:
            return found
        await trio.sleep(PAUSE_SECONDS)
    return None


async def _by_state(services: Services, wanted: TaskFilter, after: bytes, count: int) -> Piece:
    """Return tasks that ended so: of others nothing is read but that they did not."""
    needle = wanted.state.encode()
    after = after or newest_of(wanted)
    entries = await services.store.scan(records.STATE, after=after, limit=count, reverse=True)
    ids = [task_id for task_id, value in entries if needle in value]
    cursor = entries[-1][0] if entries else after
    too_old = bool(entries) and task_id_unix_ms(TaskId(cursor)) < wanted.since_ms
    return await _of(services, wanted, ids, len(entries), cursor, last=too_old or len(entries) < count)


async def _of(
    services: Services, wanted: TaskFilter, ids: Sequence[bytes], looked_at: int, cursor: bytes, *, last: bool
) -> Piece:
    found = []
    values = await services.store.load([(records.SPEC, task_id) for task_id in ids])
    for task_id, value in zip(ids, values, strict=True):
        if value is not None:
            spec = codec.decode_as(SpecRecord, records.SPEC, task_id, value)
            if spec_fits(wanted, spec):
                found.append(Candidate(task_id, task_id, spec))
    return Piece(found, looked_at, cursor, last=last)


def _wanted(message: m.TaskList) -> TaskFilter:
    """Return the filter of a listing: what an older client said of it beside, counts as well."""
    asked = message.filter
    check_filter(asked)
    return replace(
        asked,
        state=asked.state or message.state,
        queue=asked.queue or message.queue,
        name=asked.name or message.name,
    )
