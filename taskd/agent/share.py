"""What leases hold of the agent's CPUs, and what that leaves for those that ask for nothing.

A lease that asks for nothing takes a slot: the CPUs divided by the slots of its pool. It waits while what others
hold leaves no room for it; a lease that holds something waits for a free worker at most, since the server has kept
the rest free. One that is to be alone on its agent waits until nothing else runs, and all others wait for its end.

Invariants:
- While nothing is held, every slot is open.
- Who waits here waits for leases that run, never for one that waits itself.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from taskd_protocol.resources import CPU, ONE
from taskd_protocol.task import Grant

if TYPE_CHECKING:
    from taskd.agent.slots import Slots


class Share:
    """The CPUs of one agent, among all its pools.

    Attributes:
        pools: Those that share.
        news: Something was let go of since this was last set to False: who waits may look again.
    """

    def __init__(self, cpus: int = 0, numbers: Sequence[int] = ()) -> None:
        """Begin with nothing held.

        Args:
            cpus: In thousandths; 0: not known, so that nothing is weighed.
            numbers: Of CPUs to which attempts are pinned; none: they are not.
        """
        self.pools: Final[list[Slots]] = []
        self.news = False
        self._cpus: Final = cpus
        self._held = 0
        self._lone: Final[dict[int, None]] = {}
        self._unpinned: list[int] = list(numbers)
        self._pinned: Final[dict[int, list[int]]] = {}

    def hold(self, grant: Grant) -> None:
        """Count what a lease holds, from its arrival on."""
        self._held += _cpu(grant)
        if grant.granted is not None and grant.granted.exclusive_host:
            self._lone[grant.token] = None

    def let_go(self, grant: Grant) -> None:
        """Count it no longer."""
        self._held -= _cpu(grant)
        self._lone.pop(grant.token, None)
        self._unpinned = sorted([*self._unpinned, *self._pinned.pop(grant.token, ())])
        self.news = True

    def pin(self, grant: Grant) -> list[int]:
        """Return the CPUs to which a lease is pinned until it is let go of: as many as it holds whole, and no others.

        None where it holds none, or so many are not left.
        """
        count = _cpu(grant) // ONE
        if count and grant.token not in self._pinned and count <= len(self._unpinned):
            self._pinned[grant.token], self._unpinned = self._unpinned[:count], self._unpinned[count:]
        return self._pinned.get(grant.token, [])

    def open_slots(self, slots: int, *, weighs: bool) -> int:
        """Return how many of a pool's slots leases may take that hold nothing.

        Args:
            slots: Of the pool.
            weighs: Each of them stands for its share of the CPUs.
        """
        if self._lone:
            return 0
        if not (self._held and self._cpus and weighs):
            return slots
        return max(0, (self._cpus - self._held) * slots // self._cpus)

    def may_start(self, token: int) -> bool:
        """Tell whether a lease that holds something may start."""
        if not self._lone:
            return True
        return token == next(iter(self._lone)) and not any(pool.handed for pool in self.pools)


def _cpu(grant: Grant) -> int:
    return 0 if grant.granted is None else sum([hold.amount for hold in grant.granted.holds if hold.name == CPU])
