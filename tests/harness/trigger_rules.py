"""Trigger rules as the protocol's document has them: what may become of a node by the ends of those before it."""

# ruff: noqa: ARG005 - each rule is told all three counts

from collections import Counter
from collections.abc import Callable, Mapping

from taskd.core.graph import FAILED, SKIPPED, STOPPED, SUCCEEDED, UPSTREAM_FAILED
from taskd_protocol.workflow import WHOLE, Node

Allows = Callable[[int, int, int], bool]

MAY_RUN: dict[str, Allows] = {
    "all_succeeded": lambda s, f, k: not f and not k,
    "all_done": lambda s, f, k: True,
    "one_failed": lambda s, f, k: f > 0,
    "one_succeeded": lambda s, f, k: s > 0,
    "none_failed": lambda s, f, k: not f,
    "none_failed_min_one_succeeded": lambda s, f, k: not f and s > 0,
    "all_failed": lambda s, f, k: not s and not k,
    "always": lambda s, f, k: True,
}
"""Whether a node may run by its parents: succeeded, failed, skipped."""

MAY_FAIL_UPSTREAM: dict[str, Allows] = {
    "all_succeeded": lambda s, f, k: f > 0,
    "one_succeeded": lambda s, f, k: not s and f > 0,
    "none_failed": lambda s, f, k: f > 0,
    "none_failed_min_one_succeeded": lambda s, f, k: f > 0,
}

MAY_BE_SKIPPED: dict[str, Allows] = {
    "all_succeeded": lambda s, f, k: k > 0,
    "one_failed": lambda s, f, k: not f,
    "one_succeeded": lambda s, f, k: not s and not f,
    "none_failed_min_one_succeeded": lambda s, f, k: not s and not f,
    "all_failed": lambda s, f, k: s + k > 0,
}

Ends = Mapping[int, int]
"""How nodes have ended, as in ``taskd.core.graph``, by position; the others have not."""


def parents_of(node: Node) -> list[int]:
    """Return the nodes that come right before one."""
    return [*node.needs, *node.after]


def may_begin(node: Node, ends: Ends) -> bool:
    """Tell whether a node's turn may have come, when so many have ended."""
    parents = parents_of(node)
    if not parents:
        return True
    if node.when in {*WHOLE, "all_failed"} and not ends.keys() >= set(parents):
        return False
    return MAY_RUN[node.when](*_counts(node, ends))


def agrees(node: Node, status: int, ends: Ends, results: Callable[[int], bytes | None]) -> bool:
    """Tell whether a node's end agrees with its rule, when all have ended.

    Args:
        node: Which.
        status: How it has ended; not because its workflow was stopped, or its phase did not come.
        ends: Of all.
        results: Gives a node's result, packed; None: it is not known, or there is none.
    """
    counts = _counts(node, ends)
    may_run = not parents_of(node) or MAY_RUN[node.when](*counts)
    is_taken = all(ends[choice.node] == SUCCEEDED and results(choice.node) == choice.packed for choice in node.only_if)
    if status in {SUCCEEDED, FAILED}:
        return may_run and is_taken
    if status == UPSTREAM_FAILED:
        return node.when in MAY_FAIL_UPSTREAM and MAY_FAIL_UPSTREAM[node.when](*counts)
    assert status == SKIPPED, status
    if may_run and node.only_if:
        return not is_taken
    return node.when in MAY_BE_SKIPPED and MAY_BE_SKIPPED[node.when](*counts)


def _counts(node: Node, ends: Ends) -> tuple[int, int, int]:
    """Count a node's parents: succeeded, failed, skipped."""
    parents = Counter(ends[parent] for parent in parents_of(node) if parent in ends)
    return parents[SUCCEEDED], parents[FAILED] + parents[UPSTREAM_FAILED] + parents[STOPPED], parents[SKIPPED]
