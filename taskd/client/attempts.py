"""Attempts: how each try at a task ended, as its submitter sees it."""

import datetime as dt
from dataclasses import dataclass

from taskd_protocol.messages import AttemptView


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try at a task, that has ended. What came back before it had started is none."""

    number: int
    """From 1; one that came back before it had started has used up a number."""
    agent: str
    """Who had it."""
    started_at: dt.datetime
    """In UTC; when it was granted, if its agent did not say when it started."""
    ended_at: dt.datetime
    """In UTC, when the server recorded it."""
    outcome: str
    """``succeeded``, ``failed``, ``crashed``, ``cancelled``, ``released`` (its agent was stopped), ``preempted`` (it
    was stopped for another task), or ``lost`` with its agent."""
    code: str = ""
    """Why, as a stable word such as ``task.raised`` or ``worker.killed``; empty: there is nothing to say."""
    type: str = ""
    """Of the remote exception, ``module.Class``; empty when nothing was raised."""
    reason: str = ""
    """What the remote exception said, or what happened to the worker."""
    traceback: str = ""
    """Of the remote exception, as text; its end, where it is long."""
    exit_code: int | None = None
    """Of the worker or command; negative: the signal that ended it; None: none ended."""


def attempt_of(view: AttemptView) -> Attempt:
    """Return an attempt that the server told."""
    started_at, ended_at = _instant(view.started_at_ms), _instant(view.ended_at_ms)
    failure = view.failure
    if failure is None:
        return Attempt(
            number=view.attempt, agent=view.agent, started_at=started_at, ended_at=ended_at, outcome=view.outcome
        )
    return Attempt(
        number=view.attempt,
        agent=view.agent,
        started_at=started_at,
        ended_at=ended_at,
        outcome=view.outcome,
        code=failure.code,
        type=failure.type,
        reason=failure.message,
        traceback=failure.traceback,
        exit_code=failure.exit_code,
    )


def _instant(unix_ms: int) -> dt.datetime:
    return _EPOCH + dt.timedelta(milliseconds=unix_ms)


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
