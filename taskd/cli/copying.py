"""What a task says, copied to our own output as it comes, or listed."""

import datetime as dt
import sys
from collections.abc import Iterator
from typing import Final

from msgspec.structs import replace

from taskd.cli.endings import HINT_AFTER_S, tell_why_it_waits
from taskd.cli.output import hint
from taskd.cli.terminal import copy, show
from taskd.client.client import Client
from taskd.client.lines import TEXTS, OutputLine, lines_of
from taskd_protocol.errors import TimedOut
from taskd_protocol.messages import Follow, LogEntry
from taskd_protocol.streams import CUT, LOG, STDOUT

SHOWN: Final = frozenset(TEXTS)


class Output:
    """A task's output on its way to ours; goes on after an interruption where it was."""

    def __init__(self, client: Client, wanted: Follow) -> None:
        """Prepare.

        Args:
            client: To its server.
            wanted: What of it.
        """
        self._client = client
        self._wanted = replace(wanted, streams=list(TEXTS))
        self._attempt = 0

    def show(self) -> None:
        """Copy output until the task has ended; if it is silent from the start, tell what it waits for."""
        try:
            self._copy(None if self._wanted.sequence or self._wanted.stored else HINT_AFTER_S)
        except TimedOut:
            tell_why_it_waits(self._client, self._wanted.id)
            self._copy(None)

    def entries(self) -> Iterator[LogEntry]:
        """Yield the entries as they come."""
        yield from self._client.read(self._wanted)

    def _copy(self, silence_s: float | None) -> None:
        for entry in self._client.read(self._wanted, silence_s):
            if self._attempt and entry.attempt != self._attempt:
                hint(f"taskd: attempt {entry.attempt} begins: the one before failed, or its agent was lost")
            self._attempt = entry.attempt
            _show(entry)
            self._wanted = replace(self._wanted, sequence=entry.sequence + 1)


def _show(entry: LogEntry) -> None:
    if entry.stream not in {LOG, CUT}:
        copy(entry.data, sys.stdout if entry.stream == STDOUT else sys.stderr)
        return
    for line in lines_of(entry):
        show(record_text(line) if entry.stream == LOG else line.text, sys.stderr)


def record_text(line: OutputLine) -> str:
    """Return a log record as people read it."""
    at = line.at.astimezone(dt.UTC).strftime("%H:%M:%S.%f")[:-3]
    fields = "".join(f" {name}={value}" for name, value in line.fields.items())
    return f"{at} {line.level} {line.logger}: {line.text}{fields}"
