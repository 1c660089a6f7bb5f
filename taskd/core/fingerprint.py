"""Fingerprints: which failures are the same one, seen again.

Two failures are alike if they have the same exception type (or code, where nothing
was raised), the same place in the user's code, and the same message but for what
varies from task to task: numbers, hexadecimal, UUIDs, quoted text and paths.
"""

import hashlib
import re
from typing import Final

from taskd_protocol.task import Failure

FINGERPRINT_BYTES: Final = 16

MESSAGE_CHARS: Final = 500
"""Of a message, looked at: what tells failures apart comes early, and a stranger's text costs a bounded time."""

_FRAME: Final = re.compile(r'^[ |+-]*File "([^"\n]+)", line \d+, in (.+)$', re.MULTILINE)

_FOREIGN: Final = re.compile(r"[/\\](?:site-packages|dist-packages|lib[/\\]python3[^/\\]*|taskd)[/\\]|^<frozen")
"""Files that are not the user's: libraries, and what runs the task."""

_SEPARATOR: Final = re.compile(r"[/\\]")

_VARIABLE: Final = re.compile(
    r"""
      (?P<text> (?<!\w)'[^'\n]*'(?!\w) | "[^"\n]*" | `[^`\n]*` )
    | (?P<uuid> \b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b )
    | (?P<path> [A-Za-z]:\\[^\s'"]+ | \b[a-z][a-z0-9+.]*://[^\s'"]+ | (?<!\w)[~.]{0,2}/[^\s'"]+
        | \b[\w.-]+(?:/[\w.-]+)+ )
    | (?P<hex> \b0[xX][0-9a-fA-F]+\b | \b(?=[a-fA-F]*[0-9])[0-9a-fA-F]{8,}\b )
    | (?P<number> \d+(?:[.,:]\d+)* )
    """,
    re.VERBOSE,
)


def kind_of(failure: Failure) -> str:
    """Return the exception's type, or the code where nothing was raised."""
    return failure.type or failure.code


def place_of(traceback: str) -> str:
    """Return the last frame of the user's code as ``file:function``; of any code if there is none, or nothing."""
    frames = _FRAME.findall(traceback)
    own = [frame for frame in frames if not _FOREIGN.search(frame[0])] or frames
    if not own:
        return ""
    file, function = own[-1]
    return f"{_SEPARATOR.split(file)[-1]}:{function}"


def normalised(message: str) -> str:
    """Return the message with a word in place of each part that varies."""
    return _VARIABLE.sub(lambda found: f"<{found.lastgroup}>", message[:MESSAGE_CHARS])


def fingerprint_of(failure: Failure) -> bytes:
    """Return the 16 bytes that all failures like this one have in common."""
    digest = hashlib.blake2b(digest_size=FINGERPRINT_BYTES)
    for part in (kind_of(failure), place_of(failure.traceback), normalised(failure.message)):
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(4, "big"))
        digest.update(raw)
    return digest.digest()
