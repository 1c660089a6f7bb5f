"""Following: streaming what a task's attempts said to a client, a page at a time.

The client's FOLLOW_MORE is the credit for the next page. Entries are read from the store, so that live and late
followers see the same, and one that is slow costs nobody anything but its own next read.
"""

from collections.abc import Sequence

import trio

from taskd.core import records
from taskd.core.lifecycle import TERMINAL
from taskd.core.records import LogRecord, StateRecord
from taskd.core.reports import log_id
from taskd.server.services import Services
from taskd.server.session import Talk, error_message
from taskd.store import codec
from taskd_protocol.errors import BadRequest, TaskUnknown
from taskd_protocol.messages import Follow, LogEntry, LogPage

ENTRIES_MAX = 100
"""In one page: with the largest entries it still fits a message."""

ENTRIES_LARGE = 8
"""In one page, where entries are large: some hundred followers are served in bounded memory."""

PAGE_BYTES = 256 * 1024
"""What a page comes to is to stay about this."""

PACE_S = 0.05
PACE_EACH_S = 0.0035
PACE_MAX_S = 0.4
"""Between two pages of one follower that has all that is stored, the longer the more follow: what comes in between
comes together, and all of them cost a bounded share of the loop, 60 ms of a second. What comes after a silence is told
at once."""

FOLLOWS_MAX = 64
"""Of one connection."""


class Reading:
    """Goes through a task's output from some entry on, a page at a time; also for those that are no session.

    Attributes:
        sequence: Of the next entry.
        has_more: There may be more stored.
        ended: The task has ended, and all was read; or all that was stored at the begin, if that is all that is wanted.
    """

    def __init__(self, wanted: Follow) -> None:
        """Begin.

        Raises:
            BadRequest: What is wanted is out of range.
        """
        if wanted.sequence < 0 or wanted.attempt < 0 or wanted.since_ms < 0:
            raise BadRequest("sequence, attempt and since_ms of output are 0 or more")
        self.sequence = wanted.sequence
        self.has_more = True
        self.ended = False
        self._wanted = wanted
        self._limit = ENTRIES_LARGE

    async def page(self, services: Services) -> list[LogEntry]:
        """Return the next entries that are wanted, which may be none; durable.

        Raises:
            TaskUnknown: The task is not stored.
        """
        task_id, limit = self._wanted.id, self._limit
        # First: what the task said before its end is then on disk already.
        is_over = await self._is_over(services) or self._wanted.stored
        after = log_id(task_id, self.sequence - 1) if self.sequence else b""
        rows = await services.store.scan(records.LOG, task_id, after=after, limit=limit)
        await services.loop.until_durable()
        entries = [_entry(record_id, value) for record_id, value in rows]
        self.has_more = len(rows) == limit
        self.ended = is_over and not self.has_more
        if entries:
            self.sequence = entries[-1].sequence + 1
            mean_bytes = sum([len(value) for _, value in rows]) // len(rows)
            self._limit = min(max(PAGE_BYTES // (mean_bytes + 1), ENTRIES_LARGE), ENTRIES_MAX)
        return self._chosen(entries)

    async def _is_over(self, services: Services) -> bool:
        task_id = self._wanted.id
        if task_id in services.working.tasks:
            return False
        found = await services.reader.read([(records.SPEC, task_id), (records.STATE, task_id)])
        if found[records.SPEC, task_id] is None:
            await services.loop.until_durable()
            raise TaskUnknown("no task of that id is stored")
        state = found[records.STATE, task_id]
        return isinstance(state, StateRecord) and state.state in TERMINAL

    def _chosen(self, entries: Sequence[LogEntry]) -> list[LogEntry]:
        wanted = self._wanted
        return [
            entry
            for entry in entries
            if (wanted.attempt in {0, entry.attempt} or not entry.attempt)
            and entry.at_ms >= wanted.since_ms
            and (not wanted.streams or entry.stream in wanted.streams)
        ]


class _Followed:
    """One FOLLOW."""

    def __init__(self, message: Follow) -> None:
        self.task_id = message.id
        self.reading = Reading(message)
        self.credit = True
        self.news = True
        self.busy = False
        self.paged_s = 0.0


class Following:
    """One client's followed tasks.

    Attributes:
        followed: Their ids.
    """

    def __init__(self, session: Talk) -> None:
        self.followed: set[bytes] = set()
        self._session = session
        self._services = session.services
        self._by_request: dict[int, _Followed] = {}

    def follow(self, message: Follow) -> None:
        """Begin to follow.

        Raises:
            BadRequest: Too many at once, or the request id is in use.
        """
        if len(self._by_request) >= FOLLOWS_MAX or message.request_id in self._by_request:
            raise BadRequest(f"a connection follows at most {FOLLOWS_MAX} tasks, each under its own request id")
        self._by_request[message.request_id] = _Followed(message)
        self._services.hub.follows += 1
        self.followed.add(message.id)
        self._services.hub.follow(self._session, message.id)
        self._go_on(message.request_id)

    def more(self, request_id: int) -> None:
        """Note that the last page was taken."""
        followed = self._by_request.get(request_id)
        if followed is not None:
            followed.credit = True
            self._go_on(request_id)

    def stop(self, request_id: int) -> None:
        """Follow no more."""
        if request_id in self._by_request:
            self._forget(request_id)

    def close(self) -> None:
        """Follow nothing any more: the session is over."""
        self._services.hub.follows -= len(self._by_request)
        self._by_request.clear()

    def tell(self, task_id: bytes) -> None:
        """Note that there is more to read, or that the task has ended."""
        for request_id, followed in list(self._by_request.items()):
            if followed.task_id == task_id:
                followed.news = True
                self._go_on(request_id)

    def _go_on(self, request_id: int) -> None:
        followed = self._by_request[request_id]
        if followed.credit and followed.news and not followed.busy and self._session.nursery is not None:
            followed.busy = True
            self._session.nursery.start_soon(self._read, request_id, followed)

    async def _read(self, request_id: int, followed: _Followed) -> None:
        reading = followed.reading
        if not reading.has_more and self._services.hub.paces:
            await trio.sleep_until(followed.paged_s + pace_s(self._services.hub.follows))
        followed.news = False
        try:
            entries = await reading.page(self._services)
        except TaskUnknown as unknown:
            if self.stop_if(request_id, followed):
                self._session.send(error_message(request_id, unknown))
            return
        followed.busy = False
        if self._by_request.get(request_id) is not followed:
            return  # it was stopped meanwhile
        followed.news = followed.news or reading.has_more
        if entries or reading.ended:
            followed.credit = False
            followed.paged_s = trio.current_time()
            self._session.send(LogPage(request_id, entries, end=reading.ended, next_sequence=reading.sequence))
        if reading.ended:
            self._forget(request_id)
        else:
            self._go_on(request_id)

    def stop_if(self, request_id: int, followed: _Followed) -> bool:
        """Follow no more, if it is that which is followed under the request's id; tell whether it was."""
        if self._by_request.get(request_id) is not followed:
            return False
        self._forget(request_id)
        return True

    def _forget(self, request_id: int) -> None:
        followed = self._by_request.pop(request_id)
        self._services.hub.follows -= 1
        if all(other.task_id != followed.task_id for other in self._by_request.values()):
            self.followed.discard(followed.task_id)
            self._services.hub.stop_following(self._session, followed.task_id)


def pace_s(follows: int) -> float:
    """Return the least time between two pages of one of so many followers."""
    return min(PACE_S + PACE_EACH_S * follows, PACE_MAX_S)


def _entry(record_id: bytes, value: bytes) -> LogEntry:
    record = codec.decode_as(LogRecord, records.LOG, record_id, value)
    return LogEntry(int.from_bytes(record_id[16:], "big"), record.attempt, record.stream, record.at_ms, record.data)
