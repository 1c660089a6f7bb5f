"""Actors: a client and an agent that insist, over connections that break, and the ledger of what they were told.

They know nothing of what is behind the connection: a server in memory, or a real one.
"""

import random
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import trio

from harness.peer import Peer
from harness.sameness import Sameness
from taskd.core.lifecycle import TERMINAL
from taskd_protocol.agent_messages import (
    Ack,
    Heartbeat,
    Lease,
    LeaseCredit,
    Nack,
    Offer,
    Offered,
    Recorded,
    Revoke,
    Started,
    StartRecorded,
)
from taskd_protocol.connection_messages import Error
from taskd_protocol.messages import Accepted, Cancel, OutcomeCredit, Outcomes, Submit, Wait
from taskd_protocol.payload import pack
from taskd_protocol.task import Failure, FailureReport, Grant, Held, Outcome, Pool, Report, Retry, TaskSpec, Unique

NAME = "m.f"
RETRY = Retry(max_attempts=2, base_ms=200, max_ms=500)
FAILURE = Failure("task.raised", "boom")
FAILING = 0.2
"""So many attempts at tasks of that name fail; others never do."""
CRASHING = 0.05
"""So many of them take their worker down."""
CRASH = Failure("worker.killed", "SIGSEGV ended the worker process", exit_code=-11)
KEYS = 20
WORKS = 3
LOOK_SECONDS = 0.02
BEAT_SECONDS = 2.0
SLOTS = 6


class Standing(NamedTuple):
    """How a task stands in the end, wherever that was read."""

    state: str
    attempt: int
    result: bytes | None


class Ledger:
    """What everybody was told.

    Attributes:
        accepted: Tasks whose submit was acknowledged, by the id that they are known under.
        outcomes: How tasks ended, as clients were told.
        recorded: By task, the successes that agents were told are recorded: results by token.
        sameness: What was told of work that is to be there once.
    """

    def __init__(self) -> None:
        self.accepted: dict[bytes, TaskSpec] = {}
        self.outcomes: dict[bytes, Outcome] = {}
        self.recorded: dict[bytes, dict[int, bytes]] = {}
        self.sameness = Sameness()

    def note_accepted(self, specs: Mapping[bytes, TaskSpec]) -> None:
        """Enter tasks that were acknowledged."""
        self.accepted.update(specs)

    def note_outcome(self, outcome: Outcome) -> None:
        """Enter an end; it must not contradict what any client was told before."""
        assert self.outcomes.setdefault(outcome.id, outcome) == outcome
        assert outcome.state in TERMINAL, f"acknowledged and unknown: {outcome}"

    def note_recorded(self, report: Report) -> None:
        """Enter a success that need not be reported again."""
        self.recorded.setdefault(report.id, {})[report.token] = report.result

    def check(self, find: Callable[[bytes], Standing | None]) -> None:
        """Compare with what is stored; ``find`` gives None for what is not."""
        for task_id, spec in self.accepted.items():
            assert find(task_id) is not None, f"acknowledged and lost: {spec}"
        for task_id, outcome in self.outcomes.items():
            found = find(task_id)
            told = Standing(outcome.state, outcome.attempt, outcome.result or None)
            assert found == told, f"was told as {told}, and is {found}"
        for task_id, results in self.recorded.items():
            assert len(results) == 1, f"recorded more than once: {results}"
            found = find(task_id)
            assert found is not None, f"recorded, and is not: {results}"
            assert (found.state, [found.result]) == ("succeeded", list(results.values()))

    def left(self, find: Callable[[bytes], Standing | None]) -> list[TaskSpec]:
        """Return the acknowledged tasks that have not ended."""
        stand = {task_id: find(task_id) for task_id in self.accepted}
        return [self.accepted[task_id] for task_id, at in stand.items() if at is None or at.state not in TERMINAL]


class Ground(Protocol):
    """Where actors act."""

    ledger: Ledger
    calm: bool
    """No more new work: what there is must end."""

    def connected(self, role: str, name: str) -> AbstractAsyncContextManager[Peer]:
        """Connect to whichever server there is; the peer may be over already."""
        ...

    def specs(self, count: int = 1, **fields: object) -> list[TaskSpec]:
        """Make so many new tasks."""
        ...


@dataclass(kw_only=True)
class Client:
    """Submits, waits and cancels; sends again what was not answered, as it was."""

    ground: Ground
    rng: random.Random
    name: str
    unanswered: dict[bytes, list[TaskSpec]] = field(default_factory=dict)
    waiting: set[bytes] = field(default_factory=set)
    asked: dict[int, list[TaskSpec]] = field(default_factory=dict)

    async def run(self) -> None:
        while True:
            async with self.ground.connected("client", self.name) as peer:
                self.asked.clear()
                for specs in self.unanswered.values():
                    await self._submit(peer, specs)
                await peer.send(Wait(peer.number(), sorted(self.waiting)))
                while not peer.over.is_set():
                    await self._hear(peer)
                    if not self.ground.calm:
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
            for index, spec in enumerate(specs):
                self.ground.ledger.sameness.note_accepted(spec, firsts.get(index, spec.id))
            known_as = {firsts.get(index, spec.id): spec for index, spec in enumerate(specs)}
            self.ground.ledger.note_accepted(known_as)
            self.waiting |= known_as.keys()
            await peer.send(Wait(peer.number(), list(known_as)))
        for told in peer.told(Outcomes):
            for outcome in told.outcomes:
                self.ground.ledger.note_outcome(outcome)
                self.waiting.discard(outcome.id)
            await peer.send(OutcomeCredit(len(told.outcomes)))

    def _new_tasks(self) -> list[TaskSpec]:
        """Make tasks of all kinds; under one key always the same, and some that are to be the only ones."""
        specs = self.ground.specs
        chance = self.rng.random()
        if chance < 0.2:
            return specs(key=f"key-{self.rng.randrange(KEYS)}", payload=b"same", retry=RETRY)
        if chance < 0.3:
            unique = Unique("running", key=f"work-{self.rng.randrange(WORKS)}", replace=self.rng.random() < 0.3)
            return specs(unique=unique, delay_ms=300, retry=RETRY)
        return specs(
            self.rng.randint(1, 4),
            payload=bytes(self.rng.choice([0, 10, 2_000])),
            priority=self.rng.randint(-1, 1),
            delay_ms=self.rng.choice([0, 0, 0, 300]),
            retry=RETRY,
        )


@dataclass(kw_only=True)
class Agent:
    """Runs what it is given, fails some of it, and reports until it is told that it is recorded.

    What is to be marked before it starts does not end before it was.
    """

    ground: Ground
    rng: random.Random
    name: str
    names: list[str] = field(default_factory=lambda: [NAME])
    running: dict[int, Grant] = field(default_factory=dict)
    marked: set[int] = field(default_factory=set)
    finished: dict[int, Report | FailureReport] = field(default_factory=dict)
    unsent: list[Report | FailureReport] = field(default_factory=list)

    async def run(self) -> None:
        while True:
            async with self.ground.connected("agent", self.name) as peer:
                await self._offer(peer)
                lease_number, beats, credit = 0, 0, SLOTS - len(self.running) - len(self.finished)
                beat_at = trio.current_time()
                while not peer.over.is_set():
                    if trio.current_time() >= beat_at:
                        beat_at = trio.current_time() + BEAT_SECONDS
                        beats += 1
                        await peer.send(Heartbeat(beats, lease_number, [*self.running, *self.finished]))
                    for lease in peer.told(Lease):
                        lease_number = lease.number
                        self.running |= {grant.token: grant for grant in lease.grants}
                    credit += self._hear(peer)
                    if credit > 0:
                        await peer.send(LeaseCredit(0, credit))
                        credit = 0
                    unmarked = self._unmarked()
                    if unmarked:
                        await peer.send(Started(unmarked))
                    await self._report(peer, self._finish())
                    if self.rng.random() > 0.998 and not self.ground.calm:
                        await peer.close()
                    await trio.sleep(LOOK_SECONDS)
            await trio.sleep(self.rng.uniform(0, 0.5))

    async def _offer(self, peer: Peer) -> None:
        """Offer, and send again what was not recorded."""
        grants = [Held(token, grant.spec.id, grant.attempt) for token, grant in self.running.items()]
        reports = [Held(report.token, report.id, report.attempt) for report in self.finished.values()]
        await peer.send(Offer([Pool("process", SLOTS, self.names)], holding=[*grants, *reports]))
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
                    self.ground.ledger.note_recorded(report)
            for token in [*recorded.tokens, *recorded.stale]:
                self._forget(token)
        for started in peer.told(StartRecorded):
            self.marked.update(started.tokens)
            for token in started.stale:
                self._forget(token)
        for revoke in peer.told(Revoke):
            for token in revoke.tokens:
                grant = self.running.pop(token, None)
                if grant is not None:
                    self.finished[token] = FailureReport(token, grant.spec.id, grant.attempt, "cancelled")
                    self.unsent.append(self.finished[token])
        return before - len(self.running) - len(self.finished)

    def _unmarked(self) -> list[int]:
        return [token for token, grant in self.running.items() if grant.mark_start and token not in self.marked]

    def _finish(self) -> list[Report | FailureReport]:
        """End some of what runs."""
        reports, self.unsent = self.unsent, []
        unmarked = self._unmarked()
        for token, grant in list(self.running.items()):
            if self.rng.random() > 0.1 or token in unmarked:
                continue
            del self.running[token]
            report: Report | FailureReport
            if grant.spec.name == NAME and self.rng.random() < FAILING:
                report = FailureReport(token, grant.spec.id, grant.attempt, "failed", FAILURE)
            elif grant.spec.name == NAME and self.rng.random() < CRASHING:
                report = FailureReport(token, grant.spec.id, grant.attempt, "crashed", CRASH)
            else:
                report = Report(token, grant.spec.id, grant.attempt, pack([grant.attempt, token]))
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
