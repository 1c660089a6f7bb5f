"""This program, started anew by itself: by a command that runs a server, by a server that has a store checked."""

import os
import sys
from collections.abc import Sequence
from typing import Final

ISSUER: Final = "__issue__"
"""First word with which it becomes the process that makes certificates."""

CONVERTER: Final = "__convert__"
"""First word with which it becomes the process that turns large JSON into packed values, or these into JSON."""

PARENT_VARIABLE: Final = "_TASKD_PARENT"
"""Set, to our process id, for one that we start and that must not outlive us."""


def program(words: Sequence[str]) -> list[str]:
    """Return the command line of `taskd WORDS…`."""
    frozen = getattr(sys, "frozen", False)
    # -P: a folder called taskd where the user stands is not this program.
    return [*([sys.executable] if frozen else [sys.executable, "-P", "-m", "taskd"]), *words]


def bound_environment() -> dict[str, str]:
    """Return the environment of one that ends with us. Start it from the main thread: the kernel goes by threads."""
    return {**os.environ, PARENT_VARIABLE: str(os.getpid())}
