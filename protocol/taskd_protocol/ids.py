"""Ids: what names a task, a peer and a connection on the wire and on disk.

A task id is a UUID of version 7 (RFC 9562): 48 bits of Unix milliseconds, then
74 random bits, so that ids sort by the time they were made and still cannot be
guessed. This room knows neither clock nor randomness: both are handed in.
"""

from typing import NewType

from taskd_protocol.errors import BadRequest

TaskId = NewType("TaskId", bytes)
"""16 bytes, a UUIDv7, made by the client before its first try."""

SessionId = NewType("SessionId", bytes)
"""16 random bytes, given by the server in WELCOME."""

TASK_ID_BYTES = 16
SESSION_ID_BYTES = 16
RANDOM_BYTES_PER_TASK_ID = 10

_VERSION_7 = bytes(0x70 | byte & 0x0F for byte in range(256))
_VARIANT = bytes(0x80 | byte & 0x3F for byte in range(256))
"""Tables that put RFC 9562's fixed bits over random bytes, of a batch at once: one by one, ids cost thrice as much."""


def make_task_ids(count: int, unix_ms: int, entropy: bytes) -> list[TaskId]:
    """Make ``count`` ids of one millisecond, in rising order.

    Args:
        count: How many, at least 0.
        unix_ms: Server-corrected Unix time in milliseconds.
        entropy: ``RANDOM_BYTES_PER_TASK_ID * count`` random bytes.

    Returns:
        ``count`` ids, sorted, so that the order of one bulk submit is the order
        of its ids.
    """
    head = (unix_ms & ((1 << 48) - 1)).to_bytes(6, "big")
    step = RANDOM_BYTES_PER_TASK_ID
    tails = bytearray(entropy)
    tails[0::step] = tails[0::step].translate(_VERSION_7)
    tails[2::step] = tails[2::step].translate(_VARIANT)
    drawn = bytes(tails)
    ids = [TaskId(head + drawn[start : start + step]) for start in range(0, count * step, step)]
    ids.sort()
    return ids


def task_id_unix_ms(task_id: TaskId) -> int:
    """Return the Unix milliseconds at which the id was made, as its maker's clock told."""
    return int.from_bytes(task_id[:6], "big")


def format_task_id(task_id: bytes) -> str:
    """Return the id as people read it: ``8-4-4-4-12`` lower-case hexadecimal digits."""
    text = task_id.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def parse_task_id(text: str) -> TaskId:
    """Read an id as people write it, with or without hyphens.

    Raises:
        BadRequest: It is not a UUID of version 7, or of version 8, as workflows and what belongs to them have.
    """
    try:
        raw = bytes.fromhex(text.strip().replace("-", ""))
    except ValueError:
        raw = b""
    if not is_task_id(raw) and not is_made_id(raw):
        raise BadRequest(f"{text[:64]!r} is not a task id; it looks like 0197c1a0-7d3c-7c4e-9f00-0123456789ab")
    return TaskId(raw)


def is_task_id(raw: bytes) -> bool:
    """Tell whether the bytes are a UUID of version 7."""
    return len(raw) == TASK_ID_BYTES and raw[6] >> 4 == 7 and raw[8] >> 6 == 0b10  # noqa: PLR2004 - RFC 9562's own numbers


def is_made_id(raw: bytes) -> bool:
    """Tell whether the bytes are a UUID of version 8: a workflow's, or made by a rule from one."""
    return len(raw) == TASK_ID_BYTES and raw[6] >> 4 == 8 and raw[8] >> 6 == 0b10  # noqa: PLR2004 - RFC 9562's own numbers
