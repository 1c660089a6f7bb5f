"""Drains: agents that are granted nothing more, and queues that take nothing more, until a person says so.

Both are on disk: an agent that connects again, and a server that starts again, find
them. What runs goes on; what is in line stays there.
"""

from taskd.core import quarantine, records
from taskd.core.commands import OrderAgent, OrderQueue
from taskd.core.effects import SendDrain
from taskd.core.records import AgentRecord, QueueRecord
from taskd.core.working import Agent, Working
from taskd_protocol.errors import AgentUnknown
from taskd_protocol.task import check_name


def order_queue(w: Working, command: OrderQueue) -> None:
    """Have a queue take nothing new, or take tasks again.

    Raises:
        BadRequest: The name is out of range.
    """
    check_name("queue", command.queue)
    key = command.queue.encode()
    if command.drain:
        record = w.queues[command.queue] = QueueRecord(draining=True)
        w.put(records.QUEUE, key, record)
    elif w.queues.pop(command.queue, None) is not None:
        w.delete(records.QUEUE, key)


def order_agent(w: Working, command: OrderAgent) -> None:
    """Have an agent finish what it runs and stay idle, or work again; the latter ends a quarantine, too.

    Raises:
        AgentUnknown: It is not here, and was not drained before.
    """
    agent, name = w.agents.get(command.agent), command.agent
    if agent is None and name not in w.drained_agents and name not in w.quarantined:
        raise AgentUnknown(f"no agent named {name[:64]!r} is connected; `taskd agents ls` lists those that are")
    if command.drain:
        record = w.drained_agents[name] = AgentRecord(drained=True)
        w.put(records.AGENT, name.encode(), record)
    else:
        quarantine.readmit(w, name)
        if w.drained_agents.pop(name, None) is not None:
            w.delete(records.AGENT, name.encode())
    if agent is not None:
        recall(w, agent)


def recall(w: Working, agent: Agent) -> None:
    """Have a known agent be as it was ordered to be."""
    agent.drained = agent.name in w.drained_agents
    w.note_room(agent)
    if agent.drained and agent.connection:
        w.effects.append(SendDrain(agent.name, agent.connection))
