import asyncio
import threading
from collections.abc import Callable

import pytest
import trio

from taskd.client.promise import Signal, Wake
from taskd.client.waiting import Pause, Steps, arun, deadline, run

Runner = Callable[[Steps[bool]], bool]


class LateSignal(Signal):
    """Wakes its waiter from a `fire` that came before the waiter rearmed it: the flag is down by then."""

    __slots__ = ()

    def add(self, wake: Wake) -> None:
        threading.Thread(target=wake).start()


def wait_for(signal: Signal, timeout_s: float) -> Steps[bool]:
    return (yield Pause(signal, deadline(timeout_s)))


def run_on_asyncio(steps: Steps[bool]) -> bool:
    return asyncio.run(arun(steps))


def run_on_trio(steps: Steps[bool]) -> bool:
    return trio.run(arun, steps)


@pytest.mark.parametrize("runner", [run, run_on_asyncio, run_on_trio])
def test_a_late_wake_is_no_passing_of_time(runner: Runner) -> None:
    """Who is woken looks again, instead of telling its caller that the time is up."""
    assert runner(wait_for(LateSignal(), 60.0))


@pytest.mark.parametrize("runner", [run, run_on_asyncio, run_on_trio])
def test_the_passing_of_time_is_told(runner: Runner) -> None:
    assert not runner(wait_for(Signal(), 0.001))


@pytest.mark.parametrize("runner", [run, run_on_asyncio, run_on_trio])
def test_a_signal_that_fired_before_lets_pass(runner: Runner) -> None:
    signal = Signal()
    signal.fire()
    assert runner(wait_for(signal, 60.0))
