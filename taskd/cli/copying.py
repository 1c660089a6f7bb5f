"""A task's output, copied to our own as it comes."""

import sys
from typing import Final

from taskd.cli.endings import HINT_AFTER_S, tell_why_it_waits
from taskd.cli.output import hint
from taskd.client.client import Client
from taskd_protocol.errors import TimedOut

_STDOUT: Final = 1


class Output:
    """A task's output on its way to ours; goes on after an interruption where it was."""

    def __init__(self, client: Client, task_id: bytes) -> None:
        self._client = client
        self._task_id = task_id
        self._sequence = 0
        self._attempt = 0

    def show(self) -> None:
        """Copy output until the task has ended; if it is silent from the start, tell what it waits for."""
        try:
            self._copy(None if self._sequence else HINT_AFTER_S)
        except TimedOut:
            tell_why_it_waits(self._client, self._task_id)
            self._copy(None)

    def _copy(self, silence_s: float | None) -> None:
        for entry in self._client.follow(self._task_id, self._sequence, silence_s):
            if self._attempt and entry.attempt != self._attempt:
                hint(f"taskd: attempt {entry.attempt} begins: the one before failed, or its agent was lost")
            self._attempt = entry.attempt
            stream = sys.stdout.buffer if entry.stream == _STDOUT else sys.stderr.buffer
            stream.write(entry.data)
            stream.flush()
            self._sequence = entry.sequence + 1
