"""The Host header: only names that this server goes by are answered, on every path and method.

A page in a browser can make its own name point at this machine and so reach what listens on loopback
(DNS rebinding); the Host header still holds the page's name, and that gives it away.

Knows no paths and no tokens.
"""

from collections.abc import Iterable
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from taskd.http.errors import HostRefused, refusal

_WHY: Final = "this server does not go by that name; start it with --host-name to add one"


class HostAllowList:
    """Answers 400 to requests for other hosts."""

    def __init__(self, app: ASGIApp, hosts: Iterable[str]) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or refuse."""
        if scope["type"] == "lifespan" or self._allows(scope):
            await self._app(scope, receive, send)
        else:
            await refusal(HostRefused(_WHY))(scope, receive, send)

    def _allows(self, scope: Scope) -> bool:
        named = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        return len(named) == 1 and _without_port(named[0]) in self._hosts


def _without_port(host: str) -> str:
    """Return the name or address, in lower case, IPv6 without its brackets."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".")
