"""The page's files, as they are sent.

Invariants:
- What a path below ``static/`` holds never changes: the path has the digest of all files in it, so browsers keep it.
- The document itself is asked for again each time; it names the digest.
- Our own files are sent without indentation, space that tells nothing, and lines that are comments, line by line as
  they are written: a line's number in the browser is that in the file.
"""

import hashlib
import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final, NamedTuple

DOCUMENT: Final = "index.html"
"""The one page; scripts fill it."""

_PLACE: Final = "{static}"
"""In the document: where the other files are."""

_TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "html": "text/html; charset=utf-8",
}
"""Sent by ending; files with another one, such as licences, are not."""

_LIGHTENED: Final = re.compile(rb"^[ \t]+|^[ \t]*//.*$|^[ \t]*/\*\*?[^*]*\*/$", re.MULTILINE)
_LIGHTENED_CSS: Final = re.compile(rb"[ \t]*([{};,])[ \t]*|(?<=:) +")
"""Space that tells nothing: around these signs, and after a property's colon; no selector has it behind one."""

_OTHERS: Final = "vendor/"
"""What others made is sent as it is."""

_DIGEST_CHARS: Final = 16


class Asset(NamedTuple):
    """One file."""

    content: bytes
    media_type: str
    etag: str


class Assets(NamedTuple):
    """All of them."""

    digest: str
    by_path: dict[str, Asset]
    """Without the document."""
    document: bytes

    def document_at(self, prefix: str) -> Asset:
        """Return the document as it is sent by a server whose paths begin with this prefix."""
        content = self.document.replace(_PLACE.encode(), f"{prefix}/static/{self.digest}".encode())
        return _asset(DOCUMENT, content)


@cache
def load_assets() -> Assets:
    """Read the files, once."""
    found = dict(sorted(_walk(files("taskd_dashboard") / "static", "")))
    whole = hashlib.sha256()
    for path, content in found.items():
        whole.update(path.encode() + b"\0" + hashlib.sha256(content).digest())
    document = found.pop(DOCUMENT)
    by_path = {path: _asset(path, content) for path, content in found.items()}
    return Assets(whole.hexdigest()[:_DIGEST_CHARS], by_path, document)


def _walk(folder: Traversable, inside: str) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        path = inside + entry.name
        if entry.is_dir():
            yield from _walk(entry, f"{path}/")
        elif path.rpartition(".")[2] in _TYPES:
            content = entry.read_bytes()
            yield path, content if path.startswith(_OTHERS) else _lightened(path, content)


def _lightened(path: str, content: bytes) -> bytes:
    content = _LIGHTENED.sub(b"", content)
    return _LIGHTENED_CSS.sub(rb"\1", content) if path.endswith(".css") else content


def _asset(path: str, content: bytes) -> Asset:
    etag = f'"{hashlib.sha256(content).hexdigest()[:_DIGEST_CHARS]}"'
    return Asset(content, _TYPES[path.rpartition(".")[2]], etag)
