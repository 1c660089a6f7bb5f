"""A server within a test, as the test holds it: started in a thread of its own, driven from the test's."""

import contextlib
import math
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

import trio
from trio.testing import MockClock

from taskd.client.app import App
from taskd.client.client import Client
from taskd.client.clock import mono_s
from taskd.client.context import TaskContext, running
from taskd.client.ends import Awaited, Watch
from taskd.client.link import Link
from taskd.client.profile import Profile
from taskd.client.promise import Signal
from taskd.client.session import Session
from taskd.client.waiting import Pause, Steps, arun, run
from taskd.server.clock import SystemClock
from taskd.testing.driver import Driver, VirtualClock
from taskd.testing.house import ADDRESS, House
from taskd.testing.pump import LoopPump
from taskd.testing.runner import NAME, Runner
from taskd_protocol.errors import BadRequest, ConnectionLost, TimedOut
from taskd_protocol.ids import format_task_id

STUCK_S: Final = 1.0
"""Real time that a caller waits for a task that nothing will end any more, before being told: another thread or
coroutine of the test may be about to do something."""


class LocalServer:
    """A server within this process, with one agent that has the App's tasks."""

    def __init__(self, app: App, *, concurrency: int, real_time: bool, event_loop: str) -> None:
        self._app = app
        self._concurrency = concurrency
        self._event_loop = event_loop
        self._clock = None if real_time else MockClock()
        self._driver: Driver | None = None
        self._pump: LoopPump | None = None
        self._watched = trio.Event()
        self._posts = 0
        self._pid = os.getpid()
        self._stop = trio.Event()
        self._is_over = False  # in the loop: nothing is begun any more
        self._started = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="taskd-testing", daemon=True)

    # -- for the test -------------------------------------------------------------------------

    def advance(self, seconds: float) -> None:
        """Let so much time pass at once: what becomes due meanwhile happens, in order, each at its time.

        Returns when all that has ended which runs by itself. An attempt that waits on the server's own clock, a
        coroutine on trio, goes on when it is moved further.

        Raises:
            BadRequest: The time is negative, or the server's clock is the real one.
        """
        run(self._drive(seconds))

    async def aadvance(self, seconds: float) -> None:
        """Let so much time pass at once, on asyncio or trio; see ``advance``."""
        await arun(self._drive(seconds))

    def run_until_idle(self) -> None:
        """Run what can run now, and what comes of it; tasks with a delay, and failed ones, wait for ``advance``."""
        run(self._drive(0))

    async def arun_until_idle(self) -> None:
        """Run what can run now, on asyncio or trio; see ``run_until_idle``."""
        await arun(self._drive(0))

    def _drive(self, seconds: float) -> Steps[None]:
        if self._clock is None:
            raise BadRequest("this server runs on real time: it runs tasks as they come, and its clock is not moved")
        if not (math.isfinite(seconds) and seconds >= 0):
            raise BadRequest(f"time passes by 0 or more seconds, not by {seconds}")
        done = Signal()
        try:
            self._token.run_sync_soon(self._begin_drive, seconds, done)
        except trio.RunFinishedError:
            raise ConnectionLost("the server of this test has ended") from None
        yield Pause(done, None)

    def _begin_drive(self, seconds: float, done: Signal) -> None:
        if self._is_over:
            done.fire()
        else:
            self._nursery.start_soon(self._drive_and_tell, seconds, done)

    async def _drive_and_tell(self, seconds: float, done: Signal) -> None:
        assert self._driver is not None
        try:
            await self._driver.drive(seconds)
        finally:
            done.fire()

    # -- its life -----------------------------------------------------------------------------

    def start(self) -> Client:
        """Start; return a client of it."""
        self._thread.start()
        self._started.wait()
        if self._error is not None:
            raise self._error
        profile = Profile(name="testing", address=ADDRESS, token=self._house.token, tls=False)
        return Client(line=_LinkOfAttempts(self, profile))

    def stop(self) -> None:
        """End; whoever waits is told."""
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._stop.set)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            trio.run(self._main, clock=self._clock)
        except BaseException as error:  # noqa: BLE001 - raised again in the test's thread
            self._error = error
        finally:
            self._started.set()

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        real = SystemClock()
        house = self._house = House(real if self._clock is None else VirtualClock(real.wall_ms()))
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await nursery.start(house.run)
            runner = self._runner = Runner(
                self._app,
                house.loop,
                house.hub,
                nursery,
                ask=partial(house.input, NAME),
                concurrency=self._concurrency,
                event_loop=self._event_loop,
            )
            if self._clock is None:
                runner.open()
            else:
                self._driver = Driver(self._clock, house, runner, self._time_moved)
                nursery.start_soon(self._drive_for_waiters)
            self._started.set()
            try:
                await self._stop.wait()
            finally:
                self._is_over = True
            runner.stop()
            nursery.cancel_scope.cancel()

    def start_pump(self, session: Session) -> LoopPump:
        """Connect a client, from any thread."""
        if os.getpid() != self._pid:
            raise ConnectionLost("the server of this test is another process's: a forked child has no part in it")
        pump = self._pump = LoopPump(session, self._token, self._asked)
        try:
            self._token.run_sync_soon(self._connect, pump)
        except trio.RunFinishedError:
            raise ConnectionLost("the server of this test has ended") from None
        return pump

    def _connect(self, pump: LoopPump) -> None:
        if self._is_over:
            pump.end()
        else:
            self._nursery.start_soon(pump.run, self._house.connect())

    def note_wait(self, context: TaskContext, watch: Watch, targets: Sequence[Awaited]) -> None:
        """Note, from any thread, that an attempt waits for other tasks."""
        self._runner.waits[context.fencing_token] = (watch, targets)
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._runner.changed)

    def _asked(self) -> None:
        """Look after what the client may want by now."""
        self._posts += 1
        if self._driver is None:
            if not self._runner.knows_all:
                self._runner.open()
        elif self._is_watched():
            self._watched.set()

    def _is_watched(self) -> bool:
        pump = self._pump
        return pump is not None and (pump.ends.watched is not None or pump.session.followed is not None)

    def _time_moved(self) -> None:
        """Have new ids made from the server's time."""
        if self._pump is not None:
            self._pump.session.clock_offset_ms = self._house.clock.wall_ms() - mono_s() * 1000

    # -- whoever waits for a result drives --------------------------------------------------------

    async def _drive_for_waiters(self) -> None:
        assert self._driver is not None
        while True:
            await self._watched.wait()
            self._watched = trio.Event()
            if not await self._driver.drive(math.inf, lambda: not self._is_watched()):
                timer = threading.Timer(STUCK_S, partial(self._tell_soon, self._posts))
                timer.daemon = True
                timer.start()

    def _tell_soon(self, posts: int) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._begin_to_tell, posts)

    def _begin_to_tell(self, posts: int) -> None:
        if not self._is_over:  # otherwise whoever waits is told by that
            self._nursery.start_soon(self._tell_stuck, posts)

    async def _tell_stuck(self, posts: int) -> None:
        """Tell who still waits that it is in vain, unless something was asked since."""
        pump = self._pump
        following = None if pump is None else pump.session.followed
        task_id = None if pump is None else pump.ends.watched
        if following is not None and task_id is None:
            task_id = following.task_id
        if posts != self._posts or pump is None or task_id is None:
            return
        view = await self._house.view(task_id)
        why = (
            "is not stored" if view is None else f"({view.name}) is {view.state}; {view.waits_for or 'nothing is due'}"
        )
        stuck = TimedOut(f"nothing is left to happen that could end task {format_task_id(task_id)}, which {why}")
        pump.ends.give_up(stuck)
        if following is not None:
            pump.session.stop_following(following, stuck)
            pump.post(lambda: None)  # it is told with what was asked


class _LinkOfAttempts(Link):
    """A link that tells which attempts of the server wait for other tasks of it."""

    def __init__(self, local: LocalServer, profile: Profile) -> None:
        super().__init__(profile, name="the test", software="taskd.testing", start=local.start_pump)
        self._local = local

    def watch(self, wanted: Sequence[Awaited], targets: Sequence[Awaited], watch: Watch) -> None:
        """See ``Link``."""
        context = running.get()
        if context is not None:
            self._local.note_wait(context, watch, targets)
        super().watch(wanted, targets, watch)


@contextmanager
def server(
    app: App, *, concurrency: int = 1, real_time: bool = False, event_loop: str = "asyncio"
) -> Iterator[LocalServer]:
    """Run a server within this process, and have the App's tasks submitted to it meanwhile.

    It has the rules of a real one: ids, keys, priorities, delays, retries with backoff, dead letters and cancel are
    not imitated. Its one agent has the App's tasks and runs them here: plain functions in a thread, ``async def`` on
    an event loop. Time stands still until the test moves it, with ``advance``, or waits for a result: then whatever is
    due happens at once, however far away it is. Between that nothing runs, so that a test sees each state it wants to.

    Args:
        app: Whose tasks; those declared later, too.
        concurrency: How many run at the same time. With 1 they run in the same order every time; a task that waits for
            another one's result needs a second.
        real_time: Let the clock run by itself, and run tasks as they come.
        event_loop: For ``async def``: ``asyncio``, in a thread, on real time; or ``trio``, on the server's clock, so
            that ``trio.sleep`` ends when the test moves it.

    Raises:
        BadRequest: An argument is out of its range.
    """
    if concurrency < 1:
        raise BadRequest(f"concurrency {concurrency} is out of range: a server within a test runs at least one task")
    if event_loop not in {"asyncio", "trio"}:
        raise BadRequest(f"event loop {event_loop!r} is unknown; use asyncio or trio")
    local = LocalServer(app, concurrency=concurrency, real_time=real_time, event_loop=event_loop)
    client = local.start()
    try:
        with app.submitting_to(client):
            yield local
    finally:
        local.stop()
