"""How an attempt is run: one file for each kind of executor, one for what keeps a worker process in its seat."""

from collections.abc import Iterable
from typing import Protocol

from taskd.agent.core import Kill


class Executor(Protocol):
    """Runs the leases of one pool. What it does to leases it does through the core."""

    def wake(self) -> None:
        """Leases have come, or room for output: start what can be started."""
        ...

    def end(self, kill: Kill) -> None:
        """End these attempts, as the core was ordered; those that have not started, at once."""
        ...

    def alone(self) -> Iterable[tuple[int, int]]:
        """Give the attempts that run with what they hold in a process of their own: token, and process id."""
        ...

    def keep(self) -> None:
        """Have each process know how long it may live: until when, with an exclusive attempt; for ever, without."""
        ...

    async def run(self) -> None:
        """Work until ``close``; leaves no process behind."""
        ...

    async def recall(self) -> None:
        """Have all leases wait again that have not started, and give back those whose start was to be marked."""
        ...

    def stop(self) -> None:
        """Kill what runs; its leases are given back."""
        ...

    def close(self) -> None:
        """Have ``run`` return when the processes have ended; they are asked to."""
        ...
