"""Refunds: what attempts on an agent in quarantine have cost tasks that still live is given back.

The attempts stay in the tasks' histories. A task that died of one stays dead: that was
told, and is final but for a person's word.
"""

from collections import Counter

from msgspec.structs import replace

from taskd.core import attempts, due, endings, records
from taskd.core.commands import Loaded, RefundTasks
from taskd.core.lifecycle import State
from taskd.core.lines import lease_record
from taskd.core.records import Key, SpecRecord, StateRecord
from taskd.core.working import Working


def refund(w: Working, command: RefundTasks, loaded: Loaded) -> None:
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
    for task_id, cost in costs.items():
        spec, state = loaded[records.SPEC, task_id], loaded[records.STATE, task_id]
        task = w.tasks.get(task_id)
        if task is not None and task.token:
            task.failures, task.past = attempts.take_back(task.failures, task.past, cost)
            w.put(records.LEASE, task_id, lease_record(task))
        elif isinstance(spec, SpecRecord) and isinstance(state, StateRecord):
            _refund_stored(w, spec, state, cost, loaded)
    w.counters_dirty = True


def _refund_stored(w: Working, spec: SpecRecord, state: StateRecord, cost: Counter[str], loaded: Loaded) -> None:
    failures, past = attempts.take_back(state.failures, state.past, cost)
    refunded = replace(state, failures=failures, past=past)
    if state.state == State.SCHEDULED:
        w.put(records.STATE, spec.spec.id, refunded)
    elif state.state == State.READY:
        # Out of line and in again: a window that is being refilled must not take in what was read before.
        due.leave(w, spec, state)
        endings.put_ready(w, due.waiting_task(spec, refunded, loaded), state, moves=False)
