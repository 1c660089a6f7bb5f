"""Streams: what attempts say, on its way to the server's disk.

Invariants:
- Of one attempt and one stream, what is said goes in order, in whole lines, but where a line is longer than a piece or
  stays unfinished.
- A report goes after all that its own attempt said, and waits for nothing that others say.
- What is under way is at most ``LOG_BYTES_UNRECORDED_MAX``. What waits beside it is bounded by those who speak: they
  wait while it ``is_full``.
- What is left out for its amount is counted, and the count stands where it would have stood.

Pure: knows neither workers nor connections, and is told the time.
"""

from collections import deque
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Final

from taskd.agent.metering import RATE_BYTES_PER_S, Meter
from taskd_protocol.agent_messages import Logs
from taskd_protocol.limits import LOG_BYTES_PER_ATTEMPT_MAX, LOG_BYTES_UNRECORDED_MAX, LOG_DATA_BYTES_MAX
from taskd_protocol.streams import CUT, RATE, SIZE, CutLine, encode_line
from taskd_protocol.task import FailureReport, LogPiece, Report

WAITING_BYTES_MAX = 16 * 1024 * 1024
"""Beyond this, who speaks waits: an agent's memory is bounded while its server is away, and nothing is lost."""

MESSAGE_BYTES = 192 * 1024
"""Output in one LOGS: a frame, with room for the envelopes. Also what goes before reports have another turn."""

GATHER_S = 0.05
"""Between two looks: what is said in between goes together."""

UNFINISHED_LOOKS = 10
"""So many looks a line may stay unfinished, such as a question, before it goes as it is."""

MARK_LOOKS = 20
"""So many looks after output was left out its count goes, if nothing is said that it could go before."""

ENTRY_BYTES = 64
"""What a piece weighs beside its data, as the server counts."""

MARKS_BYTES = 128 * 1024
"""Room for the marks, in what the server keeps of one attempt."""

SIZE_BYTES_MAX = LOG_BYTES_PER_ATTEMPT_MAX - MARKS_BYTES
"""Of one attempt: below what the server keeps."""

MARKS_MAX = 200
"""Of one attempt, before its last."""

Ended = Report | FailureReport


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much one attempt may say; what is over it is left out."""

    bytes_per_s: int = RATE_BYTES_PER_S
    bytes_max: int = SIZE_BYTES_MAX
    """Weighed with what each piece costs beside its data; the marks have room beyond it."""


BOUNDS: Final = Bounds()


class _Part:
    """What was said in one stream and makes no piece yet."""

    __slots__ = ("at_ms", "data", "looks")

    def __init__(self, at_ms: int) -> None:
        self.at_ms = at_ms
        self.data = bytearray()
        self.looks = 0


class _Attempt:
    """What one attempt has said.

    Attributes:
        at_ms: When it said something last.
        bytes_max: To be kept of it.
        parts: By stream.
        ready: Pieces to be sent, in order.
        number: Of the last piece.
        kept_bytes: Of all pieces.
        cut_bytes: Left out since the last mark.
        report: To be sent when all of this is.
        is_over: It says nothing more.
        midway: Streams of which the beginning of a line was left out, and so its end is to be.
    """

    __slots__ = (
        "at_ms",
        "bytes_max",
        "cut_bytes",
        "cut_lines",
        "cut_looks",
        "cut_reason",
        "id",
        "is_over",
        "kept_bytes",
        "marks",
        "meter",
        "midway",
        "number",
        "parts",
        "ready",
        "report",
        "token",
    )

    def __init__(self, token: int, task_id: bytes, now_ms: int, bounds: Bounds) -> None:
        self.token = token
        self.id = task_id
        self.at_ms = 0
        self.meter = Meter(now_ms, bounds.bytes_per_s)
        self.bytes_max = bounds.bytes_max
        self.parts: dict[int, _Part] = {}
        self.ready: deque[LogPiece] = deque()
        self.number = self.kept_bytes = 0
        self.cut_bytes = self.cut_lines = self.cut_looks = self.marks = 0
        self.cut_reason = ""
        self.report: Ended | None = None
        self.is_over = False
        self.midway: set[int] = set()


class Streams:
    """What the attempts of one agent say.

    Attributes:
        bounds: Of each attempt.
        attempts: Those that have said something, and whose reports are to go after it, by token.
    """

    def __init__(self, bounds: Bounds = BOUNDS) -> None:
        self.bounds = bounds
        self.attempts: dict[int, _Attempt] = {}
        self._gathering: dict[int, _Attempt] = {}  # with parts, or with something left out
        self._turns: dict[int, _Attempt] = {}  # with pieces, in the order of their turns
        self._ended_turns: dict[int, _Attempt] = {}  # those whose reports wait: they go first
        self._underway: deque[LogPiece] = deque()
        self._underway_bytes = 0
        self._recorded_bytes = 0
        self._waiting_bytes = 0

    @property
    def waiting_bytes(self) -> int:
        """What is not recorded."""
        return self._waiting_bytes + self._underway_bytes

    @property
    def is_full(self) -> bool:
        """Who speaks is to wait."""
        return self.waiting_bytes >= WAITING_BYTES_MAX

    @property
    def is_gathering(self) -> bool:
        """Somebody should ``look`` every ``GATHER_S``."""
        return bool(self._gathering)

    @property
    def has_news(self) -> bool:
        """There is something to send, when credit allows."""
        return bool(self._turns or self._ended_turns)

    # -- the attempts -------------------------------------------------------------------

    def add(
        self, token: int, task_id: bytes, stream: int, data: bytes, *, at_ms: int, now_ms: int, paced: bool = False
    ) -> None:
        """Take in what an attempt said.

        Args:
            token: Of the attempt.
            task_id: Of its task.
            stream: Which.
            data: Whole lines, if it is a stream of data.
            at_ms: When, by the server's clock.
            now_ms: By a clock that never steps.
            paced: Who says it keeps to the rate by itself; see ``wait_s``.
        """
        attempt = self.attempts.get(token)
        if attempt is None:
            attempt = self.attempts[token] = _Attempt(token, task_id, now_ms, self.bounds)
        attempt.at_ms = at_ms
        start, end, reason = _within(attempt, stream, data, now_ms, paced=paced)
        self._leave_out(attempt, data[:start], reason)
        if end > start:
            if attempt.cut_bytes:
                self._mark(attempt)
            attempt.meter.take(end - start)
            self._append(attempt, stream, data[start:end])
        self._leave_out(attempt, data[end:], reason)

    def note_cut(self, token: int, task_id: bytes, cut_bytes: int, cut_lines: int, *, now_ms: int) -> None:
        """Take note of what was left out before it came here."""
        attempt = self.attempts.get(token)
        if attempt is None:
            attempt = self.attempts[token] = _Attempt(token, task_id, now_ms, self.bounds)
        self._count_cut(attempt, cut_bytes, cut_lines, RATE)

    def wait_s(self, token: int, now_ms: int) -> float:
        """Return how long a speaker that can wait has to until it may say another piece."""
        attempt = self.attempts.get(token)
        if attempt is None or attempt.kept_bytes >= attempt.bytes_max:
            return 0.0
        return attempt.meter.wait_s(now_ms, LOG_DATA_BYTES_MAX)

    def end(self, report: Ended) -> bool:
        """Have a report sent when all that its attempt said was; False: it was, send the report."""
        attempt = self.attempts.get(report.token)
        if attempt is None:
            return False
        self._finish(attempt)
        if report.token not in self.attempts:
            return False
        attempt.report = report
        self._turns.pop(report.token, None)
        self._ended_turns[report.token] = attempt
        return True

    def look(self, is_live: Callable[[int], bool]) -> None:
        """Make pieces of what was said.

        Args:
            is_live: Tells of a token whether its attempt goes on, or has a report that is still to be sent.
        """
        for token, attempt in list(self._gathering.items()):
            for stream, part in list(attempt.parts.items()):
                part.looks += 1
                size = len(part.data) if part.looks >= UNFINISHED_LOOKS else part.data.rfind(b"\n") + 1
                if size:
                    self._close(attempt, stream, part, size)
            if attempt.cut_bytes:
                attempt.cut_looks += 1
                if attempt.cut_looks >= MARK_LOOKS and attempt.marks < MARKS_MAX:
                    self._mark(attempt)
            if not attempt.parts and not attempt.cut_bytes:
                del self._gathering[token]
        for token, attempt in list(self.attempts.items()):
            if attempt.report is None and not attempt.is_over and not is_live(token):
                self._finish(attempt)

    # -- the server ---------------------------------------------------------------------

    def connect(self, unrecorded: Mapping[int, Ended], held_up: Container[int]) -> set[int]:
        """Send again what is not recorded: a new connection is about to be used.

        Args:
            unrecorded: Reports by token.
            held_up: Those of them that are not to be sent yet.

        Returns:
            Tokens of the reports that wait for output.
        """
        while self._underway:
            piece = self._underway.pop()
            attempt = self.attempts.get(piece.token)
            if attempt is None:
                attempt = self.attempts[piece.token] = _Attempt(piece.token, piece.id, 0, self.bounds)
                attempt.is_over = True
            attempt.ready.appendleft(piece)
            self._waiting_bytes += len(piece.data)
            self._turns.setdefault(piece.token, attempt)
        self._underway_bytes = self._recorded_bytes = 0
        for token, attempt in [*self._ended_turns.items(), *self._turns.items()]:
            attempt.report = unrecorded.get(token) if token not in held_up else None
            if attempt.report is not None:
                self._turns.pop(token, None)
                self._ended_turns[token] = attempt
        return set(self._ended_turns)

    def recorded(self, data_bytes: int) -> None:
        """Forget so much output, oldest first: as much may be sent again."""
        self._recorded_bytes += data_bytes
        underway = self._underway
        while underway and self._recorded_bytes >= len(underway[0].data):
            size = len(underway.popleft().data)
            self._recorded_bytes -= size
            self._underway_bytes -= size
        if not underway:
            self._recorded_bytes = 0

    def take(self) -> tuple[Logs | None, list[Ended]]:
        """Take pieces to be sent, as far as credit goes, and the reports that waited for them alone."""
        pieces: list[LogPiece] = []
        released: list[Ended] = []
        pieces_bytes = 0
        while turns := self._ended_turns or self._turns:
            token, attempt = next(iter(turns.items()))
            size = len(attempt.ready[0].data) if attempt.ready else 0
            if self._underway and self._underway_bytes + size > LOG_BYTES_UNRECORDED_MAX:
                break
            if pieces and pieces_bytes + size > MESSAGE_BYTES:
                break
            del turns[token]
            if attempt.ready:
                piece = attempt.ready.popleft()
                pieces.append(piece)
                pieces_bytes += size
                self._underway.append(piece)
                self._underway_bytes += size
                self._waiting_bytes -= size
            if attempt.ready:
                turns[token] = attempt
            elif attempt.is_over:
                del self.attempts[token]
                if attempt.report is not None:
                    released.append(attempt.report)
        return (Logs(pieces) if pieces else None), released

    # -- the inside ---------------------------------------------------------------------

    def _leave_out(self, attempt: _Attempt, data: bytes, reason: str) -> None:
        if data:
            self._count_cut(attempt, len(data), data.count(b"\n"), reason)

    def _count_cut(self, attempt: _Attempt, cut_bytes: int, cut_lines: int, reason: str) -> None:
        attempt.cut_bytes += cut_bytes
        attempt.cut_lines += cut_lines
        attempt.cut_reason = reason
        self._gathering[attempt.token] = attempt

    def _append(self, attempt: _Attempt, stream: int, data: bytes) -> None:
        part = attempt.parts.get(stream)
        if part is None:
            part = attempt.parts[stream] = _Part(attempt.at_ms)
        part.data += data
        self._waiting_bytes += len(data)
        self._gathering[attempt.token] = attempt
        while len(part.data) >= LOG_DATA_BYTES_MAX:
            size = part.data.rfind(b"\n", 0, LOG_DATA_BYTES_MAX) + 1
            self._close(attempt, stream, part, size or LOG_DATA_BYTES_MAX)
            part.at_ms = attempt.at_ms

    def _close(self, attempt: _Attempt, stream: int, part: _Part, size: int) -> None:
        """Make a piece of the beginning of what was said."""
        attempt.number += 1
        data = bytes(part.data[:size])
        del part.data[:size]
        part.looks = 0
        if not part.data:
            del attempt.parts[stream]
        attempt.ready.append(LogPiece(attempt.token, attempt.id, stream, part.at_ms, data, attempt.number))
        attempt.kept_bytes += size + ENTRY_BYTES
        self._turns[attempt.token] = attempt

    def _mark(self, attempt: _Attempt) -> None:
        """Say how much was left out, after all that was said before."""
        for stream, part in list(attempt.parts.items()):
            self._close(attempt, stream, part, len(part.data))
        line = CutLine(attempt.at_ms, attempt.cut_bytes, attempt.cut_lines, attempt.cut_reason)
        attempt.cut_bytes = attempt.cut_lines = attempt.cut_looks = 0
        attempt.marks += 1
        self._append(attempt, CUT, encode_line(line))
        self._close(attempt, CUT, attempt.parts[CUT], len(attempt.parts[CUT].data))

    def _finish(self, attempt: _Attempt) -> None:
        attempt.is_over = True
        for stream, part in list(attempt.parts.items()):
            self._close(attempt, stream, part, len(part.data))
        if attempt.cut_bytes:
            self._mark(attempt)
        self._gathering.pop(attempt.token, None)
        if not attempt.ready:
            del self.attempts[attempt.token]


def _within(attempt: _Attempt, stream: int, data: bytes, now_ms: int, *, paced: bool) -> tuple[int, int, str]:
    """Return from where to where this may be kept, in whole lines where it may not all be, and what bounds it."""
    room, reason = attempt.bytes_max - attempt.kept_bytes, SIZE
    rate_room = attempt.meter.room(now_ms)
    if rate_room < room and not paced:
        room, reason = rate_room, RATE
    start, size = 0, len(data)
    if stream in attempt.midway:
        start = data.find(b"\n") + 1
        if not start:
            return 0, 0, reason
    end = size
    if size - start > room:
        end = max(start, data.rfind(b"\n", start, start + max(room, 0)) + 1)
    if end == size or data.endswith(b"\n"):
        attempt.midway.discard(stream)
    else:
        attempt.midway.add(stream)
    return start, end, reason
