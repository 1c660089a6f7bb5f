"""Signs that attempts give while they run, and the stacks of those that took too long."""

from collections.abc import Iterable
from typing import Final

from taskd.agent import wire
from taskd.agent.core import AgentCore
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


def show(core: AgentCore, grant: Grant | None, text: bytes, wall_ms: int) -> None:
    """Have stacks kept with the attempt's output; nothing if there are none, or it has ended meanwhile."""
    if text and grant is not None:
        core.output(LogPiece(grant.token, grant.spec.id, STACKS_STREAM, wall_ms + core.clock_ahead_ms, text))
