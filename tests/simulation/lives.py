"""Lives: processes of a simulation, which can be stopped between any two steps, go on later, or die.

Every trio task belongs to the life in whose context it was started. A life that is
stopped takes no step, whatever comes in and however late it gets, and then goes on
where it was, as after SIGSTOP and SIGCONT. One that dies takes no step either, as far
as anybody else can see: what unwinds has no connection, no disk and no clock to tell of it.
"""

import contextvars
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol, cast

import trio
from outcome import Outcome
from trio._core._traps import WaitTaskRescheduled
from trio.lowlevel import Abort, RaiseCancelT, Task, reschedule

_LIFE: contextvars.ContextVar["Life | None"] = contextvars.ContextVar("life", default=None)


class Life:
    """One process, from its start to its end.

    Attributes:
        name: Of the machine; every life of it has the same.
        dead: It was killed.
        steps: Taken so far.
        ended: Set when nothing of it is left.
        blown: Set when it has stopped at the step of ``stop_at``.
        exit_code: Set by itself, when it ends itself at once.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.steps = 0
        self.ended = trio.Event()
        self.blown = trio.Event()
        self.exit_code: int | None = None
        self._stop_at = 0
        self._stopped = False
        self._waiting: list[Task] = []
        self._scope = trio.CancelScope()

    def is_stopped(self) -> bool:
        """It takes no steps now."""
        return self._stopped

    def start(self, nursery: trio.Nursery, main: Callable[[], Awaitable[None]]) -> None:
        """Begin: all that ``main`` starts is part of it."""
        self.within(partial(nursery.start_soon, self._run, main))

    def within(self, call: Callable[[], object]) -> None:
        """Call something whose tasks become part of this life."""
        context = contextvars.copy_context()
        context.run(_LIFE.set, self)
        context.run(call)

    def stop(self) -> None:
        """Take no step from now on."""
        self._stopped = True

    def go_on(self) -> None:
        """Take the steps that were due meanwhile."""
        self._stopped = False
        self._stop_at = 0
        waiting, self._waiting = self._waiting, []
        for task in waiting:
            reschedule(task)

    def stop_at(self, step: int) -> None:
        """Stop at the step of that number, before it is taken."""
        self._stop_at = step

    def exit(self, code: int) -> None:
        """End at once, by its own decision; whoever looks after it buries it."""
        if self.exit_code is None and not self.dead:
            self.exit_code = code
            self.stop()
            self.blown.set()

    def die(self) -> None:
        """Die: unwind unseen."""
        self.dead = True
        self._scope.cancel()
        self.go_on()

    async def _run(self, main: Callable[[], Awaitable[None]]) -> None:
        try:
            with self._scope:
                await main()
        except* Exception:
            if not self.dead:  # what unwinds in an order that no living process has may stumble over itself
                raise
        finally:
            self.ended.set()

    def _holds(self, task: Task) -> bool:
        """Tell whether a step has to wait; it is taken by ``go_on``."""
        if self._stopped:
            self._waiting.append(task)
            return True
        self.steps += 1
        if self.steps == self._stop_at:
            self._stopped = True
            self.blown.set()
            self._waiting.append(task)
            return True
        return False


class Stepping(trio.abc.Instrument):
    """Has every task ask its life before each step."""

    def task_spawned(self, task: Task) -> None:
        """Put the question before the task's coroutine."""
        life = task.context.get(_LIFE)
        if life is not None:
            task.coro = _Asking(task, life)  # type: ignore[assignment]  # it has what trio calls


def is_dead_here() -> bool:
    """Tell whether who calls is part of a life that is over, and only unwinds."""
    life = _LIFE.get()
    return life is not None and life.dead


def outside(call: Callable[[], object]) -> None:
    """Call something whose tasks become part of no life, though a life calls."""
    context = contextvars.copy_context()
    context.run(_LIFE.set, None)
    context.run(call)


class _Coroutine(Protocol):
    cr_frame: object

    def send(self, value: Outcome[object] | None, /) -> object: ...

    def throw(self, error: BaseException, /) -> object: ...


class _Asking:
    """A task's coroutine; a step that has to wait is kept, with what it was to begin with."""

    __slots__ = ("_coro", "_keeps", "_kept", "_life", "_task")

    def __init__(self, task: Task, life: Life) -> None:
        self._coro = cast("_Coroutine", task.coro)
        self._task = task
        self._life = life
        self._keeps = False
        self._kept: Outcome[object] | None = None

    @property
    def cr_frame(self) -> object:
        """For trio's own look at what waits where."""
        return self._coro.cr_frame

    def send(self, value: Outcome[object] | None) -> object:
        """Take a step, or wait until the life goes on."""
        if self._keeps:
            value = self._kept
        if self._life._holds(self._task):
            self._keeps, self._kept = True, value
            return _WAIT
        self._keeps, self._kept = False, None
        return self._coro.send(value)

    def throw(self, error: BaseException) -> object:
        """Never: trio throws into what awaited something foreign."""
        return self._coro.throw(error)


def _go_on_waiting(_: RaiseCancelT) -> Abort:
    """Refuse to be cancelled: the step that waits has its own outcome, and meets the cancel later."""
    return Abort.FAILED


_WAIT = WaitTaskRescheduled(_go_on_waiting)
"""What a coroutine yields to trio to wait until it is rescheduled."""
