"""Threads: what blocks runs beside the loop, and comes back to who asked."""

import gc
import threading
from functools import partial

import pytest
import trio
import trio.testing

from taskd.server.clock import SystemClock
from taskd.server.flusher import Flusher
from taskd.server.threads import Threads


async def test_one_thread_does_one_call_after_another() -> None:
    """Calls run outside the loop's thread, each in the same one, and give back what they return."""
    offload = Threads()
    first = await offload(threading.get_ident)
    assert first != threading.get_ident()
    assert [await offload(threading.get_ident) for _ in range(3)] == [first] * 3


async def test_what_is_raised_is_raised_where_it_is_waited_for() -> None:
    """A call that fails fails for its caller alone; the next one is served."""
    offload = Threads()
    with pytest.raises(ZeroDivisionError):
        await offload(lambda: 1 // 0)
    assert await offload(lambda: "served") == "served"


async def test_a_call_beside_another_waits_for_neither() -> None:
    """While the thread is busy the next caller is served by another one."""
    offload, release = Threads(), threading.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(offload, release.wait)
        await trio.testing.wait_all_tasks_blocked()
        await offload(release.set)
    assert release.is_set()


async def test_a_call_that_is_not_as_quick_as_thought_leaves_the_loop_alone() -> None:
    """It is waited for on the spot for a moment only; then that is said, and the loop goes on, and comes back to it."""
    offload, release, waits = Threads(), threading.Event(), trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(offload.run, release.wait, is_quick=True, waits=waits.set))
        await trio.testing.wait_all_tasks_blocked()  # the loop runs: it could not set the event otherwise
        assert waits.is_set()
        waits_too = trio.Event()
        await offload.run(release.set, is_quick=True, waits=waits_too.set)
        assert waits_too.is_set(), "while the thread is busy nothing ends on the spot"


async def test_quick_calls_and_others_take_turns() -> None:
    """However a call was waited for, the next one is not taken for done because of it."""
    offload = Threads()
    for number in range(200):
        assert await offload.run(partial(int, number), is_quick=number % 3 > 0) == number


async def test_a_call_is_not_cut_short() -> None:
    """Who is cancelled meanwhile waits for the call to come back: it may be writing."""
    offload, begun, done = Threads(), threading.Event(), threading.Event()
    with trio.CancelScope() as scope:

        def work() -> None:
            trio.from_thread.run_sync(scope.cancel, trio_token=token)
            begun.set()
            done.set()

        token = trio.lowlevel.current_trio_token()
        await offload(work)
        assert done.is_set()
    assert begun.is_set()


async def test_its_thread_ends_with_it() -> None:
    """No thread is left behind by a server that is gone."""
    before = set(threading.enumerate())
    offload = Threads()
    await offload(bool)
    await Flusher(offload, SystemClock())(bool)  # a call that holds on to who does it
    (thread,) = set(threading.enumerate()) - before
    del offload
    gc.collect()
    thread.join(5)
    assert not thread.is_alive()
