"""Filters: which tasks a listing shows, and which a bulk job is for."""

from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from taskd.core import records
from taskd.core.commands import Loaded
from taskd.core.lifecycle import RETRIABLE, State
from taskd.core.records import SpecRecord, StateRecord
from taskd.core.working import Working
from taskd_protocol.filtering import TaskFilter
from taskd_protocol.ids import is_made_id
from taskd_protocol.task import Failure, TaskSpec

SEARCHED_CHARS: Final = 500
"""Of a failure's message: as much as listings show."""

ACTIONS: Final = {
    "cancel": frozenset({State.BLOCKED, State.SCHEDULED, State.READY, State.RUNNING}),
    "retry": RETRIABLE,
    "purge": frozenset({State.DEAD}),
}
"""What a bulk job may do, and to tasks in which states."""


class Standing(NamedTuple):
    """What a filter looks at beside the spec."""

    state: str
    failure: Failure | None = None
    fingerprint: bytes = b""
    agent: str = ""


def standing(w: Working, task_id: bytes, loaded: Loaded) -> Standing:
    """Return where a stored task stands: by memory if it is there, else by its STATE record as it is now."""
    task = w.tasks.get(task_id)
    if task is not None:
        leased = State.CANCELLING if task.cancelling else State.RUNNING
        return Standing(leased if task.token else State.READY, task.failure, agent=task.agent)
    state = loaded[records.STATE, task_id]
    if not isinstance(state, StateRecord):
        return Standing(State.READY)
    return Standing(state.state, state.failure, state.fingerprint, state.agent)


def spec_fits(wanted: TaskFilter, spec: SpecRecord) -> bool:
    """Tell whether a task fits by what never changes of it."""
    return (
        (not wanted.queue or spec.spec.queue == wanted.queue)
        and (not wanted.name or fnmatchcase(spec.spec.name, wanted.name))
        and spec.created_at_ms >= wanted.since_ms
        and (not wanted.before_ms or spec.created_at_ms < wanted.before_ms)
        and wanted.priority_min <= spec.spec.priority <= wanted.priority_max
        and (not wanted.key or spec.spec.key == wanted.key)
        and (not wanted.label or _asks_for(spec.spec, wanted.label))
    )


def standing_fits(wanted: TaskFilter, task: Standing) -> bool:
    """Tell whether a task fits by where it stands."""
    return (
        (not wanted.state or task.state == wanted.state)
        and (not wanted.group or task.fingerprint == wanted.group)
        and (not wanted.agent or task.agent == wanted.agent)
        and (not wanted.error or _has_error(task.failure, wanted.error.casefold()))
    )


def concerns(action: str, wanted: TaskFilter, task_id: bytes, task: Standing) -> bool:
    """Tell whether an action would change a task of which the spec fits; without an action, whether it fits.

    A workflow's tasks are not retried, nor taken away, without it.
    """
    if action not in {"", "cancel"} and is_made_id(task_id):
        return False
    return standing_fits(wanted, task) and (not action or task.state in ACTIONS[action])


def _asks_for(spec: TaskSpec, label: str) -> bool:
    """Tell whether a task asks for agents that have a label, or a value of it."""
    name, equals, value = label.partition("=")
    where = spec.rules.where
    return where is not None and any(
        rule.label == name and (value in rule.values if equals else rule.operator != "absent")
        for rule in where.labels
        if not equals or rule.operator in {"=", "in"}
    )


def _has_error(failure: Failure | None, part: str) -> bool:
    if failure is None:
        return False
    return any(part in text.casefold() for text in (failure.code, failure.type, failure.message[:SEARCHED_CHARS]))
