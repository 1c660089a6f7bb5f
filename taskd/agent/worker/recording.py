"""Recording: what attempts log by way of Python's ``logging`` becomes records of theirs.

A handler at the root takes what reaches it. While an attempt runs, handlers of the modules' own that write to standard
error or output rest, so that nothing is there twice; where no module set logging up, INFO is where it begins.
"""

import logging
import sys
from collections.abc import Callable
from typing import Final

from taskd.agent.worker.link import Link
from taskd.agent.worker.printing import token_here
from taskd.agent.worker.speech import Speech
from taskd.client.context import running
from taskd_protocol.streams import LOG, LogLine

_OWN: Final = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime"})
"""What every record has; the rest was said beside the message."""

_FORMATTER: Final = logging.Formatter()


class Recorder(logging.Handler):
    """Hands records to the agent."""

    def __init__(self, link: Link, speech: Speech, running_token: Callable[[], int]) -> None:
        """Prepare.

        Args:
            link: To the agent.
            speech: Where records go.
            running_token: Whose a record is that was made in a thread without a context; 0: nobody's.
        """
        super().__init__()
        self._link = link
        self._speech = speech
        self._running_token = running_token

    def install(self) -> None:
        """Take what reaches the root from now on."""
        root = logging.getLogger()
        if not root.handlers and root.level == logging.WARNING:
            root.setLevel(logging.INFO)
        consoles = {id(stream) for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)}
        for handler in root.handlers:
            if type(handler) is logging.StreamHandler and id(handler.stream) in consoles:
                handler.addFilter(lambda _: not self._token())
        root.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Hand on a record that an attempt made."""
        token = self._token()
        if not token:
            if logging.getLogger().handlers == [self] and record.levelno >= logging.WARNING:
                assert logging.lastResort is not None
                logging.lastResort.handle(record)  # as if this handler were not there
            return
        try:
            message = record.getMessage()
            if record.exc_info:
                message += "\n" + _FORMATTER.formatException(record.exc_info)
            fields = {name: str(value) for name, value in record.__dict__.items() if name not in _OWN}
            context = running.get()
            traceparent = "" if context is None else context.traceparent
            at_ms = int(record.created * 1_000) + self._speech.ahead_ms
            self._speech.say(token, LOG, LogLine(at_ms, record.levelname, record.name, message, traceparent, fields))
        except Exception:  # noqa: BLE001 - a broken format string, or a value that cannot be shown: as logging has it
            self.handleError(record)

    def _token(self) -> int:
        """Return the token of whose a record is; 0: nobody's, or of a process that user code forked."""
        return 0 if self._link.forked else token_here() or self._running_token()
