"""Granting: tasks that were placed become leases, under fencing tokens, and messages to their agents.

Invariants:
- Fencing tokens rise; a new epoch is written in the batch of the first lease under it.
- No message holds more than its bounds, but for one task that alone is larger.
"""

from collections.abc import Sequence

from taskd.core import claims, expiry, families, gates, records
from taskd.core.commands import Now
from taskd.core.effects import SendLease
from taskd.core.events import RUNNING, TasksMoved
from taskd.core.fleet import Agent
from taskd.core.lines import Task, lease_record
from taskd.core.records import EpochRecord, LeaseRecord
from taskd.core.working import EPOCH_BITS, Working
from taskd_protocol.task import Grant, Rules

LEASE_BYTES = 1024 * 1024
"""Arguments in one LEASE, unless one task's alone are more: no message holds all that an agent may be owed."""

LEASE_TASKS_MAX = 2_048
"""Tasks in one LEASE: with the longest names, keys and retry policies, some 7 KB each, it still fits a message."""


class Granting:
    """What one pass grants, by agent and pool.

    Attributes:
        is_mixed: What is granted together may be of several lines.
    """

    def __init__(self, w: Working, now: Now) -> None:
        self._w = w
        self._now = now
        self.is_mixed = False
        self._sends: dict[tuple[str, int], SendLease] = {}

    def grant(self, tasks: list[Task], agent: Agent, pool_index: int) -> None:
        """Grant tasks, which hold what they ask for already, on an agent."""
        send = self._sends.get((agent.name, pool_index))
        if send is None:
            agent.lease_number += 1
            send = SendLease(agent.name, agent.connection, agent.lease_number, pool_index, [])
            self._sends[agent.name, pool_index] = send
        w = self._w
        mutate = w.mutations.append
        grants = send.grants
        leases = agent.leases
        number, name, wall_ms = send.number, agent.name, self._now.wall_ms
        token = _next_tokens(w, len(tasks))
        first: list[Task] = []  # those whose first attempt it is
        agent.granted_bytes += sum([len(task.spec.payload) + len(task.details) for task in tasks])
        for task in tasks:
            spec = task.spec
            task_id = spec.id
            given = spec.given
            deadline_in_ms = (
                0
                if given is None
                or not (
                    given.ttl_ms
                    or given.deadline_ms
                    or given.unique
                    or given.preemptible
                    or given.sticky
                    or given.limits
                )
                else self._stop_waiting(task, given, name)
            )
            task.token = token
            task.agent = name
            task.lease_number = number
            task.granted_at_ms = wall_ms
            leases[token] = task
            if (
                task.fresh and task.granted is None and task.past is None
            ):  # nothing has happened to it: there is no more to say, and that is said in half the time
                task.attempt = 1
                grants.append(Grant(token, 1, spec, deadline_in_ms))
                mutate((records.LEASE, task_id, LeaseRecord(token, 1, 0, name, wall_ms)))
                first.append(task)
            else:
                task.attempt += 1
                task.log_bytes_before = task.log_bytes
                task.log_number = 0
                alone = task.past is not None and task.past.losses > 0
                family = task.past.family if task.past is not None else b""
                spawned = families.spawned(w, family) if family else None
                grant = Grant(token, task.attempt, spec, deadline_in_ms, task.details, alone, spawned, task.granted)
                grants.append(grant)
                if not task.fresh:
                    mutate((records.STATE, task_id, None))
                mutate((records.LEASE, task_id, lease_record(task)))
                self._tell_again(task)
            token += 1
        if first:
            self._tell_first(first, name)

    def _tell_first(self, tasks: Sequence[Task], agent: str) -> None:
        """Tell of leases of tasks that nothing has happened to before, line by line."""
        lines = (
            dict.fromkeys([(task.spec.queue, task.spec.name) for task in tasks])
            if self.is_mixed
            else [_line_of(tasks[0])]
        )
        wall_ms = self._now.wall_ms
        for queue, name in lines:
            some = [task for task in tasks if _line_of(task) == (queue, name)] if len(lines) > 1 else tasks
            waits_ms = [wall_ms - task.created_at_ms for task in some]
            ids = [task.spec.id for task in some]
            self._w.events.append(TasksMoved(RUNNING, queue, name, agent, 1, ids, waits_ms))

    def _tell_again(self, task: Task) -> None:
        """Tell of a lease of a task that has been through something before."""
        now, spec = self._now, task.spec
        wait_ms = now.mono_ms - task.ready_mono_ms if task.ready_mono_ms else now.wall_ms - task.created_at_ms
        self._w.tell(RUNNING, spec, task.agent, task.attempt, spans_ms=[wait_ms])

    def _stop_waiting(self, task: Task, rules: Rules, agent: str) -> int:
        """Undo what its rules had a task have while it waited; return what is left until its deadline, or 0."""
        if rules.sticky:
            self._w.affinity.note_granted(rules.sticky, agent)
        if rules.preemptible:
            self._w.yielding.tasks[task.spec.id] = task
        if rules.limits:
            gates.begin(self._w, task, self._now)
        if rules.unique is not None:
            claims.note_grant(self._w, task, rules.unique)
        expiry.stop(self._w, task.spec, task.since_ms, task.attempt)
        return expiry.left_ms(task.spec, task.since_ms, self._now.wall_ms)

    def finish(self) -> list[SendLease]:
        """Return what is to be sent; agents that have no credit any more ask for nothing."""
        w = self._w
        for name, _ in self._sends:
            agent = w.asking.get(name)
            if agent is not None and not [pool for pool in agent.pools if pool.credit]:
                del w.asking[name]
        return _divided(w, list(self._sends.values()))


def _divided(w: Working, sends: list[SendLease]) -> list[SendLease]:
    """Cut what is too much for one LEASE into several, and number them in the order in which they go."""
    divided: list[SendLease] = []
    for send in sends:
        grants = send.grants
        sizes = [len(grant.spec.payload) + len(grant.details) for grant in grants]
        if sum(sizes) <= LEASE_BYTES and len(grants) <= LEASE_TASKS_MAX:
            divided.append(send)
            continue
        agent = w.agents[send.agent]
        start, size_before = 0, 0
        for end, size in enumerate(sizes):
            if end > start and (size_before + size > LEASE_BYTES or end - start == LEASE_TASKS_MAX):
                divided.append(_piece(agent, send, grants[start:end], first=start == 0))
                start, size_before = end, 0
            size_before += size
        divided.append(_piece(agent, send, grants[start:], first=start == 0))
    divided.sort(key=_by_number)
    return divided


def _piece(agent: Agent, send: SendLease, grants: list[Grant], *, first: bool) -> SendLease:
    """Return a part of a LEASE as one of its own; the first keeps the number."""
    if first:
        return send._replace(grants=grants)
    agent.lease_number += 1
    for grant in grants:
        agent.leases[grant.token].lease_number = agent.lease_number
    return send._replace(number=agent.lease_number, grants=grants)


def _line_of(task: Task) -> tuple[str, str]:
    return task.spec.queue, task.spec.name


def _by_number(send: SendLease) -> int:
    return send.number


def _next_tokens(w: Working, count: int) -> int:
    """Reserve fencing tokens; a new epoch begins, in the same batch, before the counter runs out."""
    if w.lease_counter + count >= 1 << EPOCH_BITS:
        w.epoch += 1
        w.lease_counter = 0
        w.put(records.META, b"epoch", EpochRecord(w.epoch))
    first = w.epoch << EPOCH_BITS | w.lease_counter
    w.lease_counter += count
    return first
