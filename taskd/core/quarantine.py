"""Quarantine: an agent that fails everything it takes is granted nothing more.

Such an agent takes tasks faster than any healthy one: one broken machine could kill
a whole backlog. The rule, looked at after each report of failures:

- A streak is an agent's failed and crashed attempts since its last success, but for final failures.
- Of a streak those count that another agent could have run as well: one that is
  granted to, and in whose own streak there is no failure of the same task name.
- ``STREAK_MIN`` that count, of ``TASKS_MIN`` tasks at least: the agent is in quarantine.

What its streak cost those that still live is refunded (``refunds``), and what it fails
from the verdict on, with the report that led to it, is charged to no task. If ``TASKS_MIN`` tasks of it fail
elsewhere, too, it was not the agent, and it is let in again; else a person lets it
in, or its next life begins anew. In memory only: a restart of the server forgets it.
"""

from collections.abc import Sequence
from typing import Final

from taskd.core.commands import Charge, RefundTasks
from taskd.core.effects import AgentQuarantined, AgentReadmitted, Continue
from taskd.core.events import Noted
from taskd.core.fleet import Agent, Quarantine
from taskd.core.working import Working

STREAK_MIN: Final = 8
TASKS_MIN: Final = 4
"""One bad task, tried again and again, says nothing about the agent."""

STREAK_MAX: Final = 1_000
"""Failures of one streak that are remembered, the newest: what is refunded at most."""

QUARANTINED_MAX: Final = 1_000
"""Agents in quarantine that are remembered."""


def note_failures(w: Working, agent: Agent, charges: Sequence[Charge]) -> None:
    """Take in what an agent has just failed, and judge it, before that is charged to the tasks."""
    known = w.quarantined.get(agent.name)
    if known is not None:  # it goes on failing what it had
        known.tasks.update(dict.fromkeys(charge.task_id for charge in charges))
        return
    charged = agent.streak
    agent.streak = [*charged, *charges][-STREAK_MAX:]
    others = list(w.quarantined)
    if len(agent.streak) >= STREAK_MIN:
        _judge(w, agent, charged)
    for name in others:  # after the verdict: who is let in because of these failures is no witness against them
        _clear(w, name, charges)


def recall(w: Working, agent: Agent) -> None:
    """Tell of an agent that connects whether it is in quarantine: that outlives a connection, not the agent's life."""
    known = w.quarantined.get(agent.name)
    if known is not None and known.boot_id != agent.boot_id:
        readmit(w, agent.name)
    agent.quarantined = agent.name in w.quarantined


def readmit(w: Working, name: str) -> None:
    """Let an agent in again, with a clean slate."""
    if w.quarantined.pop(name, None) is None:
        return
    agent = w.agents.get(name)
    if agent is not None:
        agent.quarantined = False
        w.note_room(agent)
        agent.streak = []
    w.effects.append(AgentReadmitted(name))
    w.events.append(Noted("agent.readmitted", name))


def _judge(w: Working, agent: Agent, charged: Sequence[Charge]) -> None:
    """Put an agent away whose streak says so.

    Args:
        w: The working set.
        agent: Which.
        charged: Of its streak, what has cost the tasks something.
    """
    kinds = dict.fromkeys((charge.queue, charge.name) for charge in agent.streak)
    witnessed = {(queue, name): _has_witness(w, agent, queue, name) for queue, name in kinds}
    counting = [charge for charge in agent.streak if witnessed[charge.queue, charge.name]]
    if len(counting) < STREAK_MIN or len({charge.task_id for charge in counting}) < TASKS_MIN:
        return
    if len(w.quarantined) >= QUARANTINED_MAX:
        readmit(w, next(iter(w.quarantined)))
    tasks = dict.fromkeys(charge.task_id for charge in agent.streak)
    w.quarantined[agent.name] = Quarantine(boot_id=agent.boot_id, tasks=tasks)
    agent.quarantined = True
    w.effects.append(AgentQuarantined(agent.name, len(agent.streak), len(tasks)))
    w.events.append(Noted("agent.quarantined", agent.name))
    if charged:
        w.effects.append(Continue(RefundTasks(charged)))


def _has_witness(w: Working, agent: Agent, queue: str, name: str) -> bool:
    return any(
        other is not agent
        and other.takes_leases
        and other.can_run(queue, name)
        and all(charge.name != name for charge in other.streak)
        for other in w.agents.values()
    )


def _clear(w: Working, name: str, charges: Sequence[Charge]) -> None:
    """Note which tasks of a quarantined agent's streak have now failed elsewhere as well."""
    known = w.quarantined[name]
    for charge in charges:
        if charge.task_id in known.tasks:
            known.cleared[charge.task_id] = None
    if len(known.cleared) >= TASKS_MIN:
        readmit(w, name)
