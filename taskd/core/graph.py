"""Graphs: which nodes of a workflow are to run, by what has become of those before them.

Knows positions and statuses, and nothing of tasks. Some 30 bytes a node, and 4 an edge.

Invariants:
- ``_done``, ``_failed`` and ``_skipped`` count each node's parents by their statuses.
- A node's verdict is given once, when its trigger rule is decided; it stays blocked until that is carried out.
"""

from array import array
from collections.abc import Iterable, Sequence
from itertools import accumulate, chain, repeat
from typing import Final, Protocol

from taskd_protocol.workflow import ALL_SUCCEEDED, TRIGGERS

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

_RULES: Final = {rule: number for number, rule in enumerate(TRIGGERS)}
"""Trigger rules by name: a node keeps the number of its own."""

_ALL_SUCCEEDED: Final = _RULES[ALL_SUCCEEDED]
assert not _ALL_SUCCEEDED, "0: so that ``Graph.succeed`` tells it quickly"
_ALWAYS: Final = _RULES["always"]
_EARLY: Final = frozenset({_RULES["one_succeeded"], _RULES["all_failed"]})
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


class Layout:
    """The shapes of a workflow's nodes, taken in as they come.

    Attributes:
        rules: Of each node, its trigger rule's number.
        held: Of each, whether it has a phase.
        parents: Of each, how many there are.
        edges: The parents, of one node after those of another.
    """

    __slots__ = ("edges", "held", "parents", "rules")

    def __init__(self) -> None:
        self.rules = bytearray()
        self.held = bytearray()
        self.parents = array("I")
        self.edges = array("I")

    def add(self, shapes: Sequence[Shape]) -> None:
        """Take in the next nodes."""
        self.rules += bytes([_RULES[shape.when] for shape in shapes])
        self.held += bytes([shape.phase != "" for shape in shapes])
        self.parents.extend([len(shape.needs) + len(shape.after) for shape in shapes])
        edges = self.edges
        for shape in shapes:
            edges.extend(shape.needs)
            edges.extend(shape.after)


class Graph:
    """The nodes of one workflow, by position.

    Attributes:
        statuses: Of each node.
        open_count: Nodes of no phase that have not ended.
    """

    def __init__(self, layout: Layout) -> None:
        self._rules, self._held, self._parents = layout.rules, layout.held, layout.parents
        self._has_early = not _EARLY.isdisjoint(layout.rules)
        count = len(layout.rules)
        self._first, self._child = _children(layout.parents, layout.edges)
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
        rules, done = self._rules, self._done
        for node, parents in enumerate(self._parents):
            if done[node] or not parents or rules[node] == _ALWAYS:
                self._judge(node, verdicts)
        return verdicts

    def succeed(self, nodes: Sequence[int]) -> list[Verdict]:
        """Note nodes that succeeded, none of which had ended; return what is therefore to become of others.

        As ``settle``, at half the time of a call for each: most nodes succeed, many in a turn, and of a child it is
        mostly the last of its parents that decides.
        """
        statuses, judged, held, rules = self.statuses, self._judged, self._held, self._rules
        done, parents, first, children = self._done, self._parents, self._first, self._child
        failed, skipped, has_early = self._failed, self._skipped, self._has_early
        verdicts: list[Verdict] = []
        closed = 0
        for node in nodes:
            assert statuses[node] <= RELEASED, (node, statuses[node])
            statuses[node] = SUCCEEDED
            judged[node] = 1
            closed += not held[node]
            for child in children[first[node] : first[node + 1]]:
                count = done[child] + 1
                done[child] = count
                if count == parents[child] or (has_early and rules[child] in _EARLY):
                    if rules[child] or failed[child] or skipped[child] or held[child] or judged[child]:
                        self._judge(child, verdicts)
                    else:  # all have succeeded, as its rule wants it
                        judged[child] = 1
                        verdicts.append((child, RUN))
        self.open_count -= closed
        return verdicts

    def settle(self, node: int, status: int) -> list[Verdict]:
        """Note how a node ended; return what is therefore to become of others, which are blocked."""
        if status == SUCCEEDED:
            return self.succeed((node,))
        before = self.statuses[node]
        assert before <= RELEASED < status, (node, before, status)
        self.statuses[node] = status
        self._judged[node] = 1
        if not self._held[node]:
            self.open_count -= 1
        verdicts: list[Verdict] = []
        self._count(node, status)
        for child in self.children_of(node):
            self._judge(child, verdicts)
        return verdicts

    def release(self, nodes: Iterable[int]) -> None:
        """Note that nodes have begun."""
        statuses, judged = self.statuses, self._judged
        for node in nodes:
            assert statuses[node] == BLOCKED, node
            statuses[node] = RELEASED
            judged[node] = 1

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
        """Decide a node's rule, if that can be done."""
        if self._judged[node] or self._held[node]:
            return
        rule, parents, done = self._rules[node], self._parents[node], self._done[node]
        failed, skipped = self._failed[node], self._skipped[node]
        if rule == _ALL_SUCCEEDED and not (failed or skipped):  # most are, and have not
            verdict = RUN if done == parents else 0
        else:
            verdict = _verdict(TRIGGERS[rule], parents, done, failed, skipped)
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
    counts = [0] * len(parents)
    for parent in edges:
        counts[parent] += 1
    first = list(accumulate(counts, initial=0))
    at = first.copy()
    child = _zeros(len(edges))
    nodes = chain.from_iterable(map(repeat, range(len(parents)), parents))
    for parent, node in zip(edges, nodes, strict=True):
        place = at[parent]
        child[place] = node
        at[parent] = place + 1
    return array("I", first), child


def _zeros(count: int) -> "array[int]":
    return array("I", bytes(4 * count))
