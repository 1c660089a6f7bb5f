"""Logs: how lines look and where they go. Who logs what is the business of who logs.

Invariants:
- No line holds a secret: tokens and join codes are cut out of the finished line, wherever they stood.
- Nothing that a peer chose can end a line or drive a terminal; locals of a traceback are never shown.
- Logging never raises: a full or closed standard error costs the line, not the server.

Knows no events.
"""

import contextlib
import logging
import re
import sys
from typing import Final, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

Level = Literal["debug", "info", "warning", "error"]
Form = Literal["auto", "people", "json"]

SECRETS: Final = re.compile(r"(taskd_[a-z]+_[a-z2-7]{12}_)[0-9A-Za-z]{16,}(?:_[0-9a-f]*)?|(taskd-join-)[0-9A-Za-z_=-]+")
"""Tokens and join codes; what is not secret of them is in a group."""
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_NUMBERS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure_logs(*, level: Level = "info", form: Form = "auto", stream: TextIO | None = None) -> None:
    """Set up logging for this process; lines of libraries that use Python's own logging come along.

    Args:
        level: Lines below it are dropped before they are made.
        form: ``people``, ``json`` (an object per line), or ``auto``: by whether the stream is a terminal.
        stream: None: standard error.
    """
    target = sys.stderr if stream is None else stream
    people = target.isatty() if form == "auto" else form == "people"
    render: list[Processor]
    if people:
        render = [
            _tame,
            structlog.dev.ConsoleRenderer(
                colors=target.isatty(),
                repr_native_str=True,  # of values: what a peer named itself may hold escape sequences
                exception_formatter=structlog.dev.plain_traceback,  # the pretty one shows locals, and so secrets
            ),
        ]
    else:
        render = [structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            *render,
            _redact,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_NUMBERS[level]),
        logger_factory=structlog.WriteLoggerFactory(_Unfailing(target)),  # type: ignore[arg-type]  # write and flush
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=max(logging.WARNING, _NUMBERS[level]), handlers=[_Bridge()], force=True)


class _Unfailing:
    """A stream that may be gone."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


class _Bridge(logging.Handler):
    """Takes lines of libraries that know Python's own logging."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(Exception):  # a library's broken format string
            line = structlog.get_logger().bind(logger=record.name)
            line.log(record.levelno, record.getMessage(), exc_info=record.exc_info)


def _tame(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    """Show control characters instead of obeying them, where the renderer would not."""
    line["event"] = _CONTROL.sub(_escape, str(line["event"]))
    if "exception" in line:
        line["exception"] = "\n".join(_CONTROL.sub(_escape, part) for part in line["exception"].split("\n"))
    return line


def _escape(control: re.Match[str]) -> str:
    return repr(control[0])[1:-1]


def _redact(_logger: WrappedLogger, _method: str, line: object) -> str:
    """Cut secrets out of a finished line."""
    assert isinstance(line, str)
    return SECRETS.sub(r"\1\2[secret]", line)
