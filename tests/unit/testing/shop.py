"""An App as a user's: its tasks are made afresh for each test."""

import asyncio
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING

import trio

from taskd import App, Retry, current
from taskd.middleware import Carry

if TYPE_CHECKING:
    from taskd.client.task import AsyncTask, SyncTask

USER: ContextVar[str] = ContextVar("user")


class Shop:
    """The tasks, and what they have done.

    Attributes:
        calls: What ran, in order.
        gate: ``wait`` waits for it, in a thread; it tells that it does.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.gate = threading.Event()
        self.waiting = threading.Event()
        self.app = App(middleware=[Carry(USER)])
        task = self.app.task
        self.add: SyncTask[[int, int], int] = task(name="shop.add")(self._add)
        self.double: AsyncTask[[int], int] = task(name="shop.double")(self._double)
        self.note: SyncTask[[str], str] = task(name="shop.note")(self._note)
        self.fail: SyncTask[[int], int] = task(name="shop.fail", retry=Retry(max_attempts=3, base=10.0, jitter=0.0))(
            self._fail
        )
        self.whose: SyncTask[[], str] = task(name="shop.whose")(self._whose)
        self.parent: SyncTask[[], str] = task(name="shop.parent")(self._parent)
        self.ask: SyncTask[[float], str] = task(name="shop.ask")(self._ask)
        self.wait: SyncTask[[], None] = task(name="shop.wait")(self._wait)
        self.sleep: AsyncTask[[float], float] = task(name="shop.sleep")(self._sleep)
        self.steps: SyncTask[[int], object] = task(
            name="shop.steps", retry=Retry(max_attempts=5, base=10.0, jitter=0.0)
        )(self._steps)
        self.polite: SyncTask[[], None] = task(name="shop.polite")(self._polite)
        self.unpackable: SyncTask[[], object] = task(name="shop.unpackable")(self._unpackable)

    def _add(self, a: int, b: int) -> int:
        return a + b

    async def _double(self, number: int) -> int:
        await asyncio.sleep(0)
        return 2 * number

    def _note(self, word: str) -> str:
        self.calls.append(word)
        return word

    def _fail(self, times: int) -> int:
        """Fail so many times, then succeed."""
        attempt = current().attempt
        self.calls.append(f"attempt {attempt}")
        if attempt <= times:
            raise LookupError(f"not yet, {attempt}")
        return attempt

    def _whose(self) -> str:
        return USER.get("nobody")

    def _parent(self) -> str:
        return self.whose.submit().id

    def _ask(self, delay: float) -> str:
        """Wait for another task, which waits for its time."""
        return self.note.options(delay=delay).submit("asked").result()

    def _wait(self) -> None:
        self.waiting.set()
        self.gate.wait(30)

    def _steps(self, count: int) -> object:
        """Take one step in each attempt, going on where the one before was."""
        done = current().heartbeat_details or []
        assert isinstance(done, list)
        current().heartbeat([*done, current().attempt])
        current().heartbeat()
        if len(done) + 1 < count:
            raise LookupError("there is more to do")
        return [*done, current().attempt]

    def _polite(self) -> None:
        self.waiting.set()
        while not current().cancelled:
            self.gate.wait(0.001)
        self.calls.append("told")
        self.gate.set()

    async def _sleep(self, seconds: float) -> float:
        """On trio: return how long that was by the clock that runs it."""
        before_s = trio.current_time()
        await trio.sleep(seconds)
        return trio.current_time() - before_s

    def _unpackable(self) -> object:
        return object()
