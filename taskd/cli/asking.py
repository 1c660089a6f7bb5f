"""Asking the server over HTTP, for what only HTTP has."""

import http.client
import ssl
from typing import Final
from urllib.parse import urlsplit

import msgspec

from taskd.client.profile import Profile
from taskd_protocol.errors import AuthRefused, CannotConnect, ConfigInvalid

CONNECT_S: Final = 5.0

_OK: Final = 200


class _Link(msgspec.Struct):
    code: str


def ask_http(profile: Profile, method: str, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    """Return status and body of what the server answers.

    Raises:
        OSError: It cannot be reached.
        HTTPException: What answers is no HTTP.
    """
    parts = urlsplit(profile.http)
    host, port = parts.hostname or "", parts.port
    connection = http.client.HTTPConnection(host, port, timeout=CONNECT_S)
    if parts.scheme == "https":
        context = ssl.create_default_context(cadata=profile.ca_pem or None)
        connection = http.client.HTTPSConnection(host, port, timeout=CONNECT_S, context=context)
    try:
        connection.request(method, parts.path + path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def login_link(profile: Profile) -> str:
    """Return the dashboard's address with a code that logs in once, as whoever the profile's token is.

    The code stands behind ``#``: a browser sends that to nobody, so that it is in no log.

    Raises:
        TaskdError: The server refuses, cannot be reached, or serves no page.
    """
    if not profile.http:
        raise ConfigInvalid("where this server answers HTTP is not known here; look at what it printed at its start")
    try:
        status, body = ask_http(profile, "POST", "/login/link", {"authorization": f"Bearer {profile.token}"})
    except (OSError, http.client.HTTPException) as error:
        raise CannotConnect(f"{profile.http} does not answer: {error}") from None
    if status != _OK:
        raise AuthRefused(f"{profile.http} answers {status}: it makes no login link for this token")
    return f"{profile.http}/login#{msgspec.json.decode(body, type=_Link).code}"
