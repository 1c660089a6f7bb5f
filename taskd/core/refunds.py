"""Refunds: what attempts on an agent in quarantine have cost their tasks is given back.

The attempts stay in the tasks' histories. A task that died of one goes back in line,
unless another does its work by now and it is to be the only one. A task is refunded
``REFUNDS_MAX`` times at most: what fails wherever it runs is dead in the end.
"""

from collections import Counter
from typing import Final

from msgspec.structs import replace

from taskd.core import attempts, due, endings, expiry, records, retry
from taskd.core.commands import Loaded, Now, RefundTasks
from taskd.core.lifecycle import State
from taskd.core.lines import lease_record
from taskd.core.records import Key, Past, SpecRecord, StateRecord
from taskd.core.working import Working

REFUNDS_MAX: Final = 3


def refund(w: Working, command: RefundTasks, now: Now, loaded: Loaded) -> None:
    """Give the tasks back what these attempts have cost them.

    Raises:
        NeedRecords: They are not loaded.
    """
    costs: dict[bytes, Counter[str]] = {}
    for charge in command.charges:
        costs.setdefault(charge.task_id, Counter())[charge.outcome] += 1
    keys: list[Key] = [(kind, task_id) for task_id in costs for kind in (records.SPEC, records.STATE)]
    w.need(keys, loaded)
    details: list[Key] = [(records.DETAILS, i) for i in costs if due.has_details(loaded[records.STATE, i])]
    w.need([*keys, *details], loaded)
    died = [
        spec
        for task_id in costs
        if isinstance(spec := loaded[records.SPEC, task_id], SpecRecord)
        and task_id not in w.tasks
        and isinstance(state := loaded[records.STATE, task_id], StateRecord)
        and state.state == State.DEAD
        and _died_of(command.agent, spec, state, now)
    ]
    revivable = {spec.spec.id for spec in retry.revivable(w, died, [*keys, *details], loaded)}
    for task_id, cost in costs.items():
        spec, state = loaded[records.SPEC, task_id], loaded[records.STATE, task_id]
        task = w.tasks.get(task_id)
        if task is not None and task.token:
            task.failures, task.past = _refunded(task.failures, task.past, cost)
            w.put(records.LEASE, task_id, lease_record(task))
        elif isinstance(spec, SpecRecord) and isinstance(state, StateRecord):
            _refund_stored(w, spec, state, cost, now=now, loaded=loaded, may_revive=task_id in revivable)
    w.counters_dirty = True


def _refund_stored(
    w: Working, spec: SpecRecord, state: StateRecord, cost: Counter[str], *, now: Now, loaded: Loaded, may_revive: bool
) -> None:
    task_id = spec.spec.id
    failures, past = _refunded(state.failures, state.past, cost)
    if state.state == State.SCHEDULED:
        w.put(records.STATE, task_id, replace(state, failures=failures, past=past))
    elif state.state == State.READY:
        # Out of line and in again: a window that is being refilled must not take in what was read before.
        due.leave(w, spec, state)
        refunded = replace(state, failures=failures, past=past)
        endings.put_ready(w, due.waiting_task(spec, refunded, loaded), state)
    elif may_revive and past != state.past:
        retry.revive(w, spec, replace(state, past=past), now, since_ms=spec.created_at_ms)


def _died_of(agent: str, spec: SpecRecord, state: StateRecord, now: Now) -> bool:
    """Tell whether a dead task's last attempt was the agent's, and it may be tried again."""
    is_late = expiry.is_late(spec.spec, spec.created_at_ms, now.wall_ms)
    return state.agent == agent and not spec.spec.rules.at_most_once and not is_late


def _refunded(failures: int, past: Past | None, cost: Counter[str]) -> tuple[int, Past | None]:
    if past is None or past.refunds >= REFUNDS_MAX:
        return failures, past
    crashes = max(0, past.crashes - cost[attempts.CRASHED])
    return max(0, failures - cost[attempts.FAILED]), replace(past, crashes=crashes, refunds=past.refunds + 1)
