"""The way from a command to the server that its options name."""

from collections.abc import Iterator
from contextlib import contextmanager

from taskd.cli.options import chosen_server
from taskd.client.client import Client
from taskd.client.profile import resolve


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
