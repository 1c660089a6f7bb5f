"""Orders: agents that are granted nothing more; queues that take nothing more, or are paused, and their weights.

All are on disk: an agent that connects again, and a server that starts again, find
them. What runs goes on; what is in line stays there.
"""

from msgspec.structs import replace

from taskd.core import quarantine, records
from taskd.core.commands import OrderAgent, OrderQueue, WeighFairKey, WeighQueue
from taskd.core.effects import SendDrain
from taskd.core.fleet import Agent
from taskd.core.records import AgentRecord, QueueRecord
from taskd.core.working import Working
from taskd_protocol import limits
from taskd_protocol.errors import AgentUnknown, BadRequest
from taskd_protocol.task import check_name

_PLAIN = QueueRecord(draining=False)
"""A queue of which nothing was ordered."""


def order_queue(w: Working, command: OrderQueue) -> None:
    """Have a queue take nothing new, or have nothing of it leased; or neither any more.

    Raises:
        BadRequest: The name is out of range.
    """
    check_name("queue", command.queue)
    known = w.queues.get(command.queue, _PLAIN)
    if command.drain or command.pause:
        known = replace(known, draining=known.draining or command.drain, paused=known.paused or command.pause)
    else:
        known = replace(known, draining=False, paused=False)
    _keep_order(w, command.queue, known)


def weigh_queue(w: Working, command: WeighQueue) -> None:
    """Give a queue its share.

    Raises:
        BadRequest: The name or the weight is out of range.
    """
    check_name("queue", command.queue)
    if not 1 <= command.weight <= limits.QUEUE_WEIGHT_MAX:
        raise BadRequest(f"a queue's weight goes from 1 to {limits.QUEUE_WEIGHT_MAX}, not {command.weight}")
    _keep_order(w, command.queue, replace(w.queues.get(command.queue, _PLAIN), weight=command.weight))


def weigh_fair_key(w: Working, command: WeighFairKey) -> None:
    """Give a fair key its share of its queue, for what comes from now on; the share of 1 is that of all others.

    Raises:
        BadRequest: A name or the weight is out of range, or too many keys have one.
    """
    check_name("queue", command.queue)
    check_name("fair_key", command.fair_key)
    if not 1 <= command.weight <= limits.QUEUE_WEIGHT_MAX:
        raise BadRequest(f"a fair key's weight goes from 1 to {limits.QUEUE_WEIGHT_MAX}, not {command.weight}")
    known = w.queues.get(command.queue, _PLAIN)
    weights = {key: weight for key, weight in known.fair_weights.items() if key != command.fair_key}
    if command.weight > 1:
        if len(weights) >= limits.FAIR_WEIGHTS_MAX:
            raise BadRequest(
                f"{limits.FAIR_WEIGHTS_MAX:,} keys of a queue have weights, and no more can; take some back"
            )
        weights[command.fair_key] = w.fair.weights[command.queue, command.fair_key] = command.weight
    else:
        w.fair.weights.pop((command.queue, command.fair_key), None)
    _keep_order(w, command.queue, replace(known, fair_weights=weights))


def _keep_order(w: Working, queue: str, record: QueueRecord) -> None:
    w.shares.weigh(queue, record.weight)
    if record != _PLAIN:
        w.queues[queue] = record
        w.put(records.QUEUE, queue.encode(), record)
    elif w.queues.pop(queue, None) is not None:
        w.delete(records.QUEUE, queue.encode())


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
