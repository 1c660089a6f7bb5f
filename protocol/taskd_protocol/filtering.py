"""Filters: which tasks are meant by a listing, a count, or a bulk job; one definition for wire and disk.

Fields are only ever appended, each with a default that leaves nothing out.
"""

import msgspec

from taskd_protocol import limits
from taskd_protocol.errors import BadRequest
from taskd_protocol.ids import TASK_ID_BYTES


class TaskFilter(msgspec.Struct, array_like=True, frozen=True):
    """Which tasks are meant: those that fit all that is said."""

    state: str = ""
    """Empty: any."""
    queue: str = ""
    name: str = ""
    """With ``*`` for any characters, ``?`` for one, ``[ab]`` for one of these."""
    error: str = ""
    """A part, in either case, of the code, the type or the beginning of the message of its failure."""
    since_ms: int = 0
    """Submitted then or later, UTC; 0: ever."""
    group: bytes = b""
    """Dead tasks of the group with this fingerprint."""
    ids: list[bytes] = []
    """Only of these; empty: of all."""
    before_ms: int = 0
    """Submitted earlier, UTC; 0: ever."""
    priority_min: int = limits.PRIORITY_MIN
    priority_max: int = limits.PRIORITY_MAX
    agent: str = ""
    """Run by it, or run last by it; empty: by any, or none."""
    label: str = ""
    """It asks for agents with this label, ``zone``, or this value of it, ``zone=a``; empty: for any."""
    key: str = ""
    """Its idempotency key; empty: any."""


def check_filter(wanted: TaskFilter) -> None:
    """Refuse a filter that is out of range.

    Raises:
        BadRequest: A field is out of its range; it is named.
    """
    for what in ("state", "queue", "name", "error", "agent", "label", "key"):
        if len(getattr(wanted, what)) > limits.NAME_CHARS_MAX:
            raise BadRequest(f"a filter's {what} has at most {limits.NAME_CHARS_MAX} characters")
    for what in ("since_ms", "before_ms"):
        if not 0 <= getattr(wanted, what) < 1 << 48:
            raise BadRequest(f"a filter's {what} is UTC milliseconds, or 0")
    if len(wanted.group) not in {0, 16}:
        raise BadRequest("a filter's group is the 16 bytes of a fingerprint, or empty")
    if len(wanted.ids) > limits.FILTER_IDS_MAX or any(len(task_id) != TASK_ID_BYTES for task_id in wanted.ids):
        raise BadRequest(f"a filter names at most {limits.FILTER_IDS_MAX} task ids of 16 bytes")
