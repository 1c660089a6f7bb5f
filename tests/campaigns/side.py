"""The real core over one store, one command after another: nothing else, and nothing at the same time."""

import random
from collections.abc import Callable, Coroutine, Sequence

from campaigns.onlooker import Onlooker
from harness.core import Disk
from simulation.bodies import ASYNC, BLOCKING
from taskd.core import records
from taskd.core.attempts import NO_PAST
from taskd.core.commands import NOTHING_LOADED, Answer, Command, NeedRecords, Now, PurgeFinished
from taskd.core.coordinator import Coordinator
from taskd.core.effects import (
    Continue,
    Effect,
    SendLease,
    WantFinished,
    WantFlow,
    WantGate,
    WantGates,
    WantItems,
    WantLapsed,
    WantLine,
    WantTasks,
    WantTimers,
)
from taskd.core.invariants import check_invariants
from taskd.core.records import READERS, Kind, LeaseRecord, Mutation, SpecRecord, StateRecord
from taskd.core.restore import restore
from taskd.core.working import Settings
from taskd.server.flow_loading import FlowLoader
from taskd.server.loading import BARE, Loader
from taskd.server.starting import read_stored
from taskd.store import codec
from taskd.store.interface import Store
from taskd_protocol.errors import TaskdError

ENTRIES = 10_000
"""More than any example has of a kind."""

KINDS = (records.META, *records.READERS, *sorted(BARE))

Reopen = Callable[[Store], Coroutine[None, None, Store]]


class Side:
    """A server's inside.

    Attributes:
        told: Leases since somebody looked, in order.
    """

    def __init__(self, settings: Settings, store: Store, reopen: Reopen, onlooker: Onlooker | None) -> None:
        self._settings = settings
        self._store = store
        self._reopen = reopen
        self._onlooker = onlooker
        self.told: list[SendLease] = []

    async def start(self, now: Now, *, reopens: bool = False) -> None:
        """Begin a life from what the store holds."""
        if reopens:
            self._store = await self._reopen(self._store)
        self._coordinator = Coordinator(self._settings, random.Random(0))
        restore(self._coordinator.working, await read_stored(self._store), now)
        self._loader = Loader(self._store, self._coordinator.working)
        self._flows = FlowLoader(self._store)
        self.told.clear()
        await self._settle(now)

    async def close(self) -> None:
        """Let go of the store."""
        await self._store.close()

    async def do(self, command: Command, now: Now) -> Answer | TaskdError:
        """Decide on a command, and on all that follows from it."""
        try:
            answer = await self._apply(command, now)
        except TaskdError as refusal:
            return refusal
        await self._settle(now)
        return answer

    async def tick(self, now: Now) -> None:
        """Let time have its say, as often as it has something to say now."""
        self._coordinator.tick(now)
        await self._settle(now)
        while self._coordinator.next_deadline_mono_ms() <= now.mono_ms:
            self._coordinator.tick(now)
            await self._settle(now)

    async def _apply(self, command: Command, now: Now) -> Answer:
        loaded = NOTHING_LOADED
        while True:
            try:
                return self._coordinator.apply(command, now, loaded)
            except NeedRecords as need:
                loaded = await self._loader.read(need.keys)

    async def _settle(self, now: Now) -> None:
        while True:
            turn = self._coordinator.take_turn(now)
            self._write(turn.mutations)
            if not turn.mutations and not turn.effects:
                break
            for effect in turn.effects:
                await self._carry_out(effect, now)
        check_invariants(self._coordinator.working)

    async def _carry_out(self, effect: Effect, now: Now) -> None:  # noqa: C901, PLR0912 - one case a kind of effect
        match effect:
            case SendLease():
                self.told.append(effect)
            case Continue():
                await self._follow(effect.command, now)
            case WantLine():
                await self._follow(await self._loader.read_line(effect), now)
            case WantGate():
                await self._follow(await self._loader.read_gate(effect), now)
            case WantGates():
                await self._follow(await self._loader.read_gates(effect), now)
            case WantTimers():
                await self._follow(await self._loader.read_timers(effect), now)
            case WantFinished():
                for finished in await self._loader.read_finished(effect):
                    await self._follow(PurgeFinished(finished), now)
            case WantLapsed():
                await self._follow(await self._loader.read_lapsed(effect), now)
            case WantTasks():
                await self._follow(await self._loader.read_tasks(effect), now)
            case WantFlow():
                await self._follow(await self._flows.read_flow(effect), now)
            case WantItems():
                await self._follow(await self._flows.read_items(effect), now)
            case _:
                pass  # told to nobody here

    async def _follow(self, command: Command, now: Now) -> None:
        """Decide on what the core asked for itself; its batch is written before anything is read again."""
        await self._apply(command, now)
        turn = self._coordinator.take_turn(now)
        self._write(turn.mutations)
        for effect in turn.effects:
            await self._carry_out(effect, now)

    def _write(self, mutations: Sequence[Mutation]) -> None:
        """Write a batch; nothing is ever lost here."""
        if mutations:
            self._store.stage(codec.encode(mutations))
            if self._onlooker is not None:
                self._onlooker.stage(mutations)
                self._onlooker.flush()

    async def content(self) -> list[tuple[bytes, bytes, bytes]]:
        """Return all that the store holds."""
        found: list[tuple[bytes, bytes, bytes]] = []
        for kind in KINDS:
            found += [(kind, record_id, value) for record_id, value in await self._store.scan(kind, limit=ENTRIES)]
        return found

    async def disk(self) -> Disk:
        """Return it as records."""
        disk = Disk()
        for kind, record_id, value in await self.content():
            record = codec.decode(Kind(kind), record_id, value) if kind == records.META or kind in READERS else value
            disk.values[Kind(kind), record_id] = record
        return disk

    async def tasks(self) -> dict[bytes, tuple[object, ...]]:
        """Return what the store holds of each of the model's tasks: state, attempt, and what it has cost."""
        found: dict[bytes, tuple[object, ...]] = {}
        for task_id, value in await self._store.scan(records.SPEC, limit=ENTRIES):
            spec = codec.decode_as(SpecRecord, records.SPEC, task_id, value)
            if spec.spec.name not in {BLOCKING, ASYNC}:
                found[task_id] = ("ready", 0, 0, 0, 0)
        for task_id, value in await self._store.scan(records.STATE, limit=ENTRIES):
            if task_id not in found:
                continue
            state = codec.decode_as(StateRecord, records.STATE, task_id, value)
            past = state.past or NO_PAST
            found[task_id] = (state.state, state.attempt, state.failures, past.crashes, past.losses)
        for task_id, value in await self._store.scan(records.LEASE, limit=ENTRIES):
            if task_id not in found:
                continue
            lease = codec.decode_as(LeaseRecord, records.LEASE, task_id, value)
            past = lease.past or NO_PAST
            word = "cancelling" if lease.cancelling else "running"
            found[task_id] = (word, lease.attempt, lease.failures, past.crashes, past.losses)
        return found
