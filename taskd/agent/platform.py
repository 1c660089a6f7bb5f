"""The machine as the agent sees it, in one record to hand in.

Invariants:
- Whoever needs time, chance, a connection or a process takes it from here, so that a test or a
  simulation replaces all of it at one place.

Knows nothing of leases or messages.
"""

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import trio

from taskd.agent.clock import Clock
from taskd.agent.supplies import Machine
from taskd_protocol.agent_messages import HostStats

Connect = Callable[[], Awaitable[trio.abc.Stream]]
"""Opens a connection to the server.

Raises ``CannotConnect`` when nobody is there, ``CertificateRefused`` when it is somebody else.
"""


class Exit(NamedTuple):
    """How a process ended. Nothing that came from it is left."""

    code: int
    """Exit code; negative: the signal that ended it."""
    ordered: bool
    """The agent had it killed, or its runner did, which was to hear from the agent by then and had not."""
    peak_bytes: int = 0
    """The most memory that one of the processes held; 0: not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandPlan:
    """A command to be started."""

    argv: Sequence[str]
    environ: dict[str, str] = field(default_factory=dict)
    """Set beside what the agent itself has."""
    cwd: str | None = None
    """None: where the agent is."""
    live_until_ms: int = 0
    """As if ``live_until`` had been called before it was started."""
    cpus: Sequence[int] = ()
    """To which it is pinned; empty: to none."""
    memory_bytes: int = 0
    """As if ``limit_memory`` had been called before it was started."""


class Process(Protocol):
    """A process that was started."""

    @property
    def pid(self) -> int:
        """The process's id, for people."""
        ...

    async def wait(self) -> Exit:
        """Wait until it and all that came from it have ended. One task may wait."""
        ...

    def terminate(self) -> None:
        """Ask its group to end."""
        ...

    def kill(self) -> None:
        """End it and all that came from it."""
        ...

    def live_until(self, mono_ms: int) -> None:
        """Have it and all that came from it killed at that time of the clock, unless another is set before; 0: never.

        That holds for an agent that is stopped, too.
        """
        ...

    def limit_memory(self, memory_bytes: int) -> None:
        """Have the kernel hold it, and all that came from it, to so much, if it can; 0: to nothing."""
        ...

    def close(self) -> None:
        """Let go of it; what still runs is killed."""
        ...


class WorkerProcess(Process, Protocol):
    """A worker."""

    def send(self, frames: bytes) -> None:
        """Hand over frames without waiting; they are kept while the pipe is full."""
        ...

    async def pump(self) -> None:
        """Write what is kept, for ever. One task does this."""
        ...

    async def receive(self) -> bytes:
        """Wait for bytes from the worker; empty: it has closed its end. One task may receive."""
        ...

    def receive_nowait(self) -> bytes:
        """Return bytes that are there; empty: there are none."""
        ...

    def running(self) -> int:
        """Return the fencing token that it runs now, or ran when it died; 0: none."""
        ...

    def recall(self, batch: int) -> None:
        """Have it start nothing more from batches up to this number."""
        ...

    def cancel(self, token: int, place: int = 0) -> None:
        """Have the blocking call of that token, if it runs, see that it is to end.

        Args:
            token: Of the attempt.
            place: Its own among those that are run in one call.
        """
        ...

    def hold_spawns(self, *, full: bool) -> None:
        """Have attempts spawn no more for now, or go on."""
        ...

    def hold_output(self, *, full: bool) -> None:
        """Have attempts say no more for now, or go on."""
        ...

    async def wait_printed(self, stream: int) -> None:
        """Wait until there is something to read in an output, or its end. One task may wait for each."""
        ...

    def read_printed(self, stream: int) -> bytes | None:
        """Return all that is there now of output 1 or 2, empty if there is none; None: it has ended."""
        ...

    async def stacks(self) -> bytes:
        """Return the Python stacks of its threads, as text; empty if it cannot show them in time."""
        ...

    def hang_up(self) -> None:
        """Close the agent's end: the worker ends in its own time."""
        ...


class CommandProcess(Process, Protocol):
    """A command."""

    async def read(self, stream: int) -> bytes:
        """Wait for output of stream 1 or 2; empty: its end."""
        ...


class Spawner(Protocol):
    """Starts processes."""

    async def worker(self) -> WorkerProcess:
        """Start a worker.

        Raises:
            ConfigInvalid: The interpreter cannot be started.
        """
        ...

    async def command(self, plan: CommandPlan) -> CommandProcess:
        """Start a command.

        Raises:
            OSError: The system refused: not found, not executable, no such directory.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What the agent is handed of its machine."""

    clock: Clock
    rng: random.Random
    """For backoff; needs no secrecy."""
    boot_id: bytes
    """16 random bytes of this life of the agent."""
    connect: Connect
    spawner: Spawner
    machine: Machine
    """What there is for tasks to use."""
    host_stats: Callable[[], HostStats]
    memory_of: Callable[[int, int], int]
    """How many bytes a process of ours and all that came from it hold; exactly only where that is more than so many."""
    oom_kills: Callable[[], int]
    """How often the kernel has killed for memory here; it only rises."""
