"""The warden: a small process beside the agent that forks a runner for each process to be started.

It is small so that forking is cheap, has one thread so that forking is safe, and
outlives the agent by as long as it takes to see the last runner end. It adopts
what a runner that was itself killed leaves behind, and kills it.

Started as ``python -m taskd.agent.warden FD``; the frozen program runs itself as
``taskd __warden__ FD``. FD is a Unix stream socket: each byte asks for a runner and
comes with descriptors: the runner's control socket, then its process's standard
input, output and error, then what the process inherits beside those.
"""

import os
import select
import signal
import socket
import sys
from collections.abc import Sequence
from typing import NoReturn

from taskd.agent import runner
from taskd.agent.prctl import adopt_orphans

ARGUMENT = "__warden__"
"""First argument with which the frozen program becomes the warden."""

FDS_MAX = 16
"""Descriptors that come with one request."""


def main(arguments: Sequence[str]) -> NoReturn:
    """Serve until the agent's end of the socket is closed and every runner has ended."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # meant for the agent, which tells us what to end
    adopt_orphans()
    woken, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.signal(signal.SIGCHLD, _nothing)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    agent = socket.socket(fileno=int(arguments[0]))
    agent.set_inheritable(False)
    runners: set[int] = set()
    poll = select.poll()
    poll.register(agent, select.POLLIN)
    poll.register(woken, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == woken:
                runner.swallow(woken)
                _reap(runners)
            elif not _fork_runner(agent, runners, (woken, wake)):
                _wait_for_all(runners)
                sys.exit(0)


def _fork_runner(agent: socket.socket, runners: set[int], own_fds: Sequence[int]) -> bool:
    """Fork one runner, if one is asked for; return False when the agent is gone."""
    data, fds, _, _ = socket.recv_fds(agent, 1, FDS_MAX)
    if not data:
        return False
    pid = os.fork()
    if not pid:
        # The child never returns into this loop, whatever happens.
        try:
            signal.set_wakeup_fd(-1)
            agent.close()
            for fd in own_fds:
                os.close(fd)
            runner.main(fds)
        finally:
            os._exit(1)
    runners.add(pid)
    for fd in fds:
        os.close(fd)
    return True


def _reap(runners: set[int]) -> None:
    """Take note of runners that ended; kill what one that did not end in good order has left to us."""
    suspicious = False
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            break
        suspicious = suspicious or status != 0 or pid not in runners
        runners.discard(pid)
    if suspicious:  # else nothing is left: that is what a runner's exit code 0 says
        for pid in runner.children():
            if pid not in runners:
                runner.kill_tree(pid)


def _wait_for_all(runners: set[int]) -> None:
    """See the last one off: without the agent, each runner kills what it watches over."""
    while True:
        _reap(runners)
        try:
            pid, _ = os.waitpid(-1, 0)
        except ChildProcessError:
            return
        runners.discard(pid)


def _nothing(number: int, frame: object) -> None:
    """Have SIGCHLD noticed through the wake-up descriptor alone."""


if __name__ == "__main__":
    main(sys.argv[1:])
