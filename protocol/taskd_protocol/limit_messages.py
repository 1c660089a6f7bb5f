"""Messages about limits, and paused queues; they belong to the unions of ``messages``, and follow its rules of change.

Type numbers: 128-134.
"""

import msgspec

from taskd_protocol.limiting import Limit


class LimitSet(msgspec.Struct, array_like=True, frozen=True, tag=128):
    """Keep this limit, or change the one of its name: it holds from now on. Answered DONE."""

    request_id: int
    limit: Limit
    """Its ``source`` is not looked at: this is a person's word."""


class LimitSync(msgspec.Struct, array_like=True, frozen=True, tag=129):
    """These are the limits that a module's code says; others that it said go. Answered LIMIT_CHANGES."""

    request_id: int
    source: str
    """The module."""
    limits: list[Limit]


class LimitChanges(msgspec.Struct, array_like=True, frozen=True, tag=130):
    """So it is durable; names, sorted."""

    request_id: int
    changed: list[str]
    removed: list[str]
    kept: list[str]
    """Of those asked for: what a person, or another module, said of them stays."""


class LimitRemove(msgspec.Struct, array_like=True, frozen=True, tag=131):
    """Forget this limit. Answered DONE."""

    request_id: int
    name: str


class LimitView(msgspec.Struct, array_like=True, frozen=True):
    """A limit, and how far it is used."""

    limit: Limit
    running: int
    """Leases that it counts; 0 of one that counts by key."""
    left: int = -1
    """Tokens that are left now; -1: it has no rate, or counts by key."""


class LimitList(msgspec.Struct, array_like=True, frozen=True, tag=132):
    """Show me the limits. Answered LIMIT_PAGE."""

    request_id: int


class LimitPage(msgspec.Struct, array_like=True, frozen=True, tag=133):
    """All limits, sorted by name."""

    request_id: int
    limits: list[LimitView]


class QueuePause(msgspec.Struct, array_like=True, frozen=True, tag=134):
    """Lease nothing of this queue until it is resumed, by QUEUE_DRAIN; it takes tasks. Durable. Answered DONE."""

    request_id: int
    queue: str
