"""What the tests of the API share: a server in memory, and somebody who asks it."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import trio

from harness.http import Browser
from harness.server import Server
from harness.virtual import VIRTUAL
from taskd.server.certificates import Certificates, open_certificates
from taskd.server.clock import SystemClock

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A server's certificates of today."""
    return open_certificates(tmp_path_factory.mktemp("certificates"), ["localhost"], SystemClock().wall_ms())


@pytest.fixture
async def nursery() -> AsyncIterator[trio.Nursery]:
    """Holds what a test starts, on virtual time, and ends it with the test."""
    async with trio.open_nursery() as holding:
        yield holding
        holding.cancel_scope.cancel()


@pytest.fixture
async def server(nursery: trio.Nursery, ca: Certificates) -> Server:
    """A server that runs, on virtual time, over an empty store."""
    return await Server(nursery, ca).start()


@pytest.fixture
def browser(server: Server) -> Browser:
    """Somebody who asks it."""
    return Browser(server)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Whatever runs in memory runs on virtual time."""
    for item in items:
        if isinstance(item, pytest.Function) and item.path.parent == HERE and "nursery" in item.fixturenames:
            item.add_marker(VIRTUAL, append=False)
