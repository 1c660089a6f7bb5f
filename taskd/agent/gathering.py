"""Gathering: leases of tasks that run many in one call wait here for others of their name.

Invariants:
- A group is ripe when it is full, or when its first lease has waited as long as its task says; one that was put back
  waits no more.
- Its leases leave in the order in which they came.

Pure: the time is handed in, by whoever asks what is ripe.
"""

from collections.abc import Callable, Collection, Iterable
from typing import Final, NamedTuple

from taskd_protocol.task import Grant

_LONG_AGO_NS: Final = -(1 << 62)


class Rule(NamedTuple):
    """How a task's leases are called together."""

    size: int
    """At most so many."""
    wait_ms: int
    """For so long the first of them waits for others."""


class _Group:
    """What waits of one task name.

    Attributes:
        grants: In order, by token.
        since_ns: When each was first seen.
    """

    __slots__ = ("grants", "rule", "since_ns")

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.grants: dict[int, Grant] = {}
        self.since_ns: dict[int, int] = {}

    def due_ns(self) -> int:
        """Return when it is ripe though it be not full."""
        return self.since_ns[next(iter(self.grants))] + self.rule.wait_ms * 1_000_000


class Gathering:
    """All of one pool.

    Attributes:
        rules: By task name; empty: nothing is gathered here.
        count: Leases that wait.
        riding: Leases that run in calls, beyond one each: they take no slot.
    """

    def __init__(self) -> None:
        self.rules: dict[str, Rule] = {}
        self.count = 0
        self.riding = 0
        self._groups: dict[str, _Group] = {}
        self._unseen: list[tuple[_Group, int]] = []

    def ahead(self) -> int:
        """Return how many leases are worth asking for beyond the slots: as many again as there are, up to one call."""
        among = self.count + self.riding
        return min(2 * among, max([rule.size for rule in self.rules.values()])) if among else 0

    def add(self, grant: Grant) -> None:
        """Let a lease wait behind the others of its name."""
        group = self._group(grant)
        group.grants[grant.token] = grant
        self._unseen.append((group, grant.token))
        self.count += 1

    def put_back(self, grants: Iterable[Grant]) -> None:
        """Let leases that were taken, and not started, wait before the others of their names, in their order."""
        by_name: dict[str, dict[int, Grant]] = {}
        for grant in grants:
            by_name.setdefault(grant.spec.name, {})[grant.token] = grant
            self.count += 1
        for some in by_name.values():
            group = self._group(next(iter(some.values())))
            group.grants = {**some, **group.grants}
            group.since_ns.update(dict.fromkeys(some, _LONG_AGO_NS))

    def ripe(self, now_ns: int) -> int:
        """Return the first token of the ripe group that came first; 0: none is ripe."""
        self._see(now_ns)
        ripe = [group for group in self._groups.values() if _is_ripe(group, now_ns)]
        return min([next(iter(group.grants)) for group in ripe], default=0)

    def due_ns(self, now_ns: int) -> int | None:
        """Return when the next group ripens; None: none is about to."""
        self._see(now_ns)
        unripe = [group.due_ns() for group in self._groups.values() if not _is_ripe(group, now_ns)]
        return min(unripe, default=None)

    def take(self, first: int, size_of: Callable[[Grant], int], bytes_max: int) -> list[Grant]:
        """Take what is to be called together.

        Args:
            first: Its first token, as ``ripe`` says.
            size_of: Tells how large a lease's arguments are.
            bytes_max: They are no more together, unless the first alone has more.
        """
        group = next(group for group in self._groups.values() if first in group.grants)
        call: list[Grant] = []
        left = bytes_max
        for grant in group.grants.values():
            left -= size_of(grant)
            if call and (left < 0 or len(call) == group.rule.size):
                break
            call.append(grant)
        for grant in call:
            self.drop(grant.token)
        return call

    def drop(self, token: int) -> bool:
        """Let go of a lease, if it waits here."""
        for name, group in self._groups.items():
            if group.grants.pop(token, None) is not None:
                group.since_ns.pop(token, None)
                self.count -= 1
                if not group.grants:
                    del self._groups[name]
                return True
        return False

    def waiting(self) -> list[Grant]:
        """Return all that wait, by when they came."""
        return sorted([grant for group in self._groups.values() for grant in group.grants.values()], key=_token)

    def keep(self, tokens: Collection[int]) -> None:
        """Let go of all others."""
        for grant in self.waiting():
            if grant.token not in tokens:
                self.drop(grant.token)

    def _see(self, now_ns: int) -> None:
        for group, token in self._unseen:
            if token in group.grants:
                group.since_ns[token] = now_ns
        self._unseen.clear()

    def _group(self, grant: Grant) -> _Group:
        name = grant.spec.name
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = _Group(self.rules[name])
        return group


def _is_ripe(group: _Group, now_ns: int) -> bool:
    return len(group.grants) >= group.rule.size or now_ns >= group.due_ns()


def _token(grant: Grant) -> int:
    return grant.token
