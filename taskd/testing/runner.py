"""The one agent of a server within a test: runs what it is leased, in this process.

It is given work only while it is open. What it runs when it is closed, it runs to the end.
"""

import asyncio
import contextlib
import math
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextvars import Context
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

import trio
from msgspec import structs

from taskd.agent.inputs import Inputs, refers
from taskd.agent.worker import calls
from taskd.agent.worker.verdict import FINAL
from taskd.client.app import App
from taskd.core.agent_commands import AckAttempts, AddCredit, AppendLogs, KeepCheckpoints, NackAttempts, OfferAgent
from taskd.core.commands import Answer
from taskd.core.workflow_commands import SpawnTasks
from taskd.server.hub import Hub
from taskd.server.loop import CommitLoop
from taskd.testing.attempts import End, Signs, attempt, attempt_async, functions_of
from taskd_protocol.agent_messages import Lease, Revoke
from taskd_protocol.connection_messages import Error
from taskd_protocol.errors import TaskCodes, TaskdError
from taskd_protocol.limits import PROTOCOL_VERSION_MAX
from taskd_protocol.messages import Message
from taskd_protocol.streams import encode_line
from taskd_protocol.task import Failure, FailureReport, Grant, LogPiece, Outcome, Pool, Report
from taskd_protocol.workflow_messages import InputPage, InputQuery

if TYPE_CHECKING:
    from taskd.agent.worker.calls import Functions
    from taskd.client.ends import Awaited, Watch

Ask = Callable[[InputQuery], Awaitable[InputPage]]
"""Asks the server for an input; raises TaskdError where it refuses."""

NAME = "the-test"

STOP_S = 5.0
"""A coroutine that ignores its cancel is left behind after so long, with its thread."""


class Runner:
    """Runs attempts: plain functions in threads, ``async def`` on an event loop.

    Attributes:
        connection: See the hub's ``Peer``.
        key_id: Likewise.
        version: Likewise.
        running: Attempts by token, with what cancels each.
        waits: What attempts wait for that ask for other tasks' ends, by token; set by whoever waits.
    """

    key_id = ""
    version = PROTOCOL_VERSION_MAX

    def __init__(
        self,
        app: App,
        loop: CommitLoop,
        hub: Hub,
        nursery: trio.Nursery,
        *,
        ask: Ask,
        concurrency: int,
        event_loop: str,
    ) -> None:
        """Join the server.

        Args:
            app: Whose tasks it has, as they are when it is opened.
            loop: Decides.
            hub: Hands over leases.
            nursery: For attempts.
            ask: Gives the inputs of leases.
            concurrency: How many run at the same time.
            event_loop: For ``async def``: ``asyncio``, in a thread, or ``trio``, the server's own.
        """
        self.connection = hub.next_connection()
        self.running: dict[int, trio.CancelScope] = {}
        self.waits: dict[int, tuple[Watch, Sequence[Awaited]]] = {}
        self._app = app
        self._loop = loop
        self._nursery = nursery
        self._ask = ask
        self._concurrency = concurrency
        self._on_trio = event_loop == "trio"
        self._threads = trio.CapacityLimiter(math.inf)  # one left behind by a cancel must not hold up the next
        self._functions: Functions = {}
        self._off_clock: set[int] = set()  # attempts in threads, which take their own time
        self._changed = trio.Event()
        self._open = False
        self._asyncio = AsyncioThread()
        hub.join(self)

    # -- for who moves the clock --------------------------------------------------------------

    def open(self) -> None:
        """Take what can be run, as far as there is room."""
        self._open = True
        self._offer()
        room = self._concurrency - len(self.running)
        if room > 0:
            self._loop.ask(AddCredit(NAME, self.connection, 0, room))

    def close(self) -> None:
        """Take no more: an offer ends all credit."""
        self._open = False
        self._offer()

    @property
    def knows_all(self) -> bool:
        """No task was declared since the last offer."""
        return len(self._functions) == len(self._app.tasks)

    @property
    def busy(self) -> bool:
        """Something runs that takes its own time."""
        return any(not self._waits(token) for token in self._off_clock)

    @property
    def may_sleep(self) -> bool:
        """A coroutine runs here that may be waiting for the loop's clock."""
        return any(token not in self._off_clock and not self._waits(token) for token in self.running)

    async def until_changed(self) -> None:
        """Return when an attempt has ended, or begun to wait."""
        self._changed = trio.Event()
        await self._changed.wait()

    def changed(self) -> None:
        """Have it looked again at what runs."""
        self._changed.set()

    def _waits(self, token: int) -> bool:
        """Tell whether an attempt waits for another task's end, and that has not come."""
        watch, targets = self.waits.get(token, (None, ()))
        if watch is None or watch.arrived or watch.error is not None:
            return False
        return any(target.outcome is None for target in targets)

    def stop(self) -> None:
        """End the event loop of coroutines, if there is one."""
        self._asyncio.stop()

    def _offer(self) -> None:
        self._functions = functions_of(self._app)
        pool = Pool("process", self._concurrency, list(self._functions))
        self._loop.ask(
            OfferAgent(agent=NAME, boot_id=bytes(16), connection=self.connection, pools=[pool], queues=frozenset())
        )

    # -- for the hub --------------------------------------------------------------------------

    def send_in_turn(self, message: Message) -> None:
        """See ``Peer``: leases, and leases taken back."""
        match message:
            case Lease():
                for grant in message.grants:
                    self.running[grant.token] = trio.CancelScope()
                    self._nursery.start_soon(self._run, grant)
            case Revoke():
                for token in message.tokens:
                    if token in self.running:
                        self.running[token].cancel()
            case _:
                raise AssertionError(f"{type(message).__name__} is not for an agent")

    def tell_outcomes(self, outcomes: list[Outcome]) -> None:
        """See ``Peer``: it waits for none."""

    def tell_logs(self, task_id: bytes) -> None:
        """See ``Peer``: it follows none."""

    def end(self, why: TaskdError) -> None:
        """See ``Peer``."""
        raise why

    def end_in_turn(self, why: TaskdError) -> None:
        """See ``Peer``."""
        raise why

    # -- attempts -------------------------------------------------------------------------------

    async def _run(self, grant: Grant) -> None:
        started_at_ms = self._loop.now().wall_ms
        token, task_id, number = grant.token, grant.spec.id, grant.attempt
        signs, is_async = self._signs(grant), self._app.tasks[grant.spec.name].is_async
        scope = self.running[token]
        end: End | None = None
        limit, soft = time_limit(grant), soft_limit(grant)
        if is_async and soft.seconds < limit.seconds:
            limit = soft  # a coroutine is told by being cancelled
        scope.deadline = trio.current_time() + limit.seconds
        silence = silence_limit(grant)
        with (
            scope,
            _told_after(self._nursery, signs, soft.seconds),
            _ended_after_silence(self._nursery, signs, scope, silence.seconds) as stalled,
        ):
            end = await self._attempt(await _with_inputs(grant, self._ask), signs)
        if signs.told and not isinstance(end, bytes | None):
            end = soft.failure
        signs.told = signs.told or end is None  # what is left behind in a thread may look, and end
        if end is None and stalled.is_set():
            end = silence.failure
        elif end is None and trio.current_time() >= scope.deadline:
            end = limit.failure
        del self.running[token]
        self.waits.pop(token, None)
        self._off_clock.discard(token)
        self._changed.set()
        self._tell_said(grant, signs)
        if checkpoints := signs.checkpoints(grant):
            self._loop.ask(KeepCheckpoints(NAME, checkpoints))
        refusal = await self._spawn(token, signs)
        if refusal is not None and end is not None:
            end = calls.Thrown(refusal, FINAL)
        if isinstance(end, bytes):
            self._loop.ask(AckAttempts(NAME, [Report(token, task_id, number, end, started_at_ms)]))
        elif end is None:
            self._loop.ask(NackAttempts(NAME, [FailureReport(token, task_id, number, "cancelled")]))
        else:
            bad = calls.bad_end(token, end, started_at_ms, 0.0)
            outcome = "waiting" if bad.waits else "failed"
            report = FailureReport(
                token, task_id, number, outcome, bad.failure, started_at_ms, bad.final, bad.retry_after_ms
            )
            self._loop.ask(NackAttempts(NAME, [report]))
        if self._open:
            self._loop.ask(AddCredit(NAME, self.connection, 0, 1))

    def _signs(self, grant: Grant) -> Signs:
        signs = Signs()
        soon = trio.lowlevel.current_trio_token().run_sync_soon
        signs.spoke = lambda: _tell(soon, lambda: self._tell_said(grant, signs))
        return signs

    def _tell_said(self, grant: Grant, signs: Signs) -> None:
        """Have kept what an attempt has said."""
        pieces, at_ms = [], self._loop.now().wall_ms
        while signs.said:
            stream, line = signs.said.popleft()
            signs.pieces += 1
            data = encode_line(structs.replace(line, at_ms=at_ms))
            pieces.append(LogPiece(grant.token, grant.spec.id, stream, at_ms, data, signs.pieces))
        if pieces:
            self._loop.ask(AppendLogs(NAME, pieces))

    async def _spawn(self, token: int, signs: Signs) -> Failure | None:
        """Have made what an attempt has spawned; return why the server refused, None: it did not."""
        for first, tasks in signs.spawned:
            tell, told = trio.open_memory_channel[Answer | TaskdError](1)
            self._loop.ask(SpawnTasks(NAME, token, first, tasks), tell.send_nowait)
            answer = await told.receive()
            if isinstance(answer, TaskdError):
                return Failure(answer.code, f"what it has spawned was refused: {answer.message}")
        return None

    async def _attempt(self, grant: Grant | calls.Thrown, signs: Signs) -> End:
        if isinstance(grant, calls.Thrown):
            return grant
        task = self._app.tasks[grant.spec.name]
        if task.is_async and self._on_trio:
            return await attempt_async(self._functions, grant, signs, (trio.Cancelled,))
        self._off_clock.add(grant.token)
        if task.is_async:
            return await self._asyncio.run(partial(attempt_async, self._functions, grant, signs, ()))
        # A thread that a cancelled attempt has left behind comes to its end for nobody.
        call = partial(Context().run, attempt, self._functions, grant, signs)
        return await trio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=self._threads)


async def _with_inputs(grant: Grant, ask: Ask) -> Grant | calls.Thrown:
    """Return a lease with all its inputs at hand, or why they are not to be had."""
    if not refers(grant):
        return grant
    inputs = Inputs(lambda _: True, count(1))
    inputs.hold(0, grant)
    while True:
        for query in inputs.messages():
            try:
                inputs.receive(await ask(query))
            except TaskdError as error:
                inputs.receive(Error(query.request_id, error.code, error.message))
        for ready in inputs.take_ready():
            return ready.grant
        for failed in inputs.take_failed():
            return calls.Thrown(failed.failure, FINAL)


class TimeLimit(NamedTuple):
    """How long an attempt may run."""

    seconds: float
    failure: Failure
    """What it has come to when it has run for so long."""


def time_limit(grant: Grant) -> TimeLimit:
    """Return the nearer one of an attempt's own limit and its task's deadline."""
    timeout_ms, deadline_ms = grant.spec.rules.timeout_ms, grant.deadline_in_ms
    if deadline_ms and not 0 < timeout_ms <= deadline_ms:
        return TimeLimit(deadline_ms / 1000, Failure(TaskCodes.DEADLINE, "it had not ended by its deadline"))
    seconds = timeout_ms / 1000
    return TimeLimit(seconds or math.inf, Failure(TaskCodes.TIMED_OUT, f"it ran for longer than {seconds:g} s"))


def soft_limit(grant: Grant) -> TimeLimit:
    """Return after how long an attempt is told that it is to end."""
    seconds = grant.spec.rules.soft_timeout_ms / 1000
    text = f"it ran for longer than its soft timeout of {seconds:g} s"
    return TimeLimit(seconds or math.inf, Failure(TaskCodes.TIMED_OUT, text))


def silence_limit(grant: Grant) -> TimeLimit:
    """Return how long an attempt may give no sign."""
    seconds = grant.spec.rules.heartbeat_ms / 1000
    return TimeLimit(
        seconds or math.inf, Failure(TaskCodes.STALLED, f"it gave no heartbeat for longer than {seconds:g} s")
    )


@contextlib.contextmanager
def _ended_after_silence(
    nursery: trio.Nursery, signs: Signs, attempt_scope: trio.CancelScope, seconds: float
) -> Iterator[trio.Event]:
    """End an attempt that gives no sign for so long; the event tells that it was so."""
    scope, stalled = trio.CancelScope(), trio.Event()

    async def watch() -> None:
        with scope:
            heard_s, beats = trio.current_time(), signs.beats
            while True:
                await trio.sleep_until(heard_s + seconds)
                if signs.beats == beats:
                    stalled.set()
                    attempt_scope.cancel()
                    return
                beats, beat_s = signs.beats, signs.beat_s
                heard_s = trio.current_time() if beat_s is None else beat_s

    if not math.isinf(seconds):
        nursery.start_soon(watch)
    try:
        yield stalled
    finally:
        scope.cancel()


@contextlib.contextmanager
def _told_after(nursery: trio.Nursery, signs: Signs, seconds: float) -> Iterator[None]:
    """Tell an attempt that it is to end if it runs for so long."""
    scope = trio.CancelScope()

    async def tell() -> None:
        with scope:
            await trio.sleep(seconds)
            signs.told = True

    if not math.isinf(seconds):
        nursery.start_soon(tell)
    try:
        yield
    finally:
        scope.cancel()


class AsyncioThread:
    """An asyncio event loop in a thread of its own, started when it is first needed."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    async def run(self, work: Callable[[], Awaitable[End]]) -> End:
        """Await there; cancelled here, it is cancelled there, and not waited for."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="taskd-testing-asyncio", daemon=True)
            self._thread.start()

        async def main() -> End:
            return await work()

        wake = trio.lowlevel.current_trio_token().run_sync_soon
        done = trio.Event()
        future = asyncio.run_coroutine_threadsafe(main(), self._loop)
        future.add_done_callback(lambda _: _tell(wake, done.set))
        try:
            await done.wait()
        finally:
            future.cancel()
        return future.result()

    def stop(self) -> None:
        """End the loop; coroutines that are left are cancelled."""
        if self._loop is not None and self._thread is not None:
            future = asyncio.run_coroutine_threadsafe(_cancel_all(), self._loop)
            with contextlib.suppress(TimeoutError):
                future.result(STOP_S)
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._thread.join()
                self._loop.close()


def _tell(wake: Callable[[Callable[[], None]], None], tell: Callable[[], None]) -> None:
    with contextlib.suppress(trio.RunFinishedError):
        wake(tell)


async def _cancel_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
