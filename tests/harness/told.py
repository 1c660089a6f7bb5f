"""What a turn tells, beside what it writes: of each task that stands elsewhere than before, where."""

from collections.abc import Mapping, Sequence

from taskd.core import records
from taskd.core.coordinator import Turn
from taskd.core.events import TASK, Event, TasksMoved
from taskd.core.lifecycle import State
from taskd.core.records import Key, LeaseRecord, Record, StateRecord

_KINDS = frozenset({records.SPEC, records.STATE, records.LEASE})


def standing(stored: Mapping[Key, Record | bytes], turn: Turn) -> dict[bytes, str]:
    """Return where the tasks stand whose records a turn writes; of those that are not stored, nothing."""
    written = {record_id for kind, record_id, _ in turn.mutations if kind in _KINDS}
    return {task_id: _state(stored, task_id) for task_id in written if (records.SPEC, task_id) in stored}


def _state(stored: Mapping[Key, Record | bytes], task_id: bytes) -> str:
    lease = stored.get((records.LEASE, task_id))
    if isinstance(lease, LeaseRecord):
        return State.CANCELLING if lease.cancelling else State.RUNNING
    state = stored.get((records.STATE, task_id))
    return state.state if isinstance(state, StateRecord) else State.READY


def check_told(before: dict[bytes, str], after: dict[bytes, str], events: Sequence[Event]) -> None:
    """Assert that of each task that stands elsewhere after a turn than before it, the last event says where."""
    told: dict[bytes, str] = {}
    for event in events:
        if isinstance(event, TasksMoved) and event.what.startswith(TASK):
            told |= dict.fromkeys(event.ids, event.what.removeprefix(TASK))
            assert len(event.spans_ms) in {0, len(event.ids)}
    for task_id, state in after.items():
        said = told.pop(task_id, before.get(task_id))
        assert said == state or (said == "submitted" and state in {State.READY, State.SCHEDULED})
    assert not told.keys() - before.keys(), "it is told of what is not stored"
