"""Graphs: which nodes of a workflow are to run, by what has become of those before them.

Knows positions and statuses, and nothing of tasks. Some 40 bytes a node, and 4 an edge.

Invariants:
- ``_done``, ``_failed`` and ``_skipped`` count each node's parents by their statuses.
- A node's verdict is given once, when its trigger rule is decided; it stays blocked until that is carried out.
"""

from array import array
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

BLOCKED: Final = 0
"""Its turn has not come."""
RELEASED: Final = 1
"""Its task is there, or it waits, or maps."""
SUCCEEDED: Final = 2
FAILED: Final = 3
UPSTREAM_FAILED: Final = 4
"""Skipped: what it waited for did not succeed."""
SKIPPED: Final = 5
"""Skipped: a branch was not taken, or its rule can no longer hold."""
STOPPED: Final = 6
"""Skipped: its workflow was stopped before."""

RUN: Final = RELEASED
"""The verdict that it is to run; the others are the statuses with which it ends instead."""

_FAILURES: Final = frozenset({FAILED, UPSTREAM_FAILED, STOPPED})

_EARLY: Final = frozenset({"one_succeeded", "all_failed"})
"""Rules that one success decides, whatever becomes of the other nodes."""

Verdict = tuple[int, int]
"""A node, and what is to become of it: ``RUN``, ``UPSTREAM_FAILED`` or ``SKIPPED``."""


class Shape(Protocol):
    """What a graph wants to know of a node."""

    @property
    def needs(self) -> Sequence[int]:
        """Nodes before it."""

    @property
    def after(self) -> Sequence[int]:
        """Others."""

    @property
    def when(self) -> str:
        """Its trigger rule."""

    @property
    def phase(self) -> str:
        """Empty, or that of the nodes that are held until the others have ended."""


class Graph:
    """The nodes of one workflow, by position.

    Attributes:
        statuses: Of each node.
        open_count: Nodes of no phase that have not ended.
    """

    def __init__(self, shapes: Iterable[Shape]) -> None:
        self._when: list[str] = []
        self._held = bytearray()
        self._parents = array("I")
        edges = array("I")  # each node's parents, of one node after those of another
        for shape in shapes:
            self._when.append(shape.when)
            self._held.append(shape.phase != "")
            self._parents.append(len(shape.needs) + len(shape.after))
            edges.extend(shape.needs)
            edges.extend(shape.after)
        count = len(self._when)
        self._first, self._child = _children(self._parents, edges)
        self.statuses = bytearray(count)
        self._judged = bytearray(count)
        self._done, self._failed, self._skipped = _zeros(count), _zeros(count), _zeros(count)
        self.open_count = count - sum(self._held)

    def __len__(self) -> int:
        """Return how many nodes there are."""
        return len(self.statuses)

    def restore(self, statuses: Iterable[tuple[int, int]]) -> None:
        """Take nodes as they stand, and count anew."""
        for node, status in statuses:
            self.statuses[node] = status
        count = len(self)
        self._done, self._failed, self._skipped = _zeros(count), _zeros(count), _zeros(count)
        self.open_count = 0
        for node, status in enumerate(self.statuses):
            self._judged[node] = status != BLOCKED
            if status == RELEASED:
                self._held[node] = 0
            if status > RELEASED:
                self._count(node, status)
            elif not self._held[node]:
                self.open_count += 1

    def judge_all(self) -> list[Verdict]:
        """Return what is to become of blocked nodes, as far as that is known; for a graph that is new, or restored."""
        verdicts: list[Verdict] = []
        for node in range(len(self)):
            self._judge(node, verdicts)
        return verdicts

    def settle(self, node: int, status: int) -> list[Verdict]:
        """Note how a node ended; return what is therefore to become of others, which are blocked."""
        before = self.statuses[node]
        assert before <= RELEASED < status, (node, before, status)
        self.statuses[node] = status
        self._judged[node] = 1
        if not self._held[node]:
            self.open_count -= 1
        verdicts: list[Verdict] = []
        children = self._child[self._first[node] : self._first[node + 1]]
        if status == SUCCEEDED:  # most do: of one that comes after this alone, that decides
            done, parents = self._done, self._parents
            for child in children:
                done[child] += 1
                if not self._judged[child] and (done[child] == parents[child] or self._when[child] in _EARLY):
                    self._judge(child, verdicts)
            return verdicts
        self._count(node, status)
        for child in children:
            self._judge(child, verdicts)
        return verdicts

    def release(self, node: int) -> None:
        """Note that a node has begun."""
        assert self.statuses[node] == BLOCKED, node
        self.statuses[node] = RELEASED
        self._judged[node] = 1

    def stop(self) -> list[Verdict]:
        """Judge all that is blocked, not held, and not judged yet: it is not to run."""
        verdicts: list[Verdict] = []
        for node, status in enumerate(self.statuses):
            if status == BLOCKED and not self._judged[node] and not self._held[node]:
                self._judged[node] = 1
                verdicts.append((node, STOPPED))
        return verdicts

    def hold(self, nodes: Iterable[int]) -> None:
        """Hold nodes, which are blocked, until they are let go; to be called before ``restore``."""
        for node in nodes:
            self._held[node] = 1

    def is_held(self, node: int) -> bool:
        """Tell whether a node waits for its phase to begin."""
        return bool(self._held[node]) and self.statuses[node] == BLOCKED

    def children_of(self, node: int) -> "array[int]":
        """Return the nodes that come right after one."""
        return self._child[self._first[node] : self._first[node + 1]]

    def has_children(self, node: int) -> bool:
        """Tell whether any node comes after this one."""
        return self._first[node] < self._first[node + 1]

    def let_go(self, nodes: Iterable[int]) -> list[Verdict]:
        """Judge nodes that were held from now on like others; return what is known of them already."""
        verdicts: list[Verdict] = []
        for node in nodes:
            if self._held[node]:
                self._held[node] = 0
                if self.statuses[node] <= RELEASED:
                    self.open_count += 1
                self._judge(node, verdicts)
        return verdicts

    def after_of(self, node: int) -> list[int]:
        """Return the nodes that come after one, at whatever distance, in order."""
        found = {node}
        for other in range(node, len(self)):  # a node's children have higher positions
            if other in found:
                found.update(self.children_of(other))
        found.discard(node)
        return sorted(found)

    def _count(self, node: int, status: int) -> None:
        done, failed, skipped, child = self._done, self._failed, self._skipped, self._child
        is_failure, is_skip = status in _FAILURES, status == SKIPPED
        for index in range(self._first[node], self._first[node + 1]):
            done[child[index]] += 1
            if is_failure:
                failed[child[index]] += 1
            elif is_skip:
                skipped[child[index]] += 1

    def _judge(self, node: int, verdicts: list[Verdict]) -> None:
        if self._judged[node] or self._held[node]:
            return
        verdict = _verdict(
            self._when[node], self._parents[node], self._done[node], self._failed[node], self._skipped[node]
        )
        if verdict:
            self._judged[node] = 1
            verdicts.append((node, verdict))


def _verdict(when: str, parents: int, done: int, failed: int, skipped: int) -> int:  # noqa: C901, PLR0911, PLR0912 - one case a rule
    """Return what is to become of a node by its rule; 0: that is not decided. What is certain is told early."""
    if not parents:
        return RUN
    succeeded, all_done = done - failed - skipped, done == parents
    match when:
        case "always":
            return RUN
        case "all_done":
            return RUN if all_done else 0
        case "all_succeeded":
            if failed or skipped:
                return UPSTREAM_FAILED if failed else SKIPPED
            return RUN if all_done else 0
        case "all_failed":
            if succeeded or skipped:
                return SKIPPED
            return RUN if all_done else 0
        case "one_failed":
            if failed:
                return RUN
            return SKIPPED if all_done else 0
        case "one_succeeded":
            if succeeded:
                return RUN
            if not all_done:
                return 0
            return SKIPPED if skipped == parents else UPSTREAM_FAILED
        case "none_failed":
            if failed:
                return UPSTREAM_FAILED
            return RUN if all_done else 0
        case _:
            assert when == "none_failed_min_one_succeeded", when
            if failed:
                return UPSTREAM_FAILED
            if not all_done:
                return 0
            return SKIPPED if skipped == parents else RUN


def _children(parents: "array[int]", edges: "array[int]") -> tuple["array[int]", "array[int]"]:
    """Return where each node's children begin, and the children, of one node after those of another."""
    count = len(parents)
    first = _zeros(count + 1)
    for parent in edges:
        first[parent + 1] += 1
    for node in range(count):
        first[node + 1] += first[node]
    at = array("I", first)
    child = _zeros(len(edges))
    index = 0
    for node, many in enumerate(parents):
        for parent in edges[index : index + many]:
            child[at[parent]] = node
            at[parent] += 1
        index += many
    return first, child


def _zeros(count: int) -> "array[int]":
    return array("I", bytes(4 * count))
