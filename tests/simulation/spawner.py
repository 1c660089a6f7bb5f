"""Workers and commands of one agent, played: they run bodies on virtual time, and die as processes do.

They are processes of their own: an agent that is stopped does not stop them; one that is killed does.
"""

import math
import random
import signal
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

import msgspec
import trio

from simulation.bodies import ASYNC, BLOCKING, LATER_MS, Body, read_body
from simulation.broods import brood_of
from simulation.clock import MachineClock
from simulation.lives import outside
from taskd.agent import wire
from taskd.agent.platform import CommandPlan, CommandProcess, Exit, WorkerProcess
from taskd.agent.worker import calls
from taskd.agent.worker.verdict import Verdict
from taskd.client.family import AttemptWaiting, Family, Found
from taskd_protocol.errors import TaskCodes
from taskd_protocol.framing import FrameDecoder
from taskd_protocol.ids import parse_task_id
from taskd_protocol.payload import pack
from taskd_protocol.task import Failure, Grant

_TO_WORKER: msgspec.msgpack.Decoder[wire.ToWorker] = msgspec.msgpack.Decoder(wire.ToWorker)

START_SECONDS = 0.2
"""A worker imports its modules for up to so long."""


class Watch(Protocol):
    """Who is told of attempts, as somebody who stands beside the agent's machine sees them."""

    def began(self, task_id: bytes, attempt: int, token: int) -> None:
        """An attempt begins to run."""

    def given(self, task_id: bytes, inputs: list[bytes]) -> None:
        """An attempt of a workflow's task, which has just begun, has these inputs."""

    def found(self, task_id: bytes, node: bytes, found: Found) -> None:
        """An attempt of a task, which has just begun, has this of what it has spawned under that node."""

    def gone(self, token: int) -> None:
        """Nothing of an attempt runs any more."""


class Program:
    """One process.

    Attributes:
        is_over: It has ended.
        memory_bytes: What it holds.
    """

    def __init__(self, pid: int, watch: Watch) -> None:
        self.pid = pid
        self.is_over = False
        self._watch = watch
        self.memory_bytes = 0
        self._attempts: set[int] = set()
        self._exit: Exit | None = None
        self._ended = trio.Event()
        self._scope = trio.CancelScope()

    async def run(self, main: Callable[[], Awaitable[None]]) -> None:
        """Be alive."""
        with self._scope:
            await main()
        if self._scope.cancelled_caught:  # by its deadline, if nobody ended it before
            self.exit(-signal.SIGKILL, ordered=True)

    def exit(self, code: int, *, ordered: bool = False) -> None:
        """End."""
        if not self.is_over:
            self.is_over = True
            self._exit = Exit(code, ordered)
            self._scope.cancel()
            self._ended.set()
            for token in sorted(self._attempts):
                self._end_attempt(token)

    def _begin_attempt(self, task_id: bytes, attempt: int, token: int) -> None:
        self._attempts.add(token)
        self._watch.began(task_id, attempt, token)

    def _end_attempt(self, token: int) -> None:
        if token in self._attempts:
            self._attempts.remove(token)
            self._watch.gone(token)

    async def wait(self) -> Exit:
        await self._ended.wait()
        assert self._exit is not None
        return self._exit

    def terminate(self) -> None:
        self.exit(-signal.SIGTERM)

    def kill(self) -> None:
        self.exit(-signal.SIGKILL, ordered=True)

    def live_until(self, mono_ms: int) -> None:
        self._scope.deadline = mono_ms / 1_000 or math.inf  # machines' monotonic clocks are trio's

    def limit_memory(self, memory_bytes: int) -> None:
        """Hold nothing: no body takes any."""

    def close(self) -> None:
        self.exit(-signal.SIGKILL, ordered=True)


class PlayedWorker(Program):
    """A worker: blocking bodies one after another, coroutines beside each other."""

    def __init__(self, pid: int, rng: random.Random, clock: MachineClock, watch: Watch) -> None:
        super().__init__(pid, watch)
        self._rng = rng
        self._clock = clock
        self._kind = ""
        self._frames = FrameDecoder(wire.FRAME_BYTES)
        self._out = bytearray()
        self._said = trio.Event()
        self._batches: deque[wire.Batch] = deque()
        self._given = trio.Event()
        self._running = 0
        self._recalled = 0
        self._cancelled = 0
        self._told = trio.Event()
        self._stops: dict[int, trio.Event] = {}

    def exit(self, code: int, *, ordered: bool = False) -> None:
        super().exit(code, ordered=ordered)
        self._said.set()

    # -- the agent's side ---------------------------------------------------------------

    def send(self, frames: bytes) -> None:
        for body in self._frames.feed(frames):
            match _TO_WORKER.decode(body):
                case wire.Setup(kind):
                    self._kind = kind
                case wire.Batch() as batch:
                    self._batches.append(batch)
                    self._given.set()
                case wire.Stop(tokens):
                    for token in tokens:
                        if token in self._stops:
                            self._stops[token].set()

    async def pump(self) -> None:
        await trio.sleep_forever()

    async def receive(self) -> bytes:
        while not self._out and not self.is_over:
            self._said = trio.Event()
            await self._said.wait()
        return self.receive_nowait()  # nothing: its end of the pipe is closed

    def receive_nowait(self) -> bytes:
        data = bytes(self._out)
        self._out.clear()
        return data

    def running(self) -> int:
        return self._running

    def recall(self, batch: int) -> None:
        self._recalled = batch

    def hang_up(self) -> None:
        self.exit(0)

    def cancel(self, token: int, place: int = 0) -> None:
        del place
        self._cancelled = token
        self._told.set()

    def hold_spawns(self, *, full: bool) -> None:
        assert not full, "no body spawns that much"

    def hold_output(self, *, full: bool) -> None:
        assert not full, "no body says that much"

    async def wait_printed(self, stream: int) -> None:
        del stream
        await trio.sleep_forever()

    def read_printed(self, stream: int) -> bytes:
        del stream
        return b""

    async def stacks(self) -> bytes:
        await trio.sleep(0.01)
        return b"stacks"

    # -- the worker's side --------------------------------------------------------------

    async def main(self) -> None:
        """Work until killed."""
        await trio.sleep(START_SECONDS * self._rng.random())
        self._say(wire.Ready(wire.VERSION, [wire.Known(BLOCKING, is_async=False), wire.Known(ASYNC, is_async=True)]))
        async with trio.open_nursery() as nursery:
            while True:
                while not self._batches:
                    self._given = trio.Event()
                    await self._given.wait()
                batch = self._batches.popleft()
                if self._kind == "process":
                    await self._run_in_turn(batch)
                else:
                    for grant in batch.grants:
                        self._stops[grant.token] = trio.Event()
                        nursery.start_soon(self._run_beside, grant, grant.token in batch.timed)

    async def _run_in_turn(self, batch: wire.Batch) -> None:
        for grant in batch.grants:
            self._running = grant.token
            if self._recalled >= batch.number:
                self._running = 0
                self._say(wire.Recalled(batch.number))
                return
            self._told = trio.Event()
            if self._cancelled == grant.token:
                self._told.set()
            await self._attempt(grant, self._told, timed=grant.token in batch.timed)
        self._running = 0

    async def _run_beside(self, grant: Grant, timed: bool) -> None:  # noqa: FBT001 - as a nursery starts it
        await self._attempt(grant, self._stops[grant.token], timed=timed)
        del self._stops[grant.token]

    async def _attempt(self, grant: Grant, told: trio.Event, *, timed: bool) -> None:
        began_s = trio.current_time()
        started_at_ms = self._clock.wall_ms()
        token = grant.token
        await self._be_alive()
        self._begin_attempt(grant.spec.id, grant.attempt, token)
        member = grant.spec.rules.member
        if member is not None:
            self._watch.given(grant.spec.id, [given.packed for given in member.inputs])
        if timed:
            self._say(wire.Started(token))
        body = read_body(grant.spec.payload)
        how = body.end_of(grant.attempt)
        self.memory_bytes += body.holds_mib << 20
        stopped = await self._run(grant, body, told, math.inf if how == "never" else body.run_ms / 1_000)
        await self._be_alive()
        family = Family(grant, wire.found_of(grant), lambda first, tasks: self._say(wire.Children(token, first, tasks)))
        waiting = None if stopped else await self._raise_brood(grant, body, family, told)
        await self._be_alive()
        stopped = stopped or (body.heeds and told.is_set())
        if how == "exit" and not stopped and waiting is None:
            self._running = token
            self.exit(self._rng.choice([1, -signal.SIGSEGV]))
            await trio.sleep_forever()
        self._end_attempt(token)
        self.memory_bytes -= body.holds_mib << 20
        run_us = (trio.current_time() - began_s) * 1e6
        end: bytes | Failure | calls.Thrown
        if stopped:
            end = Failure(TaskCodes.CANCELLED, "cancelled")
        elif waiting is not None:
            end = waiting
        elif how == "return":
            end = result_of(grant, body)
        else:
            failure = Failure(TaskCodes.RAISED, "no luck", "builtins.ValueError", "Traceback")
            end = calls.Thrown(failure, Verdict(how == "final", LATER_MS if how == "later" else None))
        end = calls.with_family(family, end)
        if isinstance(end, bytes):
            self._say(wire.Returned(token, end, started_at_ms, run_us))
        else:
            self._say(calls.bad_end(token, end, started_at_ms, run_us))

    async def _raise_brood(self, grant: Grant, body: Body, family: Family, told: trio.Event) -> calls.Thrown | None:
        """Spawn what the body spawns; return that the attempt ends to wait for it, if it does."""
        found = wire.found_of(grant)
        if grant.spawned is not None and found is not None:
            self._watch.found(grant.spec.id, grant.spawned.node, found)
        brood = brood_of(body.brood)
        for stage in brood.stages:
            for spec in stage:
                family.spawn(spec)
            await self._run(grant, body, told, brood.pause_s)
            if brood.waits and not grant.spec.rules.at_most_once:
                try:
                    family.wait(None, return_errors=True)
                except AttemptWaiting as error:
                    return calls.raised(error, None)
        return None

    async def _be_alive(self) -> None:
        """Go no step further if another coroutine has just taken the process down."""
        if self.is_over:
            await trio.sleep_forever()

    async def _run(self, grant: Grant, body: Body, told: trio.Event, seconds: float) -> bool:
        """Take the time that it takes, telling how far it has come; return whether it ended because it was told to."""
        end_s = trio.current_time() + seconds
        beats = 0
        while (left_s := end_s - trio.current_time()) > 0:
            pause_s = min(left_s, body.beat_ms / 1_000) if body.beat_ms else left_s
            if not body.heeds:
                with trio.move_on_after(pause_s):
                    await trio.sleep_forever()
            else:
                with trio.move_on_after(pause_s):
                    await told.wait()
                    return True
            if body.beat_ms:
                beats += 1
                self._say(wire.Beat(grant.token, pack([grant.attempt, beats])))
        return False

    def _say(self, message: wire.FromWorker) -> None:
        self._out += wire.encode(message)
        self._said.set()


class PlayedCommand(Program):
    """A command, which prints a little."""

    def __init__(self, pid: int, plan: CommandPlan, watch: Watch) -> None:
        super().__init__(pid, watch)
        self.live_until(plan.live_until_ms)
        self._run_ms, self._code, self._lines = map(int, plan.argv[1:])
        task_id, attempt, token = [plan.environ[f"TASKD_{name}"] for name in ("TASK_ID", "ATTEMPT", "FENCING_TOKEN")]
        self._runs = parse_task_id(task_id), int(attempt), int(token)
        self._send, self._receive = trio.open_memory_channel[bytes](100)

    async def main(self) -> None:
        """Print, and end."""
        self._begin_attempt(*self._runs)
        for number in range(self._lines):
            await trio.sleep(self._run_ms / 1_000 / (self._lines + 1))
            self._send.send_nowait(b"line %d\n" % number)
        await trio.sleep(self._run_ms / 1_000 / (self._lines + 1))
        self.exit(self._code)

    def exit(self, code: int, *, ordered: bool = False) -> None:
        super().exit(code, ordered=ordered)
        self._send.close()

    async def read(self, stream: int) -> bytes:
        if stream == 1:
            try:
                return await self._receive.receive()
            except trio.EndOfChannel:
                pass
        return b""


class PlayedSpawner:
    """Starts the processes of one life of an agent."""

    def __init__(self, nursery: trio.Nursery, rng: random.Random, clock: MachineClock, watch: Watch) -> None:
        self._nursery = nursery
        self._rng = rng
        self._clock = clock
        self._watch = watch
        self._programs: list[Program] = []

    async def worker(self) -> WorkerProcess:
        """See ``Spawner``."""
        await trio.lowlevel.checkpoint()
        worker = PlayedWorker(self._pid(), self._rng, self._clock, self._watch)
        self._start(worker, worker.main)
        return worker

    async def command(self, plan: CommandPlan) -> CommandProcess:
        """See ``Spawner``."""
        await trio.lowlevel.checkpoint()
        command = PlayedCommand(self._pid(), plan, self._watch)
        self._start(command, command.main)
        return command

    def kill_all(self) -> None:
        """The agent is gone: whatever watched over its processes kills them."""
        for program in self._programs:
            program.exit(-signal.SIGKILL)

    def memory_of(self, pid: int, _enough: int) -> int:
        """Return what a process holds."""
        return sum([program.memory_bytes for program in self._programs if program.pid == pid and not program.is_over])

    def kill_one(self) -> bool:
        """Kill a worker, as the kernel does when memory is short; return whether there was one."""
        alive = [program for program in self._programs if not program.is_over and isinstance(program, PlayedWorker)]
        if alive:
            self._rng.choice(alive).exit(-signal.SIGKILL)
        return bool(alive)

    def _start(self, program: Program, main: Callable[[], Awaitable[None]]) -> None:
        self._programs = [other for other in self._programs if not other.is_over]
        self._programs.append(program)
        outside(partial(self._nursery.start_soon, program.run, main))

    def _pid(self) -> int:
        return self._rng.randrange(2, 1 << 20)


def result_of(grant: Grant, body: Body) -> bytes:
    """Return what an attempt returns: it tells of itself, unless it is to give something else."""
    if body.gives.isdigit():
        return pack([grant.token, *range(grant.token, grant.token + 10)][: int(body.gives)])
    if body.gives:
        return pack(body.gives[grant.token % len(body.gives)])
    return pack([grant.attempt, grant.token, bytes(body.result_bytes)])
