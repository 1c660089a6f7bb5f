import asyncio
import threading
from collections.abc import Callable
from functools import partial

import pytest
import trio

from taskd.client.promise import Signal, Wake
from taskd.client.waiting import Pause, Steps, Wakes, arun, deadline, run

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


def test_wakes_that_come_together_call_into_their_loop_once() -> None:
    calls: list[Callable[[], None]] = []
    woken: list[int] = []
    wakes = Wakes(calls.append)
    for number in range(3):
        wakes.add(partial(woken.append, number))
    assert len(calls) == 1
    assert not woken
    calls.pop()()
    assert woken == [0, 1, 2]
    wakes.add(lambda: woken.append(3))
    assert len(calls) == 1, "what comes after the loop has come to it is another call"


def test_a_wake_that_comes_while_others_are_done_is_not_left_behind() -> None:
    calls: list[Callable[[], None]] = []
    woken: list[int] = []
    wakes = Wakes(calls.append)

    def first() -> None:
        wakes.add(lambda: woken.append(2))
        woken.append(1)

    wakes.add(first)
    while calls:
        calls.pop()()
    assert woken == [1, 2]


@pytest.mark.parametrize("face", ["asyncio", "trio"])
def test_many_that_wait_in_one_loop_are_all_woken(face: str) -> None:
    """From another thread, as the client's does."""
    signals = [Signal() for _ in range(50)]
    ended: list[bool] = []

    async def one(signal: Signal) -> None:
        ended.append(await arun(wait_for(signal, 60.0)))

    def fire() -> None:
        for signal in signals:
            signal.fire()

    async def on_asyncio() -> None:
        waiting = [asyncio.create_task(one(signal)) for signal in signals]
        await asyncio.sleep(0)
        threading.Thread(target=fire).start()
        await asyncio.gather(*waiting)

    async def on_trio() -> None:
        async with trio.open_nursery() as nursery:
            for signal in signals:
                nursery.start_soon(one, signal)
            threading.Thread(target=fire).start()

    if face == "asyncio":
        asyncio.run(on_asyncio())
    else:
        trio.run(on_trio)
    assert ended == [True] * 50
