"""Time that jumps: a test that waits for an hour is done at once, and is the same each time."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import pytest
import trio
from trio.testing import MockClock

T = TypeVar("T")


def on_virtual_time(
    test: Callable[[], Awaitable[T]],
    *,
    clock: trio.abc.Clock | None = None,
    instruments: Sequence[trio.abc.Instrument] = (),
) -> T:
    """Run a test with all its fixtures on a clock that jumps whenever everybody waits."""
    return trio.run(test, clock=clock or MockClock(autojump_threshold=0), instruments=instruments)


VIRTUAL = pytest.mark.trio(run=on_virtual_time)
"""Has pytest-trio run a test that way. It must come before the mark that pytest-trio itself puts on every test."""
