"""Trace contexts in W3C form, ``00-<trace>-<span>-<flags>``, and the ids of spans that follow from a task's.

The span of an attempt has an id that follows from the task's and the attempt's number: who runs it and who tells of it
agree without a word, and spans of the task's own code join it.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

NO_TRACEPARENT: Final = (
    "traceparent is no W3C trace context: 00-<32 hex digits>-<16>-<2> in lower case, no id all zeros; leave it out"
)

_TRACEPARENT: Final = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
_HEADER: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})(-.*)?")
_CHARS: Final = 55
_DIGITS: Final = b"0123456789abcdef"
_ZEROS: Final = "0" * 16
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
    return Trace(*(int(part, 16) for part in match.groups()))


def is_traceparent(text: str) -> bool:
    """Tell whether it is one."""
    return _TRACEPARENT.fullmatch(text) is not None


def are_traceparents(texts: Sequence[str]) -> bool:
    """Tell whether all are: 0.1 us for each, as every submit is asked, where a match for each takes 0.4."""
    joined, count = "".join(texts), len(texts)
    return (
        joined.isascii()
        and set(map(len, texts)) <= {_CHARS}
        and joined[0::_CHARS] == joined[1::_CHARS] == "0" * count
        and joined[2::_CHARS] == joined[35::_CHARS] == joined[52::_CHARS] == "-" * count
        and joined.encode().translate(None, _DIGITS) == b"---" * count  # what is left are those dashes
        and _ZEROS not in joined
    ) or all(map(is_traceparent, texts))


def read_header(value: str) -> str:
    """Return what a ``traceparent`` header says, in the form of version 00; empty: nothing that can be gone on with.

    As W3C has it: of a later version what 00 has is read, and what cannot be read is passed over.
    """
    match = _HEADER.fullmatch(value.strip(" \t"))
    if match is None or match[1] == "ff" or (match[1] == "00" and match[3]):
        return ""
    text = f"00-{match[2]}"
    return text if is_traceparent(text) else ""


def root_of(task_id: bytes) -> int:
    """Return the span id of a trace context that begins with the submit of this task: there is no span above it."""
    return int.from_bytes(task_id[-_SPAN_BYTES:], "big")


def span_id_of(task_id: bytes, what: str, attempt: int = 0) -> int:
    """Return the id of a task's span: of ``submit``, or of an ``attempt``."""
    digest = hashlib.blake2b(task_id, digest_size=_SPAN_BYTES, person=f"{what}/{attempt}".encode()[:16])
    return int.from_bytes(digest.digest(), "big") or 1


def context_below(traceparent: str, task_id: bytes, attempt: int) -> str:
    """Return the trace context of what an attempt submits, by that of its task; empty: that has none."""
    trace = read_traceparent(traceparent)
    if trace is None:
        return ""
    return f"00-{trace.trace_id:032x}-{span_id_of(task_id, 'attempt', attempt):016x}-{trace.flags:02x}"
