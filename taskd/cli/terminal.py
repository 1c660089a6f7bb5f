"""A task's own words on our terminal: shown, and not obeyed.

A pipe or a file gets them byte for byte. On a terminal colours stay, since they do no harm; every other escape sequence
and control character, and what is no UTF-8, is shown as a sign that something was there.
"""

import io
import re
import shutil
import sys
import unicodedata
from itertools import accumulate
from typing import Final, TextIO

_ESCAPES: Final = re.compile(
    r"\x1b\[[0-9;:]*m"  # colours: kept
    r"|\x1b\[[0-?]*[ -/]*[@-~]"  # moves, clears, switches modes
    r"|\x1b[PX^_\]][^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # strings: titles, links, the clipboard
    r"|\x1b[ -/]*[0-~]?"
    r"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"
)
_COLOURS: Final = re.compile(r"\x1b\[[0-9;:]*m")
_SIGN: Final = "\N{REPLACEMENT CHARACTER}"
_RESET: Final = "\x1b[0m"


def tame(text: str) -> str:
    """Return a text that a terminal can be shown, whatever is in it; colours end with it."""
    tamed = _ESCAPES.sub(lambda found: found[0] if _is_colour(found[0]) else _SIGN, text)
    return f"{tamed}{_RESET}" if "\x1b" in tamed else tamed


def one_line(text: str) -> str:
    """Return as much of a text as fits a line that is drawn again and again; of a longer one a part would stay."""
    plain = _COLOURS.sub("", tame(text.replace("\n", " ")))
    room = shutil.get_terminal_size().columns - 1
    cells = accumulate(_cells(sign) for sign in plain)
    return plain[: sum(taken <= room for taken in cells)]


def _cells(sign: str) -> int:
    if unicodedata.combining(sign):
        return 0
    return 2 if unicodedata.east_asian_width(sign) in "WF" else 1


def whole(stream: TextIO) -> TextIO:
    """Return a stream that writes all that it is given.

    Python's, where PYTHONUNBUFFERED is set, as it often is in containers, writes once: what is left when a full pipe is
    stopped (Ctrl-Z) in the midst of that would be lost.
    """
    raw = getattr(stream, "buffer", None)
    if not isinstance(raw, io.RawIOBase):
        return stream
    return io.TextIOWrapper(io.BufferedWriter(raw), stream.encoding, stream.errors, line_buffering=True)


def copy(data: bytes, stream: TextIO) -> None:
    """Copy a task's output to ours."""
    if stream.isatty():
        stream.write(tame(data.decode("utf-8", "replace")))
    else:
        stream.flush()
        stream.buffer.write(data)
    stream.flush()


def show(text: str, stream: TextIO) -> None:
    """Show a line of ours that has words of a task in it."""
    stream.write(f"{tame(text) if stream.isatty() else text}\n")
    stream.flush()


def is_watched() -> bool:
    """Tell whether a person sees what goes to standard error."""
    return sys.stderr.isatty()


def _is_colour(escape: str) -> bool:
    return _COLOURS.fullmatch(escape) is not None
