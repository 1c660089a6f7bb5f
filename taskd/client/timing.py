"""When a schedule fires, as users say it: cron lines, an interval, instants; and what it does about the odd ones."""

import datetime as dt
import math
from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

from taskd_protocol.errors import BadRequest
from taskd_protocol.schedule import Timing, check_timing

Gap: TypeAlias = Literal["next", "skip", "shift"]
"""What a time of day does that a clock set forward jumps over."""
Fold: TypeAlias = Literal["auto", "first", "second", "both"]
"""What one does that a clock set back shows twice."""
Overlap: TypeAlias = Literal["allow", "skip", "queue_one", "cancel_running"]
"""What a firing does while the task of one before has not ended."""
Missed: TypeAlias = Literal["latest", "skip", "all"]
"""What becomes of times that passed while the server was down or the schedule paused."""

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class When:
    """When a schedule fires. Made as ``Cron``, ``Every`` or ``At``.

    Attributes:
        timing: As the server is told.
    """

    def __init__(self, timing: Timing) -> None:
        check_timing(timing)
        self.timing = timing

    def __repr__(self) -> str:
        """Show it as the server is told."""
        return f"{type(self).__name__}({self.timing})"

    def __eq__(self, other: object) -> bool:
        """Be equal to what fires at the same times."""
        return isinstance(other, When) and self.timing == other.timing

    def __hash__(self) -> int:
        """Hash as equality says."""
        return hash(self.timing)


class Cron(When):
    """By cron lines, on the clock of a time zone."""

    def __init__(
        self,
        *lines: str,
        tz: str = "UTC",
        gap: Gap = "next",
        fold: Fold = "auto",
        start: dt.datetime | None = None,
        end: dt.datetime | None = None,
        not_on: Sequence[dt.date | str] = (),
        not_cron: Sequence[str] = (),
    ) -> None:
        """Say when.

        Args:
            lines: Each of five fields, ``"0 3 * * mon-fri"``; of six with the second first; or a word such as
                ``"@daily"``. Any of them is enough.
            tz: IANA name of the zone, ``"Europe/Oslo"``.
            gap: Of a time that does not exist since the clock is set forward: ``"next"``, at the first instant after;
                ``"skip"``, not at all; ``"shift"``, later by as much as the clock was set forward.
            fold: Of a time that comes twice since the clock is set back: ``"first"``, ``"second"`` or ``"both"``.
                ``"auto"`` is ``"both"`` for a line that names every hour, else ``"first"``.
            start: Nothing before. With a time zone of its own, or by the clock of ``tz``.
            end: Nothing after.
            not_on: Not on these days, in the zone.
            not_cron: Not at what these lines name: ``"* * * * sat,sun"``.

        Raises:
            BadRequest: A field is out of its range. The server reads the lines, and refuses what it cannot read.
        """
        super().__init__(
            Timing(
                cron=lines,
                zone=tz,
                gap=gap,
                fold=fold,
                start_ms=_unix_ms("start", start, tz),
                end_ms=_unix_ms("end", end, tz),
                not_dates=tuple(_date(day) for day in not_on),
                not_cron=tuple(not_cron),
            )
        )


class Every(When):
    """At an interval, counted from its start: it never drifts."""

    def __init__(
        self,
        interval: float | dt.timedelta,
        *,
        start: dt.datetime | None = None,
        end: dt.datetime | None = None,
        tz: str = "UTC",
        not_on: Sequence[dt.date | str] = (),
        not_cron: Sequence[str] = (),
    ) -> None:
        """Say when.

        Args:
            interval: Seconds, at least one.
            start: The first time; None: one interval after the schedule is made.
            end: Nothing after.
            tz: IANA name of the zone in which ``not_on`` and ``not_cron`` are meant.
            not_on: Not on these days.
            not_cron: Not at what these cron lines name.

        Raises:
            BadRequest: A field is out of its range.
        """
        seconds = interval.total_seconds() if isinstance(interval, dt.timedelta) else float(interval)
        if not math.isfinite(seconds):
            raise BadRequest("an interval is a finite number of seconds")
        super().__init__(
            Timing(
                every_ms=round(seconds * 1000),
                zone=tz,
                start_ms=_unix_ms("start", start, tz),
                end_ms=_unix_ms("end", end, tz),
                not_dates=tuple(_date(day) for day in not_on),
                not_cron=tuple(not_cron),
            )
        )


class At(When):
    """At certain instants, once each."""

    def __init__(self, *instants: dt.datetime, tz: str = "UTC") -> None:
        """Say when.

        Args:
            instants: With a time zone of their own, or by the clock of ``tz``.
            tz: IANA name of a zone.

        Raises:
            BadRequest: None is given, or one is out of range.
        """
        super().__init__(Timing(at_ms=tuple(_unix_ms("at", instant, tz) for instant in instants), zone=tz))


def _unix_ms(what: str, instant: dt.datetime | None, zone: str) -> int:
    if instant is None:
        return 0
    if instant.tzinfo is None:
        from zoneinfo import ZoneInfo  # noqa: PLC0415 - most programs make no schedule

        try:
            instant = instant.replace(tzinfo=ZoneInfo(zone))
        except (KeyError, ValueError, OSError):
            raise BadRequest(f"time zone {zone[:64]!r} of {what} is not known here: give {what} an offset") from None
    return round((instant - _EPOCH) / dt.timedelta(milliseconds=1))


def _date(day: dt.date | str) -> str:
    return day if isinstance(day, str) else day.isoformat()[:10]
