"""The service manager: told in its own words, and never waited for."""

import os
import socket
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from taskd.server.notify import open_notifier


def manager(address: str) -> socket.socket:
    """Listen as systemd does."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(address)
    sock.settimeout(5)
    return sock


@pytest.mark.parametrize("abstract", [False, True])
def test_ready_and_stopping_are_told(tmp_path: Path, *, abstract: bool) -> None:
    """Over a path and over an abstract name; a status is one line whatever stands in it."""
    name = f"@taskd-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with manager(name.replace("@", "\0")) as sock:
        notifier = open_notifier({"NOTIFY_SOCKET": name})
        notifier.ready("serving\nREADY=0")
        assert sock.recv(1000) == b"READY=1\nSTATUS=serving READY=0"
        notifier.stopping()
        assert sock.recv(1000) == b"STOPPING=1"


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:3"}])
async def test_without_a_manager_nothing_happens(environ: dict[str, str]) -> None:
    """Nor is a watchdog kept for one that cannot hear it."""
    notifier = open_notifier({**environ, "WATCHDOG_USEC": "1000000"})
    notifier.ready("x")
    await notifier.keep_watchdog()


def test_a_manager_that_is_gone_or_deaf_is_not_waited_for(tmp_path: Path) -> None:
    """No error, and no blocking on a full socket."""
    open_notifier({"NOTIFY_SOCKET": str(tmp_path / "none")}).ready("x")
    path = str(tmp_path / "deaf")
    with manager(path):
        notifier = open_notifier({"NOTIFY_SOCKET": path})
        for _ in range(5000):
            notifier.stopping()


async def test_the_watchdog_is_fed_twice_as_often_as_wanted(tmp_path: Path, autojump_clock: MockClock) -> None:
    """From the server's own loop."""
    del autojump_clock
    path = str(tmp_path / "notify")
    with manager(path) as sock:
        sock.settimeout(0)
        environ = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "77"}
        with trio.move_on_after(9):
            await open_notifier(environ, pid=77).keep_watchdog()
        assert [sock.recv(100) for _ in range(5)] == [b"WATCHDOG=1"] * 5
        with pytest.raises(BlockingIOError):
            sock.recv(100)
        assert open_notifier(environ, pid=78).watchdog_seconds == 0
