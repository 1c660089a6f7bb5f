"""Sessions: a cookie says which token has logged in, and the server's key says that it is true.

Invariants:
- The cookie holds no token, only the id of one: what may be done is asked of its record, request by request. A token
  that is revoked or expires ends its sessions; those that were logged out are named there, so that they stay so.
- It is signed with a key that the data directory keeps: an open page goes on after a restart of the server.
- Each login has a session id of its own. A session ends half an hour after its last use, half a day after its login.
- A one-time code opens one session, within some minutes, and is only kept as a hash.

Knows neither HTTP nor the clock: bytes of chance and instants are handed in.
"""

import base64
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

IDLE_MS: Final = 30 * 60 * 1000
LIFE_MS: Final = 12 * 3600 * 1000
CODE_MS: Final = 10 * 60 * 1000
"""How long a login link is good: long enough to go from one window to another."""

CODES_MAX: Final = 100
"""Unused at a time; the oldest gives way."""

_ID_BYTES: Final = 16
_CODE_BYTES: Final = 24
_PARTS: Final = 5
_COOKIE_CHARS_MAX: Final = 200


class Session(NamedTuple):
    """Someone who has logged in."""

    key_id: str
    """Of the token."""
    session_id: str
    opened_at_ms: int
    used_at_ms: int


class Sessions:
    """Opens and reads sessions."""

    def __init__(self, secret: bytes, random_bytes: Callable[[int], bytes]) -> None:
        """Use a key made of the server's secret, which has other uses."""
        self._key = hmac.digest(secret, b"taskd dashboard session", "sha256")
        self._random_bytes = random_bytes
        self._codes: OrderedDict[bytes, tuple[str, int]] = OrderedDict()

    @property
    def name(self) -> str:
        """Of this server's cookie: a browser keeps one jar for all ports of a machine."""
        return f"taskd-{hashlib.sha256(self._key).hexdigest()[:8]}"

    def open(self, key_id: str, now_ms: int) -> Session:
        """Begin a session of a token that was shown to be good."""
        return Session(key_id, _text(self._random_bytes(_ID_BYTES)), now_ms, now_ms)

    def write(self, session: Session, now_ms: int) -> str:
        """Return the cookie of a session that is used now."""
        body = f"{session.key_id}.{session.session_id}.{session.opened_at_ms}.{now_ms}"
        return f"{body}.{self._mac(body)}"

    def read(self, cookie: str, now_ms: int) -> Session | None:
        """Return whose cookie it is; None: nobody's, or no longer."""
        parts = cookie.split(".") if len(cookie) <= _COOKIE_CHARS_MAX and cookie.isascii() else []
        if len(parts) != _PARTS or not hmac.compare_digest(self._mac(cookie.rpartition(".")[0]), parts[-1]):
            return None
        session = Session(parts[0], parts[1], int(parts[2]), int(parts[3]))
        idle_ms, lived_ms = now_ms - session.used_at_ms, now_ms - session.opened_at_ms
        return None if idle_ms >= IDLE_MS or lived_ms >= LIFE_MS else session

    def csrf(self, session: Session) -> str:
        """Return what the page says with each change, and no other site's page can know."""
        return self._mac(f"csrf.{session.session_id}")

    def is_csrf(self, session: Session, said: str) -> bool:
        """Tell whether that is what this session's page says."""
        return hmac.compare_digest(self.csrf(session).encode(), said.encode())

    def make_code(self, key_id: str, now_ms: int) -> str:
        """Return a code that opens one session of this token."""
        code = _text(self._random_bytes(_CODE_BYTES))
        self._codes[_sha256(code)] = key_id, now_ms + CODE_MS
        if len(self._codes) > CODES_MAX:
            self._codes.popitem(last=False)
        return code

    def use_code(self, code: str, now_ms: int) -> str | None:
        """Return the id of the token that a code stands for, once; None: it is not good."""
        key_id, until_ms = self._codes.pop(_sha256(code), ("", 0))
        return key_id if now_ms < until_ms else None

    def _mac(self, text: str) -> str:
        return _text(hmac.digest(self._key, text.encode(), "sha256"))


def _sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
