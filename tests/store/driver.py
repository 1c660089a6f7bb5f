"""A coordinator over a store, driven by hand: real records, without a server."""

import random
from collections.abc import Sequence
from itertools import count
from typing import TYPE_CHECKING

from harness.specs import changed
from taskd.core import records
from taskd.core.agent_commands import AckAttempts, AddCredit, AppendLogs, KeepCheckpoints, NackAttempts, OfferAgent
from taskd.core.commands import CancelTasks, Command, NeedRecords, Now, SubmitTasks
from taskd.core.coordinator import Coordinator
from taskd.core.effects import Continue, SendLease, WantGate
from taskd.core.restore import Stored, restore
from taskd.core.working import Settings
from taskd.server.loading import Loader
from taskd.store.codec import decode, encode
from taskd.store.interface import Store
from taskd_protocol.ids import make_task_ids
from taskd_protocol.task import (
    Checkpoint,
    Failure,
    FailureReport,
    Grant,
    LogPiece,
    Pool,
    Report,
    Retry,
    TaskSpec,
    Unique,
    Use,
)

if TYPE_CHECKING:
    from taskd.core.records import Key, Record

WALL_MS = 1_763_760_000_000


class Driver:
    """Submits, leases and reports, each a turn of its own."""

    def __init__(self, store: Store, seed: int = 0) -> None:
        self.store = store
        self.grants: list[Grant] = []
        self._rng = random.Random(seed)
        self._steps = count(1)
        self._coordinator = Coordinator(Settings(), random.Random(seed))
        stored = Stored(counters=None, epoch=None, tokens=[], lines=[], leases=[], newest_id=b"")
        restore(self._coordinator.working, stored, self._now())

    def specs(
        self,
        count: int,
        *,
        queue: str = "default",
        name: str = "app.f",
        key: str = "",
        delay_ms: int = 0,
        priority: int = 0,
        max_attempts: int = 2,
        ttl_ms: int = 0,
        deadline_ms: int = 0,
        unique: Unique | None = None,
        uses: Sequence[Use] = (),
        fifo_key: str = "",
        fair_key: str = "",
    ) -> list[TaskSpec]:
        ids = make_task_ids(count, WALL_MS, self._rng.randbytes(10 * count))
        retry = Retry(max_attempts=max_attempts, base_ms=1000)
        return [
            changed(
                TaskSpec(task_id, name, b"payload", queue, priority, delay_ms, retry, f"{key}-{n}" if key else ""),
                ttl_ms=ttl_ms,
                deadline_ms=deadline_ms,
                unique=unique,
                limits=list(uses),
                fifo_key=fifo_key,
                fair_key=fair_key,
            )
            for n, task_id in enumerate(ids)
        ]

    async def submit(self, specs: list[TaskSpec]) -> list[bytes]:
        await self.apply(SubmitTasks("key1", specs))
        return [spec.id for spec in specs]

    async def lease(self, agent: str, names: list[str], leases: int) -> list[Grant]:
        """Connect an agent with room for so many; return what it is granted."""
        await self.apply(
            OfferAgent(
                agent=agent,
                boot_id=bytes(16),
                connection=next(self._steps),
                pools=[Pool("process", leases, names)],
                queues=frozenset(),
            )
        )
        connection = self._coordinator.working.agents[agent].connection
        self.grants.clear()
        await self.apply(AddCredit(agent, connection, 0, leases))
        return list(self.grants)

    async def ack(self, agent: str, grants: list[Grant], result: bytes = b"\xc0") -> None:
        await self.apply(AckAttempts(agent, [Report(g.token, g.spec.id, g.attempt, result) for g in grants]))

    async def fail(self, agent: str, grants: list[Grant]) -> None:
        failure = Failure("task.raised", "boom")
        await self.apply(
            NackAttempts(agent, [FailureReport(g.token, g.spec.id, g.attempt, "failed", failure) for g in grants])
        )

    async def log(self, agent: str, grants: list[Grant], pieces: int) -> None:
        for n in range(pieces):
            await self.apply(AppendLogs(agent, [LogPiece(g.token, g.spec.id, 1, 5, b"line %d\n" % n) for g in grants]))

    async def checkpoint(self, agent: str, grants: list[Grant]) -> None:
        await self.apply(KeepCheckpoints(agent, [Checkpoint(g.token, g.spec.id, b"\x01") for g in grants]))

    async def cancel(self, ids: list[bytes]) -> None:
        await self.apply(CancelTasks(ids))

    async def apply(self, command: Command) -> None:
        loaded: dict[Key, Record | bytes | None] = {}
        while True:
            try:
                self._coordinator.apply(command, self._now(), loaded)
            except NeedRecords as need:
                values = await self.store.load(need.keys)
                loaded = {
                    key: None if value is None else decode(*key, value) if key[0] in records.READERS else value
                    for key, value in zip(need.keys, values, strict=True)
                }
            else:
                break
        turn = self._coordinator.take_turn(self._now())
        self.store.stage(encode(turn.mutations))
        for effect in turn.effects:
            match effect:
                case SendLease():
                    self.grants += effect.grants
                case Continue():
                    await self.apply(effect.command)
                case WantGate():
                    loader = Loader(self.store, self._coordinator.working)
                    await self.apply(await loader.read_gate(effect))
                case _:
                    pass  # told to nobody here

    def _now(self) -> Now:
        step = next(self._steps)
        return Now(step, WALL_MS + step)
