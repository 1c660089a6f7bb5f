"""Limits as they are told and kept: how many tasks run at a time, and how many begin in a time.

``queue:NAME`` and ``task:NAME`` hold for that queue, or for all tasks of that name; any other for the tasks that name
it, of each key by itself. Fields are only ever appended.
"""

import msgspec

from taskd_protocol.errors import BadRequest
from taskd_protocol.limits import DELAY_MS_MAX, LIMIT_AMOUNT_MAX, LIMIT_BURST_MS
from taskd_protocol.task import check_name

QUEUE_PREFIX = "queue:"
TASK_PREFIX = "task:"


class Limit(msgspec.Struct, array_like=True, frozen=True):
    """What holds for all tasks that it concerns, together."""

    name: str
    """``queue:NAME``, ``task:NAME``, or a name that tasks say."""
    concurrency: int = 0
    """So many of them are leased at a time, or, of a limit that tasks name, in line or leased; 0: any number."""
    tokens: int = 0
    """So many begin in ``period_ms``, or take so much by the weights that they say; 0: any number."""
    period_ms: int = 0
    """Of ``tokens``; 0 without them."""
    burst: int = 0
    """So many may begin at once, when none has for long; 0: what the rate lets begin in ``LIMIT_BURST_MS``."""
    source: str = ""
    """The module whose code says so; empty: a person said so, and code does not change it."""

    @property
    def is_by_key(self) -> bool:
        """It is for the tasks that name it, and counts each key by itself."""
        return not self.name.startswith((QUEUE_PREFIX, TASK_PREFIX))

    @property
    def burst_tokens(self) -> int:
        """What a full bucket holds."""
        return self.burst or max(1, self.tokens * LIMIT_BURST_MS // max(1, self.period_ms))


def check_limit(limit: Limit) -> None:
    """Refuse a limit that is out of range, or limits nothing.

    Raises:
        BadRequest: What is wrong is named.
    """
    check_limit_name(limit.name)
    for what, amount in (("concurrency", limit.concurrency), ("rate", limit.tokens), ("burst", limit.burst)):
        if not 0 <= amount <= LIMIT_AMOUNT_MAX:
            raise BadRequest(f"a limit's {what} goes from 1 to 1,000,000, not {amount}; leave it out for none")
    if not (limit.concurrency or limit.tokens):
        raise BadRequest(f"limit {limit.name[:64]!r} limits nothing; give it a concurrency or a rate, or remove it")
    if limit.tokens and not 1 <= limit.period_ms <= DELAY_MS_MAX:
        raise BadRequest(f"a limit has no rate per {limit.period_ms} ms; it goes from 1 ms to ten years")
    if not limit.tokens and (limit.period_ms or limit.burst):
        raise BadRequest(f"limit {limit.name[:64]!r} has a burst or a period, and no rate that they are of")
    if limit.source:
        check_name("source", limit.source)


def check_limit_name(name: str) -> None:
    """Refuse a name that no limit has.

    Raises:
        BadRequest: It says what one looks like.
    """
    for prefix in (QUEUE_PREFIX, TASK_PREFIX):
        if name.startswith(prefix):
            check_name("limit", name.removeprefix(prefix))
            return
    check_name("limit", name)
