"""Rows: the lines of a queue that have tasks, by the rank of their first.

Lines lie on shelves: those that ask for nothing, those that are to be looked at, and those that are stuck, by the
CPUs that they ask for. Of the latter only those are looked at that ask for no more than what some agent has more
of by now. A shelf is a heap in which entries may be out of date; a line's own entry is the one that counts.

Invariants:
- A line's entry has the rank of its first task, or a lower one.
- ``count`` is how many lines have an entry.
"""

from heapq import heappop, heappush, heapreplace
from typing import Final

from taskd.core.lines import Entry, Line

UNSERVED: Final = -3
"""The shelf of lines that stand in no row: they ask for nothing, and no connected agent serves them."""

PLAIN: Final = -2
"""The shelf of lines that ask for nothing but a slot."""

LOOSE: Final = -1
"""The shelf of lines that ask for something, and are to be looked at whatever agents have."""

SHELF_BITS: Final = 3
"""Amounts of CPU with the same first bits share a shelf: so there are few, however tasks ask."""

_NO_RANK: Final = 1 << 128


def shelf_of(line: Line) -> int:
    """Return the shelf of a line that is stuck: what it asks for at least, rounded down."""
    cpu = line.least[0]
    drop = max(0, cpu.bit_length() - SHELF_BITS)
    return cpu >> drop << drop


class Row:
    """Lines of one queue that are served by rank."""

    __slots__ = ("_number", "count", "shelves")

    def __init__(self) -> None:
        self.count = 0
        self.shelves: dict[int, list[Entry]] = {}
        self._number = 0

    def put(self, line: Line, shelf: int) -> None:
        """Put a line onto a shelf."""
        line.shelf = shelf
        heappush(self.shelves.setdefault(shelf, []), self._entry(line))
        self.count += 1

    def again(self, shelf: list[Entry], line: Line) -> None:
        """Put a line that is the first of its shelf where its first task belongs now."""
        heapreplace(shelf, self._entry(line))

    def first(self, reach: int, *, plain: bool) -> list[Entry] | None:
        """Return the shelf with the line that comes first; None: there is none that may be served.

        Args:
            reach: The most CPUs that an agent has left which has more than before; less than 0: there is none.
            plain: There is room for what asks for nothing.
        """
        best: list[Entry] | None = None
        for shelf in list(self.shelves):
            if shelf <= reach and (plain or shelf != PLAIN):
                heap = self._cleaned(shelf)
                if heap is not None and (best is None or heap[0] < best[0]):
                    best = heap
        return best

    def below(self, shelf: list[Entry], reach: int, *, plain: bool) -> int:
        """Return a rank that none of the other lines which may be served is below; above all ranks: there is none.

        Args:
            shelf: That with the line which comes first.
            reach: As in ``first``.
            plain: As in ``first``.
        """
        ranks = [entry[0] for entry in shelf[1:3]]  # a heap's second is one of these two
        if len(self.shelves) > 1:
            for other, heap in self.shelves.items():
                if heap and heap is not shelf and other <= reach and (plain or other != PLAIN):
                    ranks.append(heap[0][0])
        return min(ranks, default=_NO_RANK)

    @property
    def least(self) -> int:
        """The lowest shelf with a line; there must be one."""
        return min([shelf for shelf in list(self.shelves) if self._cleaned(shelf) is not None])

    def _entry(self, line: Line) -> Entry:
        self._number += 1
        line.entry = entry = (line.head_rank(), self._number, line)
        return entry

    def _cleaned(self, shelf: int) -> list[Entry] | None:
        """Return a shelf of which the first entry is true; None: it is empty, and taken away."""
        heap = self.shelves[shelf]
        while heap:
            line = heap[0][2]
            if line.entry is not heap[0]:
                heappop(heap)
            elif line.head_rank() != heap[0][0]:
                heapreplace(heap, self._entry(line))
            else:
                return heap
        del self.shelves[shelf]
        return None
