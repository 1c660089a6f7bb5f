"""Yielding: what ``taskd.core.preemption`` keeps in mind; none of it is stored."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taskd.core.lines import Task


class Yielding:
    """Of one working set.

    Attributes:
        tasks: Leased ones that may be stopped for others, by id; with some that are not leased any more.
        heads: Of each line, the rank of its first task, and since when it is first.
        rooms: By line: for its first task, of that rank, others were stopped; kept for it until that time.
        tried_to: Behind so many of the agents the next look for whom to stop begins: with those before it was in vain.
        next_look_mono_ms: When it is looked at next whether some are to be stopped.
    """

    def __init__(self) -> None:
        self.tasks: dict[bytes, Task] = {}
        self.heads: dict[bytes, tuple[int, int]] = {}
        self.rooms: dict[bytes, tuple[int, int]] = {}
        self.tried_to = 0
        self.next_look_mono_ms = 0
