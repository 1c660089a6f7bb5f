"""Machines: each has one process at a time, which may be stopped, killed or lost, and is started again."""

import random
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import trio

from simulation.clock import MachineClock
from simulation.lives import Life
from simulation.net import Net
from simulation.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Callable

RESTART_SECONDS = 3.0
"""A process that has ended is started again within so long."""


class Machine(ABC):
    """One machine.

    Attributes:
        name: Unlike any other's.
        clock: Its own.
        life: Of its process; None: none runs.
        lives: How many there were.
        is_lost: No process is started there any more, once that of now has ended.
        lost: Set when that is so.
    """

    def __init__(self, name: str, nursery: trio.Nursery, net: Net, rng: random.Random, trace: Trace) -> None:
        self.name = name
        self.clock = MachineClock()
        self.life: Life | None = None
        self.lives = 0
        self.is_lost = False
        self.lost = trio.Event()
        self.rng = rng
        self.net = net
        self.trace = trace
        self.nursery = nursery
        self.fail: Callable[[str], None] = print
        self._over = trio.Event()
        self._power_cut = self._silently = False
        self._stood_s = 0.0
        self._stands_since_s: float | None = None

    def stood_s(self) -> float:
        """Return for how long its processes have stood still so far."""
        since_s = self._stands_since_s
        return self._stood_s + (0.0 if since_s is None else trio.current_time() - since_s)

    async def run(self) -> None:
        """Keep a process running."""
        while not self.is_lost:
            self._over = trio.Event()
            self._power_cut = self._silently = False
            self._stood_s, self._stands_since_s = self.stood_s(), None
            life = self.life = Life(self.name)
            self.lives += 1
            self.trace.add("start", self.name)
            life.start(self.nursery, self._guarded)
            async with trio.open_nursery() as watching:
                for event in (life.ended, life.blown, self._over):
                    watching.start_soon(_end_with, event, watching.cancel_scope)
            self.life = None
            self.trace.add("end", self.name, life.exit_code, life.steps)
            self.buried(life, power_cut=self._power_cut)
            life.die()
            self.net.bury(life, silently=self._silently)
            await life.ended.wait()
            if not self.is_lost:
                await trio.sleep(RESTART_SECONDS * self.rng.random())
        self.lost.set()

    @abstractmethod
    async def main(self) -> None:
        """Be the process."""

    @abstractmethod
    def buried(self, life: Life, *, power_cut: bool) -> None:
        """The process is gone: settle what outlives it."""

    # -- what may happen to it ------------------------------------------------------------

    def kill(self, *, power_cut: bool = False, silently: bool = False) -> None:
        """End the process now.

        Args:
            power_cut: With the machine: what its disk had not synced may be lost.
            silently: Nobody is told: its connections seem to live.
        """
        self._power_cut, self._silently = power_cut, silently
        self._over.set()

    def kill_at(self, steps: int, *, power_cut: bool) -> None:
        """End the process before it takes so many steps more."""
        if self.life is not None and not self.life.is_stopped():
            self._power_cut = power_cut
            self.life.stop_at(self.life.steps + steps)

    async def freeze(self, seconds: float) -> None:
        """Stop the process for a while."""
        life = self.life
        if life is None or life.is_stopped():
            return
        life.stop()
        self._stands_since_s = self._stands_since_s or trio.current_time()
        self.trace.add("stop", self.name)
        await trio.sleep(seconds)
        if life is self.life and life.is_stopped():
            self.trace.add("go on", self.name)
            self.thaw()

    def thaw(self) -> None:
        """Have the process go on."""
        if self.life is not None and self.life.is_stopped() and self.life.exit_code is None:
            self._stood_s, self._stands_since_s = self.stood_s(), None
            self.life.go_on()

    async def _guarded(self) -> None:
        """Be the process; what a real one would print with a traceback as it dies is a find."""
        life = self.life
        assert life is not None
        try:
            await self.main()
        except Exception as error:  # noqa: BLE001 - whatever it is
            if not life.dead:
                self.fail(f"{self.name} died of {describe(error)}")


def describe(error: BaseException) -> str:
    """Return what an error says, and where it was raised, in one line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
    return f"{type(error).__name__}: {error}{where}"


async def _end_with(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
