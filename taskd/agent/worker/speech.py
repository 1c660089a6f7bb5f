"""Speech: what attempts say in lines of data, on its way to the agent.

Each line is on its way before the call returns: what a worker said before it died is not lost. While the agent holds as
much as it may, who speaks waits, as one does who prints into a full pipe.
"""

import time
from collections.abc import Callable
from typing import Final

from taskd.agent import wire
from taskd.agent.clock import Clock
from taskd.agent.metering import Meter
from taskd.agent.worker.link import Link
from taskd_protocol.streams import PROGRESS, DataLine, encode_line

ROOM_LOOK_S: Final = 0.02
"""Between two looks whether the agent takes more: it is full when the server is away, or behind by seconds."""

PROGRESS_NS: Final = 100_000_000
"""Of what an attempt tells of its progress in so short a time only the last counts."""


SPEAKERS_MAX: Final = 10_000
"""More at a time than run: what an attempt has left behind in an event loop may speak after its end, to nobody."""


class _Speaker:
    """What one attempt has said."""

    __slots__ = ("cut_bytes", "cut_lines", "meter", "progress", "progress_ns")

    def __init__(self, now_ms: int, bytes_per_s: int) -> None:
        self.meter = Meter(now_ms, bytes_per_s)
        self.cut_bytes = self.cut_lines = 0
        self.progress = b""  # not said yet
        self.progress_ns = 0


class Speech:
    """What the attempts of this worker say.

    Attributes:
        ahead_ms: The server's wall clock less this machine's.
        speakers: Who has said something, and has not ended.
    """

    def __init__(self, link: Link, clock: Clock, is_cancelled: Callable[[int], bool], bytes_per_s: int) -> None:
        self.ahead_ms = 0
        self._link = link
        self._clock = clock
        self._is_cancelled = is_cancelled
        self._bytes_per_s = bytes_per_s
        self.speakers: dict[int, _Speaker] = {}

    def now_ms(self) -> int:
        """Return the time of day, by the server's clock."""
        return self._clock.wall_ms() + self.ahead_ms

    def say(self, token: int, stream: int, line: DataLine) -> None:
        """Say a line of data."""
        encoded = encode_line(line)
        if stream != PROGRESS:
            self.say_lines(token, stream, encoded)
            return
        speaker = self._speaker(token)
        now_ns = self._clock.mono_ns()
        if speaker.progress_ns and now_ns - speaker.progress_ns < PROGRESS_NS:
            speaker.progress = encoded
            return
        speaker.progress, speaker.progress_ns = b"", now_ns
        self.say_lines(token, stream, encoded)

    def say_lines(self, token: int, stream: int, data: bytes) -> None:
        """Say lines: in a process that user code forked, nothing."""
        if self._link.forked:
            return
        speaker = self._speaker(token)
        if speaker.meter.room(self._clock.mono_ns() // 1_000_000) < len(data):
            speaker.cut_bytes += len(data)
            speaker.cut_lines += data.count(b"\n")
            return
        speaker.meter.take(len(data))
        self._tell_cut(token, speaker)
        self._wait_for_room(token)
        self._link.tell(wire.Said(token, stream, data))

    def ended(self, token: int) -> None:
        """Say what is left to be said of an attempt that ends; to be called before its end is told."""
        speaker = self.speakers.pop(token, None)
        if speaker is None or self._link.forked:
            return
        if speaker.progress:
            self._link.tell(wire.Said(token, PROGRESS, speaker.progress))
        self._tell_cut(token, speaker)

    def _speaker(self, token: int) -> _Speaker:
        speaker = self.speakers.get(token)
        if speaker is None:
            speaker = self.speakers[token] = _Speaker(self._clock.mono_ns() // 1_000_000, self._bytes_per_s)
            if len(self.speakers) > SPEAKERS_MAX:
                del self.speakers[next(iter(self.speakers))]
        return speaker

    def _tell_cut(self, token: int, speaker: _Speaker) -> None:
        if speaker.cut_bytes:
            self._link.tell(wire.Unsaid(token, speaker.cut_bytes, speaker.cut_lines))
            speaker.cut_bytes = speaker.cut_lines = 0

    def _wait_for_room(self, token: int) -> None:
        while self._link.page[wire.PAGE_OUTPUT_FULL] and not self._is_cancelled(token):
            time.sleep(ROOM_LOOK_S)
