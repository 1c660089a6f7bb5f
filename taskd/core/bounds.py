"""Bounds: what is in memory of limits, and of the gates at which tasks wait for places. In memory only.

Knows no rule: those of queues and names are kept by ``taskd.core.limiting``, those of keys by ``gates``.
"""

from typing import TYPE_CHECKING

from taskd_protocol.explanation import Reason
from taskd_protocol.limiting import Limit

if TYPE_CHECKING:
    from taskd.core.commands import TakeGate
    from taskd.core.lines import Line, Task
    from taskd.core.records import StateRecord

STILL_GATES_MAX = 1_000
"""Remembered of a still line: beyond, all gates are looked at when it goes on."""


class Bucket:
    """What is left of a rate; kept by ``taskd.core.buckets``.

    Attributes:
        level: Millionths of a token, at ``at_mono_ms``.
        tokens: So many come in ``period_ms``.
        burst: Tokens that it holds at most.
        until_ms: When its record is looked at, UTC; 0: there is none.
    """

    __slots__ = ("at_mono_ms", "burst", "level", "period_ms", "tokens", "until_ms")

    def __init__(self, level: int, at_mono_ms: int, rate: tuple[int, int, int], until_ms: int = 0) -> None:
        self.level = level
        self.at_mono_ms = at_mono_ms
        self.tokens, self.period_ms, self.burst = rate
        self.until_ms = until_ms


class Gauge:
    """A limit, and how far it is used; kept by ``taskd.core.limiting``.

    Attributes:
        limit: What holds.
        running: Leases that it counts.
        level: Of its bucket, at ``at_mono_ms``: tokens times ``period_ms``.
        until_ms: As of a ``Bucket``.
        since_mono_ms: When its rate became what it is.

    One that counts by key has neither ``running`` nor ``level``: its gates have.
    """

    __slots__ = ("at_mono_ms", "level", "limit", "running", "since_mono_ms", "until_ms")

    def __init__(self, limit: Limit, now_mono_ms: int) -> None:
        self.limit = limit
        self.running = 0
        self.level = 0
        self.at_mono_ms = self.since_mono_ms = now_mono_ms
        self.until_ms = 0

    @property
    def full(self) -> int:
        """The level of a full bucket."""
        return self.limit.burst_tokens * self.limit.period_ms

    @property
    def slots_left(self) -> int:
        """How many more leases it allows at a time."""
        return self.limit.concurrency - self.running if self.limit.concurrency else 1 << 62

    def level_at(self, mono_ms: int) -> int:
        """Return the level at an instant that is no earlier than the last one."""
        return min(self.full, self.level + (mono_ms - self.at_mono_ms) * self.limit.tokens)


class Gate:
    """What is in memory of a gate; kept by ``taskd.core.gates``.

    Attributes:
        limit: Of what limit it is; empty: of a ``fifo_key``; None: not known yet.
        held: Places that tasks hold, of those counted so far.
        reserved: Of these, places of tasks that are not leased: their tokens are set aside.
        bucket: Of its rate; None: not known, or it has none.
        wake_mono_ms: When it is looked at again, as there are tokens then; 0: it is not.
        full: Of what it turned the last task away for want, a code of ``Reasons``; empty: all that came have passed.
        full_mono_ms: Since when it has turned tasks away.
        counted_to: The last HELD id that was counted, while not all are.
        empty: Nothing is parked on disk.
        floor: Nothing is parked on disk with a lower rank: what has left from there is not stepped over again.
        reading: A read is under way; what has changed since it was asked for is noted.
        stale: A line goes on since of which some are passed over there.
        late: Ranks parked since.
        gone: Ranks that have left since.
        given_back: Tasks that have given their places back since.
        answer: What was read; None: that has not come.
    """

    __slots__ = (
        "answer",
        "bucket",
        "counted_to",
        "empty",
        "floor",
        "full",
        "full_mono_ms",
        "given_back",
        "gone",
        "held",
        "id",
        "is_counted",
        "late",
        "limit",
        "reading",
        "reserved",
        "stale",
        "wake_mono_ms",
    )

    def __init__(self, gate_id: bytes) -> None:
        self.id = gate_id
        self.limit: str | None = None
        self.held = self.floor = self.reserved = self.wake_mono_ms = self.full_mono_ms = 0
        self.full = ""
        self.bucket: Bucket | None = None
        self.counted_to = b""
        self.is_counted = self.empty = self.reading = self.stale = False
        self.answer: TakeGate | None = None
        self.late: dict[int, None] = {}
        self.gone: dict[int, None] = {}
        self.given_back: dict[bytes, None] = {}


class Still:
    """A line that has been granted nothing for a while; kept by ``taskd.core.stillness``.

    Attributes:
        line: It, or one like it: when it is empty it is in no index.
        reason: What it waits for.
        since_ms: When that was found, by the clock that never steps.
        gates: Where tasks of it were passed over; None: at so many that all are to be looked at.
    """

    __slots__ = ("gates", "line", "reason", "since_ms")

    def __init__(self, line: "Line", reason: Reason, since_ms: int) -> None:
        self.line = line
        self.reason = reason
        self.since_ms = since_ms
        self.gates: dict[bytes, None] | None = {}

    def note(self, gate_id: bytes) -> None:
        """Note a gate where tasks of it are passed over."""
        if self.gates is not None:
            self.gates[gate_id] = None
            if len(self.gates) > STILL_GATES_MAX:
                self.gates = None


class Gates:
    """All of them that are in memory; kept by ``taskd.core.gates``.

    Attributes:
        known: By id.
        touched: Those at which something has happened in this turn.
        parking: By gate and rank, what this turn has parked.
        walks: How often all gates that something waits at were begun to be looked at.
        walk_after: The gate beyond which the next ones are to be found; None: that is under way, or all are.
        walking: Those that were found and are not looked at yet.
        watched: Lines that hold places, or did, by id: what had been granted of each, and since when it is no more.
        still: Lines of which no task is to hold a place, by id.
        over: Their ids.
        next_look_mono_ms: When lines are looked at again.
    """

    def __init__(self) -> None:
        self.known: dict[bytes, Gate] = {}
        self.touched: dict[bytes, None] = {}
        self.parking: dict[bytes, dict[int, tuple[Task, StateRecord | None]]] = {}
        self.walks = 0
        self.walk_after: bytes | None = None
        self.walking: dict[bytes, None] = {}
        self.watched: dict[bytes, tuple[tuple[int, int], int]] = {}
        self.still: dict[bytes, Still] = {}
        self.over: tuple[bytes, ...] = ()
        self.next_look_mono_ms = 0
