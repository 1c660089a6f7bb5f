"""Expiry: how long a task may wait, and what it has come to when that has passed.

Invariants:
- A task that waits and has a limit to that has a timer at that instant. A leased one has none: its agent
  keeps the time, and when the lease comes back it is looked at again.

Time runs since the task was accepted, or was retried after its end.
"""

from taskd.core import timers
from taskd.core.commands import Now
from taskd.core.lifecycle import State
from taskd.core.working import Working
from taskd_protocol.errors import TaskCodes
from taskd_protocol.task import Failure, TaskSpec


def limit_at_ms(spec: TaskSpec, since_ms: int, attempt: int) -> int:
    """Return the instant at which a task ends if it still waits; 0: there is none."""
    rules = spec.rules
    if attempt or not rules.ttl_ms:
        return deadline_at_ms(spec, since_ms)
    return since_ms + min(rules.ttl_ms, rules.deadline_ms or rules.ttl_ms)


def deadline_at_ms(spec: TaskSpec, since_ms: int) -> int:
    """Return the instant by which a task must have ended; 0: there is none."""
    deadline_ms = spec.rules.deadline_ms
    return since_ms + deadline_ms if deadline_ms else 0


def left_ms(spec: TaskSpec, since_ms: int, wall_ms: int) -> int:
    """Return how long an attempt has that begins now, at least 1; 0: as long as it likes.

    Never longer than the whole: the wall clock may have been put back since the task was accepted.
    """
    deadline_ms = spec.rules.deadline_ms
    return min(max(since_ms + deadline_ms - wall_ms, 1), deadline_ms) if deadline_ms else 0


def is_late(spec: TaskSpec, since_ms: int, wall_ms: int) -> bool:
    """Tell whether a task that is to wait from then on has reached its deadline."""
    return bool(spec.rules.deadline_ms) and wall_ms >= deadline_at_ms(spec, since_ms)


def start(w: Working, spec: TaskSpec, since_ms: int, attempt: int, now: Now) -> None:
    """Store the timer of a task that waits from now on, if it has a limit."""
    limit_ms = limit_at_ms(spec, since_ms, attempt)
    if limit_ms:
        timers.start(w, spec.id, limit_ms, limit_ms - since_ms, now)


def stop(w: Working, spec: TaskSpec, since_ms: int, attempt: int) -> None:
    """Delete the timer of a task that waits no longer, if it had a limit."""
    limit_ms = limit_at_ms(spec, since_ms, attempt)
    if limit_ms:
        timers.stop(w, spec.id, limit_ms)


def end_of(spec: TaskSpec, attempt: int) -> tuple[State, Failure]:
    """Return what a task is whose limit passed while it waited, and why.

    Args:
        spec: Of the task.
        attempt: Leases granted so far: with one, it is dead.
    """
    if attempt:
        return State.DEAD, deadline_failure(spec)
    rules = spec.rules
    if rules.ttl_ms and rules.ttl_ms <= (rules.deadline_ms or rules.ttl_ms):
        text = f"its time to live of {rules.ttl_ms / 1000:g} s passed before it started"
        return State.EXPIRED, Failure(TaskCodes.EXPIRED, text)
    return State.EXPIRED, Failure(TaskCodes.DEADLINE, f"its deadline of {rules.deadline_ms / 1000:g} s passed in line")


def deadline_failure(spec: TaskSpec) -> Failure:
    """Return why a task is dead that had begun and has reached its deadline."""
    return Failure(
        TaskCodes.DEADLINE, f"it had not ended by its deadline, {spec.rules.deadline_ms / 1000:g} s after its submit"
    )
