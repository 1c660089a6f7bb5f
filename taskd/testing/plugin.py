"""The pytest plugin: the fixture ``taskd_server``. Imports nothing of taskd before a test asks for it."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from taskd.client.app import App
    from taskd.testing.local import LocalServer


class StartServer(Protocol):
    """What the fixture ``taskd_server`` gives: call it with the App under test."""

    def __call__(
        self, app: "App", *, concurrency: int = 1, real_time: bool = False, event_loop: str = "asyncio"
    ) -> "LocalServer":
        """Start a server for the App; it ends with the test. See ``taskd.testing.server``."""
        ...


@pytest.fixture
def taskd_server() -> Iterator[StartServer]:
    """Starts servers within this process, for the length of a test: call it with the App under test."""
    from taskd.testing.local import server  # noqa: PLC0415 - only for those who use it

    with ExitStack() as stack:

        def start(
            app: "App", *, concurrency: int = 1, real_time: bool = False, event_loop: str = "asyncio"
        ) -> "LocalServer":
            made = server(app, concurrency=concurrency, real_time=real_time, event_loop=event_loop)
            return stack.enter_context(made)

        yield start
