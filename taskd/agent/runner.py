"""A runner: the parent of one worker or command, and of everything that comes from it.

It starts the process in a session of its own, adopts whatever detaches itself
from it, and ends only when nothing of all this is left: an agent that hears
``Exited`` has the proof. It kills everything when it is told to, when the agent is
gone, when the process itself has ended, and when the time has come that the agent
set: an agent that is stopped sets no later one, and is still there.

Forked from the warden; runs no user code.
"""

import contextlib
import os
import select
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import msgspec

from taskd.agent import wire
from taskd.agent.clock import SystemClock
from taskd.agent.prctl import adopt_orphans, die_with_parent
from taskd_protocol.framing import FrameDecoder

KILL_AGAIN_MS = (5, 10, 20, 50, 100)
"""Pauses between two rounds of killing: a process that forks faster than it is killed is met again soon."""

BLAME_OOM_FIRST = b"500"
"""Added to the badness by which the kernel chooses whom to kill for memory: user code before the agent."""

_CLOCK = SystemClock()

_DECODER = msgspec.msgpack.Decoder(wire.ToRunner)


def main(fds: Sequence[int]) -> NoReturn:
    """Run one process to its end; ``fds`` are the control socket, standard streams, and what is inherited."""
    adopt_orphans()
    woken, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    control = socket.socket(fileno=fds[0])
    orders = _Orders(control)
    run = orders.wait_for_run()
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_bytes(BLAME_OOM_FIRST)
    try:
        process = _start(run, fds[1:4], fds[4:])
    except OSError as error:
        where = f": {os.fsdecode(run.cwd)}" if error.filename == run.cwd else ""
        orders.tell(wire.NotStarted(f"{error.strerror or error}{where}"))
        os._exit(0)
    for fd in fds[1:]:
        os.close(fd)
    orders.tell(wire.Launched(process.pid))
    code, peak_bytes = _watch(orders, process.pid, woken)
    orders.tell(wire.Exited(code, orders.killing, peak_bytes))
    os._exit(0)


def children() -> list[int]:
    """Return the processes whose parent this one is."""
    parents = _parents()
    me = os.getpid()
    return [child for child, parent in parents.items() if parent == me]


def kill_tree(root: int) -> None:
    """Send SIGKILL to a process and to all that descend from it, parents first."""
    parents = _parents()
    todo = [root]
    while todo:
        pid = todo.pop()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
        todo += [child for child, parent in parents.items() if parent == pid]


class _Orders:
    """The agent's side of the conversation.

    Attributes:
        killing: KILL was ordered, or the agent is gone, or has not been heard for too long.
        terminating: TERM was ordered and not yet passed on.
        showing: Stacks were asked for and the signal is not yet sent.
    """

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.killing = False
        self.terminating = False
        self.showing = False
        self.gone = False
        self._live_until_ms = 0
        self._frames = FrameDecoder(wire.FRAME_BYTES)

    def wait_for_run(self) -> wire.Run:
        """Block until it is known what to start; end if the agent is gone."""
        while True:
            for order in self._receive():
                if isinstance(order, wire.Run):
                    self._live_until_ms = order.live_until_ms
                    return order
            if self.gone:
                os._exit(0)

    def take(self) -> None:
        """Read orders that have come."""
        for order in self._receive():
            if isinstance(order, wire.Signal) and order.kill:
                self.killing = True
            elif isinstance(order, wire.Signal):
                self.terminating = True
            elif isinstance(order, wire.ShowStacks):
                self.showing = True
            elif isinstance(order, wire.LiveUntil):
                self._live_until_ms = order.mono_ms
        self.killing = self.killing or self.gone

    def left_ms(self) -> int | None:
        """Return how long there is to live without another word of the agent; None: as long as it is there."""
        if not self._live_until_ms:
            return None
        return max(0, self._live_until_ms - _CLOCK.mono_ns() // 1_000_000)

    def tell(self, message: wire.FromRunner) -> None:
        """Tell the agent, if it is there."""
        with contextlib.suppress(OSError):
            self.control.sendall(wire.encode(message))

    def _receive(self) -> list[wire.ToRunner]:
        try:
            data = self.control.recv(wire.READ_BYTES)
        except ConnectionError:
            data = b""
        self.gone = not data
        return [_DECODER.decode(body) for body in self._frames.feed(data)]


def _start(run: wire.Run, streams: Sequence[int], inherited: Sequence[int]) -> subprocess.Popen[bytes]:
    environ = dict(run.environ)
    if run.inherit:
        environ[wire.FDS_VARIABLE.encode()] = ",".join(map(str, inherited)).encode()
    return subprocess.Popen(  # noqa: S603 - an argv list, started as it was asked for
        run.argv,
        stdin=streams[0],
        stdout=streams[1],
        stderr=streams[2],
        pass_fds=inherited,
        env=environ,
        cwd=run.cwd or None,
        start_new_session=True,
        # There is one thread here, so that code between fork and exec is safe.
        preexec_fn=_before_exec(os.getpid(), run.cpus, run.cell),  # noqa: PLW1509
    )


def _before_exec(runner_pid: int, cpus: Sequence[int], cell: bytes) -> Callable[[], None]:
    def prepare() -> None:
        die_with_parent(runner_pid)
        if cell:
            with contextlib.suppress(OSError):  # it is looked at all the same
                Path(os.fsdecode(cell), "cgroup.procs").write_bytes(b"0")
        if cpus:
            os.sched_setaffinity(0, cpus)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)

    return prepare


def _watch(orders: _Orders, main_pid: int, woken: int) -> tuple[int, int]:
    """Return the process's exit code, and the most memory that was held, when nothing that came from it is left."""
    poll = select.poll()
    poll.register(orders.control, select.POLLIN)
    poll.register(woken, select.POLLIN)
    code: int | None = None
    peak_bytes = rounds = 0
    while True:
        # Children first: a SIGCHLD from before the wake-up descriptor was set has woken nobody.
        code, left, held = _reap(main_pid, code)
        peak_bytes = max(peak_bytes, held)
        if not left:
            assert code is not None
            return code, peak_bytes
        if code is None:
            _pass_on(orders, main_pid)
        timeout_ms = orders.left_ms()
        if orders.killing or code is not None:
            for pid in children():
                kill_tree(pid)
            timeout_ms = KILL_AGAIN_MS[min(rounds, len(KILL_AGAIN_MS) - 1)]
            rounds += 1
        ready = [fd for fd, _ in poll.poll(timeout_ms)]
        if woken in ready:
            swallow(woken)
        if orders.control.fileno() in ready:
            orders.take()
        if orders.gone and orders.control.fileno() in ready:
            poll.unregister(orders.control)
        if orders.left_ms() == 0:  # after what has come was read: it may have set another time
            orders.killing = True


def _pass_on(orders: _Orders, main_pid: int) -> None:
    """Send the process the signals that were asked for."""
    with contextlib.suppress(ProcessLookupError):
        if orders.terminating:
            orders.terminating = False
            os.killpg(main_pid, signal.SIGTERM)
        if orders.showing:
            orders.showing = False
            os.kill(main_pid, wire.STACKS_SIGNAL)


def _reap(main_pid: int, code: int | None) -> tuple[int | None, bool, int]:
    """Reap what has ended.

    Returns:
        The main process's exit code once it has, whether anything is left, and the most memory that one of them held.
    """
    peak_kib = 0
    while True:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return code, False, peak_kib * 1024
        if not pid:
            return code, True, peak_kib * 1024
        peak_kib = max(peak_kib, usage.ru_maxrss)
        if pid == main_pid:
            code = os.waitstatus_to_exitcode(status)


def swallow(fd: int) -> None:
    """Read away what is in a wake-up pipe."""
    with contextlib.suppress(BlockingIOError):
        os.read(fd, 4096)


def _parents() -> dict[int, int]:
    """Return every process's parent, as /proc tells it now."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                stat = (entry / "stat").read_bytes()
                parents[int(entry.name)] = int(stat[stat.rindex(b")") + 2 :].split(b" ", 2)[1])
    return parents
