"""Reports: what has ended, kept until the server has it on its disk.

Invariants:
- A report is unrecorded from the end of its attempt until RECORDED names its token, however often it is sent.
- On each connection every unrecorded report is sent once, unless it is held up, and a report never before what its
  attempt has said.

Pure: knows neither workers nor connections.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from taskd.agent.streams import BOUNDS, Bounds, Streams
from taskd_protocol.agent_messages import Ack, Logs, Nack
from taskd_protocol.errors import TaskCodes
from taskd_protocol.task import Failure, FailureReport, Held, Report

MESSAGE_BYTES = 192 * 1024
"""Results in one ACK: a frame, with room for the envelopes."""

REPORTS_BYTES = 64 * 1024 * 1024
"""Results that the server has not recorded; while there are more, no more work is asked for."""

Ended = Report | FailureReport

BATCH_BYTES = 1024 * 1024
"""Results handed out at a time, roughly: a heartbeat need not wait for the encoding of more."""

REPORT_BYTES = 64
"""What a report costs beside its result."""


class Reports:
    """Everything that the server has still to record.

    Attributes:
        unrecorded: Reports by fencing token.
        streams: What attempts say.
        traces: The trace ids of unrecorded reports that the log tells of, by fencing token.
        traces_all: It tells of all, not of failures alone.
    """

    def __init__(self, bounds: Bounds = BOUNDS) -> None:
        self.unrecorded: dict[int, Ended] = {}
        self.unrecorded_bytes = 0
        self.traces: dict[int, str] = {}
        self.traces_all = False
        self._held_up: set[int] = set()  # tokens of those that are not to be sent yet
        self._unsent: deque[Ended] = deque()
        self.streams = Streams(bounds)

    def add(self, reports: Sequence[Ended]) -> None:
        """Report attempts that have ended."""
        unrecorded, size = self.unrecorded, 0
        for report in reports:  # nearly all succeeded: `_size` without a call
            unrecorded[report.token] = report
            size += REPORT_BYTES + len(report.result) if type(report) is Report else _size(report)
        self.unrecorded_bytes += size
        self._unsent.extend(reports)

    def add_after_output(self, report: Ended) -> None:
        """Report an attempt that has ended, after what it said."""
        self.unrecorded[report.token] = report
        self.unrecorded_bytes += _size(report)
        if not self.streams.end(report):
            self._unsent.append(report)

    def add_held_up(self, report: Ended) -> None:
        """Report an attempt that has ended, once ``release`` lets it go."""
        self.unrecorded[report.token] = report
        self.unrecorded_bytes += _size(report)
        self._held_up.add(report.token)

    def release(self, token: int, turn: Callable[[Ended], Ended]) -> None:
        """Let a report go that was held up, if it still is, after what its attempt said.

        Args:
            token: Of its attempt.
            turn: Says what is to be reported in its place.
        """
        if token not in self._held_up:
            return
        self._held_up.discard(token)
        report = self.unrecorded.get(token)
        if report is not None:
            turned = self.unrecorded[token] = turn(report)
            self.unrecorded_bytes += _size(turned) - _size(report)
            if not self.streams.end(turned):
                self._unsent.append(turned)

    @property
    def are_full(self) -> bool:
        """No more work is to be asked for."""
        return self.unrecorded_bytes >= REPORTS_BYTES

    @property
    def has_news(self) -> bool:
        """There may be something to send."""
        return bool(self._unsent) or self.streams.has_news

    def recorded(self, tokens: Iterable[int]) -> None:
        """Forget reports that need not be sent again."""
        pop, size = self.unrecorded.pop, 0
        for token in tokens:
            report = pop(token, None)
            if report is not None:
                size += REPORT_BYTES + len(report.result) if type(report) is Report else _size(report)
                if self.traces:
                    self.traces.pop(token, None)
        self.unrecorded_bytes -= size

    def connect(self, result_bytes_max: int) -> None:
        """Send everything again that is not recorded: a new connection is about to be used.

        Args:
            result_bytes_max: Larger results become failures: the server, which may have been set up anew, would
                close the connection over them each time.
        """
        for token, report in self.unrecorded.items():
            if type(report) is Report and len(report.result) > result_bytes_max:
                failure = Failure(TaskCodes.RESULT_TOO_LARGE, f"the server takes {result_bytes_max} bytes now")
                self.unrecorded[token] = FailureReport(
                    token, report.id, report.attempt, "failed", failure, report.started_at_ms
                )
        self.unrecorded_bytes = sum([_size(report) for report in self.unrecorded.values()])
        self._held_up &= self.unrecorded.keys()
        later = self._held_up | self.streams.connect(self.unrecorded, self._held_up)
        self._unsent = deque([report for token, report in self.unrecorded.items() if token not in later])

    def holding(self) -> list[Held]:
        """Return the leases of unrecorded reports, for OFFER."""
        return [Held(report.token, report.id, report.attempt) for report in self.unrecorded.values()]

    def messages(self) -> list[Ack | Nack | Logs]:
        """Take what is to be sent now, reports before output, of each at most a batch; empty when there is nothing."""
        messages: list[Ack | Nack | Logs] = []
        if self._unsent:
            self._take_reports(messages)
        if self.streams.has_news:
            logs, released = self.streams.take()
            if logs is not None:
                messages.append(logs)
            if released:
                self._unsent.extend(released)
                self._take_reports(messages)
        return messages

    def _take_reports(self, messages: list[Ack | Nack | Logs]) -> None:
        unsent, unrecorded = self._unsent, self.unrecorded
        batch_bytes = 0
        while unsent and batch_bytes < BATCH_BYTES:
            acks: list[Report] = []
            nacks: list[FailureReport] = []
            message_bytes = 0
            while unsent:
                report = unsent[0]
                size = REPORT_BYTES + len(report.result) if type(report) is Report else _size(report)
                if message_bytes and message_bytes + size > MESSAGE_BYTES:
                    break
                unsent.popleft()
                if report.token not in unrecorded:
                    continue  # recorded, or dropped as stale, before it was sent here
                message_bytes += size
                if type(report) is Report:
                    acks.append(report)
                else:
                    assert isinstance(report, FailureReport)
                    nacks.append(report)
            batch_bytes += message_bytes
            if acks:
                messages.append(Ack(acks))
            if nacks:
                messages.append(Nack(nacks))


def _size(report: Ended) -> int:
    """Return roughly what the report takes on the wire."""
    if type(report) is Report:
        return REPORT_BYTES + len(report.result)
    assert isinstance(report, FailureReport)
    failure = report.failure
    return REPORT_BYTES + (len(failure.traceback) + len(failure.message) if failure is not None else 0)
