"""Waiting for a condition: never for a time."""

from collections.abc import Callable

import trio

LOOK_SECONDS = 0.05


async def until(condition: Callable[[], object], within: float) -> None:
    """Return when the condition holds.

    Raises:
        trio.TooSlowError: It does not within so many seconds of the test's clock.
    """
    with trio.fail_after(within):
        while not condition():  # noqa: ASYNC110 - what is waited for knows of no event
            await trio.sleep(LOOK_SECONDS)
