"""Figures: how the server stands at an instant, copied in one go so that who shows it can take its time.

Names that users make up are few here, however many there are: queues that the tally has rows of, and some agents.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from taskd.core.commands import Now
from taskd.core.fleet import Agent
from taskd.core.working import Working
from taskd.server.histogram import Histogram
from taskd.server.hub import Hub
from taskd.server.loop import CommitLoop
from taskd.server.tally import OTHER, Tally
from taskd.server.views import state_of
from taskd_protocol.agent_messages import HostStats

AGENTS_MAX: Final = 100
"""Told one by one; all of them are counted by state."""

LINES_MAX: Final = 2_000
"""Looked at for the oldest task of each queue, some 0.3 us each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFigures:
    """Of a queue, or of all that have no row of their own."""

    states: Mapping[str, int]
    """Tasks that have not ended, by state."""
    moved: Mapping[str, int]
    """As in ``Row``."""
    waits_ms: Histogram
    runs_ms: Histogram
    oldest_ms: int
    """How long the first task of its lines has waited that has waited longest; 0: none is in memory."""
    paused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFigures:
    """Of an agent."""

    state: str
    slots: int
    leases: int
    host: HostStats


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """How the server stands."""

    queues: Mapping[str, QueueFigures]
    agents: Mapping[str, AgentFigures]
    agents_by_state: Mapping[str, int]
    ended: Mapping[str, int]
    """Tasks that are kept after their end, by state."""
    noted: Mapping[str, int]
    flush_us: Histogram
    turn_us: Histogram
    lag_us: Histogram
    collector_us: Histogram
    stages_ns: Mapping[str, int]
    counts: Mapping[str, int]
    dropped: Mapping[str, int]
    """Of streams: what was left out for somebody who reads slowly, by stream."""
    letters: int
    """Dead letters of webhooks."""
    connections: int
    staged: int
    durable: int
    finished_bytes: int
    epoch: int
    cpu_ns: int = 0


def figures(loop: CommitLoop, hub: Hub, now: Now, cpu_ns: int) -> Figures:
    """Copy how things stand."""
    w, tally = loop.coordinator.working, loop.tally
    agents = dict(sorted(_agents(w, hub)))
    by_state: dict[str, int] = {}
    for agent in agents.values():
        by_state[agent.state] = by_state.get(agent.state, 0) + 1
    return Figures(
        queues=_queues(w, tally, now),
        agents=dict(list(agents.items())[:AGENTS_MAX]),
        agents_by_state=by_state,
        ended={str(state): count for state, count in w.counters.ended.items() if count},
        noted=dict(tally.noted),
        flush_us=tally.flush_us.copy(),
        turn_us=tally.turn_us.copy(),
        lag_us=tally.lag_us.copy(),
        collector_us=tally.collector_us.copy(),
        stages_ns=dict(loop.stages.ns),
        counts=dict(loop.stages.counts),
        dropped=dict(tally.dropped),
        letters=tally.letters,
        connections=hub.peers_count,
        staged=loop.store.staged_sequence,
        durable=loop.store.durable_sequence,
        finished_bytes=w.counters.finished_bytes,
        epoch=w.epoch,
        cpu_ns=cpu_ns,
    )


def _queues(w: Working, tally: Tally, now: Now) -> dict[str, QueueFigures]:
    states: dict[str, dict[str, int]] = {name: {} for name in tally.rows}
    for name, by_state in w.counters.by_queue.items():
        counted = states[name if name in states else OTHER]
        for state, count in by_state.items():
            counted[str(state)] = counted.get(str(state), 0) + count
    oldest_ms = _oldest_ms(w, tally, now)
    return {
        name: QueueFigures(
            states=states[name],
            moved=dict(row.moved),
            waits_ms=row.waits_ms.copy(),
            runs_ms=row.runs_ms.copy(),
            oldest_ms=oldest_ms.get(name, 0),
            paused=name != OTHER and w.is_paused(name),
        )
        for name, row in tally.rows.items()
    }


def _oldest_ms(w: Working, tally: Tally, now: Now) -> dict[str, int]:
    oldest: dict[str, int] = {}
    for _, line in zip(range(LINES_MAX), w.active.values(), strict=False):
        task, name = line.head(), line.queue if line.queue in tally.rows else OTHER
        waits_ms = now.mono_ms - task.ready_mono_ms if task.ready_mono_ms else now.wall_ms - task.created_at_ms
        oldest[name] = max(oldest.get(name, 0), waits_ms)
    return oldest


def _agents(w: Working, hub: Hub) -> Iterator[tuple[str, AgentFigures]]:
    for name in {**w.agents, **w.drained_agents, **w.quarantined}:
        agent = w.agents.get(name) or Agent(name=name)
        host = hub.hosts.get(agent.connection, HostStats())
        yield name, AgentFigures(state=state_of(w, agent), slots=agent.slots, leases=len(agent.leases), host=host)
