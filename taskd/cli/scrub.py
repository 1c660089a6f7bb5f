"""Scrubbing: what a stranger may read of a text, a document or a line of a log.

Invariants:
- Of what taskd writes, what is known to be harmless is kept; everything else is replaced. A payload, a result, an
  exception's message and what user code prints are never known to be harmless.
- Secrets that this machine knows are replaced wherever they stand, whatever they look like.

Knows no files and no server.
"""

import json
import re
from collections.abc import Iterable
from typing import Final, cast

from taskd.server.logs import SECRETS
from taskd.text import Json

SECRET: Final = "[secret]"  # noqa: S105 - what stands in place of one
TEXT: Final = "[text]"
"""In place of what may be anything."""
OTHER: Final = "[a line that is none of taskd's]"

SECRET_NAME: Final = re.compile(
    r"pass|pwd|secret|token|credential|auth|cookie|session|signature|private|dsn|(?:api|access|account|encryption).?key"
    r"|_key$|^key$|taskd_url|database_url|redis_url|broker",
    re.IGNORECASE,
)
"""What holds a secret is often called so."""

_PEM: Final = re.compile(r"-----BEGIN [^-]{1,64}-----.*?(?:-----END [^-]{1,64}-----|\Z)", re.DOTALL)
_URL: Final = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]{0,31}://)([^\s\"'<>\\]+)")
_HOST: Final = re.compile(r"(?:.*@)?(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?(.*)", re.DOTALL)
_NAMED: Final = re.compile(
    r"([\w.-]*(?:pass(?:word|wd|phrase)?|pwd|secret|token|api.?key|access.?key|private.?key|credentials?|authorization"
    r"|cookie|session.?id|signature|dsn)[\w.-]*[\"']?\s*[=:]\s*)(\"[^\"]*\"|'[^']*'|(?:bearer|basic|digest)\s+\S+|\S+)",
    re.IGNORECASE,
)
_SHOWN: Final = re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9+/=._~-]{6,}", re.IGNORECASE)
_OPAQUE: Final = re.compile(r"[A-Za-z0-9+=]{16,}")
"""Longer than what stands between the dashes of a task's id."""
_DIGIT_AND_LETTER: Final = re.compile(r"(?=.*\d)(?=.*[A-Za-z])")

_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
_PEOPLE: Final = re.compile(r"(\d{4}-\d\d-\d\dT[0-9:.]+Z) \[(\w+)\s*\] (.*)")
_FIELD: Final = re.compile(r"(?:^|\s)(\w+)=('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|\S+)")
_FRAME: Final = re.compile(
    r"(?:[\s|+-]*)(?:File \"[^\"]*\", line \d+(?:, in [\w<>.]+)?|Traceback \(most recent call last\):)"
)
_RAISED: Final = re.compile(r"([\s|+-]*[A-Za-z_][\w.]*)(?:: .*)?")

_PLAIN: Final = frozenset(
    {
        "address",
        "agent",
        "attempt",
        "code",
        "data_dir",
        "id",
        "kind",
        "level",
        "module",
        "name",
        "names",
        "node",
        "path",
    }
    | {"peer", "queue", "schedule", "server", "state", "task", "timestamp", "workflow"}
)
"""Fields of a log line that hold names and ids."""
_OUR_EVENT: Final = re.compile(r"[a-z]+(?:[_ ][a-z]+){0,7}")
"""Fixed words, of which nothing is put in."""
_OUR_REASONS: Final = frozenset(
    {"backup_failed", "connection_refused", "loss_not_noted", "record cannot be read", "server_away"}
)
"""Events whose ``reason`` taskd wrote itself: that of others may repeat what user code said."""


class Scrubber:
    """Takes out what nobody else should see."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """Prepare.

        Args:
            secrets: That this machine knows; the empty and the very short are passed over.
        """
        known = sorted({secret for secret in secrets if len(secret) >= _SECRET_CHARS_MIN}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def text(self, text: str) -> str:
        """Return a text that taskd made, without secrets; of URLs, scheme and host are left."""
        if self._known is not None:
            text = self._known.sub(SECRET, text)
        text = _PEM.sub(SECRET, text)
        text = SECRETS.sub(lambda found: f"{found[1] or found[2]}{SECRET}", text)
        text = _URL.sub(_bare_url, text)
        text = _NAMED.sub(rf"\1{SECRET}", text)
        text = _SHOWN.sub(rf"\1 {SECRET}", text)
        return _OPAQUE.sub(_if_a_word, text)

    def document(self, document: Json) -> Json:
        """Return a document with every text in it scrubbed."""
        match document:
            case str():
                return self.text(document)
            case dict():
                return {self.text(name): self.document(value) for name, value in document.items()}
            case list() | tuple():
                return [self.document(value) for value in document]
            case _:
                return document

    def log(self, text: str) -> str:
        """Return a log: taskd's own lines in either form, where tracebacks went, and nothing of other lines."""
        return "\n".join(self._line(_COLOUR.sub("", line)) for line in text.splitlines()) + "\n"

    def _line(self, line: str) -> str:
        if line.startswith("{"):
            try:
                return self._json_line(line)
            except (ValueError, RecursionError):
                return OTHER
        found = _PEOPLE.fullmatch(line)
        if found is not None:
            return self._people_line(found)
        if (frame := _FRAME.match(line)) is not None:
            return self.text(frame[0])
        raised = _RAISED.fullmatch(line)
        if raised is not None and raised[1].rpartition(".")[2].endswith(("Error", "Exception", "Group", "Cancelled")):
            return self.text(raised[1])
        return OTHER if line.strip() else ""

    def _json_line(self, line: str) -> str:
        fields = cast("object", json.loads(line))
        if not isinstance(fields, dict) or not isinstance(fields.get("event"), str):
            return OTHER
        event: str = fields["event"]
        kept = {name: self._field(event, name, value) for name, value in fields.items() if name != "event"}
        if "exception" in fields:
            kept["exception"] = self.log(str(fields["exception"]))
        return json.dumps({"event": self._event(event, fields), **kept})

    def _people_line(self, found: re.Match[str]) -> str:
        at, level, rest = found.groups()
        first = _FIELD.search(rest)
        event = (rest if first is None else rest[: first.start()]).rstrip()
        fields: dict[str, object] = {name: _unquoted(value) for name, value in _FIELD.findall(rest)}
        told = [f"{name}={self._field(event, name, value)}" for name, value in fields.items()]
        return " ".join([at, f"[{level}]", self._event(event, fields), *told])

    def _event(self, event: str, fields: dict[str, object]) -> str:
        """Return what happened, said as taskd does; a line of a library, which has a ``logger``, may say anything."""
        ours = "logger" not in fields and (event in _OUR_REASONS or _OUR_EVENT.fullmatch(event) is not None)
        return self.text(event) if ours else TEXT

    def _field(self, event: str, name: str, value: object) -> Json:
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, str) and _NUMBER.fullmatch(value):
            return value
        if name in _PLAIN or name == "logger" or (name == "reason" and event in _OUR_REASONS):
            return self.text(str(value))
        return TEXT


_SECRET_CHARS_MIN: Final = 6
_NUMBER: Final = re.compile(r"-?\d{1,19}(?:\.\d{1,9})?|True|False|None")


def _bare_url(found: re.Match[str]) -> str:
    parts = _HOST.fullmatch(found[2])
    if parts is None:
        return f"{found[1]}{SECRET}"
    rest = f"/{SECRET}" if parts[3].strip("/.,;:)") else ""
    return f"{found[1]}{parts[1]}{parts[2] or ''}{rest}"


def _if_a_word(found: re.Match[str]) -> str:
    return SECRET if _DIGIT_AND_LETTER.match(found[0]) else found[0]


def _unquoted(value: str) -> str:
    return value[1:-1] if value[:1] in {"'", '"'} else value
