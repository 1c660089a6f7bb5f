"""Submits: new tasks, each once, however often they are sent.

A resend is known by its id, or by its key. All of a command's tasks are kept, or
none: everything is checked before anything changes.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence

from taskd.core import expiry, records, timers
from taskd.core.commands import Loaded, Now, SubmitTasks, Submitted
from taskd.core.lifecycle import State
from taskd.core.lines import Task, rank_of
from taskd.core.records import Key, KeyRecord, Record, SpecRecord, StateRecord
from taskd.core.working import Working
from taskd_protocol.errors import BadRequest, QueueDraining, SubmitConflict, SubmitTooOld
from taskd_protocol.ids import TaskId, format_task_id, task_id_unix_ms
from taskd_protocol.task import TaskSpec, check_spec

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
    existing = _check(w, command, now, loaded)
    known = {index for index, _ in existing}
    fresh = [spec for index, spec in enumerate(command.specs) if index not in known] if known else command.specs
    if w.queues:
        _check_queues(w, fresh)
    _keep(w, fresh, command.owner, now)
    w.counters_dirty = True
    w.recent.add([spec.id for spec in fresh])
    return Submitted(existing)


def _check_queues(w: Working, specs: Sequence[TaskSpec]) -> None:
    for spec in specs:
        if spec.queue in w.queues:
            raise QueueDraining(
                f"queue {spec.queue[:64]!r} is drained and takes no new tasks; `taskd queue resume` opens it again"
            )


def _keep(w: Working, specs: Sequence[TaskSpec], owner: str, now: Now) -> None:
    """Write new tasks, and put them where they wait: those of one line and priority in one go."""
    mutate = w.mutations.append
    wall_ms = now.wall_ms
    order = w.counters.next_order
    entering: dict[tuple[str, str, int], list[Task]] = {}
    for spec in specs:
        mutate((records.SPEC, spec.id, SpecRecord(order, wall_ms, owner, spec)))
        if spec.key:
            w.put(records.KEY, spec.key.encode(), KeyRecord(spec.id, _digest(spec), wall_ms))
        if spec.ttl_ms or spec.deadline_ms:
            expiry.start(w, spec, wall_ms, 0, now)
        if spec.delay_ms:
            _schedule(w, spec, now)
        else:
            priority = spec.priority
            key = (spec.queue, spec.name, priority)
            tasks = entering.get(key)
            if tasks is None:
                tasks = entering[key] = []
            tasks.append(Task(spec, rank_of(priority, order), wall_ms, owner, True))  # noqa: FBT003 - by position: half the time
        order += 1
    for (queue, name, _), tasks in entering.items():
        w.enter_fresh(queue, name, tasks)
    w.counters.next_order = order


def _schedule(w: Working, spec: TaskSpec, now: Now) -> None:
    due_at_ms = now.wall_ms + spec.delay_ms
    w.put(records.STATE, spec.id, StateRecord(State.SCHEDULED, 0, 0, 0, "", 0, due_at_ms=due_at_ms))
    timers.start(w, spec.id, due_at_ms, spec.delay_ms, now)
    w.counters.move(spec.queue, None, State.SCHEDULED)


def _check(w: Working, command: SubmitTasks, now: Now, loaded: Loaded) -> list[tuple[int, bytes]]:
    """Refuse the command, or return those of its tasks that are stored already."""
    existing: list[tuple[int, bytes]] = []
    payload_bytes_max = w.settings.payload_bytes_max
    for spec in command.specs:
        check_spec(spec, payload_bytes_max)
    ids = [spec.id for spec in command.specs]
    _check_ids(ids, now)
    may_be_stored = w.recent.may_be_stored(ids)
    keys: dict[str, tuple[bytes, bytes]] = {}
    needed: list[Key] = []
    for index, spec in enumerate(command.specs):
        task_id = spec.id
        if task_id in may_be_stored:
            needed.append((records.SPEC, task_id))
            if needed[-1] in loaded and _is_resend(w, command.owner, spec, loaded):
                existing.append((index, task_id))
                continue
        if spec.key:
            needed.append((records.KEY, spec.key.encode()))
            first = keys.get(spec.key) or _first_of_key(loaded.get(needed[-1]))
            if first is None:
                keys[spec.key] = (task_id, _digest(spec))
            elif first[1] != _digest(spec):
                raise SubmitConflict(f"key {spec.key[:64]!r} belongs to another task; the same key means the same work")
            else:
                existing.append((index, first[0]))
    w.need(needed, loaded)
    return existing


def _check_ids(ids: Sequence[bytes], now: Now) -> None:
    if len(set(ids)) < len(ids):
        twice = next(task_id for task_id, count in Counter(ids).items() if count > 1)
        raise BadRequest(f"task id {format_task_id(twice)} stands twice in one submit; ids are made once a task")
    future_ms = now.wall_ms + FUTURE_MS_MAX
    if max(ids)[:6] > future_ms.to_bytes(6, "big"):
        raise BadRequest("a task id lies in the future; make ids from the server's time, as WELCOME tells it")


def _is_resend(w: Working, owner: str, spec: TaskSpec, loaded: Loaded) -> bool:
    stored = loaded[records.SPEC, spec.id]
    if isinstance(stored, SpecRecord):
        if stored.spec == spec and stored.owner == owner:
            return True
        raise SubmitConflict(f"task id {format_task_id(spec.id)} belongs to another task; make a new id for new work")
    if task_id_unix_ms(TaskId(spec.id)) <= w.counters.purged_to_ms:
        raise SubmitTooOld("the id is older than what is kept, so it may have run already; submit it under a new id")
    return False


def _first_of_key(stored: Record | bytes | None) -> tuple[bytes, bytes] | None:
    return (stored.task_id, stored.digest) if isinstance(stored, KeyRecord) else None


def _digest(spec: TaskSpec) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in (spec.name.encode(), spec.queue.encode(), spec.payload):
        digest.update(len(part).to_bytes(4, "big"))
        digest.update(part)
    return digest.digest()
