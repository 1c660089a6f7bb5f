"""For tests of programs that use taskd: their tasks submitted, and run or not, within the test's own process.

- ``server(app)``: a whole server, with the rules of the real one, on a clock that the test moves.
- ``inline(app)``: a submit runs the function here and now.
- ``recording(app)``: nothing runs; what was submitted is listed.

Each is a context manager, changes nothing but where the App's submits go, and puts that back.
Nothing here opens a socket or writes a file.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taskd.testing.immediate import inline
    from taskd.testing.local import LocalServer, server
    from taskd.testing.plugin import StartServer
    from taskd.testing.recorder import Recorded, RecordedWorkflow, Recording, recording

_ROOMS = {
    "LocalServer": "taskd.testing.local",
    "Recorded": "taskd.testing.recorder",
    "RecordedWorkflow": "taskd.testing.recorder",
    "Recording": "taskd.testing.recorder",
    "StartServer": "taskd.testing.plugin",
    "inline": "taskd.testing.immediate",
    "recording": "taskd.testing.recorder",
    "server": "taskd.testing.local",
}
"""Loaded at their first use: pytest imports this package in every project where taskd is installed."""

__all__ = ["LocalServer", "Recorded", "RecordedWorkflow", "Recording", "StartServer", "inline", "recording", "server"]


def __getattr__(name: str) -> object:
    room = _ROOMS.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(room), name)
