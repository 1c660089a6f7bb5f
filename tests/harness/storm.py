"""A storm: clients and agents that insist, over a server that dies and a disk that dawdles; and what must hold.

Each actor keeps a ledger of what it was told. A crash takes back whatever was not
durable; nothing that stands in a ledger may be among it.
"""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import trio

from harness.peer import Peer, hello
from harness.server import Server
from harness.waiting import until
from taskd.core.invariants import check_invariants
from taskd.core.lifecycle import TERMINAL
from taskd.core.records import SPEC, STATE, StateRecord
from taskd.server.certificates import Certificates
from taskd.store import codec
from taskd.store.keys import make_key
from taskd_protocol.messages import (
    Accepted,
    Ack,
    Cancel,
    Error,
    Heartbeat,
    Lease,
    LeaseCredit,
    Nack,
    Offer,
    Offered,
    OutcomeCredit,
    Outcomes,
    Recorded,
    Revoke,
    Submit,
    Wait,
    Welcome,
)
from taskd_protocol.task import Failure, FailureReport, Grant, Held, Outcome, Pool, Report, Retry, TaskSpec

RETRY = Retry(max_attempts=2, base_ms=200, max_ms=500)
FAILURE = Failure("task.raised", "boom")
STORM_SECONDS = 8.0
CALM_SECONDS = 60.0
CRASH_EVERY_SECONDS = 0.8
KEYS = 20
LOOK_SECONDS = 0.02
SLOTS = 6


@dataclass(kw_only=True)
class World:
    """The server of the moment, and everybody's ledgers.

    Attributes:
        accepted: Tasks whose submit was acknowledged, by the id that they are known under.
        outcomes: How tasks ended, as clients were told.
        recorded: Results by token of the successes that agents were told are recorded, by task.
        calm: No more faults, and no more work: what there is must end.
    """

    server: Server
    rng: random.Random
    accepted: dict[bytes, TaskSpec] = field(default_factory=dict)
    outcomes: dict[bytes, Outcome] = field(default_factory=dict)
    recorded: dict[bytes, dict[int, bytes]] = field(default_factory=dict)
    calm: bool = False
    crashes: int = 0

    @asynccontextmanager
    async def connected(self, role: str, name: str) -> AsyncIterator[Peer]:
        """Connect to whichever server there is at this moment; the block goes on until the connection ends."""
        async with trio.open_nursery() as nursery:
            peer = Peer(self.server.open_stream(), nursery)
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await peer.send(hello(role, self.server.tokens[role], name, name.encode().ljust(16)))
                await peer.wait(Welcome)
                yield peer
            nursery.cancel_scope.cancel()

    async def trouble_the_disk(self) -> None:
        """Make it slow and busy, in turns, until it is calm."""
        while not self.calm:
            disk = self.server.disk
            await trio.sleep(self.rng.expovariate(10))
            match self.rng.randrange(4):
                case 0 | 1:
                    with disk.held():
                        await trio.sleep(self.rng.expovariate(10))
                case 2:
                    with disk.reads_held():
                        await trio.sleep(self.rng.expovariate(10))
                case _:
                    disk.stalls = self.rng.randint(1, 20)

    async def crash(self) -> None:
        """Cut the server's power; what comes back has lost what was not durable, or some of it."""
        self.server = await self.server.crash(self.rng)
        self.crashes += 1
        self.check()

    # -- what must hold -----------------------------------------------------------------

    def note_outcome(self, outcome: Outcome) -> None:
        """Enter what a client was told; it must not contradict what any was told before."""
        assert self.outcomes.setdefault(outcome.id, outcome) == outcome
        assert outcome.state in TERMINAL, f"acknowledged and unknown: {outcome}"

    def check(self) -> None:
        """Compare the ledgers with what is stored."""
        for task_id, spec in self.accepted.items():
            assert make_key(SPEC, task_id) in self.server.disk._values, f"acknowledged and lost: {spec}"
        for task_id, outcome in self.outcomes.items():
            state = self.state(task_id)
            assert state is not None, f"ended, and is not: {outcome}"
            assert (state.state, state.attempt) == (outcome.state, outcome.attempt), f"{outcome} is {state}"
        for task_id, results in self.recorded.items():
            assert len(results) == 1, f"recorded more than once: {results}"
            state = self.state(task_id)
            assert state is not None, f"recorded, and is not: {results}"
            assert (state.state, {state.token: state.result}) == ("succeeded", results)

    def left(self) -> list[TaskSpec]:
        """Return the acknowledged tasks that have not ended."""
        return [
            spec
            for task_id, spec in self.accepted.items()
            if (state := self.state(task_id)) is None or state.state not in TERMINAL
        ]

    def state(self, task_id: bytes) -> StateRecord | None:
        """Return a task's stored state."""
        value = self.server.disk._values.get(make_key(STATE, task_id))
        return None if value is None else codec.decode_as(StateRecord, STATE, task_id, value)


@dataclass(kw_only=True)
class StormClient:
    """Submits, waits and cancels; sends again what was not answered, as it was."""

    world: World
    rng: random.Random
    name: str
    unanswered: dict[bytes, list[TaskSpec]] = field(default_factory=dict)
    waiting: set[bytes] = field(default_factory=set)
    asked: dict[int, list[TaskSpec]] = field(default_factory=dict)

    async def run(self) -> None:
        while True:
            async with self.world.connected("client", self.name) as peer:
                self.asked.clear()
                for specs in self.unanswered.values():
                    await self._submit(peer, specs)
                await peer.send(Wait(peer.number(), sorted(self.waiting)))
                while not peer.over.is_set():
                    await self._hear(peer)
                    if not self.world.calm:
                        await self._act(peer)
                    await trio.sleep(LOOK_SECONDS)
            await trio.sleep(self.rng.uniform(0, 0.2))

    async def _act(self, peer: Peer) -> None:
        chance = self.rng.random()
        if chance < 0.01 and self.waiting:
            await peer.send(Cancel(peer.number(), [self.rng.choice(sorted(self.waiting))]))
        elif chance < 0.15:
            specs = self._new_tasks()
            self.unanswered[specs[0].id] = specs
            await self._submit(peer, specs)
        elif chance > 0.997:
            await peer.close()

    async def _submit(self, peer: Peer, specs: list[TaskSpec]) -> None:
        number = peer.number()
        self.asked[number] = specs
        await peer.send(Submit(number, specs))

    async def _hear(self, peer: Peer) -> None:
        for error in peer.told(Error):
            assert error.retryable, error
            if error.request_id in self.asked:
                await self._submit(peer, self.asked.pop(error.request_id))
        for accepted in peer.told(Accepted):
            specs = self.asked.pop(accepted.request_id)
            self.unanswered.pop(specs[0].id, None)
            firsts = dict(accepted.existing)
            known_as = {firsts.get(index, spec.id): spec for index, spec in enumerate(specs)}
            self.world.accepted |= known_as
            self.waiting |= known_as.keys()
            await peer.send(Wait(peer.number(), list(known_as)))
        for told in peer.told(Outcomes):
            for outcome in told.outcomes:
                self.world.note_outcome(outcome)
                self.waiting.discard(outcome.id)
            await peer.send(OutcomeCredit(len(told.outcomes)))

    def _new_tasks(self) -> list[TaskSpec]:
        """Make tasks of all kinds; under one key always the same."""
        specs = self.world.server.specs
        if self.rng.random() < 0.2:
            return specs(key=f"key-{self.rng.randrange(KEYS)}", payload=b"same", retry=RETRY)
        return specs(
            self.rng.randint(1, 4),
            payload=bytes(self.rng.choice([0, 10, 2_000])),
            priority=self.rng.randint(-1, 1),
            delay_ms=self.rng.choice([0, 0, 0, 300]),
            retry=RETRY,
        )


@dataclass(kw_only=True)
class StormAgent:
    """Runs what it is given, fails some of it, and reports until it is told that it is recorded."""

    world: World
    rng: random.Random
    name: str
    running: dict[int, Grant] = field(default_factory=dict)
    finished: dict[int, Report | FailureReport] = field(default_factory=dict)
    unsent: list[Report | FailureReport] = field(default_factory=list)

    async def run(self) -> None:
        while True:
            async with self.world.connected("agent", self.name) as peer:
                await self._offer(peer)
                lease_number, beats, credit = 0, 0, SLOTS - len(self.running) - len(self.finished)
                beat_at = trio.current_time()
                while not peer.over.is_set():
                    if trio.current_time() >= beat_at:
                        beat_at = trio.current_time() + 2
                        beats += 1
                        await peer.send(Heartbeat(beats, lease_number, [*self.running, *self.finished]))
                    for lease in peer.told(Lease):
                        lease_number = lease.number
                        self.running |= {grant.token: grant for grant in lease.grants}
                    credit += self._hear(peer)
                    if credit > 0:
                        await peer.send(LeaseCredit(0, credit))
                        credit = 0
                    await self._report(peer, self._finish())
                    if self.rng.random() > 0.998 and not self.world.calm:
                        await peer.close()
                    await trio.sleep(LOOK_SECONDS)
            await trio.sleep(self.rng.uniform(0, 0.5))

    async def _offer(self, peer: Peer) -> None:
        """Offer, and send again what was not recorded."""
        grants = [Held(token, grant.spec.id, grant.attempt) for token, grant in self.running.items()]
        reports = [Held(report.token, report.id, report.attempt) for report in self.finished.values()]
        await peer.send(Offer([Pool("process", SLOTS, ["m.f"])], holding=[*grants, *reports]))
        offered = await peer.wait(Offered)
        if offered is not None:
            for token in offered.stale:
                self._forget(token)
            await self._report(peer, list(self.finished.values()))

    def _hear(self, peer: Peer) -> int:
        """Take in what came; return how many places are free again."""
        before = len(self.running) + len(self.finished)
        for recorded in peer.told(Recorded):
            for token in recorded.tokens:
                report = self.finished.get(token)
                if isinstance(report, Report):
                    self.world.recorded.setdefault(report.id, {})[token] = report.result
            for token in [*recorded.tokens, *recorded.stale]:
                self._forget(token)
        for revoke in peer.told(Revoke):
            for token in revoke.tokens:
                grant = self.running.pop(token, None)
                if grant is not None:
                    self.finished[token] = FailureReport(token, grant.spec.id, grant.attempt, "cancelled")
                    self.unsent.append(self.finished[token])
        return before - len(self.running) - len(self.finished)

    def _finish(self) -> list[Report | FailureReport]:
        """End some of what runs."""
        reports, self.unsent = self.unsent, []
        for token, grant in list(self.running.items()):
            if self.rng.random() > 0.1:
                continue
            del self.running[token]
            report: Report | FailureReport
            if self.rng.random() < 0.2:
                report = FailureReport(token, grant.spec.id, grant.attempt, "failed", FAILURE)
            else:
                report = Report(token, grant.spec.id, grant.attempt, b"%s %d" % (self.name.encode(), token))
            self.finished[token] = report
            reports.append(report)
        return reports

    async def _report(self, peer: Peer, reports: list[Report | FailureReport]) -> None:
        acks = [report for report in reports if isinstance(report, Report)]
        nacks = [report for report in reports if isinstance(report, FailureReport)]
        if acks:
            await peer.send(Ack(acks))
        if nacks:
            await peer.send(Nack(nacks))

    def _forget(self, token: int) -> None:
        self.running.pop(token, None)
        self.finished.pop(token, None)


async def storm(seed: int, certificates: Certificates) -> World:
    """Let it rage, then calm; return what is left, where everything that was accepted has ended."""
    async with trio.open_nursery() as nursery:
        rng = random.Random(seed)
        world = World(server=await Server(nursery, certificates, seed=seed).start(), rng=rng)
        clients = [StormClient(world=world, rng=random.Random(rng.random()), name=f"c{n}") for n in range(3)]
        agents = [StormAgent(world=world, rng=random.Random(rng.random()), name=f"a{n}") for n in range(2)]
        for run in [*[client.run for client in clients], *[agent.run for agent in agents]]:
            nursery.start_soon(run)
        nursery.start_soon(world.trouble_the_disk)
        end = trio.current_time() + STORM_SECONDS
        while trio.current_time() < end:
            await trio.sleep(rng.expovariate(1 / CRASH_EVERY_SECONDS))
            await world.crash()
        world.calm = True
        await until(lambda: not any(client.unanswered or client.waiting for client in clients), CALM_SECONDS)
        await until(lambda: not world.left(), CALM_SECONDS)
        world.check()
        check_invariants(world.server.working)
        assert world.server.faults.failed == []
        nursery.cancel_scope.cancel()
    return world
