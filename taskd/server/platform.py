"""The machine as the server sees it: everything that is not decided by state, in one record to hand in.

Invariants:
- Whoever needs time, chance, a thread or a port takes it from here, so that a test or a
  simulation replaces all of it at one place.

Knows nothing of tasks, peers or storage.
"""

import os
import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol, TypeVar

from taskd.net.ears import Ears
from taskd.server.addresses import Listen, open_sockets
from taskd.server.apart import Apart, Processes
from taskd.server.checking import CheckStore, check_store
from taskd.server.clock import Clock, SystemClock
from taskd.server.flusher import Flusher
from taskd.server.issuer import Issue, issue_apart
from taskd.server.threads import Threads
from taskd.store.disk import Space, read_space

T = TypeVar("T")

APART_MAX: Final = 2
"""Processes at a time: one with 16 MiB of small values takes some hundred MiB, and a machine has other work."""


class Offload(Protocol):
    """Runs a blocking function away from the loop."""

    async def __call__(self, work: Callable[[], T], /) -> T:
        """Return what ``work`` returns; raise what it raises. Not cut short by cancellation."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What the server is handed of its machine."""

    clock: Clock
    rng: random.Random
    """For jitter and other choices that need no secrecy."""
    token_bytes: Callable[[int], bytes]
    """That many unpredictable bytes: secrets, session ids, lineages."""
    offload: Offload
    flush: Offload
    """For the store's flushes, one at a time."""
    flusher: Flusher | None = None
    """Who does them, and knows which are quick; None: none is."""
    ears: Ears | None = None
    """Hear what comes over sockets; None: whoever has one waits for it."""
    listen: Listen
    check_store: CheckStore = check_store
    """Checks a store that is not served, without the loop."""
    apart: Apart = field(default_factory=lambda: Processes(APART_MAX))
    """Runs what would hold the interpreter's lock for long."""
    issue: Issue = issue_apart
    """Makes certificates."""
    space: Callable[[Path], Space] = read_space
    """What is left of the disk under a path."""
    exit: Callable[[int], object] = os._exit
    """Ends the process on the spot, with that code: nothing is flushed, told or tidied."""


def system_platform() -> Platform:
    """Return the real machine."""
    clock, threads = SystemClock(), Threads()
    flusher = Flusher(threads, clock)
    return Platform(
        clock=clock,
        rng=random.Random(secrets.randbits(64)),  # noqa: S311 - jitter is no secret
        token_bytes=secrets.token_bytes,
        offload=threads,
        flush=flusher,
        flusher=flusher,
        ears=Ears(),
        listen=open_sockets,
    )
