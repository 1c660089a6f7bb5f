"""Following: streaming a task's output to a client, a page at a time.

The client's FOLLOW_MORE is the credit for the next page. Entries are read from the
store, so that live and late followers see the same.
"""

from dataclasses import dataclass

from taskd.core import records
from taskd.core.lifecycle import TERMINAL
from taskd.core.records import LogRecord, StateRecord
from taskd.core.reports import log_id
from taskd.server.session import Talk, error_message
from taskd.store import codec
from taskd_protocol.errors import BadRequest, TaskUnknown
from taskd_protocol.messages import Follow, LogEntry, LogPage

ENTRIES_MAX = 100
"""In one page: with the largest entries it still fits a message."""

FOLLOWS_MAX = 64
"""Of one connection."""


@dataclass(slots=True)
class _Followed:
    task_id: bytes
    sequence: int
    credit: bool = True
    news: bool = True
    reading: bool = False


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
        if len(self._by_request) >= FOLLOWS_MAX or message.request_id in self._by_request or message.sequence < 0:
            raise BadRequest(f"a connection follows at most {FOLLOWS_MAX} tasks, each under its own request id")
        self._by_request[message.request_id] = _Followed(message.id, message.sequence)
        self.followed.add(message.id)
        self._services.hub.follow(self._session, message.id)
        self._go_on(message.request_id)

    def more(self, request_id: int) -> None:
        """Note that the last page was taken."""
        followed = self._by_request.get(request_id)
        if followed is not None:
            followed.credit = True
            self._go_on(request_id)

    def tell(self, task_id: bytes) -> None:
        """Note that there is more to read, or that the task has ended."""
        for request_id, followed in list(self._by_request.items()):
            if followed.task_id == task_id:
                followed.news = True
                self._go_on(request_id)

    def _go_on(self, request_id: int) -> None:
        followed = self._by_request[request_id]
        if followed.credit and followed.news and not followed.reading and self._session.nursery is not None:
            followed.reading = True
            followed.news = False
            self._session.nursery.start_soon(self._read, request_id, followed)

    async def _read(self, request_id: int, followed: _Followed) -> None:
        task_id = followed.task_id
        # The state first: what the task said before its end is then on disk already.
        state_keys = [(records.SPEC, task_id), (records.STATE, task_id)]
        found = await self._services.reader.read(state_keys)
        after = log_id(task_id, followed.sequence - 1) if followed.sequence else b""
        rows = await self._services.store.scan(records.LOG, task_id, after=after, limit=ENTRIES_MAX)
        await self._services.loop.until_durable()
        followed.reading = False
        if found[records.SPEC, task_id] is None:
            self._forget(request_id)
            self._session.send(error_message(request_id, TaskUnknown("no task of that id is stored")))
            return
        entries = [_entry(record_id, value) for record_id, value in rows]
        full = len(rows) == ENTRIES_MAX
        state = found[records.STATE, task_id]
        ended = isinstance(state, StateRecord) and state.state in TERMINAL
        followed.news = followed.news or full
        if entries:
            followed.sequence = entries[-1].sequence + 1
        if entries or (ended and not full):
            followed.credit = False
            self._session.send(LogPage(request_id, entries, end=ended and not full))
        if ended and not full:
            self._forget(request_id)
        elif request_id in self._by_request:
            self._go_on(request_id)

    def _forget(self, request_id: int) -> None:
        followed = self._by_request.pop(request_id)
        if all(other.task_id != followed.task_id for other in self._by_request.values()):
            self.followed.discard(followed.task_id)
            self._services.hub.stop_following(self._session, followed.task_id)


def _entry(record_id: bytes, value: bytes) -> LogEntry:
    record = codec.decode_as(LogRecord, records.LOG, record_id, value)
    return LogEntry(int.from_bytes(record_id[16:], "big"), record.attempt, record.stream, record.at_ms, record.data)
