"""The journal: what is durable, batch by batch, as a reader of the server's disk would see it.

Everything that must hold of tasks over time is decided from here: what was staged and lost
with a crash was never told to anyone, and does not count.
"""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from taskd.core import records
from taskd.core.lifecycle import TERMINAL, State
from taskd.core.records import EpochRecord, LeaseRecord, SpecRecord, StateRecord
from taskd.store import codec
from taskd.store.interface import Write
from taskd.store.keys import ID_START

_SPEC, _LEASE, _STATE, _META = records.SPEC[0], records.LEASE[0], records.STATE[0], records.META[0]


class Standing(NamedTuple):
    """What is stored of one task."""

    spec: SpecRecord | None = None
    lease: LeaseRecord | None = None
    state: StateRecord | None = None

    @property
    def name(self) -> str:
        """Its state; empty when it is not stored."""
        if self.spec is None:
            return ""
        if self.lease is not None:
            return State.CANCELLING if self.lease.cancelling else State.RUNNING
        return State.READY if self.state is None else self.state.state

    @property
    def has_ended(self) -> bool:
        """It is terminal."""
        return self.state is not None and self.state.state in TERMINAL

    @property
    def attempt(self) -> int:
        """Leases granted so far."""
        holder = self.lease or self.state
        return 0 if holder is None else holder.attempt


NOTHING = Standing()

_EPOCH = b"epoch"


class Reader(Protocol):
    """Whoever follows the journal."""

    def leased(self, task_id: bytes, lease: LeaseRecord, over: LeaseRecord | None) -> None:
        """A new lease is durable; ``over``: one that was never taken away before."""

    def moved(self, task_id: bytes, before: Standing, after: Standing) -> None:
        """A batch has changed what is stored of a task."""


class Journal:
    """See the module's docstring.

    Attributes:
        tasks: What is durable of each task that is stored.
        leases: Every lease that ever was durable: (task, attempt, agent) by token.
        epoch: Of the server's life that wrote last.
    """

    def __init__(self, reader: Reader) -> None:
        self.tasks: dict[bytes, Standing] = {}
        self.leases: dict[int, tuple[bytes, int, str]] = {}
        self.epoch = 0
        self._reader = reader
        self._staged: deque[tuple[int, Sequence[Write]]] = deque()

    def stage(self, sequence: int, writes: Sequence[Write]) -> None:
        """Take note of a batch that is not durable."""
        self._staged.append((sequence, writes))

    @property
    def staged_count(self) -> int:
        """Batches that are not durable."""
        return len(self._staged)

    def commit(self, sequence: int) -> None:
        """Batches up to this one are durable."""
        while self._staged and self._staged[0][0] <= sequence:
            self._apply(self._staged.popleft()[1])

    def drop(self) -> int:
        """What is not durable is lost; return how many batches that is."""
        count = len(self._staged)
        self._staged.clear()
        return count

    def find(self, task_id: bytes) -> Standing:
        """Return what is durable of a task."""
        return self.tasks.get(task_id, NOTHING)

    def _apply(self, writes: Sequence[Write]) -> None:
        changed: dict[bytes, Standing] = {}
        for key, value in writes:
            kind = key[1]
            if kind not in {_SPEC, _LEASE, _STATE}:
                if kind == _META and key[ID_START:] == _EPOCH and value is not None:
                    self.epoch = codec.decode_as(EpochRecord, records.META, _EPOCH, value).epoch
                continue
            task_id = key[ID_START:]
            standing = changed.get(task_id)
            if standing is None:
                standing = self.tasks.get(task_id, NOTHING)
            if kind == _SPEC:
                spec = None if value is None else codec.decode_as(SpecRecord, records.SPEC, task_id, value)
                changed[task_id] = standing._replace(spec=spec)
            elif kind == _STATE:
                state = None if value is None else codec.decode_as(StateRecord, records.STATE, task_id, value)
                changed[task_id] = standing._replace(state=state)
            else:
                changed[task_id] = self._lease(task_id, standing, value)
        for task_id, after in changed.items():
            before = self.tasks.get(task_id, NOTHING)
            if after == NOTHING:
                self.tasks.pop(task_id, None)
            else:
                self.tasks[task_id] = after
            self._reader.moved(task_id, before, after)

    def _lease(self, task_id: bytes, standing: Standing, value: bytes | None) -> Standing:
        if value is None:
            return standing._replace(lease=None)
        lease = codec.decode_as(LeaseRecord, records.LEASE, task_id, value)
        if standing.lease is None or standing.lease.token != lease.token:
            self._reader.leased(task_id, lease, standing.lease)
            self.leases[lease.token] = (task_id, lease.attempt, lease.agent)
        return standing._replace(lease=lease)
