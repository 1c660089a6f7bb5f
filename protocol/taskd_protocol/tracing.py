"""Trace contexts in W3C form, ``00-<trace>-<span>-<flags>``, and the ids of spans that follow from a task's.

The span of an attempt has an id that follows from the task's and the attempt's number: who runs it and who tells of it
agree without a word, and spans of the task's own code join it.
"""

import hashlib
import re
from typing import Final, NamedTuple

_TRACEPARENT: Final = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_SPAN_BYTES: Final = 8
_HALF: Final = 1 << 64


class Trace(NamedTuple):
    """What a traceparent says."""

    trace_id: int
    span_id: int
    flags: int

    def is_sampled(self, ratio: float) -> bool:
        """Tell whether it is among this share of all, as everybody decides who sees the trace's id."""
        return bool(self.flags & 1) and self.trace_id % _HALF < round(ratio * _HALF)


def read_traceparent(text: str) -> Trace | None:
    """Read a traceparent; None: it is none, or says nothing."""
    match = _TRACEPARENT.fullmatch(text)
    if match is None:
        return None
    trace_id, span_id, flags = (int(part, 16) for part in match.groups())
    return Trace(trace_id, span_id, flags) if trace_id and span_id else None


def span_id_of(task_id: bytes, what: str, attempt: int = 0) -> int:
    """Return the id of a task's span: of ``submit``, or of an ``attempt``."""
    digest = hashlib.blake2b(task_id, digest_size=_SPAN_BYTES, person=f"{what}/{attempt}".encode()[:16])
    return int.from_bytes(digest.digest(), "big") or 1
