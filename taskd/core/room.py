"""Room: what an agent has, and what its leases leave of it.

Invariants:
- What is free is what was offered, less what the leases hold.
- A part of an item is taken of one item only; more than one is taken whole.

An offer that shrinks, or leases of an earlier life, can leave less than nothing; then nothing fits.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from taskd.core.lines import Task
from taskd_protocol.resources import ALL, CPU, MEMORY, ONE, Granted, Hold, Need, Request, Supply

PRESSED_ABOVE: Final = 0.5
"""Share of an agent's CPUs: when others use more, what they use counts; below, it is what any machine does beside."""

CALM_BELOW: Final = 0.3
"""And it counts until they have used less than this..."""

CALM_BEATS: Final = 3
"""... for so many heartbeats in a row, so that nothing flaps."""


class Room:
    """The resources of one agent.

    Attributes:
        total: What it has, by name.
        free: What is left of it.
        kinds: Of each item, by resource and item.
        items: What is left of each item, by resource and item; only of what has items.
        is_pressed: Others keep its CPUs busy.
        outside_cpu: Thousandths of a CPU that others use while it is pressed; else 0.
        outside_memory: Bytes that others use.
    """

    __slots__ = (
        "_beats",
        "free",
        "is_pressed",
        "items",
        "kinds",
        "outside_cpu",
        "outside_memory",
        "total",
    )

    def __init__(self, supplies: Sequence[Supply], leases: Iterable[Task]) -> None:
        """Take up what an agent offers, less what its leases hold."""
        self.total = {supply.name: supply.amount for supply in supplies}
        self.free = dict(self.total)
        self.items = {supply.name: dict.fromkeys(supply.items, ONE) for supply in supplies if supply.items}
        self.kinds = {
            supply.name: dict(zip(supply.items, supply.kinds, strict=True)) for supply in supplies if supply.kinds
        }
        self.is_pressed = False
        self.outside_cpu = self.outside_memory = 0
        self._beats: list[int] = []
        for task in leases:
            if task.granted is not None:
                self.take(task.granted)

    @property
    def held_cpu(self) -> int:
        """Thousandths of a CPU that leases hold."""
        return self.total.get(CPU, 0) - self.free.get(CPU, 0)

    @property
    def memory_left(self) -> int:
        """Bytes that tasks may still have that ask for them."""
        return self.free.get(MEMORY, 0) - self.outside_memory

    def amount_of(self, need: Need) -> int:
        """Return what a need comes to on this agent."""
        return self.total.get(need.name, 0) if need.amount == ALL else need.amount

    def could_hold(self, request: Request) -> str:
        """Return the resource of which the agent will never have enough; empty: it has, when it is idle."""
        for need in request.needs:
            total = self.total.get(need.name, 0)
            if not total or need.amount > total:
                return need.name
            items = self.items.get(need.name)
            if (need.kind or need.items) and (items is None or self._fitting(need, items, whole=True) is None):
                return need.name
        return ""

    def lacks(self, request: Request, cpu_left: int, *, alone: bool = False) -> str:
        """Return the resource of which there is not enough now; empty: it fits.

        Args:
            request: What is asked for.
            cpu_left: ``cpu_left`` of what runs there.
            alone: As if nobody else used the machine.
        """
        for need in request.needs:
            name = need.name
            if name == CPU:
                left = cpu_left
            elif name == MEMORY and not alone:
                left = self.free.get(name, 0) - self.outside_memory
            else:
                left = self.free.get(name, 0)
            if (need.amount or self.total.get(name, 1)) > left:
                return name
            items = self.items.get(name)
            if items is not None and self._fitting(need, items, whole=False) is None:
                return name
        return ""

    def left_of(self, name: str, busy_cpu: int) -> int:
        """Return how much of a resource tasks may still have that ask for it."""
        if name == CPU:
            return self.cpu_left(busy_cpu)
        return self.memory_left if name == MEMORY else self.free.get(name, 0)

    def cpu_left(self, busy_cpu: int, *, alone: bool = False) -> int:
        """Return what tasks that ask for CPUs may still have.

        Args:
            busy_cpu: What attempts take that asked for nothing: no more than the others have left them.
            alone: As if nobody else used the machine.
        """
        free: int = self.free.get(CPU, 0)
        return free - min(busy_cpu, max(0, free)) - (0 if alone else self.outside_cpu)

    def share_of(self, request: Request, cpu_left: int) -> float:
        """Return which share of the agent would be taken with this: of that of its resources that is scarcest then."""
        largest = 0.0
        for need in request.needs:
            total = self.total.get(need.name, 0)
            if total:
                left = cpu_left if need.name == CPU else self.free[need.name]
                share = (total - left + self.amount_of(need)) / total
                largest = max(largest, share)
        return largest

    def holds_of(self, request: Request) -> list[Hold]:
        """Return what is to be held of what fits."""
        holds: list[Hold] = []
        for need in request.needs:
            items = self.items.get(need.name)
            chosen = [] if items is None else self._fitting(need, items, whole=False) or []
            holds.append(Hold(need.name, self.amount_of(need), chosen))
        return holds

    def all_of_it(self) -> list[Hold]:
        """Return all that the agent has."""
        return [Hold(name, amount, list(self.items.get(name, ()))) for name, amount in self.total.items()]

    def take(self, granted: Granted) -> None:
        """Note that a lease holds this."""
        self._count(granted, -1)

    def give_back(self, granted: Granted) -> None:
        """Note that the lease is gone."""
        self._count(granted, 1)

    def _count(self, granted: Granted, sign: int) -> None:
        for hold in granted.holds:
            if hold.name in self.free:
                self.free[hold.name] += sign * hold.amount
            items = self.items.get(hold.name)
            if items is not None:
                for item in hold.items:
                    if item in items:
                        items[item] += sign * min(hold.amount, ONE)

    def note_outside(self, cpu: int, memory: int) -> bool:
        """Note what others are using, with a heartbeat; return whether there is more room now."""
        cpus = self.total.get(CPU, 0)
        cpu = max(0, min(cpu, cpus))
        memory = max(0, min(memory, self.total.get(MEMORY, 0)))
        self._beats = [*self._beats[1 - CALM_BEATS :], cpu]
        before_cpu, before_memory = self.outside_cpu, self.outside_memory
        if cpu > cpus * PRESSED_ABOVE:
            self.is_pressed = True
        elif len(self._beats) == CALM_BEATS and max(self._beats) < cpus * CALM_BELOW:
            self.is_pressed = False
        self.outside_cpu = max(self._beats) if self.is_pressed else 0
        self.outside_memory = memory
        return self.outside_cpu < before_cpu or memory < before_memory

    def _fitting(self, need: Need, items: dict[str, int], *, whole: bool) -> list[str] | None:
        """Return the items that a need would take; None: they do not fit.

        Args:
            need: What is asked for.
            items: What is left of each.
            whole: Take them all to be idle.
        """
        amount = self.amount_of(need)
        kinds = self.kinds.get(need.name, {})
        wanted = need.items or items
        able = [
            (ONE if whole else items[item], item)
            for item in wanted
            if item in items and (not need.kind or _is_kind(kinds.get(item, ""), need.kind))
        ]
        if 0 < amount < ONE:  # of a part that is taken already first, so that whole ones stay whole
            return [min(parts)[1]] if (parts := [(left, item) for left, item in able if left >= amount]) else None
        count = -(-amount // ONE)
        idle = [item for left, item in able if left == ONE]
        return idle[:count] if len(idle) >= count else None


def _is_kind(kind: str, wanted: str) -> bool:
    """Tell whether an item is of a kind, or of one of its sorts: ``a100-sxm4-80gb`` is an ``a100``."""
    return kind == wanted or kind.startswith(f"{wanted}-")
