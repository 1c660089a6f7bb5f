"""Who asks: every way in which a request can show whose it is.

A way looks at a request and returns whose it is, None if the request does not go that way, and raises if it does and is
not good. They are tried in order; the first that knows decides. A way that a browser takes by itself, such as a cookie,
must see to it that a change comes from our own page.

Knows no paths.
"""

from collections.abc import Callable, Sequence
from typing import Final

from starlette.requests import Request

from taskd.server import tokens
from taskd.server.inner import Who, who_shows
from taskd.server.services import Services

Way = Callable[[Services, Request], Who | None]

_SCHEME: Final = "bearer"


def bearer(services: Services, request: Request) -> Who | None:
    """Look at ``Authorization: Bearer TOKEN``.

    Raises:
        TaskdError: There is a token, and it is not good.
    """
    shown = request.headers.getlist("authorization")
    if not shown:
        return None
    scheme, _, token = shown[0].partition(" ")
    if len(shown) > 1 or scheme.lower() != _SCHEME:
        raise tokens.refusal()
    return who_shows(services, token)


def who_asks(services: Services, request: Request, ways: Sequence[Way]) -> Who:
    """Return whose request it is.

    Raises:
        TaskdError: Nobody's that is known here.
    """
    for way in ways:
        who = way(services, request)
        if who is not None:
            return who
    raise tokens.refusal()
