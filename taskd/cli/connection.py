"""The way from a command to the server that its options name."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from taskd.cli.options import chosen_server
from taskd.client.client import Client
from taskd.client.clock import mono_s
from taskd.client.profile import resolve
from taskd_protocol.errors import CannotConnect, ConnectionLost, TimedOut

_AGAIN_S: Final = 0.2
"""Between two tries to reach a server that is just being restarted."""


@contextmanager
def server() -> Iterator[Client]:
    """Talk to the server that was chosen; hang up at the end.

    Raises:
        ConfigInvalid: None is known here, or what names it is wrong.
    """
    url, context = chosen_server()
    client = Client(resolve(url, name=context))
    try:
        yield client
    finally:
        client.close()


def reach(client: Client, until_s: float) -> None:
    """Be connected; try again while nobody answers.

    Args:
        client: Not connected yet.
        until_s: By ``mono_s``.

    Raises:
        TaskdError: Why it could not be reached by then; or at once, what no patience mends.
    """
    while True:
        try:
            client.make_ids(1, max(0.0, until_s - mono_s()))
        except (CannotConnect, ConnectionLost, TimedOut):
            if mono_s() + _AGAIN_S >= until_s:
                raise
            time.sleep(_AGAIN_S)
        else:
            return
