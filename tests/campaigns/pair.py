"""The core over the store in memory, the core over RocksDB, and a model of both, which are asked the same."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from campaigns.model import Model, Refused
from campaigns.onlooker import Onlooker
from campaigns.report import Found
from campaigns.side import Side
from taskd.core import commands as c
from taskd.core.agent_commands import (
    AckAttempts,
    AddCredit,
    AgentAccepted,
    BeatHeart,
    LoseConnection,
    MarkStarted,
    NackAttempts,
    OfferAgent,
    ReportsRecorded,
    StartsRecorded,
)
from taskd.core.working import Settings
from taskd.store.interface import Store
from taskd.store.memory import MemoryStore
from taskd.store.rocksdb import open_store
from taskd_protocol.errors import SubmitConflict, SubmitTooOld, TaskdError
from taskd_protocol.ids import make_task_ids
from taskd_protocol.task import Failure, FailureReport, Grant, Held, Pool, Report, Retry, TaskSpec

T = TypeVar("T")

WALL_MS = 1_763_760_000_000
RETENTION_MS = 60_000
CHECKED_MS = 12_000
"""Retention looks so often, or oftener."""

SETTINGS = Settings(retention_age_ms=RETENTION_MS)
AGENTS = {"a1": ("m.f", "m.g"), "a2": ("m.f",), "a3": ("m.g",)}
RETRIES = (
    Retry(1, jitter=0),
    Retry(2, base_ms=0, jitter=0),
    Retry(3, base_ms=1_500, jitter=0),
    Retry(4, base_ms=500, jitter=0, crash_limit=2),
)
WORKER = "w1"
"""The agent of what workflows, families and schedules submit."""
KEYS = ("", "", "", "k1", "k2")
OUTCOMES = ("failed", "failed", "crashed", "released", "cancelled")
RAISED = Failure("task.raised", "boom")


async def inline(work: Callable[[], T], /) -> T:
    """Run what would block in a thread: examples are short."""
    return work()


class Pair:
    """Both sides, the model, and the agents as they see themselves.

    Attributes:
        onlooker: Knows what is promised of workflows and schedules, which the model knows nothing of.
        held: Leases of the agent that works for these.
    """

    def __init__(self, root: Path, found: Found) -> None:
        self.model = Model(AGENTS.items(), WALL_MS)
        self.found = found
        self._mono_ms = 1_000
        self._ids = random.Random(0)
        self._root = root
        self.onlooker = Onlooker()
        self._sides = [
            Side(SETTINGS, MemoryStore(), self._reopen_memory, self.onlooker),
            Side(SETTINGS, self._open_rocks(), self._reopen_rocks, None),
        ]
        self.held: dict[int, Grant] = {}
        self._connections = dict.fromkeys([*AGENTS, WORKER], 0)
        self._boots = dict.fromkeys(AGENTS, 0)
        self._numbers = dict.fromkeys([*AGENTS, WORKER], 0)
        self._connection = 0
        self._submits: list[list[TaskSpec]] = []
        self._history: list[tuple[str, Grant]] = []

    def _open_rocks(self) -> Store:
        return open_store(self._root / "store", offload=inline, new_lineage=bytes(16))

    async def _reopen_rocks(self, store: Store) -> Store:
        await store.close()
        return self._open_rocks()

    async def _reopen_memory(self, store: Store) -> Store:
        assert isinstance(store, MemoryStore)
        await store.flush()
        return store.crash(random.Random(0))

    @property
    def now(self) -> c.Now:
        """This instant."""
        return c.Now(self._mono_ms, self.model.wall_ms)

    async def start(self) -> None:
        """Begin both lives."""
        for side in self._sides:
            await side.start(self.now)
        await self.pass_ms(0)

    async def close(self) -> None:
        """Let go of the files."""
        for side in self._sides:
            await side.close()

    async def ask(self, command: c.Command) -> c.Answer | TaskdError:
        """Have both decide on a command; their answers are one."""
        one, other = [await side.do(command, self.now) for side in self._sides]
        if isinstance(one, TaskdError):
            assert type(one) is type(other)
        else:
            assert one == other
        return one

    def follow(self) -> None:
        """Tell the model of what was leased meanwhile."""
        one, other = [side.told for side in self._sides]
        assert one == other
        for lease in one:
            self._numbers[lease.agent] = lease.number
            if lease.agent == WORKER:
                self.held.update({grant.token: grant for grant in lease.grants})
                continue
            for grant in lease.grants:
                self.model.grant(lease.agent, grant)
                self._history.append((lease.agent, grant))
        for side in self._sides:
            side.told.clear()

    async def check(self) -> None:
        """Compare all three."""
        self.follow()
        one, other = [await side.content() for side in self._sides]
        assert one == other
        stored = await self._sides[0].tasks()
        self.model.forget(stored, self.model.wall_ms - RETENTION_MS)
        assert stored == {task_id: task.shown() for task_id, task in self.model.tasks.items()}
        self.model.check_placed()
        self.model.fresh.clear()

    async def check_schedules(self) -> None:
        """Compare decisions on schedules with the times that there are."""
        self.onlooker.check_schedules(await self._sides[0].disk())

    # -- steps --------------------------------------------------------------------------

    async def submit(self, a: int, b: int, _: int) -> None:
        """Submit some tasks."""
        ids = make_task_ids(1 + a % 3, self.model.wall_ms, self._ids.randbytes(10 * (1 + a % 3)))
        specs = []
        for index, task_id in enumerate(ids):
            key = KEYS[(b + index) % len(KEYS)]
            name, payload = ("m.f", b"same") if key else (("m.f", "m.g")[(a + index) % 2], b"\x90")
            if key and a == b:
                payload = b"other"
            delay_ms, retry = 5_000 * (a % 4 == 3), RETRIES[(a + b) % len(RETRIES)]
            specs.append(TaskSpec(task_id, name, payload, "default", b % 3 - 1, delay_ms, retry, key))
        self._submits.append(specs)
        await self._submit(specs)

    async def resend(self, a: int, _b: int, _c: int) -> None:
        """Submit again what was submitted before."""
        if self._submits:
            await self._submit(self._submits[a % len(self._submits)])

    async def _submit(self, specs: list[TaskSpec]) -> None:
        answer = await self.ask(c.SubmitTasks("client", specs))
        match self.model.submit(specs):
            case Refused.CONFLICT:
                assert isinstance(answer, SubmitConflict)
            case Refused.TOO_OLD:
                assert isinstance(answer, SubmitTooOld)
            case existing:
                assert isinstance(answer, c.Submitted)
                assert answer.existing == existing

    async def cancel(self, a: int, b: int, _: int) -> None:
        """Cancel two."""
        ids = self._pick(a, b)
        assert await self.ask(c.CancelTasks(ids)) == c.CancelStates(self.model.cancel(ids))

    async def retry(self, a: int, b: int, _: int) -> None:
        """Retry two."""
        ids = self._pick(a, b)
        assert await self.ask(c.RetryTasks(ids)) == c.RetryStates(self.model.retry(ids))

    def _pick(self, *indexes: int) -> list[bytes]:
        ids = [spec.id for specs in self._submits for spec in specs]
        return list(dict.fromkeys(ids[index % len(ids)] for index in indexes)) if ids else []

    async def offer(self, a: int, b: int, leases: int) -> None:
        """Connect an agent, as it was or after a restart, and have it ask for work."""
        name = list(AGENTS)[a % 3]
        if b % 5 == 0:
            await self.lose(a, b, leases)
            self._boots[name] += 1
        self._connection += 1
        self._connections[name] = self._connection
        holding = self.model.agents[name].holding.items() if b % 5 else ()
        boot, pools = b"%d" % self._boots[name], [Pool("process", 8, list(AGENTS[name]))]
        held = [Held(token, task.spec.id, task.attempt) for token, task in holding]
        offer = OfferAgent(
            agent=name, boot_id=boot, connection=self._connection, pools=pools, queues=frozenset(), holding=held
        )
        assert await self.ask(offer) == AgentAccepted([])
        self.model.connect(name, is_new_life=b % 5 == 0)
        self.follow()
        await self.credit(a, b, leases)

    async def credit(self, a: int, _b: int, leases: int) -> None:
        """Ask for work."""
        name = list(AGENTS)[a % 3]
        await self.ask(AddCredit(name, self._connections[name], 0, 1 + leases % 4))
        self.model.add_credit(name, 1 + leases % 4)

    async def lose(self, a: int, _b: int, _c: int) -> None:
        """Lose a connection."""
        name = list(AGENTS)[a % 3]
        if self.model.agents[name].connected:
            await self.ask(LoseConnection(name, self._connections[name]))
            self.model.lose_connection(name)

    async def ack(self, a: int, _b: int, _c: int) -> None:
        """Report a success."""
        for name, grant in self._held(a):
            report = Report(grant.token, grant.spec.id, grant.attempt, b"\xc0")
            assert await self.ask(AckAttempts(name, [report])) == ReportsRecorded([grant.token], [])
            self.model.report(name, grant.token, "succeeded")

    async def nack(self, a: int, b: int, _: int) -> None:
        """Report anything else."""
        outcome = OUTCOMES[b % len(OUTCOMES)]
        for name, grant in self._held(a):
            failure = RAISED if outcome in {"failed", "crashed"} else None
            report = FailureReport(grant.token, grant.spec.id, grant.attempt, outcome, failure)
            assert await self.ask(NackAttempts(name, [report])) == ReportsRecorded([grant.token], [])
            self.model.report(name, grant.token, outcome)

    async def begin(self, a: int, _b: int, _c: int) -> None:
        """Be about to start one."""
        for name, grant in self._held(a):
            assert await self.ask(MarkStarted(name, [grant.token])) == StartsRecorded([grant.token], [])
            self.model.start(name, grant.token)

    async def report_stale(self, a: int, _b: int, _c: int) -> None:
        """Report what is no longer one's own, or was recorded before: it changes nothing."""
        held = [token for agent in self.model.agents.values() for token in agent.holding]
        late = [(name, grant) for name, grant in self._history if grant.token not in held]
        if late:
            name, grant = late[a % len(late)]
            await self.ask(AckAttempts(name, [Report(grant.token, grant.spec.id, grant.attempt, b"late")]))
            self.model.hear(name)

    def _held(self, index: int) -> list[tuple[str, Grant]]:
        """Return one of those that are held, if there is one."""
        held = {token for agent in self.model.agents.values() for token in agent.holding}
        some = [(name, grant) for name, grant in self._history if grant.token in held]
        return [some[index % len(some)]] if some else []

    async def wait(self, a: int, _b: int, _c: int) -> None:
        """Let some time pass; agents that are connected are heard of."""
        await self.pass_ms((500, 1_500, 6_000)[a % 3])

    async def be_silent(self, _a: int, _b: int, _c: int) -> None:
        """Let so much time pass without a word that every agent is lost."""
        await self.pass_ms(SETTINGS.silence_ms, beats=False)

    async def age(self, a: int, _b: int, _c: int) -> None:
        """Let what has ended grow old, now and then."""
        if a % 4 == 0:
            await self.pass_ms(RETENTION_MS + CHECKED_MS)
            await self.check()
            assert not self.model.overdue(self.model.wall_ms - RETENTION_MS - CHECKED_MS)

    async def restart(self, a: int, _b: int, _c: int) -> None:
        """Begin another life, sometimes from files that were closed; before that, look at what is left."""
        await self.check_schedules()
        for side in self._sides:
            await side.start(self.now, reopens=a % 4 == 0)
        self.model.restart()
        await self.pass_ms(0)

    async def pass_ms(self, ms: int, *, beats: bool = True) -> None:
        """Let time pass, with a tick at least once a second."""
        end = self._mono_ms + ms
        while True:
            step = min(1_000, end - self._mono_ms)
            self._mono_ms += step
            self.model.wall_ms += step
            if beats:
                await self._beat()
            for side in self._sides:
                await side.tick(self.now)
            self.model.tick(SETTINGS.silence_ms)
            self.follow()
            self.model.fresh.clear()
            if self._mono_ms >= end:
                break

    async def _beat(self) -> None:
        for name, agent in self.model.agents.items():
            if agent.connected:
                beat = BeatHeart(name, self._connections[name], self._numbers[name], list(agent.holding))
                await self.ask(beat)
                self.model.hear(name)
