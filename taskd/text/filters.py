r"""The language of filters: ``queue:images state:dead name:thumb* error:"timed out" since:1h``.

Words stand for themselves, one space or more apart, and all of them must hold. A word is a key, a colon and a value; a
value with spaces stands in double quotes, in which ``\"`` and ``\\`` are a quote and a backslash.

Invariants:
- A word that is not understood is refused, with where it stands: what is passed over would show, or do, more than was
  asked for.
- What ``filter_text`` writes is read back as the same filter.

Knows no server: whether there is such a queue is not asked here.
"""

import datetime as dt
import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

from msgspec.structs import replace

from taskd.text.spans import UNITS_MS
from taskd.text.values import iso
from taskd_protocol import limits
from taskd_protocol.errors import BadRequest
from taskd_protocol.filtering import TaskFilter, check_filter
from taskd_protocol.ids import format_task_id, parse_task_id

STATES: Final = (
    "blocked",
    "ready",
    "scheduled",
    "running",
    "cancelling",
    "succeeded",
    "dead",
    "cancelled",
    "expired",
)
"""Of tasks."""

CHARS_MAX: Final = 8 * 1024
"""Of a whole filter: room for some hundred ids."""

_SPAN: Final = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)(ms|[smhdw])", re.ASCII)
_PRIORITY: Final = re.compile(r"(<=|>=|<|>|=?)(-?\d{1,4})", re.ASCII)
_LATEST_MS: Final = 253_402_300_799_999
"""UTC: the last of the year 9999."""
_GROUP_CHARS: Final = 32


class FilterRefused(Exception):
    """A filter is not understood.

    Attributes:
        column: Where the word begins that is not, from 1.
        length: Of the word.
        reason: What is wrong with it, and what would be right.
    """

    def __init__(self, column: int, length: int, reason: str) -> None:
        self.column = column
        self.length = length
        self.reason = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in reason)
        super().__init__(f"column {column}: {self.reason}")


class _Word(NamedTuple):
    """One word, and where it stands."""

    column: int
    length: int
    key: str
    value: str

    def refused(self, reason: str) -> FilterRefused:
        return FilterRefused(self.column, self.length, reason)


def read_filter(text: str, now_ms: int) -> TaskFilter:
    """Read a filter; an empty one is for all tasks.

    Args:
        text: As people wrote it.
        now_ms: The server's time: what ``since:1h`` counts from.

    Raises:
        FilterRefused: A word is not understood; it says where, and what is known.
    """
    if len(text) > CHARS_MAX:
        raise FilterRefused(CHARS_MAX, len(text) - CHARS_MAX, f"a filter has at most {CHARS_MAX} characters")
    wanted, said = TaskFilter(), set[str]()
    for word in _words(text):
        reader = _READERS.get(word.key)
        if reader is None:
            raise word.refused(f"{word.key[:40]!r} is no key; {_near(word.key, _READERS)}")
        if word.key in said and word.key != "id":
            raise word.refused(f"{word.key} is said twice; a task has one")
        said.add(word.key)
        wanted = reader(wanted, word, now_ms)
        try:
            check_filter(wanted)
        except BadRequest as why:
            raise word.refused(why.message) from None
    return wanted


def filter_text(wanted: TaskFilter) -> str:
    """Return a filter as people write it; empty: it is for all tasks."""
    words = [f"{key}:{_quoted(value)}" for key, value in _said(wanted)]
    return " ".join(words)


def _said(wanted: TaskFilter) -> Iterator[tuple[str, str]]:
    for key in ("queue", "state", "name", "error", "agent", "label", "key"):
        if value := getattr(wanted, key):
            yield key, value
    if priority := _priority_text(wanted.priority_min, wanted.priority_max):
        yield "priority", priority
    for key, at_ms in (("since", wanted.since_ms), ("before", wanted.before_ms)):
        if at_ms:
            yield key, str(iso(min(at_ms, _LATEST_MS)))
    if wanted.group:
        yield "group", wanted.group.hex()
    for task_id in wanted.ids:
        yield "id", format_task_id(task_id)


def _priority_text(low: int, high: int) -> str:
    if low == high:
        return str(low)
    if low == limits.PRIORITY_MIN:
        return "" if high == limits.PRIORITY_MAX else f"<={high}"
    return f">={low}" if high == limits.PRIORITY_MAX else f"{low}..{high}"


# -- words --------------------------------------------------------------------------------


def _words(text: str) -> Iterator[_Word]:
    at = 0
    while True:
        while at < len(text) and text[at].isspace():
            at += 1
        if at == len(text):
            return
        start = at
        while at < len(text) and not text[at].isspace() and text[at] != ":":
            at += 1
        key = text[start:at]
        if at == len(text) or text[at] != ":":
            reason = (
                f"{key[:40]!r} has no key; write name:{_quoted(f'*{key[:40]}*')}, or another key: {_known(_READERS)}"
            )
            raise FilterRefused(start + 1, at - start, reason)
        at, value = _value(text, start, at + 1)
        if not value:
            raise FilterRefused(start + 1, at - start, f"nothing stands after {key[:40]}:")
        yield _Word(start + 1, at - start, key, value)


def _value(text: str, start: int, at: int) -> tuple[int, str]:
    """Return where a value that begins here ends, and what it is."""
    if text[at : at + 1] != '"':
        end = at
        while end < len(text) and not text[end].isspace():
            end += 1
        return end, text[at:end]
    letters: list[str] = []
    at += 1
    while at < len(text):
        letter = text[at]
        if letter == '"':
            if at + 1 < len(text) and not text[at + 1].isspace():
                raise FilterRefused(at + 2, 1, "a space is missing after the quote")
            return at + 1, "".join(letters)
        if letter == "\\" and text[at + 1 : at + 2] in {'"', "\\"} and at + 1 < len(text):
            at += 1
            letter = text[at]
        letters.append(letter)
        at += 1
    raise FilterRefused(start + 1, len(text) - start, "a quote is not closed")


def _quoted(value: str) -> str:
    plain = value and value[0] != '"' and not any(letter.isspace() for letter in value)
    if plain:
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _near(word: str, known: Mapping[str, object] | tuple[str, ...]) -> str:
    near = difflib.get_close_matches(word[:40], list(known), n=1)
    return f"did you mean {near[0]}? There are {_known(known)}" if near else f"there are {_known(known)}"


def _known(words: Mapping[str, object] | tuple[str, ...]) -> str:
    return ", ".join(words)


# -- what each key says --------------------------------------------------------------------

_Reader = Callable[[TaskFilter, _Word, int], TaskFilter]


def _text(field: str) -> _Reader:
    """Return the reader of a field that takes any text."""

    def read(wanted: TaskFilter, word: _Word, _: int) -> TaskFilter:
        return replace(wanted, **{field: word.value})

    return read


def _read_state(wanted: TaskFilter, word: _Word, _: int) -> TaskFilter:
    if word.value not in STATES:
        raise word.refused(f"{word.value[:40]!r} is no state; {_near(word.value, STATES)}")
    return replace(wanted, state=word.value)


def _read_priority(wanted: TaskFilter, word: _Word, _: int) -> TaskFilter:
    first, dots, last = word.value.partition("..")
    bounds = [_PRIORITY.fullmatch(part) for part in ([first, last] if dots else [first])]
    read = [(found[1], int(found[2])) for found in bounds if found is not None]
    low, high = limits.PRIORITY_MIN, limits.PRIORITY_MAX
    if len(read) == len(bounds):
        (sign, number), (other_sign, other) = read[0], read[-1]
        if dots:
            low, high = (number, other) if not sign + other_sign else (1, 0)
        else:
            low = {"<": low, "<=": low, ">": number + 1}.get(sign, number)
            high = {">": high, ">=": high, "<": number - 1}.get(sign, number)
    if len(read) < len(bounds) or not limits.PRIORITY_MIN <= low <= high <= limits.PRIORITY_MAX:
        span = f"{limits.PRIORITY_MIN} to {limits.PRIORITY_MAX}"
        raise word.refused(f"{word.value[:40]!r} is no priority; write 5, >=5, <0 or 1..9, within {span}")
    return replace(wanted, priority_min=low, priority_max=high)


def _read_since(wanted: TaskFilter, word: _Word, now_ms: int) -> TaskFilter:
    return replace(wanted, since_ms=_instant_ms(word, now_ms))


def _read_before(wanted: TaskFilter, word: _Word, now_ms: int) -> TaskFilter:
    return replace(wanted, before_ms=_instant_ms(word, now_ms))


def _instant_ms(word: _Word, now_ms: int) -> int:
    """Return the instant that a word names, by its distance from now or by itself."""
    span = _SPAN.fullmatch(word.value)
    if span is not None:
        return max(1, now_ms - round(float(span[1]) * UNITS_MS[span[2]]))
    try:
        at = dt.datetime.fromisoformat(word.value)
        at = at.replace(tzinfo=dt.UTC) if at.tzinfo is None else at
        at_ms = round(at.timestamp() * 1_000)
    except (ValueError, OverflowError):
        at_ms = 0
    if not 0 < at_ms <= _LATEST_MS:
        raise word.refused(f"{word.value[:40]!r} is no time; write 30m, 1h, 2d, or 2026-11-01T08:00Z")
    return at_ms


def _read_group(wanted: TaskFilter, word: _Word, _: int) -> TaskFilter:
    try:
        fingerprint = bytes.fromhex(word.value) if len(word.value) == _GROUP_CHARS else b""
    except ValueError:
        fingerprint = b""
    if not fingerprint:
        raise word.refused(f"{word.value[:40]!r} is no group of dead tasks; it has {_GROUP_CHARS} digits")
    return replace(wanted, group=fingerprint)


def _read_id(wanted: TaskFilter, word: _Word, _: int) -> TaskFilter:
    try:
        return replace(wanted, ids=[*wanted.ids, parse_task_id(word.value)])
    except BadRequest as why:
        raise word.refused(why.message) from None


_READERS: Final[Mapping[str, _Reader]] = {
    "queue": _text("queue"),
    "state": _read_state,
    "name": _text("name"),
    "error": _text("error"),
    "since": _read_since,
    "before": _read_before,
    "priority": _read_priority,
    "agent": _text("agent"),
    "label": _text("label"),
    "key": _text("key"),
    "group": _read_group,
    "id": _read_id,
}

KEYS: Final = tuple(_READERS)
"""What can be asked for."""
