"""Outcomes: telling a client how the tasks ended that it waits for, under its credit.

What cannot be told yet waits here, as it is while it is small, and as ids alone
once it has grown: those are read again when there is room.

Invariants:
- At most one read is under way for a session, and it holds a bounded number of results.
- An id is told once for each time that it was waited for, or not at all.
- Who waits for a member of a workflow that has not begun waits for the workflow, too: when that ends, the member is
  looked up again, since one that never begins has no end of its own.
"""

from collections import deque
from collections.abc import Sequence

from taskd.core import records
from taskd.core.lapses import key_of_id
from taskd.core.lifecycle import TERMINAL
from taskd.core.records import Key, StateRecord, Value
from taskd.server.loading import Found
from taskd.server.session import OUTBOX_HIGH_BYTES, Talk
from taskd.server.workflow_role import read_outcomes
from taskd_protocol.errors import BadRequest, ResultGone, ServerBusy, TaskdError, TaskUnknown
from taskd_protocol.ids import TaskId, is_made_id, task_id_unix_ms
from taskd_protocol.limits import OUTCOME_CREDIT
from taskd_protocol.messages import Outcomes as OutcomesMessage
from taskd_protocol.task import Failure, Outcome
from taskd_protocol.workflow import workflow_of

MESSAGE_OUTCOMES_BYTES = 512 * 1024
"""Outcomes in one OUTCOMES, unless one alone is larger."""

WAITING_BYTES_MAX = 8 * 1024 * 1024
"""Outcomes that may wait here; more wait on disk."""

OUTCOME_BYTES = 64
"""What weighs in an outcome beside its result or failure, roughly."""

CREDIT_MAX = 1_000_000

WAITED_MAX = 1_000_000
"""Ids that one connection may wait for at the same time: each takes some 200 bytes."""

STATES_READ = 500
"""States read at once."""

SPECS_READ = 32
"""Specs read at once, each with its arguments."""

RESULTS_READ = 8
"""Large results read at once."""


class Outcomes:
    """One client's waits.

    Attributes:
        waited: Ids that the hub knows it waits for.
    """

    def __init__(self, session: Talk) -> None:
        self.waited: set[bytes] = set()
        self._members_of: dict[bytes, set[bytes]] = {}  # by their workflow, those that had not begun
        self._session = session
        self._services = session.services
        self._credit = OUTCOME_CREDIT
        self._ready: deque[Outcome] = deque()
        self._ready_bytes = 0
        self._cold: deque[bytes] = deque()  # to be looked up: they may have ended before they were waited for
        self._on_disk: deque[bytes] = deque()  # ended, and to be read again when there is room
        self._reading = False

    def wait(self, ids: Sequence[bytes]) -> None:
        """Tell of these when they end, or that they are not known.

        Raises:
            ServerBusy: It waits for too many already.
        """
        if len(self.waited) + len(ids) > WAITED_MAX:
            raise ServerBusy(f"a connection waits for at most {WAITED_MAX} tasks; wait for some of them first")
        hub, in_memory = self._services.hub, self._services.working.tasks
        hub.wait(self._session, ids)
        self.waited.update(ids)
        self._cold.extend([task_id for task_id in ids if task_id not in in_memory])
        self._read_on()

    @property
    def known_to_hub(self) -> set[bytes]:
        """What the hub tells of."""
        return self.waited.union(self._members_of)

    def add_credit(self, outcomes: int) -> None:
        """Note that the client can take more.

        Raises:
            BadRequest: The number is out of range.
        """
        if not 0 < outcomes <= CREDIT_MAX:
            raise BadRequest(f"credit for {outcomes} outcomes is out of range")
        self._credit = min(self._credit + outcomes, CREDIT_MAX)
        self.push()

    def tell(self, outcomes: list[Outcome]) -> None:
        """Tell of these ends now, or when there is room."""
        if self._members_of:
            outcomes = self._note_members(outcomes)
        if self._fit_now(outcomes):  # nearly always, and in a quarter of the time
            self.waited.difference_update([outcome.id for outcome in outcomes])
            self._credit -= len(outcomes)
            self._session.send(OutcomesMessage(outcomes))
            return
        for outcome in outcomes:
            self.waited.discard(outcome.id)
            if self._ready_bytes < WAITING_BYTES_MAX:
                self._ready.append(outcome)
                self._ready_bytes += _size(outcome)
            else:
                self._on_disk.append(outcome.id)
        self.push()

    def _note_members(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Have members looked up whose workflow has ended; return what the client waits for."""
        told = [outcome for outcome in outcomes if outcome.id in self.waited]
        for outcome in outcomes:
            left = self._members_of.pop(outcome.id, None)
            if left is not None:
                self._cold.extend(left & self.waited)
            elif is_made_id(outcome.id):
                self._forget_member(outcome.id)
        self._read_on()
        return told

    def _forget_member(self, member: bytes) -> None:
        workflow = workflow_of(member)
        left = self._members_of.get(workflow)
        if left is not None:
            left.discard(member)
            if not left:
                del self._members_of[workflow]
                if workflow not in self.waited:
                    self._services.hub.stop_waiting(self._session, workflow)

    def _fit_now(self, outcomes: list[Outcome]) -> bool:
        """Tell whether nothing waits, and one message can hold all of these."""
        return (
            0 < len(outcomes) <= self._credit
            and not (self._ready or self._on_disk)
            and self._session.outbox_bytes < OUTBOX_HIGH_BYTES
            and _sizes(outcomes) <= MESSAGE_OUTCOMES_BYTES
        )

    def push(self) -> None:
        """Send what credit and outbox allow."""
        while self._ready and self._credit and self._session.outbox_bytes < OUTBOX_HIGH_BYTES:
            told: list[Outcome] = []
            told_bytes = 0
            while self._ready and len(told) < self._credit:
                size = _size(self._ready[0])
                if told and told_bytes + size > MESSAGE_OUTCOMES_BYTES:
                    break
                told.append(self._ready.popleft())
                told_bytes += size
            self._ready_bytes -= told_bytes
            self._credit -= len(told)
            self._session.send(OutcomesMessage(told))
        if self._on_disk and not self._ready:
            self._read_on()

    # -- what is on disk ----------------------------------------------------------------

    def _read_on(self) -> None:
        if not self._reading and (self._cold or self._on_disk) and self._session.nursery is not None:
            self._reading = True
            self._session.nursery.start_soon(self._read)

    async def _read(self) -> None:
        try:
            while self._cold or (self._on_disk and not self._ready):
                if self._cold:
                    await self._look_up(_pop(self._cold, STATES_READ))
                else:
                    await self._read_again(_pop(self._on_disk, STATES_READ))
        except TaskdError as failure:
            self._session.end(failure)
        self._reading = False
        self.push()

    async def _look_up(self, ids: list[bytes]) -> None:
        """Tell at once of those that ended before they were waited for, or are not known."""
        states = await self._services.reader.read([(records.STATE, task_id) for task_id in ids])
        stateless = [i for i in ids if states[records.STATE, i] is None]
        unknown = await self._unknown_of([i for i in stateless if not is_made_id(i)])
        made = [i for i in stateless if is_made_id(i)]
        self._wait_for_workflows(made)
        members = await self._members(made)
        found = {**states, **await self._services.reader.read([(records.KEY, key_of_id(i)) for i in unknown])}
        await self._services.loop.until_durable()
        told = [m for m in members if self._services.hub.stop_waiting(self._session, m.id)]
        for task_id in ids:
            state = states[records.STATE, task_id]
            if not (_has_ended(state) or task_id in unknown) or not self._services.hub.stop_waiting(
                self._session, task_id
            ):
                continue
            if isinstance(state, StateRecord) and state.result_apart:
                self.waited.discard(task_id)
                self._on_disk.append(task_id)
            else:
                told.append(self._outcome(task_id, found))
        self.tell(told)

    def _wait_for_workflows(self, ids: Sequence[bytes]) -> None:
        """Wait for the workflows of these, too: before it is looked up whether they have ended."""
        for member in ids:
            workflow = workflow_of(member)
            if member != workflow:
                self._members_of.setdefault(workflow, set()).add(member)
                self._services.hub.wait(self._session, [workflow])

    async def _members(self, ids: list[bytes]) -> list[Outcome]:
        """Return how those ended, of workflows and their nodes, that have, or that are not known."""
        outcomes = await read_outcomes(self._services, ids) if ids else []
        nowhere = [o.id for o in outcomes if o.state == "unknown" and o.failure is None]
        found = [o for o in outcomes if o.state not in _GOES_ON and o.id not in nowhere]
        return found + [self._unknown(i, {}) for i in nowhere]

    async def _unknown_of(self, ids: list[bytes]) -> set[bytes]:
        """Return those that are not stored, of ids without a state: the others are leased, or still in line."""
        unknown: set[bytes] = set()
        cold = deque(ids)
        while cold:
            part = [i for i in _pop(cold, SPECS_READ) if i not in self._services.working.tasks]
            specs = await self._services.reader.read([(records.SPEC, task_id) for task_id in part])
            unknown.update([task_id for task_id in part if specs[records.SPEC, task_id] is None])
        return unknown

    async def _read_again(self, ids: list[bytes]) -> None:
        """Have the first of these ready again, as many as there is room for; put the others back."""
        read = self._services.reader.read
        found = dict(await read([(records.STATE, task_id) for task_id in ids]))
        left = deque(ids)
        while left and self._ready_bytes < WAITING_BYTES_MAX:
            part = _pop(left, RESULTS_READ)
            apart: list[Key] = [
                (records.RESULT, i)
                for i in part
                if isinstance(state := found[records.STATE, i], StateRecord) and state.result_apart
            ]
            found.update(await read(apart))
            members = {o.id: o for o in await self._members([i for i in part if is_made_id(i)])}
            for task_id in part:
                if task_id in members and found[records.STATE, task_id] is None:
                    self._ready.append(members[task_id])
                    self._ready_bytes += _size(members[task_id])
                    continue
                if not _has_ended(found[records.STATE, task_id]):
                    self._wait_again(task_id)
                    continue
                outcome = self._outcome(task_id, found)
                self._ready.append(outcome)
                self._ready_bytes += _size(outcome)
                found.pop((records.RESULT, task_id), None)
        self._on_disk.extendleft(reversed(left))

    def _wait_again(self, task_id: bytes) -> None:
        """Wait for the next end of a task whose last one was retried, or taken away, before it could be told."""
        self._services.hub.wait(self._session, [task_id])
        self.waited.add(task_id)
        self._cold.append(task_id)

    def _outcome(self, task_id: bytes, found: Found) -> Outcome:
        """Return how a task ended whose state was read; without a state it is not stored."""
        state = found[records.STATE, task_id]
        if not isinstance(state, StateRecord):
            return self._unknown(task_id, found)
        result = found.get((records.RESULT, task_id)) if state.result_apart else state.result
        if state.result_apart and not isinstance(result, bytes):
            return self._unknown(task_id, found)  # it was taken away between the two reads
        return Outcome(task_id, state.state, state.attempt, result if isinstance(result, bytes) else b"", state.failure)

    def _unknown(self, task_id: bytes, found: Found) -> Outcome:
        if task_id_unix_ms(TaskId(task_id)) <= self._services.working.counters.purged_to_ms:
            failure = Failure(ResultGone.code, "the task ended so long ago that it was removed; keep results elsewhere")
        elif found.get((records.KEY, key_of_id(task_id))) is not None:
            failure = Failure(ResultGone.code, "a person has removed the task after its end")
        else:
            failure = Failure(TaskUnknown.code, "no task of that id is stored; it was never accepted here")
        return Outcome(task_id, "unknown", failure=failure)


_GOES_ON = frozenset({"blocked", "waiting", "running"})


def _has_ended(state: Value) -> bool:
    return isinstance(state, StateRecord) and state.state in TERMINAL


def _size(outcome: Outcome) -> int:
    """Return what weighs in an outcome, in bytes, roughly."""
    failure = outcome.failure
    size = OUTCOME_BYTES + len(outcome.result)
    return size if failure is None else size + len(failure.message) + len(failure.traceback)


def _sizes(outcomes: Sequence[Outcome]) -> int:
    """Return what all of them weigh."""
    failed = [outcome for outcome in outcomes if outcome.failure is not None]
    return (
        OUTCOME_BYTES * len(outcomes)
        + sum([len(outcome.result) for outcome in outcomes])
        + sum([_size(outcome) for outcome in failed])
    )


def _pop(ids: deque[bytes], most: int) -> list[bytes]:
    return [ids.popleft() for _ in range(min(most, len(ids)))]
