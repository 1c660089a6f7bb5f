"""Attempts: what is kept of each that started and did not succeed, and what it costs its task.

Two budgets: failures of the task itself, and attempts that took their worker or
agent down. What was released, or lost for the first time, costs nothing; a task
that was lost once marks its start from then on, so that it can be told whether a
lost attempt had begun.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Final

import msgspec

from taskd.core import records
from taskd.core.commands import Now
from taskd.core.events import ATTEMPT
from taskd.core.lines import Task
from taskd.core.records import AttemptRecord, Past
from taskd.core.working import Working
from taskd_protocol.errors import TaskCodes
from taskd_protocol.task import Failure, Retry

FAILED: Final = "failed"
CRASHED: Final = "crashed"
CANCELLED: Final = "cancelled"
RELEASED: Final = "released"
WAITING: Final = "waiting"
LOST: Final = "lost"
PREEMPTED: Final = "preempted"

ATTEMPTS_KEPT: Final = 100
"""Of one task, the newest: more than a person reads, and a task may be tried a million times."""

KEPT_TEXT_CHARS: Final = 8 * 1024
"""Of each one's message, and of its traceback; the task itself keeps all of the last one's."""

ENTRY_BYTES: Final = 128
"""What an entry's key and fields weigh beside its texts, roughly."""

REFUNDS_MAX: Final = 3
"""Times that costs of a task are taken back: what fails wherever it runs is dead in the end."""

NO_PAST: Final = Past()

LOST_FAILURE: Final = Failure(TaskCodes.WORKER_LOST, "the agent fell silent, or was restarted, while it ran the task")


def attempt_id(task_id: bytes, ordinal: int) -> bytes:
    """Return the ATTEMPT id of an attempt, counted without those of which nothing is kept."""
    return task_id + ordinal.to_bytes(4, "big")


def attempt_of(attempt_id: bytes, record: AttemptRecord) -> int:
    """Return the attempt that an ATTEMPT record tells of."""
    return int.from_bytes(attempt_id[-4:], "big") + record.passed_over


def kept_ids(task_id: bytes, last: int, past: Past | None) -> Iterator[bytes]:
    """Yield the ATTEMPT ids that are kept of a task, oldest first.

    Args:
        task_id: Whose.
        last: Its last attempt that has ended without success.
        past: Of its state or lease record.
    """
    return (attempt_id(task_id, ordinal) for ordinal in kept_ordinals(last, past))


def kept_ordinals(last: int, past: Past | None) -> range:
    """Return the ordinals of ``kept_ids``."""
    past = past or NO_PAST
    newest = last - past.passed_over
    return range(newest - past.kept + 1, newest + 1)


def pass_over(task: Task) -> None:
    """Count the last attempt of a task, which provably never started, or is void: nothing of it is kept."""
    past = task.past or NO_PAST
    task.past = msgspec.structs.replace(past, passed_over=past.passed_over + 1, waited=[])


def keep(w: Working, task: Task, outcome: str, now: Now, *, started_at_ms: int, failure: Failure | None = None) -> None:
    """Write how the attempt of a leased task ended, and count what it costs."""
    past = task.past or NO_PAST
    short = None if failure is None else _in_short(failure)
    started_at_ms = started_at_ms or task.granted_at_ms
    record = AttemptRecord(
        task.token, task.agent, started_at_ms, now.wall_ms, outcome, short, past.passed_over, past.waited
    )
    ordinal = task.attempt - past.passed_over
    spec, code = task.spec, "" if failure is None else failure.code
    span_ms = now.wall_ms - started_at_ms
    w.tell(ATTEMPT + outcome, spec, task.agent, task.attempt, code, spans_ms=[span_ms])
    w.put(records.ATTEMPT, attempt_id(task.spec.id, ordinal), record)
    kept = past.kept + 1
    if kept > ATTEMPTS_KEPT:
        kept = ATTEMPTS_KEPT
        w.delete(records.ATTEMPT, attempt_id(task.spec.id, ordinal - ATTEMPTS_KEPT))
    else:
        task.log_bytes += ENTRY_BYTES + (0 if short is None else len(short.message) + len(short.traceback))
    crashes, losses = past.crashes + (outcome == CRASHED), past.losses + (outcome == LOST)
    preempted = past.preempted + (outcome == PREEMPTED)
    family, memory = past.family, past.memory
    task.past = Past(kept, crashes, losses, past.refunds, past.passed_over, family, memory, preempted=preempted)
    task.failures += outcome == FAILED


def take_back(failures: int, past: Past | None, costs: Counter[str]) -> tuple[int, Past | None]:
    """Return a task's failures and past without these costs; after the last time, as they are.

    Args:
        failures: Charged to it.
        past: Its own.
        costs: Charged attempts by outcome, that are not its own doing.
    """
    if past is None or past.refunds >= REFUNDS_MAX:
        return failures, past
    crashes = max(0, past.crashes - costs[CRASHED])
    return max(0, failures - costs[FAILED]), msgspec.structs.replace(past, crashes=crashes, refunds=past.refunds + 1)


def are_spent(task: Task, retry: Retry) -> bool:
    """Tell whether one of a task's two budgets is used up; who may be tried once is tried once."""
    crashes = task.past.crashes if task.past is not None else 0
    return task.failures >= retry.max_attempts or crashes >= min(retry.crash_limit, retry.max_attempts)


def wait_ms(task: Task, retry: Retry, chance: float) -> int:
    """Return how long a task waits after an attempt that failed just now, in ms."""
    return backoff_ms(retry, max(1, task.failures + (task.past.crashes if task.past is not None else 0)), chance)


def backoff_ms(retry: Retry, charged: int, chance: float) -> int:
    """Return the wait before the next attempt, in ms.

    Args:
        retry: The policy.
        charged: Charged attempts so far, at least 1.
        chance: 0 to 1; 0.5 means no jitter.
    """
    try:
        wait = min(retry.base_ms * retry.factor ** (charged - 1), retry.max_ms)
    except OverflowError:  # a float holds no such power
        wait = retry.max_ms if retry.base_ms else 0
    return round(wait * (1 + retry.jitter * (2 * chance - 1)))


def maybe_ran(failure: Failure) -> Failure:
    """Return the failure that a task keeps which must not run twice: what happened, under the code that says so."""
    return msgspec.structs.replace(failure, code=TaskCodes.MAYBE_RAN)


def _in_short(failure: Failure) -> Failure:
    message, traceback = failure.message[:KEPT_TEXT_CHARS], failure.traceback[-KEPT_TEXT_CHARS:]
    return msgspec.structs.replace(failure, message=message, traceback=traceback)
