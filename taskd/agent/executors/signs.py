"""Signs that attempts give while they run, and the stacks of those that took too long."""

from collections.abc import Iterable
from typing import Final

from taskd.agent import wire
from taskd.agent.core import AgentCore
from taskd.agent.executors.seat import Hand
from taskd_protocol.task import Grant, LogPiece

STACKS_STREAM: Final = 3


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


class SpawnGate:
    """Holds workers' attempts up that spawn, while the agent holds as much of that as it may."""

    def __init__(self, core: AgentCore) -> None:
        self._core = core
        self._closed = False

    def look(self, hands: Iterable[Hand]) -> None:
        """Close or open it, for these workers: to be called when anything may have changed, or another one is there."""
        full = self._core.spawns.is_full
        if full or self._closed:
            self._closed = full
            for hand in hands:
                hand.process.hold_spawns(full=full)


def show(core: AgentCore, grant: Grant | None, text: bytes, wall_ms: int) -> None:
    """Have stacks kept with the attempt's output; nothing if there are none, or it has ended meanwhile."""
    if text and grant is not None:
        core.output(LogPiece(grant.token, grant.spec.id, STACKS_STREAM, wall_ms + core.clock_ahead_ms, text))
