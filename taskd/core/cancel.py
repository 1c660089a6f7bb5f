"""Cancel: tasks that wait end at once; leased ones when their agent has proven that their work is gone.

Or when a person says so of an agent that is not there.
"""

from collections.abc import Sequence

from taskd.core import due, endings, records
from taskd.core.commands import CancelStates, CancelTasks, Loaded, Now
from taskd.core.effects import SendRevoke
from taskd.core.events import CANCELLING
from taskd.core.fleet import Agent
from taskd.core.lifecycle import State
from taskd.core.lines import Task, lease_record
from taskd.core.records import Key, SpecRecord, StateRecord
from taskd.core.working import Working

_FRESH = StateRecord(State.READY, 0, 0, 0, "", 0)
"""What a task is that has no state record."""


def cancel(w: Working, command: CancelTasks, now: Now, loaded: Loaded) -> CancelStates:
    """End these tasks, or see to it.

    Raises:
        NeedRecords: Not all that is kept of them is in memory.
    """
    needed: list[Key] = []
    for task_id in command.ids:
        if not w.tells_all_of(task_id):
            needed += [(records.SPEC, task_id), (records.STATE, task_id)]
    w.need(needed, loaded)
    done = cancel_some(w, command.ids, now, loaded)
    if command.force:
        _give_up_absent(w, done, now)
    return CancelStates([str(done[task_id]) for task_id in command.ids])


def cancel_some(w: Working, ids: Sequence[bytes], now: Now, loaded: Loaded) -> dict[bytes, str]:
    """End tasks, or see to it; those of which memory does not tell all are loaded. Return their states now."""
    revoked: dict[str, list[int]] = {}
    done: dict[bytes, str] = {}
    for task_id in ids:
        if task_id in done:
            continue
        task = w.tasks.get(task_id)
        if task is None or not w.tells_all_of(task_id):
            done[task_id] = _cancel_stored(w, task_id, now, loaded)
        elif task.token:
            done[task_id] = State.CANCELLING
            if not task.cancelling:
                _revoke(w, task)
                revoked.setdefault(task.agent, []).append(task.token)
        else:
            done[task_id] = State.CANCELLED
            _cancel_fresh(w, task, now)
    for name, tokens in revoked.items():
        agent = w.agents[name]
        if agent.connection:
            w.effects.append(SendRevoke(name, agent.connection, tokens))
    w.counters_dirty = True
    return done


def revoke_again(w: Working, agent: Agent) -> None:
    """Tell an agent that has come back which of its tasks are to end."""
    tokens = [token for token, task in agent.leases.items() if task.cancelling or task.preempted]
    if tokens:
        w.effects.append(SendRevoke(agent.name, agent.connection, tokens))


def _give_up_absent(w: Working, done: dict[bytes, str], now: Now) -> None:
    """End what is cancelling on agents that are not connected; change its state in ``done``."""
    for task_id, state in done.items():
        if state != State.CANCELLING:
            continue
        task = w.tasks[task_id]
        agent = w.agents[task.agent]
        if not agent.connection:
            del agent.leases[task.token]
            w.note_gone(agent, [task])
            endings.give_up(w, task, now)
            done[task_id] = State.CANCELLED
            if not agent.leases:
                w.forget(agent)


def _revoke(w: Working, task: Task) -> None:
    task.cancelling = True
    w.put(records.LEASE, task.spec.id, lease_record(task))
    w.counters.move(task.spec.queue, State.RUNNING, State.CANCELLING)
    w.tell(CANCELLING, task.spec, task.agent, task.attempt)


def _cancel_fresh(w: Working, task: Task, now: Now) -> None:
    w.leave_line(task.spec, task.past, task.rank)
    endings.end_waiting(w, task.spec, _FRESH, now, State.CANCELLED, since_ms=task.since_ms)


def _cancel_stored(w: Working, task_id: bytes, now: Now, loaded: Loaded) -> str:
    spec, state = loaded[records.SPEC, task_id], loaded[records.STATE, task_id]
    if not isinstance(spec, SpecRecord):
        return "unknown"
    if not isinstance(state, StateRecord):
        state = _FRESH
    if not due.leave(w, spec, state):
        return state.state
    endings.end_waiting(w, spec.spec, state, now, State.CANCELLED, since_ms=state.revived_at_ms or spec.created_at_ms)
    return State.CANCELLED
