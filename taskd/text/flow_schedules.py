"""The table ``[schedule]`` of a workflow file: when the server is to start it, and by which rules.

Its keys are named as the options of `taskd schedule add`, and as what ``Cron``, ``Every`` and ``At`` take.
"""

import datetime as dt
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, cast

import msgspec
from msgspec import UNSET, UnsetType

from taskd.core.cron import parse
from taskd.core.firings import find_zone, plan
from taskd.text.spans import read_instant_ms, read_span_ms
from taskd_protocol.errors import BadRequest
from taskd_protocol.limits import PAYLOAD_BYTES_MAX
from taskd_protocol.schedule import (
    FOLDS,
    GAPS,
    MISSED,
    NO_TASK,
    OVERLAPS,
    Schedule,
    ScheduledWorkflow,
    Timing,
    check_schedule,
)

Wrong = Callable[[str, str], None]
"""Takes what is wrong, and the key; empty: the table."""


class _Table(msgspec.Struct, kw_only=True):
    """What may stand there."""

    name: str = ""
    cron: str | list[str] = []
    every: float | str | UnsetType = UNSET
    at: str | list[str] = []
    tz: str = "UTC"
    gap: str = GAPS[0]
    fold: str = FOLDS[0]
    start: str = ""
    end: str = ""
    not_on: list[str] = []
    not_cron: str | list[str] = []
    overlap: str = "skip"
    missed: str = "latest"
    missed_max: int = 0
    pause_after: int = 0


FIELDS: Final = {each.name: each for each in msgspec.structs.fields(_Table)}
_WORDS: Final = {"gap": GAPS, "fold": FOLDS, "overlap": OVERLAPS, "missed": MISSED}


def read_schedule(
    table: Mapping[str, object], workflow: ScheduledWorkflow, wrong: Wrong, *, is_whole: bool
) -> Schedule | None:
    """Return the schedule of a workflow, by its table; None: something is wrong, and was told.

    Args:
        table: As it stands in the file; keys that are unknown are passed over.
        workflow: What it starts.
        wrong: Is told.
        is_whole: Nothing else is wrong with the file, so that the whole can be looked at.
    """
    problems: list[str] = []

    def note(message: str, key: str = "") -> None:
        problems.append(message)
        wrong(message, key)

    said = {key: _typed(key, value, note) for key, value in table.items() if key in FIELDS}
    good = {key: value for key, value in said.items() if value is not None}
    read = _Table(**good)  # type: ignore[arg-type]  # each was converted
    for key, words in _WORDS.items():
        if (word := cast("str", getattr(read, key))) not in words:
            note(f"{key} {word!r} is unknown; use one of {', '.join(words)}", key)
    timing = _timing(read, note)
    if problems:
        return None
    rules = (read.overlap, read.missed, read.missed_max, read.pause_after)
    made = Schedule(read.name or workflow.name, timing, NO_TASK, 0, *rules, workflow=workflow)
    try:
        plan(timing, 0)
        if is_whole:
            check_schedule(made, PAYLOAD_BYTES_MAX)
    except BadRequest as refusal:
        note(refusal.message)
        return None
    return made


def _typed(key: str, value: object, wrong: Wrong) -> object:
    try:
        return msgspec.convert(_as_text(value), FIELDS[key].type)
    except msgspec.ValidationError as error:
        wrong(f"{key}: {str(error).replace(' - at `$', ' at `' + key)}", key)
        return None


def _timing(read: _Table, wrong: Wrong) -> Timing:
    """Return when; each key is tried by itself, so that what is wrong has its line."""

    def tried(key: str, make: Callable[[], object]) -> object:
        try:
            return make()
        except BadRequest as error:
            wrong(error.message, key)
            return None

    before = tried("tz", lambda: find_zone(read.tz))
    zone = read.tz if before is not None else "UTC"
    cron = [read.cron] if isinstance(read.cron, str) else read.cron
    not_cron = [read.not_cron] if isinstance(read.not_cron, str) else read.not_cron
    for key, lines in (("cron", cron), ("not_cron", not_cron)):
        for line in lines:
            tried(key, partial(parse, line))
    every = "" if isinstance(read.every, UnsetType) else str(read.every)
    return Timing(
        cron=tuple(cron),
        every_ms=cast("int", tried("every", lambda: read_span_ms(every, "s")) or 0) if every else 0,
        at_ms=tuple(_ms(each, zone, "at", tried) for each in (read.at if isinstance(read.at, list) else [read.at])),
        zone=zone,
        gap=read.gap,
        fold=read.fold,
        start_ms=_ms(read.start, zone, "start", tried) if read.start else 0,
        end_ms=_ms(read.end, zone, "end", tried) if read.end else 0,
        not_dates=tuple(read.not_on),
        not_cron=tuple(not_cron),
    )


def _ms(text: str, zone: str, key: str, tried: Callable[[str, Callable[[], object]], object]) -> int:
    return cast("int", tried(key, lambda: read_instant_ms(text, zone)) or 0)


def _as_text(value: object) -> object:
    """Return dates and times of TOML as they are written in text."""
    if isinstance(value, list):
        return [_as_text(each) for each in value]
    return value.isoformat() if isinstance(value, dt.date) else value
