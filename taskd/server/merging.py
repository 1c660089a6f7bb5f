"""Merging: submits of a call each that have come together are decided together, and answered one by one.

Whoever serves requests submits a task a call, from many threads at a time. One command for all of them costs the core
3 us a task, where a command each costs 13.

Invariants:
- The order stays: those are merged that follow each other.
- Nobody is refused for what somebody else asks: where the whole is refused, or needs records, nothing has changed, and
  each is decided by itself.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from taskd.core.commands import Answer, NeedRecords, Now, SubmitTasks, Submitted
from taskd.core.coordinator import Coordinator
from taskd.server.intake import Request, Respond
from taskd_protocol.errors import TaskdError

FEW: Final = 8
"""Tasks of a submit that is merged with others: what a larger one gains is little, and its list is copied."""


class Decided(NamedTuple):
    """What has become of submits that were decided together."""

    fresh: int
    """Tasks that were not known before."""
    answered: list[tuple[Respond, Answer | TaskdError]]


def together(requests: Iterable[Request]) -> Iterator[list[Request]]:
    """Give requests in their order, those in one list that may be decided as one."""
    some: list[Request] = []
    owner = ""
    for request in requests:
        of = _owner(request.command) if isinstance(request.command, SubmitTasks) and request.found is None else ""
        if some and not (of and of == owner):
            yield some
            some = []
        some.append(request)
        owner = of
    if some:
        yield some


def decide(coordinator: Coordinator, some: Sequence[Request], now: Now) -> Decided | None:
    """Decide on submits as on one; None: that is refused, or needs records, and has changed nothing."""
    commands = [request.command for request in some if isinstance(request.command, SubmitTasks)]
    specs = [spec for command in commands for spec in command.specs]
    try:
        answer = coordinator.apply(SubmitTasks(commands[0].owner, specs), now)
    except (NeedRecords, TaskdError):
        return None
    assert isinstance(answer, Submitted)
    return Decided(len(specs) - len(answer.existing), list(_parted(answer, some)))


def _owner(command: SubmitTasks) -> str:
    """Return who submits, if it is but a few tasks without rules of their own; else nothing."""
    if len(command.specs) > FEW:
        return ""
    for spec in command.specs:
        if spec.key or spec.given is not None:
            return ""  # what one claims the next has to see, and what it asks for in vain is told to each
    return command.owner


def _parted(answer: Submitted, some: Sequence[Request]) -> Iterator[tuple[Respond, Answer | TaskdError]]:
    """Give each its part of the answer."""
    start = 0
    for request in some:
        assert isinstance(request.command, SubmitTasks)
        end = start + len(request.command.specs)
        if request.respond is not None:
            existing = [(index - start, first) for index, first in answer.existing if start <= index < end]
            yield request.respond, Submitted(existing)
        start = end
