"""Outcomes: telling a client how the tasks ended that it waits for, under its credit.

What cannot be told yet waits here, as it is while it is small, and as ids alone
once it has grown: those are read again when there is room.
"""

from collections import deque
from collections.abc import Sequence

from taskd.core import records
from taskd.core.lifecycle import TERMINAL
from taskd.core.records import Key, SpecRecord, StateRecord
from taskd.server.session import Session
from taskd_protocol.errors import BadRequest, ResultGone, TaskUnknown
from taskd_protocol.ids import TaskId, task_id_unix_ms
from taskd_protocol.limits import OUTCOME_CREDIT
from taskd_protocol.messages import Outcomes as OutcomesMessage
from taskd_protocol.task import Failure, Outcome

MESSAGE_RESULTS_BYTES = 512 * 1024
"""Results in one OUTCOMES, unless one alone is larger."""

OUTBOX_HIGH_BYTES = 4 * 1024 * 1024
"""No more is put into the outbox above this."""

WAITING_BYTES_MAX = 8 * 1024 * 1024
"""Results that may wait here; more wait on disk."""

CREDIT_MAX = 1_000_000

READ_AGAIN = 500
"""Ids read at once when there is room again."""


class Outcomes:
    """One client's waits.

    Attributes:
        waited: Ids that the hub knows it waits for.
    """

    def __init__(self, session: Session) -> None:
        self.waited: set[bytes] = set()
        self._session = session
        self._services = session.services
        self._credit = OUTCOME_CREDIT
        self._ready: deque[Outcome] = deque()
        self._ready_bytes = 0
        self._on_disk: deque[bytes] = deque()
        self._reading = False

    def wait(self, ids: Sequence[bytes]) -> None:
        """Tell of these when they end, or that they are not known."""
        hub, in_memory = self._services.hub, self._services.working.tasks
        cold: list[bytes] = []
        for task_id in ids:
            hub.wait(self._session, task_id)
            self.waited.add(task_id)
            if task_id not in in_memory:
                cold.append(task_id)
        if cold and self._session.nursery is not None:
            self._session.nursery.start_soon(self._look_up, cold)

    def add_credit(self, outcomes: int) -> None:
        """Note that the client can take more.

        Raises:
            BadRequest: The number is out of range.
        """
        if not 0 < outcomes <= CREDIT_MAX:
            raise BadRequest(f"credit for {outcomes} outcomes is out of range")
        self._credit = min(self._credit + outcomes, CREDIT_MAX)
        self.push()

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """Tell of these ends now, or when there is room."""
        for outcome in outcomes:
            self.waited.discard(outcome.id)
            if self._ready_bytes < WAITING_BYTES_MAX:
                self._ready.append(outcome)
                self._ready_bytes += len(outcome.result)
            else:
                self._on_disk.append(outcome.id)
        self.push()

    def push(self) -> None:
        """Send what credit and outbox allow."""
        while self._ready and self._credit and self._session.outbox_bytes < OUTBOX_HIGH_BYTES:
            told: list[Outcome] = []
            told_bytes = 0
            while self._ready and len(told) < self._credit and told_bytes < MESSAGE_RESULTS_BYTES:
                size = len(self._ready[0].result)
                if told and told_bytes + size > MESSAGE_RESULTS_BYTES:
                    break
                told.append(self._ready.popleft())
                told_bytes += size
            self._ready_bytes -= told_bytes
            self._credit -= len(told)
            self._session.send(OutcomesMessage(told))
        if self._on_disk and not self._ready and not self._reading and self._session.nursery is not None:
            self._reading = True
            self._session.nursery.start_soon(self._read_again)

    async def _look_up(self, ids: list[bytes]) -> None:
        """Tell at once of those that ended before they were waited for, or are not known."""
        hub = self._services.hub
        found = await self._read(ids)
        await self._services.loop.until_durable()
        self.tell([outcome for outcome in found if hub.stop_waiting(self._session, outcome.id)])

    async def _read_again(self) -> None:
        count = min(READ_AGAIN, len(self._on_disk))
        found = await self._read([self._on_disk.popleft() for _ in range(count)])
        self._reading = False
        self._ready.extend(found)
        self._ready_bytes += sum(len(outcome.result) for outcome in found)
        self.push()

    async def _read(self, ids: list[bytes]) -> list[Outcome]:
        """Read how these ended; those that have not are left out."""
        reader = self._services.reader
        found = dict(await reader.read([(kind, i) for i in ids for kind in (records.SPEC, records.STATE)]))
        apart: list[Key] = [
            (records.RESULT, task_id)
            for task_id in ids
            if isinstance(state := found[records.STATE, task_id], StateRecord) and state.result_apart
        ]
        found.update(await reader.read(apart))
        outcomes = []
        for task_id in ids:
            spec, state = found[records.SPEC, task_id], found[records.STATE, task_id]
            if not isinstance(spec, SpecRecord):
                outcomes.append(self._unknown(task_id))
            elif isinstance(state, StateRecord) and state.state in TERMINAL:
                result = found[records.RESULT, task_id] if state.result_apart else state.result
                outcomes.append(
                    Outcome(
                        task_id, state.state, state.attempt, result if isinstance(result, bytes) else b"", state.failure
                    )
                )
        return outcomes

    def _unknown(self, task_id: bytes) -> Outcome:
        if task_id_unix_ms(TaskId(task_id)) <= self._services.working.counters.purged_to_ms:
            failure = Failure(ResultGone.code, "the task ended so long ago that it was removed; keep results elsewhere")
        else:
            failure = Failure(TaskUnknown.code, "no task of that id is stored; it was never accepted here")
        return Outcome(task_id, "unknown", failure=failure)
