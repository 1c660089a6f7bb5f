"""The states of a task and the ways between them: one table, from which the docs' picture is drawn."""

from enum import StrEnum


class State(StrEnum):
    """Where a task stands."""

    BLOCKED = "blocked"
    """It waits for what it has spawned. (Of a workflow's node that is no task yet: for those before it.)"""
    SCHEDULED = "scheduled"
    """Not before a time: a delay, or the wait before another attempt."""
    READY = "ready"
    """In line; any agent that has its name may get it."""
    RUNNING = "running"
    """Leased to an agent."""
    CANCELLING = "cancelling"
    """Leased, and to be ended: until its work is proven dead."""
    SUCCEEDED = "succeeded"
    DEAD = "dead"
    """Attempts spent: the dead-letter queue."""
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    """Its time to live, or its deadline, passed before its first attempt."""


TERMINAL = frozenset({State.SUCCEEDED, State.DEAD, State.CANCELLED, State.EXPIRED})
"""A task leaves these only at a person's word, or when the agent that it died of is put in quarantine."""

RETRIABLE = frozenset({State.DEAD, State.CANCELLED, State.EXPIRED})
"""From these a retry leads back."""

TRANSITIONS: dict[State | None, dict[State, str]] = {
    None: {State.READY: "submit", State.SCHEDULED: "submit with a delay"},
    State.SCHEDULED: {
        State.READY: "its time has come",
        State.DEAD: "its deadline passed",
        State.CANCELLED: "cancel",
        State.EXPIRED: "its time to live, or deadline, passed before it was leased",
    },
    State.READY: {
        State.RUNNING: "lease",
        State.DEAD: "its deadline passed",
        State.CANCELLED: "cancel",
        State.EXPIRED: "its time to live, or deadline, passed before it was leased",
    },
    State.RUNNING: {
        State.SUCCEEDED: "ack",
        State.SCHEDULED: "failed or crashed, attempts left",
        State.DEAD: "attempts spent, a final failure, at most once, or its deadline passed",
        State.READY: "released, or its agent was lost",
        State.CANCELLING: "cancel",
        State.BLOCKED: "it waits for what it has spawned",
    },
    State.BLOCKED: {
        State.READY: "what it has spawned has ended",
        State.DEAD: "its deadline passed",
        State.CANCELLED: "cancel",
    },
    State.CANCELLING: {
        State.SUCCEEDED: "ack: it was done before the cancel reached it",
        State.CANCELLED: "its work is gone",
    },
    State.SUCCEEDED: {State.READY: "its workflow runs it again, at a person's word"},
    State.DEAD: {State.READY: "retry"},
    State.CANCELLED: {State.READY: "retry"},
    State.EXPIRED: {State.READY: "retry"},
}
"""From a state (None: not stored yet) to each that may follow, with what leads there."""


def lifecycle_mermaid() -> str:
    """Draw the table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2"]
    for start, ends in TRANSITIONS.items():
        name = "[*]" if start is None else start.value
        lines += [f"    {name} --> {end.value}: {why}" for end, why in ends.items()]
        if start in TERMINAL:
            lines.append(f"    {name} --> [*]")
    return "\n".join(lines)
