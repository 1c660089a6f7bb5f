"""What a task spawns while it runs, and its waiting for that.

A task that waits holds nothing meanwhile: its attempt ends there, and its function begins anew when all that it has
spawned has ended. So children are numbered in the order in which they are spawned, and the n-th of a later attempt is
the n-th of the first one.

Invariants:
- A child is told of once, by the attempt that is the first to come to it.
- An attempt that spawns as many as those before it has spawned the same, or has failed for good.
- No result is that of an attempt which took results of children and did not spawn all that were there.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Generic, TypeVar, cast

import msgspec

from taskd.client.outcome import error_of, value_of
from taskd_protocol.errors import BadRequest, TaskCodes, TaskdError
from taskd_protocol.ids import format_task_id
from taskd_protocol.task import Failure, Grant, Outcome, TaskSpec
from taskd_protocol.workflow import CHILDREN_MAX, member_id, place_of, spawn_digest, workflow_of
from taskd_protocol.workflow_messages import Missed

R_co = TypeVar("R_co", covariant=True)

TASKS_TOLD: Final = 500
"""Told of at a time: what a server decides on in one turn without anybody's noticing."""

BYTES_TOLD: Final = 1024 * 1024
"""Of arguments told of at a time, unless one task alone has more."""

Tell = Callable[[int, list[TaskSpec]], None]
"""Tells of children, of which the first has that number."""


class AttemptWaiting(BaseException):
    """Ends an attempt that waits. No ``Exception``, so that code that catches all of these lets it pass."""


class SpawnChanged(TaskdError):
    """The task does not spawn what it spawned before."""

    code = TaskCodes.SPAWN_CHANGED


class Found(msgspec.Struct, array_like=True, frozen=True):
    """What has become of what earlier attempts spawned, as far as it was there when the lease came."""

    parts: list[bytes]
    """Packed results by number, nil for those that have none."""
    missed: list[Missed] = []
    """Of these, why there is no result."""


class Child(Generic[R_co]):
    """A task that this one has spawned.

    Attributes:
        number: Among all that this one spawns, from 0.
    """

    __slots__ = ("_family", "number")

    def __init__(self, family: "Family", number: int) -> None:
        self._family = family
        self.number = number

    @property
    def id(self) -> str | None:
        """The task's id as text; None: this is the first attempt that spawns anything, and the server gives the ids."""
        return self._family.id_of(self.number)

    def result(self) -> R_co:
        """Return what it returned: as ``current().wait([child])``."""
        return cast("R_co", self._family.wait([self], return_errors=False)[0])

    def is_of(self, family: "Family") -> bool:
        """Tell whose it is."""
        return self._family is family

    def __repr__(self) -> str:
        """Show what tells it from others."""
        return f"<Child {self.number} {self.id or ''}>".replace(" >", ">")


class Family:
    """The children of the attempt that runs.

    Attributes:
        count: So many were spawned by this attempt.
    """

    def __init__(
        self, grant: Grant, found: Found | None, tell: Tell, wait_for_room: Callable[[], None] = lambda: None
    ) -> None:
        """Begin to count.

        Args:
            grant: Of the attempt; says what earlier ones spawned.
            found: What has become of that.
            tell: Called with children that are new, from any thread, one call at a time.
            wait_for_room: Called before that while the attempt runs; raises if it may not go on.
        """
        self.count = 0
        self._grant = grant
        self._tell = tell
        self._wait_for_room = wait_for_room
        self._known = 0 if grant.spawned is None else grant.spawned.count
        self._digest = b""
        self._changed = False
        self._unsent: list[TaskSpec] = []
        self._unsent_bytes = 0
        self._parts: Sequence[bytes] = () if found is None else found.parts
        self._missed = {} if found is None else {each.position: each.failure for each in found.missed}
        self._one_at_a_time = threading.Lock()

    def spawn(self, spec: TaskSpec) -> int:
        """Take on the next child; return its number.

        Raises:
            SpawnChanged: Earlier attempts spawned something else.
            BadRequest: There are too many.
            ServerBusy: There is no room for more: it was not taken on.
        """
        with self._one_at_a_time:
            if self._changed:
                raise SpawnChanged(self._change())
            number = self.count
            if number >= CHILDREN_MAX:
                raise BadRequest(f"a task spawns at most {CHILDREN_MAX} tasks: have them spawn the rest")
            if number >= self._known:
                self._make_room(number, len(spec.payload))
            self.count += 1
            if number < self._known:
                self._check(spec)
            else:
                self._unsent.append(spec)
                self._unsent_bytes += len(spec.payload)
        return number

    def wait(self, children: Iterable[Child[object]] | None, *, return_errors: bool) -> list[object]:
        """Return results, or end the attempt; see ``TaskContext.wait``."""
        if self._grant.spec.rules.at_most_once:
            raise BadRequest(
                "a task with at_most_once cannot wait for what it spawns: its function would have to begin anew;"
                " wait in another task"
            )
        numbers = list(range(self.count)) if children is None else [self._number(child) for child in children]
        outcomes = [self._outcome(number) for number in numbers]
        values: list[object] = []
        for outcome in outcomes:
            if outcome is None:
                raise AttemptWaiting("the attempt ends here; its function begins anew when its children have ended")
        for outcome in outcomes:
            assert outcome is not None
            if return_errors and outcome.state != "succeeded":
                values.append(error_of(outcome))
            else:
                values.append(value_of(outcome))
        return values

    def end(self, *, returned: bool) -> Failure | None:
        """Tell of what was not told of yet: the attempt has ended.

        Args:
            returned: The function did; it raised nothing.

        Returns:
            Why the attempt has failed for good, whatever it came to; None: it has not.
        """
        with self._one_at_a_time:
            self._flush(self.count)
            # What it did not come to was not compared: it may have taken another child's result for its own.
            if self._changed or (returned and 0 < self.count < self._known):
                return Failure(TaskCodes.SPAWN_CHANGED, self._change())
            return None

    def id_of(self, number: int) -> str | None:
        """Return a child's id as text, None: it is not known yet."""
        node = b"" if self._grant.spawned is None else self._grant.spawned.node
        return format_task_id(_id_at(node, number)) if node else None

    # -- the inside -----------------------------------------------------------------------

    def _check(self, spec: TaskSpec) -> None:
        assert self._grant.spawned is not None
        self._digest = spawn_digest(self._digest, spec.name, spec.payload)
        if self.count == self._known and self._digest != self._grant.spawned.digest:
            self._changed = True
            raise SpawnChanged(self._change())

    def _change(self) -> str:
        return (
            f"an attempt before spawned {self._known} tasks, and this one not the same: what a task spawns, and in"
            " which order, must follow from its arguments and its checkpoints"
        )

    def _make_room(self, number: int, size: int) -> None:
        """Tell of those before this one, if they are enough."""
        if len(self._unsent) >= TASKS_TOLD or (self._unsent and self._unsent_bytes + size > BYTES_TOLD):
            self._wait_for_room()
            self._flush(number)

    def _flush(self, end: int) -> None:
        """Tell of what has not been told of: the last ones before the number ``end``."""
        if self._unsent:
            unsent, self._unsent, self._unsent_bytes = self._unsent, [], 0
            self._tell(end - len(unsent), unsent)

    def _number(self, child: object) -> int:
        if not isinstance(child, Child) or not child.is_of(self):
            raise BadRequest(f"wait() takes what this attempt's spawn() has returned, not {child!r}")
        return child.number

    def _outcome(self, number: int) -> Outcome | None:
        """Return how a child ended; None: it was not known to have when the lease came."""
        if number >= min(len(self._parts), self._known):
            return None
        failure = self._missed.get(number)
        node = b"" if self._grant.spawned is None else self._grant.spawned.node
        child = _id_at(node, number)
        if failure is None:
            return Outcome(child, "succeeded", 0, self._parts[number])
        if failure.code == TaskCodes.PENDING:
            return None
        return Outcome(child, _STATES.get(failure.code, "dead"), failure=failure)


def _id_at(node: bytes, number: int) -> bytes:
    return member_id(workflow_of(node), place_of(node)[0], number)


_STATES: Final = {TaskCodes.CANCELLED: "cancelled", TaskCodes.EXPIRED: "expired"}
"""By what the server says of those that did not succeed."""
