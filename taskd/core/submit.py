"""Submits: new tasks, each once, however often they are sent.

What is there already is found by ``known``. All of a command's tasks are kept, or
none: everything is checked before anything changes.
"""

from collections import Counter
from collections.abc import Sequence
from operator import attrgetter

from taskd.core import cancel, claims, expiry, gates, lapses, records, timers
from taskd.core.commands import NOTHING_LOADED, Loaded, Now, SubmitTasks, Submitted
from taskd.core.events import SUBMITTED
from taskd.core.fitting import misfit
from taskd.core.known import Known, digest_of
from taskd.core.lifecycle import State
from taskd.core.lines import ORDER_BITS, Task, is_fair, place_of, rank_in, where_of
from taskd.core.records import KeyRecord, SpecRecord, StateRecord
from taskd.core.working import LineKey, Working
from taskd_protocol.errors import BadRequest, QueueDraining, SubmitTooNew
from taskd_protocol.explanation import Misfit
from taskd_protocol.ids import format_task_id
from taskd_protocol.task import Rules, TaskSpec, check_specs

_rank = attrgetter("rank")

FUTURE_MS_MAX = 3600 * 1000
"""Ids are made from server-corrected time: one further ahead is a mistake, or a trick."""


def submit(w: Working, command: SubmitTasks, now: Now, loaded: Loaded) -> Submitted:
    """Keep the tasks that are new; name the others.

    Raises:
        BadRequest: A spec is out of range.
        PayloadTooLarge: A payload is.
        SubmitConflict: An id or key belongs to a task with other content.
        QueueDraining: A queue takes no new tasks.
        SubmitTooOld: An id may have been purged: whether it ran cannot be told.
        NeedRecords: Ids or keys must be looked up first.
    """
    existing, known = _check(w, command, now, loaded)
    stored = {index for index, _ in existing}
    fresh = [spec for index, spec in enumerate(command.specs) if index not in stored] if stored else command.specs
    if w.queues:
        check_queues(w, fresh)
    cancel.cancel_some(w, known.displaced, now, loaded)
    for lapse in known.lapsed:
        lapses.stop(w, *lapse)
    asking = keep(w, fresh, command.owner, now, loaded)
    return Submitted(existing, _misfits(w, command, asking) if asking else ())


def _misfits(w: Working, command: SubmitTasks, asking: Sequence[tuple[LineKey, bytes]]) -> list[Misfit]:
    """Return what no agent will ever have; of each line for its first task."""
    found = [(task_id, reason) for key, task_id in asking if (reason := misfit(w, w.lines[key])) is not None]
    ids = [spec.id for spec in command.specs] if found else []
    return [Misfit(ids.index(task_id), reason) for task_id, reason in found]


def check_queues(w: Working, specs: Sequence[TaskSpec]) -> None:
    """Refuse tasks of queues that take nothing new.

    Raises:
        QueueDraining: One does not.
    """
    for spec in specs:
        if w.is_draining(spec.queue):
            raise QueueDraining(
                f"queue {spec.queue[:64]!r} is drained and takes no new tasks; `taskd queue resume` opens it again"
            )


def keep(
    w: Working, specs: Sequence[TaskSpec], owner: str, now: Now, loaded: Loaded = NOTHING_LOADED
) -> list[tuple[LineKey, bytes]]:
    """Write new tasks, and put them where they wait: those of one line and priority in one go.

    That they may be kept, and are new, is known; where fair keys end is loaded, or not looked up.

    Returns:
        The lines whose tasks ask for something, each with its first task's id.
    """
    if not specs:
        return []
    mutate = w.mutations.append
    wall_ms = now.wall_ms
    order = w.counters.next_order
    if not w.entered:
        w.entered_from = order
    enqueued_ms, ageing_ms = timers.latest_wall_ms(w, now), w.settings.ageing_ms
    entering: dict[tuple[str, str, int, bytes], tuple[int, int, list[Task]]] = {}
    apart: list[tuple[int, TaskSpec, int]] = []
    for spec in specs:
        if spec.key:
            _keep_key(w, spec, wall_ms)
        given = spec.given
        if given is not None and (given.unique is not None or given.ttl_ms or given.deadline_ms):
            _follow(w, spec, given, now)
        late_ms = 0 if given is None or not given.due_ms else _late_ms(spec, given.due_ms, wall_ms)
        has_gates = given is not None and bool(given.limits or given.fifo_key)
        if spec.delay_ms > late_ms or (given is not None and given.fair_key and not has_gates):
            apart.append((order, spec, spec.delay_ms - late_ms))
        elif has_gates:
            place = 0 if is_fair(spec) else place_of(enqueued_ms - late_ms, spec, ageing_ms)  # a tag it gets in line
            record = SpecRecord(order, wall_ms, owner, spec, place)
            mutate((records.SPEC, spec.id, record))
            gates.enter(w, Task(spec, rank_in(record), wall_ms, owner, fresh=True), None)
            w.counters.move(spec.queue, None, State.READY)
            w.tell(SUBMITTED, spec)
        else:
            priority = spec.priority
            key = (spec.queue, spec.name, priority, b"" if spec.given is None else where_of(spec, None))
            together = entering.get(key)
            if together is None:
                place = place_of(enqueued_ms - late_ms, spec, ageing_ms)
                together = entering[key] = place, place << ORDER_BITS, []
            place, rank, tasks = together
            mutate((records.SPEC, spec.id, SpecRecord(order, wall_ms, owner, spec, place)))
            tasks.append(Task(spec, rank | order, wall_ms, owner, True))  # noqa: FBT003 - by position: half the time
        order += 1
    for (queue, name, _, where), (_, _, tasks) in entering.items():
        w.enter_fresh(queue, name, where, tasks)
    asking = _keep_apart(w, apart, owner, now, loaded)
    w.counters.next_order = order
    w.counters_dirty = True
    w.recent.add([spec.id for spec in specs])
    asking += [((q, n, where, False), each[0].spec.id) for (q, n, _, where), (_, _, each) in entering.items() if where]
    return asking


def _keep_apart(
    w: Working, specs: Sequence[tuple[int, TaskSpec, int]], owner: str, now: Now, loaded: Loaded
) -> list[tuple[LineKey, bytes]]:
    """Write new tasks that are delayed, or have fair keys, with what is left of their delays; as ``keep``."""
    entering: dict[tuple[str, str, bytes], list[Task]] = {}
    wall_ms, enqueued_ms, ageing_ms = now.wall_ms, timers.latest_wall_ms(w, now), w.settings.ageing_ms
    for order, spec, wait_ms in specs:
        if wait_ms > 0:
            due_ms = enqueued_ms + wait_ms - spec.delay_ms
            place = 0 if is_fair(spec) else place_of(due_ms, spec, ageing_ms)  # a tag it gets when it is due
            _schedule(w, spec, wait_ms, now)
        else:
            place = w.fair.place(spec, loaded)
            line = spec.queue, spec.name, where_of(spec, None)
            task = Task(spec, place << ORDER_BITS | order, wall_ms, owner, True)  # noqa: FBT003 - as above
            entering.setdefault(line, []).append(task)
        w.mutations.append((records.SPEC, spec.id, SpecRecord(order, wall_ms, owner, spec, place)))
    for (queue, name, where), tasks in entering.items():
        tasks.sort(key=_rank)
        w.enter_fresh(queue, name, where, tasks, fair=True)
    return [((q, n, where, True), tasks[0].spec.id) for (q, n, where), tasks in entering.items() if where]


def _follow(w: Working, spec: TaskSpec, rules: Rules, now: Now) -> None:
    if rules.unique is not None:
        claims.begin(w, spec, rules.unique, now)
    if rules.ttl_ms or rules.deadline_ms:
        expiry.start(w, spec, now.wall_ms, 0, now)


def _keep_key(w: Working, spec: TaskSpec, wall_ms: int) -> None:
    key, until_ms = spec.key.encode(), wall_ms + w.settings.key_retention_ms
    w.put(records.KEY, key, KeyRecord(spec.id, digest_of(spec), wall_ms, until_ms))
    lapses.start(w, until_ms, records.KEY, key)


def _late_ms(spec: TaskSpec, due_ms: int, wall_ms: int) -> int:
    """Return by how much a delay is over later than it may be, if it began now; at most all of it."""
    return min(max(0, wall_ms + spec.delay_ms - due_ms), spec.delay_ms)


def _schedule(w: Working, spec: TaskSpec, wait_ms: int, now: Now) -> None:
    due_at_ms = now.wall_ms + wait_ms
    w.put(records.STATE, spec.id, StateRecord(State.SCHEDULED, 0, 0, 0, "", 0, due_at_ms=due_at_ms))
    timers.start(w, spec.id, due_at_ms, wait_ms, now)
    w.counters.move(spec.queue, None, State.SCHEDULED)
    w.tell(SUBMITTED, spec)


def _check(w: Working, command: SubmitTasks, now: Now, loaded: Loaded) -> tuple[list[tuple[int, bytes]], Known]:
    """Refuse the command, or return those of its tasks that are stored already, and what the others displace."""
    existing: list[tuple[int, bytes]] = []
    payload_bytes_max = w.settings.payload_bytes_max
    check_specs(command.specs, payload_bytes_max)
    ids = [spec.id for spec in command.specs]
    _check_ids(ids, now)
    may_be_stored = w.recent.may_be_stored(ids)
    known = Known(w, command.owner, now, loaded)
    for index, spec in enumerate(command.specs):
        if spec.key or spec.given is not None or spec.id in may_be_stored:
            first = known.first_of(spec, may_be_stored=spec.id in may_be_stored)
            if first is not None:
                existing.append((index, first))
    w.need([*known.needed, *w.fair.needed(command.specs)], loaded)
    return existing, known


def _check_ids(ids: Sequence[bytes], now: Now) -> None:
    if len(set(ids)) < len(ids):
        twice = next(task_id for task_id, count in Counter(ids).items() if count > 1)
        raise BadRequest(f"task id {format_task_id(twice)} stands twice in one submit; ids are made once a task")
    future_ms = now.wall_ms + FUTURE_MS_MAX
    if max(ids)[:6] > future_ms.to_bytes(6, "big"):
        raise SubmitTooNew("a task id lies in the future; make ids from the server's time, as PONG tells it")
