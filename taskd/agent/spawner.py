"""Starting real processes: the warden, and through it a runner for each worker and command."""

import array
import contextlib
import fcntl
import mmap
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

import trio

from taskd.agent import warden, wire
from taskd.agent.cells import Cells, open_cells
from taskd.agent.cgroup import Cgroups
from taskd.agent.kin import Kin
from taskd.agent.platform import CommandPlan
from taskd.agent.processes import STREAMS, Command, Runner, Worker
from taskd_protocol.errors import ConfigInvalid

PIPE_BYTES: Final = 512 * 1024
"""Asked of the kernel for a worker's pipes: a worker need not wait while the agent is busy."""

OUTPUT_BYTES: Final = 256 * 1024
"""The same of those that attempts print to."""

_F_SETPIPE_SZ: Final = 1031
_GOODBYE_S: Final = 5.0
"""How long the warden may take to see its last runner end, when the agent goes in good order."""


class RealSpawner:
    """Starts processes; see ``Spawner``.

    Attributes:
        kin: All that live.
    """

    def __init__(self, worker_argv: Sequence[str], cells: Cells | None = None) -> None:
        """Prepare.

        Args:
            worker_argv: The interpreter, and what makes it a worker.
            cells: Makes a control group for each process; None: there are none.
        """
        self.kin: Final = Kin()
        self.cells: Final = cells
        self._worker_argv = worker_argv
        self._warden: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None
        self._asking = trio.Lock()

    async def worker(self) -> Worker:
        """Start a worker.

        Raises:
            ConfigInvalid: The interpreter cannot be started.
        """
        with contextlib.ExitStack() as inherited, contextlib.ExitStack() as kept:
            its_input, to_worker = _pipe(inherited, kept)
            from_worker, its_output = _pipe(kept, inherited)
            memory = _closing(inherited, os.memfd_create("taskd-worker"))
            os.ftruncate(memory, wire.PAGE_BYTES)
            page = memoryview(mmap.mmap(memory, wire.PAGE_BYTES)).cast("Q")
            # A file and not a pipe: a worker that shows its stacks must not wait for us.
            stacks = _closing(kept, os.memfd_create("taskd-stacks"))
            fcntl.fcntl(stacks, fcntl.F_SETFL, os.O_APPEND)
            os.set_blocking(to_worker, False)
            os.set_blocking(from_worker, False)
            outputs = [_pipe(kept, inherited, pipe_bytes=OUTPUT_BYTES) for _ in STREAMS]
            for output, _ in outputs:
                os.set_blocking(output, False)
            devnull = _closing(inherited, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
            its_fds = [its_input, its_output, memory, stacks, *[its_end for _, its_end in outputs]]
            control = await self._runner([devnull, 2, 2, *its_fds])
            worker = Worker(
                control, to_worker, from_worker, page, stacks=stacks, outputs=[output for output, _ in outputs]
            )
            kept.pop_all()  # it closes them
            try:
                await self._start(worker, self._worker_argv, os.environ, None, inherit=len(its_fds))
            except OSError as error:
                worker.close()
                raise ConfigInvalid(
                    f"the Python for workers, {self._worker_argv[0]!r}, cannot be started ({error.strerror or error}):"
                    " name another with --python"
                ) from None
            except BaseException:
                worker.close()
                raise
        return worker

    async def command(self, plan: CommandPlan) -> Command:
        """Start a command.

        Raises:
            OSError: The system refused.
        """
        with contextlib.ExitStack() as inherited, contextlib.ExitStack() as kept:
            stdout, its_stdout = _pipe(kept, inherited, pipe_bytes=0)
            stderr, its_stderr = _pipe(kept, inherited, pipe_bytes=0)
            devnull = _closing(inherited, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
            os.set_blocking(stdout, False)
            os.set_blocking(stderr, False)
            command = Command(await self._runner([devnull, its_stdout, its_stderr]), stdout, stderr)
            kept.pop_all()  # it closes them
            try:
                environ = {**os.environ, **plan.environ}
                live_until_ms, cpus = plan.live_until_ms, plan.cpus
                await self._start(
                    command,
                    plan.argv,
                    environ,
                    plan.cwd,
                    live_until_ms=live_until_ms,
                    cpus=cpus,
                    memory_bytes=plan.memory_bytes,
                )
            except BaseException:
                command.close()
                raise
        return command

    def close(self) -> None:
        """Hang up: every runner that is left kills what it watches over; return when the last has ended."""
        self.kin.close()
        if self._link is not None:
            self._link.close()
        if self._warden is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):  # what the kernel does not let die stays its child
                self._warden.wait(_GOODBYE_S)
        if self.cells is not None:
            self.cells.close()

    async def _runner(self, fds: Sequence[int]) -> socket.socket:
        """Have a runner forked that holds these descriptors; return our end of its control socket."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)  # noqa: FBT003 - the socket module's own shape
        with theirs:
            try:
                async with self._asking:
                    await self._send([theirs.fileno(), *fds])
            except BaseException:
                ours.close()
                raise
        return ours

    async def _send(self, fds: Sequence[int]) -> None:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        for _ in range(2):  # a warden that somebody killed is replaced, once
            link = self._link or self._start_warden()
            try:
                while True:
                    try:
                        link.sendmsg([b"r"], ancillary)
                    except BlockingIOError:
                        await trio.lowlevel.wait_writable(link)
                    else:
                        return
            except ConnectionError:
                link.close()
                self._link = None
        raise ConfigInvalid("the process that starts workers ends at once; see what it says on standard error")

    def _start_warden(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            fd = theirs.fileno()
            self._warden = subprocess.Popen(  # noqa: S603 - this very program
                [*_warden_argv(), str(fd)],
                stdin=subprocess.DEVNULL,
                pass_fds=[fd],
                start_new_session=True,  # Ctrl-C is for the agent
            )
        ours.setblocking(False)  # noqa: FBT003 - the socket module's own shape
        self._link = ours
        self.kin.others[1:] = [self._warden.pid]
        return ours

    async def _start(
        self,
        runner: Runner,
        argv: Sequence[str],
        environ: Mapping[str, str],
        cwd: str | None,
        *,
        inherit: int = 0,
        live_until_ms: int = 0,
        cpus: Sequence[int] = (),
        memory_bytes: int = 0,
    ) -> None:
        cell = runner.cell = None if self.cells is None else self.cells.make()
        runner.limit_memory(memory_bytes)
        await runner.start(
            wire.Run(
                [os.fsencode(word) for word in argv],
                [(os.fsencode(name), os.fsencode(value)) for name, value in environ.items()],
                os.fsencode(cwd or ""),
                inherit,
                live_until_ms,
                list(cpus),
                b"" if cell is None else os.fsencode(cell.path),
            )
        )
        self.kin.add(runner.pid)
        runner.gone = self.kin.discard


@contextlib.asynccontextmanager
async def open_spawner(worker_argv: Sequence[str]) -> AsyncIterator[RealSpawner]:
    """Start processes as long as this is open, in control groups where it can; at its end nothing is left of them."""
    spawner = RealSpawner(worker_argv, open_cells(Cgroups()))
    try:
        yield spawner
    finally:
        spawner.close()


def _warden_argv() -> list[str]:
    if getattr(sys, "frozen", False):
        return [sys.executable, warden.ARGUMENT]
    # -P: a module of the user's in this folder must not stand in for one of Python's own.
    return [sys.executable, "-P", "-m", "taskd.agent.warden"]


def _pipe(
    reader: contextlib.ExitStack, writer: contextlib.ExitStack, *, pipe_bytes: int = PIPE_BYTES
) -> tuple[int, int]:
    """Open a pipe, whose ends these will close, with as much room as the kernel allows us; 0: the usual."""
    ends = os.pipe2(os.O_CLOEXEC)
    if pipe_bytes:
        with contextlib.suppress(OSError):  # the user's share is spent: the usual size works as well, only slower
            fcntl.fcntl(ends[1], _F_SETPIPE_SZ, pipe_bytes)
    return _closing(reader, ends[0]), _closing(writer, ends[1])


def _closing(stack: contextlib.ExitStack, fd: int) -> int:
    stack.callback(os.close, fd)
    return fd
