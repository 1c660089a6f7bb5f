"""Due: what becomes of tasks whose timer has run out.

A timer says when to look, not why: what is due, the end of a delay or a limit to
waiting, shows in what the task is then.
"""

from msgspec.structs import replace

from taskd.core import endings, expiry, fair, gates, records, timers, waits
from taskd.core.commands import HastenStates, HastenTasks, Loaded, Now, ReleaseDue
from taskd.core.flows import Happened
from taskd.core.graph import BLOCKED
from taskd.core.lifecycle import State
from taskd.core.lines import Task, place_of, rank_before, rank_in, rank_of
from taskd.core.records import Key, SpecRecord, StateRecord
from taskd.core.timers import INSTANT_BYTES
from taskd.core.working import Working
from taskd_protocol.ids import is_made_id


def release(w: Working, command: ReleaseDue, now: Now, loaded: Loaded) -> None:
    """Put the tasks in line whose time has come; end those whose time is up. Others are left as they are.

    Raises:
        NeedRecords: They are not loaded.
    """
    instants: dict[bytes, set[int]] = {}  # of one task several may have come at once
    of_gates = [timer for timer in command.timers if timer[INSTANT_BYTES:].startswith(gates.WAKE)]
    for timer in [timer for timer in command.timers if timer not in of_gates] if of_gates else command.timers:
        instants.setdefault(timer[INSTANT_BYTES:], set()).add(int.from_bytes(timer[:INSTANT_BYTES], "big"))
    ids = list(instants)
    keys: list[Key] = [(kind, task_id) for task_id in ids for kind in (records.SPEC, records.STATE)]
    w.need(keys, loaded)
    details: list[Key] = [(records.DETAILS, task_id) for task_id in ids if has_details(loaded[records.STATE, task_id])]
    untagged = [spec.spec for i in ids if isinstance(spec := loaded[records.SPEC, i], SpecRecord) and not spec.place]
    w.need([*keys, *details, *w.fair.needed(untagged)], loaded)
    for timer in of_gates:
        gates.wake(w, timer, timer[INSTANT_BYTES + len(gates.WAKE) :])
    for task_id, due_at_ms in instants.items():
        spec, state = loaded[records.SPEC, task_id], loaded[records.STATE, task_id]
        in_memory = w.tasks.get(task_id)
        if not isinstance(spec, SpecRecord) and is_made_id(task_id) and waits.may_be_due(w, task_id, due_at_ms):
            w.happened.append(Happened(task_id, BLOCKED))  # a node that sleeps, or waits for a signal
        if not isinstance(spec, SpecRecord) or (in_memory is not None and in_memory.token):
            continue
        if not isinstance(state, StateRecord):
            state = StateRecord(State.READY, 0, 0, 0, "", 0)
        since_ms = state.revived_at_ms or spec.created_at_ms
        if expiry.limit_at_ms(spec.spec, since_ms, state.attempt) in due_at_ms:
            _expire(w, spec, state, since_ms, now)
        elif state.state == State.SCHEDULED and state.due_at_ms in due_at_ms:
            _put_in_line(w, spec, state, loaded)
    w.counters_dirty = True


def hasten(w: Working, command: HastenTasks, now: Now, loaded: Loaded) -> HastenStates:
    """Put those of these tasks in line that wait for a time, as if it had come; in line they stand as if they came now.

    Raises:
        NeedRecords: Some are not in memory.
    """
    cold = [task_id for task_id in dict.fromkeys(command.ids) if task_id not in w.tasks]
    keys: list[Key] = [(kind, task_id) for task_id in cold for kind in (records.SPEC, records.STATE)]
    w.need(keys, loaded)
    details: list[Key] = [(records.DETAILS, task_id) for task_id in cold if has_details(loaded[records.STATE, task_id])]
    untagged = [spec.spec for i in cold if isinstance(spec := loaded[records.SPEC, i], SpecRecord) and not spec.place]
    w.need([*keys, *details, *w.fair.needed(untagged)], loaded)
    # first what is in memory: a task that comes in line may push another out of its window
    states = {task_id: state_of(w.tasks[task_id]) for task_id in command.ids if task_id in w.tasks}
    for task_id in cold:
        spec, state = loaded[records.SPEC, task_id], loaded[records.STATE, task_id]
        states[task_id] = State.READY
        if not isinstance(spec, SpecRecord):
            states[task_id] = "unknown"
        elif isinstance(state, StateRecord) and state.state == State.SCHEDULED:
            _put_in_line(w, _sooner(w, spec, now), state, loaded)
        elif isinstance(state, StateRecord):
            states[task_id] = state.state
    w.counters_dirty = True
    return HastenStates([str(states[task_id]) for task_id in command.ids])


def _sooner(w: Working, spec: SpecRecord, now: Now) -> SpecRecord:
    """Return a task as it stands in line from now on, not behind what was submitted since; keys keep their turns."""
    here = place_of(now.wall_ms - spec.spec.delay_ms, spec.spec, w.settings.ageing_ms)
    if spec.spec.rules.fair_key or rank_in(spec) <= rank_of(here, spec.order):
        return spec
    sooner = replace(spec, place=here)
    w.put(records.SPEC, spec.spec.id, sooner)
    return sooner


def state_of(task: Task) -> str:
    """Return the state of a task that is in memory."""
    if not task.token:
        return State.READY
    return State.CANCELLING if task.cancelling else State.RUNNING


def leave(w: Working, spec: SpecRecord, state: StateRecord) -> bool:
    """Take a task from where it waits, line or timer; return False, and do nothing, if it waits nowhere."""
    if state.state == State.READY and gates.is_parked(spec.spec, state.gates):
        gates.leave(w, spec.spec, rank_before(spec), state.gates)
    elif state.state == State.READY:
        w.leave_line(spec.spec, state.past, rank_in(spec))
    elif state.state == State.SCHEDULED:
        timers.stop(w, spec.spec.id, state.due_at_ms)
    elif state.state != State.BLOCKED:
        return False
    return True


def _expire(w: Working, spec: SpecRecord, state: StateRecord, since_ms: int, now: Now) -> None:
    if leave(w, spec, state):
        end, failure = expiry.end_of(spec.spec, state.attempt)
        endings.end_waiting(w, spec.spec, state, now, end, since_ms=since_ms, failure=failure)


def _put_in_line(w: Working, spec: SpecRecord, state: StateRecord, loaded: Loaded) -> None:
    timers.stop(w, spec.spec.id, state.due_at_ms)
    if not spec.place:
        spec = fair.placed(w, spec, loaded)
    endings.put_ready(w, waiting_task(spec, state, loaded), state)
    w.counters.move(spec.spec.queue, State.SCHEDULED, State.READY)


def waiting_task(spec: SpecRecord, state: StateRecord, loaded: Loaded) -> Task:
    """Return a task that waits, from its records; what its last attempt told is loaded if there is such."""
    task = Task(spec.spec, rank_in(spec), spec.created_at_ms, spec.owner, False)  # noqa: FBT003 - by position: half the time
    task.attempt, task.failures, task.failure = state.attempt, state.failures, state.failure
    task.logs, task.log_bytes = state.logs, state.log_bytes
    task.revived_at_ms, task.past, task.revived_attempt = state.revived_at_ms, state.past, state.revived_attempt
    task.gates = state.gates
    details = loaded[records.DETAILS, spec.spec.id] if state.has_details else b""
    task.details = details if isinstance(details, bytes) else b""
    return task


def has_details(state: object) -> bool:
    """Tell whether a STATE record says that the last attempt told how far it had come."""
    return isinstance(state, StateRecord) and state.has_details
