"""Reasons: why a task that waits is not running yet, in words that say what would help."""

from taskd.core.lifecycle import State
from taskd.core.working import Working


def why_cancelling(w: Working, agent_name: str) -> str:
    """Return in one line what a task of that agent waits for that is to be cancelled."""
    agent = w.agents.get(agent_name)
    if agent is not None and agent.connection:
        return "is to end: waits for its agent to prove that its work is gone"
    return (
        f"is to end: its agent {agent_name} is not connected, and its work may go on there until it is back;"
        " if that is gone for good: `taskd task cancel --force ID`"
    )


def why_waiting(w: Working, state: str, queue: str, name: str) -> str:  # noqa: PLR0911 - one return a reason
    """Return the reason in one line; empty for a task that does not wait."""
    if state == State.SCHEDULED:
        return "waits for its time"
    if state == State.BLOCKED:
        return "waits for the tasks that it has spawned"
    if state != State.READY:
        return ""
    agents = [agent for agent in w.agents.values() if agent.connection]
    if not agents:
        return "no agent is connected; start one with `taskd agent MODULE`"
    knowing = [agent for agent in agents if any(name in pool.names for pool in agent.pools)]
    if not knowing:
        return f"no connected agent has a task named {name!r}; start one that loads its module"
    serving = [agent for agent in knowing if not agent.queues or queue in agent.queues]
    if not serving:
        return f"no agent that has {name!r} serves queue {queue!r}; start one with --queues {queue}"
    if not any(agent.takes_leases for agent in serving):
        if all(agent.draining for agent in serving):
            return "every agent that could run it is draining"
        return "every agent that could run it is drained, or in quarantine; let one work: `taskd agents resume NAME`"
    if any(pool.credit for agent in serving for pool in agent.pools if name in pool.names and agent.takes_leases):
        return "is about to be placed"
    return "every agent that could run it is busy"
