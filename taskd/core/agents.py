"""Agents: who is there, what they hold, and when they are given up.

Any word from an agent is life. After ``silence_ms`` without one its leases are
taken back, uncharged; but for those that are to be cancelled: whether their work has
ended is not known until the agent is back, unless they are exclusive, which it ends by
itself in time. A server that stalled was deaf itself: it gives every agent the time
that it missed.
"""

import hashlib

import msgspec

from taskd.core import cancel, drains, endings, quarantine
from taskd.core.agent_commands import (
    AddCredit,
    AgentAccepted,
    BeatHeart,
    DrainAgent,
    HearAgent,
    LoseConnection,
    OfferAgent,
)
from taskd.core.commands import Now
from taskd.core.effects import AgentLost, AgentReplaced
from taskd.core.events import Noted
from taskd.core.fleet import Agent, PoolState
from taskd.core.lines import AGENT_LABEL, CLAMPED_LABEL, OWN_LABELS, Task
from taskd.core.room import Room
from taskd.core.working import Working
from taskd_protocol.errors import AgentDuplicate, BadRequest
from taskd_protocol.limits import AMOUNT_MAX, LABELS_MAX
from taskd_protocol.resources import CPU, MEMORY, ONE, Supply, check_supplies
from taskd_protocol.task import check_name

POOLS_MAX = 16
SLOTS_MAX = 100_000
"""In one pool; a larger number is a mistake."""

CREDIT_MAX = 100_000
"""Leases that one pool may be owed."""

STALL_MS = 1_000
"""A longer gap between two ticks is a stall of the server's own; the shell ticks twice as often, or more."""


def offer(w: Working, command: OfferAgent, now: Now) -> AgentAccepted:
    """Take an agent in, new or again.

    Raises:
        AgentDuplicate: A live agent has the name.
        BadRequest: The offer is out of range.
    """
    _check_offer(command)
    agent = w.agents.get(command.agent)
    if agent is None:
        agent = w.agents[command.agent] = Agent(name=command.agent)
    elif agent.connection and agent.boot_id != command.boot_id:
        raise AgentDuplicate(
            f"an agent named {command.agent!r} is connected; give this one another --name, or stop that one"
        )
    elif agent.connection and agent.connection != command.connection:
        w.effects.append(AgentReplaced(agent.name, agent.connection))
    is_first = agent.connection != command.connection
    if is_first:
        w.events.append(Noted("agent.connected", agent.name))
        agent.lease_number = 0
        agent.draining = agent.lost = False
    is_same_boot = agent.boot_id == command.boot_id
    agent.boot_id = command.boot_id
    agent.connection = command.connection
    agent.queues = command.queues
    _have(w, agent, [PoolState(pool=pool, names=frozenset(pool.names)) for pool in command.pools])
    agent.labels = {**command.labels, AGENT_LABEL: command.agent}
    agent.software = command.software
    agent.marks_starts = command.marks_starts
    agent.seen_mono_ms = now.mono_ms
    agent.ends_mono_ms = now.mono_ms + command.life_ms if command.life_ms > 0 else 0
    _take_stock(w, agent, command)
    if is_first:
        quarantine.recall(w, agent)
        drains.recall(w, agent)
    # A later offer of a connection tells what the agent has, not what it holds: leases may be on their way to it.
    return AgentAccepted(_take_up(w, agent, command, now, is_same_boot=is_same_boot) if is_first else [])


def lose_connection(w: Working, command: LoseConnection) -> None:
    """Grant nothing more on a connection that is gone; forget the agent if it holds nothing."""
    agent = _connected(w, command.agent, command.connection)
    if agent is not None:
        _cut(w, agent)
        if not agent.leases:
            w.forget(agent)


def add_credit(w: Working, command: AddCredit) -> None:
    """Note that a pool has room; with 0, that it has none any more.

    Raises:
        BadRequest: No such pool, or the number is out of range.
    """
    agent = _connected(w, command.agent, command.connection)
    if agent is None:
        return
    if not 0 <= command.pool < len(agent.pools) or not 0 <= command.leases <= CREDIT_MAX:
        raise BadRequest(f"credit of {command.leases} for pool {command.pool} is out of range")
    pool = agent.pools[command.pool]
    pool.credit = min(pool.credit + command.leases, CREDIT_MAX) if command.leases else 0
    w.asking[agent.name] = agent
    w.note_room(agent)


def drain(w: Working, command: DrainAgent) -> None:
    """Grant the agent nothing more on this connection."""
    agent = _connected(w, command.agent, command.connection)
    if agent is not None:
        agent.draining = True
        w.events.append(Noted("agent.draining", agent.name))


def hear(w: Working, command: HearAgent, now: Now) -> None:
    """Note life."""
    agent = _connected(w, command.agent, command.connection)
    if agent is not None:
        agent.seen_mono_ms = now.mono_ms


def beat(w: Working, command: BeatHeart, now: Now) -> None:
    """Note life, and take back what the agent has received and does not hold."""
    agent = _connected(w, command.agent, command.connection)
    if agent is None:
        return
    agent.seen_mono_ms = now.mono_ms
    if agent.room.note_outside(command.cpu_outside, command.memory_outside):
        w.note_room(agent)
    missing = agent.leases.keys() - set(command.held)
    for token in sorted(missing):
        task = agent.leases[token]
        if task.lease_number <= command.lease_number:
            del agent.leases[token]
            w.note_gone(agent, [task])
            endings.give_up(w, task, now)


def tick(w: Working, now: Now, gap_ms: int) -> None:
    """Give up agents that have been silent for too long.

    Args:
        w: The working set.
        now: This instant.
        gap_ms: Time since the tick before.
    """
    stalled_ms = gap_ms if gap_ms > STALL_MS else 0
    if not stalled_ms and now.mono_ms < w.silence_look_mono_ms:
        return
    for agent in list(w.agents.values()):
        agent.seen_mono_ms = min(agent.seen_mono_ms + stalled_ms, now.mono_ms)
        if now.mono_ms < _deadline_mono_ms(w, agent):
            continue
        given_up = [task for task in agent.leases.values() if agent.lost or _ends_with_silence(task)]
        for task in given_up:
            del agent.leases[task.token]
            w.note_gone(agent, [task])
            endings.give_up(w, task, now)
        if not agent.lost:
            w.effects.append(AgentLost(agent.name, len(given_up)))
            w.events.append(Noted("agent.lost", agent.name))
        agent.lost = True
        if agent.connection:
            w.effects.append(AgentReplaced(agent.name, agent.connection))
            _cut(w, agent)
        if not agent.leases:
            w.forget(agent)
    # Who is heard, or comes, after this look has at least as long: to look at each agent in each turn would
    # cost the square of their number.
    latest = now.mono_ms + w.settings.silence_ms
    w.silence_look_mono_ms = min([latest, *[_deadline_mono_ms(w, agent) for agent in w.agents.values()]])


def _cut(w: Working, agent: Agent) -> None:
    """Have the agent be connected no more."""
    w.events.append(Noted("agent.disconnected", agent.name))
    agent.connection = 0
    _have(w, agent, [])
    w.asking.pop(agent.name, None)


def _have(w: Working, agent: Agent, pools: list[PoolState]) -> None:
    """Note what the agent has now."""
    for name in {name for pool in agent.pools for name in pool.names}:
        del w.having[name][agent.name]
        if not w.having[name]:
            del w.having[name]
    agent.pools = pools
    w.rooms.freed[agent.name] = None  # those that it had are gone
    for pool in pools:
        for name in pool.names:
            w.having.setdefault(name, {})[agent.name] = agent
            for line in w.shares.found(name, agent.queues):
                w.note_head(line)


def _deadline_mono_ms(w: Working, agent: Agent) -> int:
    return agent.seen_mono_ms + (w.settings.gone_ms if agent.lost and agent.leases else w.settings.silence_ms)


def _take_stock(w: Working, agent: Agent, command: OfferAgent) -> None:
    """Count what the agent has, and what its leases hold of it."""
    offered = [*command.supplies] or _of_old(command)
    supplies = check_supplies(offered)
    if msgspec.msgpack.encode(supplies) != msgspec.msgpack.encode(offered):
        agent.labels[CLAMPED_LABEL] = "yes"
    agent.room = Room(supplies, agent.leases.values())
    for pool in agent.pools:
        pool.slot_cpu = agent.room.total.get(CPU, 0) // pool.pool.slots if pool.has_slots else 0
    sort = (command.queues and sorted(command.queues), [pool.pool.names for pool in agent.pools], supplies)
    labels = sorted(item for item in agent.labels.items() if item[0] not in OWN_LABELS)
    agent.sort = hashlib.blake2b(msgspec.msgpack.encode((*sort, labels)), digest_size=16).digest()
    agent.holder = 0
    agent.apart = {}
    for task in agent.leases.values():
        index = agent.pool_of(task.spec.name)
        task.pool = index if index >= 0 and agent.pools[index].has_slots else -1
        if task.granted is not None:
            w.note_held(agent, task, task.granted)
        elif task.pool >= 0:
            agent.pools[task.pool].busy += 1
    w.note_room(agent)


def _of_old(command: OfferAgent) -> list[Supply]:
    """Return what an agent has that knows no supplies: what it calls resources."""
    return [
        Supply(name, round(amount) if name == MEMORY else round(amount * ONE))
        for name, amount in command.resources.items()
        if 0 < amount < AMOUNT_MAX // ONE
    ]


def _ends_with_silence(task: Task) -> bool:
    """Tell whether a lease of an agent that fell silent is settled by that.

    One that is to be cancelled is not: its work may go on where nobody can reach it.
    """
    return not task.cancelling or task.spec.rules.exclusive


def _take_up(w: Working, agent: Agent, command: OfferAgent, now: Now, *, is_same_boot: bool) -> list[int]:
    """Match what the agent holds with what is stored; return what is no longer its own.

    What a process of the same life does not hold never reached it; what another one had may have started there.
    """
    stale: list[int] = []
    held: set[int] = set()
    for lease in command.holding:
        task = agent.leases.get(lease.token)
        if task is None or task.spec.id != lease.id or task.attempt != lease.attempt:
            stale.append(lease.token)
        else:
            held.add(lease.token)
            task.lease_number = 0
    for token in sorted(agent.leases.keys() - held):
        task = agent.leases.pop(token)
        w.note_gone(agent, [task])
        if not is_same_boot:
            endings.give_up(w, task, now)
        elif task.cancelling:
            endings.cancelled(w, task, now, started_at_ms=0)
        else:
            endings.release(w, task, now)
    cancel.revoke_again(w, agent)
    return stale


def _connected(w: Working, name: str, connection: int) -> Agent | None:
    """Return the agent if that is its connection still: what an old one says late is void."""
    agent = w.agents.get(name)
    return agent if agent is not None and agent.connection == connection else None


def _check_offer(command: OfferAgent) -> None:
    check_name("agent name", command.agent)
    if len(command.pools) > POOLS_MAX or len(command.labels) > LABELS_MAX:
        raise BadRequest(f"an agent offers at most {POOLS_MAX} pools and {LABELS_MAX} labels")
    for pool in command.pools:
        if not 0 < pool.slots <= SLOTS_MAX:
            raise BadRequest(f"a pool of {pool.slots} slots; it has 1 to {SLOTS_MAX}")
