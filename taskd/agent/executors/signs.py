"""Signs that attempts give while they run, what they say, and the stacks of those that took too long."""

from collections.abc import Iterable

from taskd.agent import wire
from taskd.agent.clock import Clock
from taskd.agent.core import AgentCore
from taskd.agent.executors.seat import Hand
from taskd_protocol.streams import STACKS
from taskd_protocol.task import Grant


def note_sign(core: AgentCore, pool: int, message: wire.FromWorker) -> None:
    """Take note of a start, or of progress; what else a worker says is passed over."""
    if isinstance(message, wire.Started):
        core.started(message.token)
    elif isinstance(message, wire.Beat):
        core.beat(pool, message.token, message.details)


def note_children(core: AgentCore, pool: int, messages: Iterable[wire.FromWorker]) -> None:
    """Take note of what attempts have spawned: to be called before their ends are taken in."""
    for message in messages:
        if isinstance(message, wire.Children):
            core.spawned(pool, message.token, message.first, message.tasks)


def note_speech(core: AgentCore, pool: int, clock: Clock, messages: Iterable[wire.FromWorker]) -> bool:
    """Take note of what attempts have said, before their ends are taken in; tell whether any has printed."""
    printed = False
    wall_ms = now_ms = 0
    for message in messages:
        if isinstance(message, wire.Printed):
            printed = True
        elif isinstance(message, wire.Said | wire.Unsaid):
            grant = core.pools[pool].held.get(message.token)
            if grant is None:
                continue
            wall_ms, now_ms = wall_ms or clock.wall_ms(), now_ms or clock.mono_ns() // 1_000_000
            if isinstance(message, wire.Said):
                core.said(grant, message.stream, message.data, wall_ms, now_ms)
            else:
                core.streams.note_cut(grant.token, grant.spec.id, message.bytes, message.lines, now_ms=now_ms)
    return printed


class Gate:
    """Holds workers' attempts up that spawn, or speak, while the agent holds as much of that as it may."""

    def __init__(self, core: AgentCore) -> None:
        self._core = core
        self._spawns_closed = self._output_closed = False

    def look(self, hands: Iterable[Hand]) -> None:
        """Close or open it, for these workers: to be called when anything may have changed, or another one is there."""
        full = self._core.spawns.is_full
        if full or self._spawns_closed:
            self._spawns_closed = full
            for hand in hands:
                hand.process.hold_spawns(full=full)
        full = self._core.streams.is_full
        if full or self._output_closed:
            self._output_closed = full
            for hand in hands:
                hand.process.hold_output(full=full)


def show(core: AgentCore, grant: Grant | None, text: bytes, clock: Clock) -> None:
    """Have stacks kept with the attempt's output; nothing if there are none, or it has ended meanwhile."""
    if text and grant is not None:
        core.said(grant, STACKS, text, clock.wall_ms(), clock.mono_ns() // 1_000_000)
