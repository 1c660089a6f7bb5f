"""Telling the service manager: systemd's ``sd_notify`` protocol, one datagram for each word.

Invariants:
- Without a service manager, or with one that does not listen, every call does nothing.
- ``WATCHDOG=1`` comes from the server's own loop: it stops when the loop does, which is its point.

Knows nothing of what the server does.
"""

import contextlib
import os
import socket
from collections.abc import Mapping
from typing import Final

import trio

_MICROSECONDS: Final = 1_000_000
_STATUS_CHARS_MAX: Final = 200


class Notifier:
    """The way to the service manager.

    Attributes:
        watchdog_seconds: How often it wants a sign of life; 0: never.
    """

    def __init__(self, address: str, watchdog_seconds: float) -> None:
        self._address = address
        self.watchdog_seconds = watchdog_seconds

    def ready(self, status: str) -> None:
        """The server serves."""
        self._send(f"READY=1\nSTATUS={_one_line(status)}")

    def stopping(self) -> None:
        """The server goes down in good order."""
        self._send("STOPPING=1")

    async def keep_watchdog(self) -> None:
        """Give signs of life, twice as often as wanted, until cancelled; return at once when none are wanted."""
        while self.watchdog_seconds:
            self._send("WATCHDOG=1")
            await trio.sleep(self.watchdog_seconds / 2)

    def _send(self, text: str) -> None:
        if not self._address:
            return
        # Never blocks and never fails: a service manager is a guest here.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(text.encode(), socket.MSG_DONTWAIT, self._address)


def open_notifier(environ: Mapping[str, str], pid: int | None = None) -> Notifier:
    """Find the service manager.

    Args:
        environ: ``NOTIFY_SOCKET`` names its socket, a path or, with ``@`` in front, an abstract name;
            ``WATCHDOG_USEC`` and ``WATCHDOG_PID`` say how often it wants a sign of life, and from whom.
        pid: Of the process that will give it; None: this one.
    """
    name = environ.get("NOTIFY_SOCKET", "")
    if name.startswith("@"):
        address = "\0" + name[1:]
    elif name.startswith("/"):
        address = name
    else:  # none, or of a family that systemd uses for virtual machines
        return Notifier("", 0.0)
    wanted = environ.get("WATCHDOG_USEC", "")
    meant = environ.get("WATCHDOG_PID", "")
    ours = not meant or meant == str(os.getpid() if pid is None else pid)
    return Notifier(address, int(wanted) / _MICROSECONDS if ours and wanted.isdecimal() else 0.0)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_STATUS_CHARS_MAX]
