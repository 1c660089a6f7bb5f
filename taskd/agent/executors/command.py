"""Commands: argv lists, each in a session of its own, with its output kept as the task's log.

The slot is free when the command and all that came from it are gone; its report
follows its output, which may take longer.
"""

from collections.abc import Callable, Iterable

import trio

from taskd.agent.core import AgentCore, Kill
from taskd.agent.crew import gpus_of
from taskd.agent.executors.crash import signal_name
from taskd.agent.executors.seat import TERM_S
from taskd.agent.gpus import visible_to
from taskd.agent.limits import How
from taskd.agent.platform import CommandPlan, CommandProcess, Platform
from taskd.client.resources import in_json
from taskd_protocol.command import CommandCall, read_command
from taskd_protocol.errors import PayloadUnpackable, TaskCodes
from taskd_protocol.ids import format_task_id
from taskd_protocol.limits import LOG_DATA_BYTES_MAX
from taskd_protocol.payload import pack
from taskd_protocol.task import Failure, Grant

GATHER_S = 0.05
"""Output of so long becomes one piece, unless it fills one sooner."""

STREAMS = (1, 2)


class _Running:
    """One command under way."""

    def __init__(self, grant: Grant) -> None:
        self.grant = grant
        self.process: CommandProcess | None = None
        self.ended = trio.Event()
        self.peak_bytes = 0


class CommandExecutor:
    """The pool of commands."""

    def __init__(self, platform: Platform, core: AgentCore, pool: int, *, ring: Callable[[], None]) -> None:
        """Prepare.

        Args:
            platform: Starts the commands.
            core: Holds the leases.
            pool: The pool's index.
            ring: To be called when there is something to tell the server.
        """
        self._platform = platform
        self._core = core
        self._pool = pool
        self._slots = core.pools[pool]
        self._ring = ring
        self._running: dict[int, _Running] = {}
        self._unmarked: dict[int, Grant] = {}  # to be started when that is marked
        self._nursery: trio.Nursery | None = None
        self._closed = trio.Event()
        self._room = trio.Event()
        self._stopping = False

    # -- for the agent ------------------------------------------------------------------

    async def run(self) -> None:
        """See ``Executor``."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self.wake()
            await self._closed.wait()

    def wake(self) -> None:
        """See ``Executor``."""
        if not self._core.streams.is_full:
            self._room.set()
        if self._nursery is None or not (self._slots.waiting or self._unmarked):
            return
        for token, marked in list(self._unmarked.items()):
            if self._core.may_start(marked, self._platform.clock.mono_ns):
                del self._unmarked[token]
                self._start(marked)
        while len(self._running) + len(self._unmarked) < self._slots.count and (grant := self._next()):
            if self._core.may_start(grant, self._platform.clock.mono_ns):
                self._start(grant)
            else:
                self._unmarked[grant.token] = grant
                self._ring()

    def _next(self) -> Grant | None:
        """Return the lease that is to start next."""
        begun = [*(running.grant for running in self._running.values()), *self._unmarked.values()]
        return self._slots.take(sum([grant.granted is None for grant in begun]))

    def _start(self, grant: Grant) -> None:
        assert self._nursery is not None
        self._running[grant.token] = running = _Running(grant)
        self._nursery.start_soon(self._run, grant, running)

    def end(self, kill: Kill) -> None:
        """See ``Executor``. To a command, to be told is TERM."""
        for token in kill.tokens:
            running, waiting = self._running.get(token), self._unmarked.pop(token, None)
            if waiting is not None:
                self._core.unstarted(self._pool, waiting)
            elif running is None:
                self._core.dropped(self._pool, token)
            elif running.process is not None:
                assert self._nursery is not None
                if kill.how is How.TELL:
                    running.process.terminate()
                elif kill.how is How.KILL:
                    running.process.kill()
                else:
                    self._nursery.start_soon(self._end, running.process, running.ended)

    def alone(self) -> Iterable[tuple[int, int]]:
        """See ``Executor``."""
        for token, running in self._running.items():
            if running.grant.granted is not None and running.process is not None and not running.ended.is_set():
                yield token, running.process.pid

    def keep(self) -> None:
        """See ``Executor``."""
        for running in self._running.values():
            if running.process is not None:
                running.process.live_until(self._core.live_until([running.grant]))

    async def recall(self) -> None:
        """See ``Executor``."""
        for grant in self._unmarked.values():
            self._core.unstarted(self._pool, grant)
        self._unmarked.clear()

    def stop(self) -> None:
        """See ``Executor``."""
        self._stopping = True
        for running in self._running.values():
            if running.process is not None:
                running.process.kill()

    def close(self) -> None:
        """See ``Executor``."""
        self._closed.set()

    # -- one command --------------------------------------------------------------------

    async def _run(self, grant: Grant, running: _Running) -> None:
        clock = self._platform.clock
        start_ns = clock.mono_ns()
        started_at_ms = clock.wall_ms() + self._core.clock_ahead_ms
        end = await self._attempt(grant, running)
        running.ended.set()
        del self._running[grant.token]
        if self._stopping and isinstance(end, Failure) and not self._core.is_ordered(grant.token):
            self._core.stopped(self._pool, grant)
        else:
            run_us = (clock.mono_ns() - start_ns) / 1_000
            self._core.ended_with_output(self._pool, grant, end, started_at_ms, run_us, peak_bytes=running.peak_bytes)
        self.wake()
        self._ring()

    async def _attempt(self, grant: Grant, running: _Running) -> bytes | Failure:
        try:
            call = read_command(grant.spec.payload, _inputs(grant))
        except PayloadUnpackable as error:
            return Failure(TaskCodes.ARGUMENTS_UNREADABLE, error.message)
        oom_kills = self._platform.oom_kills()
        try:
            process = await self._platform.spawner.command(self._plan(grant, call))
        except OSError as error:
            message = f"{call.argv[0]!r} could not be started: {error.strerror or error}"
            return Failure(TaskCodes.COMMAND_NOT_STARTED, message)
        try:
            running.process = process
            self._core.started(grant.token)
            if self._core.is_ordered(grant.token) or self._stopping:
                process.kill()  # ordered while it was being started
            async with trio.open_nursery() as nursery:
                for stream in STREAMS:
                    nursery.start_soon(self._gather, grant, running, process, stream)
                how = await process.wait()
                running.peak_bytes = how.peak_bytes
                running.ended.set()
                self._room.set()
        finally:
            process.close()
        if how.code == 0:
            return _SUCCESS
        if how.ordered and not self._stopping:
            self._core.outlived(grant)
        if how.code < 0 and self._platform.oom_kills() > oom_kills and not how.ordered:
            message = "the kernel killed the command because memory ran out"
            return Failure(TaskCodes.WORKER_OUT_OF_MEMORY, message, exit_code=how.code)
        message = f"exit code {how.code}" if how.code > 0 else f"{signal_name(-how.code)} ended the command"
        return Failure(TaskCodes.COMMAND_FAILED, message, exit_code=how.code)

    def _plan(self, grant: Grant, call: CommandCall) -> CommandPlan:
        granted = grant.granted
        gpus = gpus_of(grant)
        own = {
            "TASKD_TASK_ID": format_task_id(grant.spec.id),
            "TASKD_ATTEMPT": str(grant.attempt),
            "TASKD_FENCING_TOKEN": str(grant.token),
            **({} if granted is None else {"TASKD_RESOURCES": in_json(granted)}),
            **(visible_to(gpus) if gpus else {}),
        }
        return CommandPlan(
            argv=call.argv,
            environ={**(call.env or {}), **own},
            cwd=call.cwd,
            live_until_ms=self._core.live_until([grant]),
            cpus=self._core.share.pin(grant),
            memory_bytes=self._core.footprints.limit_of(grant.token) or 0,
        )

    async def _gather(self, grant: Grant, running: _Running, process: CommandProcess, stream: int) -> None:
        """Hand on one output until its end; while that is too much, in a time or altogether, let the command wait."""
        clock, streams = self._platform.clock, self._core.streams
        while True:
            # What a command that has ended left in its pipe is little, and nothing waits for its slot.
            while streams.is_full and not running.ended.is_set():
                if self._room.is_set():
                    self._room = trio.Event()
                await self._room.wait()
            if wait_s := streams.wait_s(grant.token, clock.mono_ns() // 1_000_000):
                with trio.move_on_after(wait_s):
                    await running.ended.wait()
            data = await process.read(stream)
            if not data:
                return
            self._core.said(grant, stream, data, clock.wall_ms(), clock.mono_ns() // 1_000_000, paced=True)
            self._ring()
            if len(data) < LOG_DATA_BYTES_MAX:
                with trio.move_on_after(GATHER_S):
                    await running.ended.wait()

    async def _end(self, process: CommandProcess, ended: trio.Event) -> None:
        process.terminate()
        with trio.move_on_after(TERM_S):
            await ended.wait()
        process.kill()


_SUCCESS = pack(0)


def _inputs(grant: Grant) -> list[bytes]:
    member = grant.spec.rules.member
    return [] if member is None else [given.packed for given in member.inputs]
