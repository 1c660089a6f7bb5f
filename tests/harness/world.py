"""A small world around a coordinator: clients, agents and a disk that misbehave, and a ledger of what was promised.

Every bound of the core is made small, so that a handful of tasks reach all of
them. After each command and each turn the promises are checked.
"""

import hashlib
import pickle
import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypedDict

import msgspec
import pytest

from harness.agent import FakeAgent
from harness.core import Shell, Waiting
from harness.fsck import check_beside, check_budgets, check_disk
from harness.placed import check_explained, check_passed, check_placed
from taskd.core import records
from taskd.core.agent_commands import LoseConnection, ReportsRecorded
from taskd.core.attempts import LOST, RELEASED
from taskd.core.commands import (
    Answer,
    CancelTasks,
    Command,
    HastenTasks,
    OrderAgent,
    OrderQueue,
    RemoveLimit,
    RetryTasks,
    SetLimit,
    StartJob,
    SubmitTasks,
    Submitted,
    WeighQueue,
)
from taskd.core.coordinator import Coordinator, Turn
from taskd.core.effects import AgentLost, AgentReplaced, SendLease, TasksEnded
from taskd.core.invariants import check_invariants
from taskd.core.lifecycle import RETRIABLE, TERMINAL, State
from taskd.core.lines import lease_record
from taskd.core.records import AttemptRecord, LeaseRecord, Mutation, StateRecord
from taskd.core.restore import restore
from taskd.core.working import EPOCH_BITS, Settings, Working
from taskd_protocol.errors import (
    AgentDuplicate,
    AgentUnknown,
    JobLimit,
    LimitUnknown,
    QueueDraining,
    SubmitConflict,
    SubmitTooOld,
    UniqueHeld,
)
from taskd_protocol.filtering import TaskFilter
from taskd_protocol.ids import TaskId, is_made_id, task_id_unix_ms
from taskd_protocol.limiting import Limit
from taskd_protocol.resources import LEARNED, LabelRule, Need, Preference, Request, Supply, Where
from taskd_protocol.task import Failure, Grant, Retry, TaskSpec, Unique, Use

NAMES = ("m.f", "m.g")
QUEUES = ("default", "other")
KEYS = ("",) * 12 + ("k1", "k2")
UNIQUES = (
    *[None] * 12,
    Unique("queued"),
    Unique("queued", replace=True),
    Unique("queued", key="u1"),
    Unique("running"),
    Unique("running", key="u1", replace=True),
    Unique("window", 3_000),
    Unique("window", 9_000, replace=True),
)
PRIORITIES = (-1, 0, 1)
DELAYS_MS = (0, 0, 0, 0, 700, 200_000)
TTLS_MS = (0, 0, 0, 0, 800, 9_000)
DEADLINES_MS = (0, 0, 0, 0, 2_500, 240_000)
RETRIES = (
    None,
    Retry(1),
    Retry(2, base_ms=0),
    Retry(3, base_ms=1_500, jitter=1.0),
    Retry(4, base_ms=0, crash_limit=2),
)
OUTCOMES = ("failed", "failed", "crashed", "released", "unstarted", "cancelled", "lost", "out of memory")
PAYLOADS = (b"\x90", b"\x90" * 9)
AGENTS: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "a1": (NAMES, ()),
    "a2": (("m.f",), ()),
    "a3": (NAMES, ("other",)),
}
GIB = 1 << 30
WHERES: tuple[Where | None, ...] = (
    *[None] * 12,
    Where([Request([Need("cpu", 1_000)])]),
    Where([Request([Need("cpu", 6_000), Need("memory", 2 * GIB)])]),
    Where([Request([Need("cpu", 500), Need("gpu", 500)])]),
    Where([Request([Need("gpu", 2_000)]), Request([Need("cpu", 8_000)])]),
    Where([Request([Need("gpu", 1_000, kind="a100")])], exclusive_host=True),
    Where([Request([Need("gpu", 1_000, items=["0"])])]),
    Where([Request([Need("memory", 0)])]),
    Where([Request([Need("memory", LEARNED)])]),
    Where(labels=[LabelRule("zone", "=", ["a"])]),
    Where(labels=[LabelRule("taskd.agent", "in", ["a1", "a9"])], apart="db"),
    Where(prefers=[Preference(LabelRule("zone", "exists"), -5)], spread="zone"),
    Where([Request([Need("cpu", 2_000)])], apart="db", pack=True),
)
LIMITS = (
    Limit("stripe", concurrency=1),
    Limit("stripe", concurrency=3),
    Limit("db", concurrency=1),
    Limit("db", concurrency=2, tokens=2, period_ms=1_000),
    Limit("stripe", tokens=3, period_ms=2_000, burst=2),
    Limit("queue:default", concurrency=2),
    Limit("queue:default", concurrency=5, tokens=3, period_ms=1_000, burst=2),
    Limit("queue:other", tokens=1, period_ms=400),
    Limit("task:m.f", concurrency=1),
    Limit("task:m.f", tokens=50, period_ms=1_000, burst=5),
)
USES: tuple[Sequence[Use], ...] = (
    *[()] * 8,
    [Use("stripe", "a")],
    [Use("stripe", "b", 2)],
    [Use("stripe", "a"), Use("db")],
)
FIFO_KEYS = ("",) * 9 + ("f1", "f2")
FAIR_KEYS = ("", "", "", "a", "b", "c")
SUPPLIES: dict[str, tuple[Supply, ...]] = {
    "a1": (Supply("cpu", 8_000), Supply("memory", 4 * GIB), Supply("gpu", 2_000, ["0", "1"], ["a100", "t4"])),
    "a2": (Supply("cpu", 2_000), Supply("memory", GIB)),
    "a3": (),
}
PERCENTS = (0, 20, 60, 100)
"""Of an agent's CPUs, that others use."""
LABELS = {"a1": {"zone": "a"}, "a2": {"zone": "b"}}
OUT_OF_MEMORY = Failure("worker.out_of_memory", "it held more than it was granted")
FILTERS = (
    TaskFilter(),
    TaskFilter(queue="other"),
    TaskFilter(name="*.g"),
    TaskFilter(state="dead"),
    TaskFilter(error="boom"),
)
SETTINGS = Settings(retention_bytes=6_000, key_retention_ms=20_000, gone_ms=40_000)

REFUSALS = (SubmitConflict, SubmitTooOld, UniqueHeld, JobLimit, QueueDraining)
"""What a client may well be told."""

SMALL: dict[str, int] = {
    "taskd.core.lines.WINDOW_TASKS_MAX": 8,
    "taskd.core.lines.WINDOW_LOW": 3,
    "taskd.core.lines.LEAN_TASKS": 2,
    "taskd.core.working.WINDOWS_TASKS_MAX": 24,
    "taskd.core.lines.WINDOW_BYTES_MAX": 40,
    "taskd.core.lines.WINDOW_BYTES_LOW": 20,
    "taskd.core.lines.REFILL_TASKS": 4,
    "taskd.core.coordinator.REFILL_BYTES": 20,
    "taskd.core.gates.ADMITTED_MAX": 3,
    "taskd.core.gates.ADMITTED_BYTES": 20,
    "taskd.core.gates.GATES_MAX": 2,
    "taskd.core.gates.WALK_GATES": 1,
    "taskd.server.loading.PAGE": 2,
    "taskd.core.timers.NEAR_MAX": 6,
    "taskd.core.timers.NEAR_LOW": 3,
    "taskd.core.timers.REFILL_TIMERS": 4,
    "taskd.core.timers.DUE_TASKS": 3,
    "taskd.core.recent.RECENT_IDS": 16,
    "taskd.core.placement.GRANTED_MAX": 3,
    "taskd.core.choosing.SORTS_MAX": 2,
    "taskd.core.attempts.ATTEMPTS_KEPT": 4,
    "taskd.core.working.FINISHED_IDS_MAX": 3,
    "taskd.core.retention.RECORDS_MAX": 4,
    "taskd.core.quarantine.STREAK_MIN": 3,
    "taskd.core.quarantine.TASKS_MIN": 2,
    "taskd.core.quarantine.STREAK_MAX": 6,
    "taskd.core.lapses.STEP": 2,
    "taskd.core.fair.UNIT": 8,
    "taskd.core.placement.UNIT": 8,
    "taskd.core.fair.KEYS_MAX": 1,
    "taskd.core.fair.SWEEP_STEP": 2,
    "taskd.core.fair.SWEEP_MS": 4_000,
    "taskd.core.lapses.CHECK_MS": 5_000,
    "taskd.core.jobs.STEP_TASKS": 3,
    "taskd.core.jobs.RUNNING_MAX": 2,
    "taskd.core.jobs.KEPT": 2,
    "taskd.core.records.INLINE_RESULT_BYTES": 16,
    "taskd.core.endings.INLINE_RESULT_BYTES": 16,
}


def shrink(patch: pytest.MonkeyPatch) -> None:
    """Make every bound of the core small."""
    for where, bound in SMALL.items():
        patch.setattr(where, bound)


class Times(TypedDict, total=False):
    """Options of ``Shell.spec``."""

    delay_ms: int
    ttl_ms: int
    deadline_ms: int
    limits: Sequence[Use]
    fifo_key: str
    fair_key: str


class World:
    """One run.

    Attributes:
        accepted: Tasks whose submit was answered, or those that they turned out to be.
        ended: Tasks whose end was told, and how.
        outside: What others use of agents' machines: of their CPUs, in thousandths, and memory.
        trace: Of every turn's mutations and effects, as they came.
    """

    def __init__(self, seed: int = 0) -> None:
        self.shell = Shell(settings=SETTINGS, seed=seed)
        self.shell.working.lease_counter = (1 << EPOCH_BITS) - 30  # a new epoch must begin soon
        self.agents = {
            name: FakeAgent(
                self.shell, name, names, queues=queues, supplies=SUPPLIES[name], labels=LABELS.get(name, {})
            )
            for name, (names, queues) in AGENTS.items()
        }
        self.accepted: dict[bytes, None] = {}
        self.ended: dict[bytes, State] = {}
        self.submits: list[SubmitTasks] = []
        self.history: list[tuple[FakeAgent, Grant]] = []
        self.trace = hashlib.sha256()
        self.outside: dict[str, tuple[int, int]] = {}
        self._terminal: dict[bytes, StateRecord] = {}
        self._gone: set[bytes] = set()
        self._given_back: set[int] = set()  # tokens that their agent reported so
        self._retried: set[bytes] = set()
        self._bulk_retry_at_ms = 0
        self._revivals: Counter[bytes] = Counter()
        self._ends: Counter[bytes] = Counter()
        self._token = 0

    # -- what may happen ----------------------------------------------------------------

    def submit(self, specs: Sequence[TaskSpec], owner: str = "client") -> None:
        """Submit new tasks."""
        command = SubmitTasks(owner, specs)
        self.submits.append(command)
        self.ask(command, lambda answer: self._accept(command, answer))

    def resend(self, index: int) -> None:
        """Submit again what was submitted before."""
        if self.submits:
            command = self.submits[index % len(self.submits)]
            self.ask(command, lambda answer: self._accept(command, answer))

    def cancel(self, indexes: Sequence[int], *, force: bool = False) -> None:
        """Cancel some tasks, and one that nobody knows."""
        ids = [spec.id for command in self.submits for spec in command.specs]
        some = [ids[index % len(ids)] for index in indexes] if ids else []
        self.ask(CancelTasks([*some, b"\x00" * 16], force=force))

    def retry(self, indexes: Sequence[int]) -> None:
        """Give some tasks another chance, and one that nobody knows."""
        ids = [spec.id for command in self.submits for spec in command.specs]
        some = [ids[index % len(ids)] for index in indexes] if ids else []
        self._retried.update(some)
        self.ask(RetryTasks([*some, b"\x00" * 16]))

    def hasten(self, indexes: Sequence[int]) -> None:
        """Have some tasks run now, and one that nobody knows."""
        ids = [spec.id for command in self.submits for spec in command.specs]
        some = [ids[index % len(ids)] for index in indexes] if ids else []
        self.ask(HastenTasks([*some, b"\x00" * 16]))

    def start_job(self, action: str, wanted: TaskFilter) -> None:
        """Cancel, retry or purge all that fits; of dead tasks also by what they died of."""
        groups = list(self.shell.working.dead_groups)
        if groups and wanted.state == State.DEAD:
            wanted = msgspec.structs.replace(wanted, group=groups[0])
        if action == "retry":
            self._bulk_retry_at_ms = max(self._bulk_retry_at_ms, self.shell.wall_ms)
        self.ask(StartJob("client", self.shell.new_id(), action, wanted))

    def order_agent(self, name: str, *, drain: bool) -> None:
        """Drain an agent, or have it work again."""
        with suppress(AgentUnknown):
            self.ask(OrderAgent(name, drain))

    def order_queue(self, queue: str, *, drain: bool, pause: bool = False) -> None:
        """Have a queue take nothing new, or have nothing of it begin; or neither any more."""
        self.ask(OrderQueue(queue, drain, pause))

    def set_limit(self, limit: Limit) -> None:
        """Have a limit hold."""
        self.ask(SetLimit(limit))

    def remove_limit(self, name: str) -> None:
        """Have it hold no longer."""
        with suppress(LimitUnknown):
            self.ask(RemoveLimit(name))

    def weigh_queue(self, queue: str, weight: int) -> None:
        """Give a queue its share."""
        self.ask(WeighQueue(queue, weight))

    def connect(self, name: str, *, is_new_boot: bool = False) -> None:
        """Connect an agent, again or after a restart."""
        agent = self.agents[name]
        if is_new_boot:
            agent.boot_id += b"+"
            agent.held.clear()
            agent.marks_starts = not agent.marks_starts  # it was upgraded meanwhile, or the other way round
        before = agent.connection
        try:
            self.ask(agent.offer(), agent.forget)
        except AgentDuplicate:
            agent.connection = 0
            self.ask(LoseConnection(name, before))  # its former life is noticed to be over, if late

    def offer_again(self, name: str) -> None:
        """Change an offer on a living connection."""
        agent, known = self.agents[name], self.shell.working.agents.get(name)
        if known is not None and agent.connection and known.connection == agent.connection:
            number = agent.lease_number
            again = agent.offer()
            agent.connection, agent.lease_number = known.connection, number
            self.ask(msgspec.structs.replace(again, connection=known.connection, holding=()))

    def credit(self, name: str, leases: int) -> None:
        """Have an agent ask for leases."""
        if self.agents[name].connection:
            self.ask(self.agents[name].credit(leases))

    def lose(self, name: str) -> None:
        """Lose an agent's connection."""
        self.ask(self.agents[name].lose())
        self.agents[name].connection = 0

    def drain(self, name: str) -> None:
        """Have an agent ask for nothing more."""
        self.ask(self.agents[name].drain())

    def ack(self, name: str, indexes: Sequence[int], result: bytes) -> None:
        """Report some leases as done."""
        agent = self.agents[name]
        some = _pick(list(agent.held.values()), indexes)
        self.ask(agent.ack(*some, result=result), lambda _: _forget(agent, some))

    def nack(
        self, name: str, indexes: Sequence[int], outcome: str, *, final: bool = False, retry_after_ms: int | None = None
    ) -> None:
        """Report some leases as not done."""
        agent = self.agents[name]
        some = _pick(list(agent.held.values()), indexes)
        if outcome == "unstarted":
            told = agent.give_back(*some)
        elif outcome == "out of memory":
            told = agent.nack(*some, outcome="crashed", failure=OUT_OF_MEMORY, final=final)
        else:
            told = agent.nack(*some, outcome=outcome, final=final, retry_after_ms=retry_after_ms)
        if outcome in {"released", "unstarted"}:
            self._given_back.update(grant.token for grant in some)
        self.ask(told, lambda _: _forget(agent, some))

    def start(self, name: str, indexes: Sequence[int]) -> None:
        """Have leases be about to start, and one that nobody knows."""
        agent = self.agents[name]
        some = _pick(list(agent.held.values()), indexes)
        self.ask(agent.start(*some, 3))

    def report_stale(self, name: str, index: int) -> None:
        """Report, as any agent, a lease of old: it counts only if it is the agent's, and stands."""
        if not self.history:
            return
        agent = self.agents[name]
        _, grant = self.history[index % len(self.history)]
        known = self.shell.working.agents.get(name)
        stands = known is not None and grant.token in known.leases
        before = len(self.shell.working.mutations)
        self.ask(agent.ack(grant), lambda answer: None if stands else self._check_stale(grant, answer))
        if not stands:
            assert len(self.shell.working.mutations) == before, "a stale report changes nothing"

    def print_logs(self, name: str, index: int) -> None:
        """Have a lease print."""
        agent = self.agents[name]
        for grant in _pick(list(agent.held.values()), [index]):
            self.ask(agent.logs(grant, b"a line\n", b""))

    def checkpoint(self, name: str, index: int, details: bytes) -> None:
        """Have a lease tell how far it has come."""
        agent = self.agents[name]
        for grant in _pick(list(agent.held.values()), [index]):
            self.ask(agent.checkpoint(grant, details))

    def beat(self, name: str, *, is_forgetful: bool = False) -> None:
        """Send a heartbeat; a forgetful agent has lost a lease."""
        agent = self.agents[name]
        if is_forgetful and agent.held:
            agent.held.pop(next(iter(agent.held)))
        cpu, memory = self.outside.get(name, (0, 0))
        self.ask(msgspec.structs.replace(agent.beat(cpu_outside=cpu), memory_outside=memory))

    def use(self, name: str, percent: int, memory: int) -> None:
        """Have others use an agent's machine from now on: so much of its CPUs, and of its memory."""
        cpus = sum(supply.amount for supply in SUPPLIES[name] if supply.name == "cpu")
        self.outside[name] = cpus * percent // 100, memory
        self.beat(name)

    def pass_ms(self, ms: int, *, beats: bool) -> None:
        """Let time pass; living agents may send heartbeats."""
        for _ in range(max(1, ms // 1_000)):
            self._advance(min(ms, 1_000))
            if beats:
                for name in self.agents:
                    self.beat(name)
            self.shell.coordinator.tick(self.shell.now)

    def stall(self) -> None:
        """Be stopped for a while, and be deaf."""
        lost = _count(self.shell.working, AgentLost)
        self._advance(20_000)
        self.shell.coordinator.tick(self.shell.now)
        assert _count(self.shell.working, AgentLost) == lost, "a stall of the server costs no agent its leases"

    def step_wall_clock(self, ms: int) -> None:
        """Set the wall clock."""
        self.shell.wall_ms += ms

    def turn(self) -> None:
        """End the turn."""
        self.shell.turn(self._look)

    def _look(self, turn: Turn) -> None:
        for effect in turn.effects:
            if isinstance(effect, SendLease):
                agent = self.shell.working.agents[effect.agent]
                assert not any([agent.draining, agent.drained, agent.quarantined]), (
                    "an agent that is to stay idle is granted nothing"
                )
        check_placed(self.shell.working, turn.effects, self.shell.now)
        check_passed(self.shell.disk, self.shell.working, turn.mutations)
        check_explained(self.shell.disk, self.shell.working, turn.effects, self.shell.now)
        self.trace.update(repr((turn.mutations, turn.effects)).encode())
        self._check_turn(turn.mutations)

    def flush(self) -> None:
        """Make it durable; peers hear."""
        self.shell.flush()
        for told in self.shell.take_told(TasksEnded):
            for ended in told.ended:
                if is_made_id(ended.id):
                    continue  # of a workflow: it may run again
                self._ends[ended.id] += 1
                assert self._ends[ended.id] <= 1 + self._revivals[ended.id], "a task ends once, and once a retry"
                self.ended[ended.id] = State(ended.state)
        for agent in self.agents.values():
            self.history += [(agent, grant) for grant in agent.receive()]
        for closed in self.shell.take_told(AgentReplaced):
            if self.agents[closed.agent].connection == closed.connection:
                self.agents[closed.agent].connection = 0
        self.shell.told.clear()

    def read(self, index: int) -> None:
        """Take some read a step on, or hand some command its records."""
        reads, waiting = self.shell.reads, self.shell.waiting
        if reads and (index % 2 or not waiting):
            self._checked(lambda: self.shell.step(reads[index // 2 % len(reads)]))
        elif waiting:
            self.feed(waiting[index // 2 % len(waiting)])

    def feed(self, waiting: Waiting) -> None:
        """Hand a command its records."""
        self._checked(lambda: self.shell.feed(waiting))

    def crash(self, kept: int) -> None:
        """Cut the power."""
        self.shell.crash(kept % (self.shell.staged_count + 1))
        for agent in self.agents.values():
            agent.connection = 0
        self._terminal = _terminal(self.shell)
        self._gone &= self.accepted.keys() - self.shell.disk.of(records.SPEC, records.SpecRecord).keys()
        check_invariants(self.shell.working)

    # -- one door ------------------------------------------------------------------------

    def check_restored(self) -> None:
        """Between turns: what is built again from the disk is what is in memory."""
        w = self.shell.working
        while w.mutations or w.effects or w.counters_dirty:
            self.turn()
        again = Coordinator(self.shell.settings, random.Random(0))
        restore(again.working, self.shell.disk.stored(), self.shell.now)
        assert _standing(again.working) == _standing(self.shell.working)
        assert again.working.epoch > self.shell.working.epoch
        floor = again.working.recent
        stored = self._gone | self.accepted.keys()
        assert floor.may_be_stored(list(stored)) == stored

    # -- and in the end -------------------------------------------------------------------

    def finish(self) -> None:
        """Have faults stop: then all work ends."""
        shell = self.shell
        self.outside.clear()
        for name in self.agents:
            self.order_agent(name, drain=False)
        for queue in QUEUES:
            self.order_queue(queue, drain=False)
        for _ in range(200):
            for name, agent in self.agents.items():
                known = shell.working.agents.get(name)
                if known is None or known.draining or not agent.connection or known.connection != agent.connection:
                    self.connect(name)
            self._drain_reads()
            for agent in self.agents.values():
                if agent.connection:
                    self.ask(agent.beat())
                    self.ask(agent.credit(5))
                    self._ack_all(agent)
            self._drain_reads()
            states = check_disk(shell.disk)
            if all(state in TERMINAL for state in states.values()):
                break
            self.pass_ms(9_000, beats=True)
        assert all(state in TERMINAL for state in states.values()), "when faults stop, all work ends"
        assert all(job.finished_at_ms for job in shell.working.jobs.values()), "bulk jobs end"
        for task_id in self.accepted:
            assert task_id in states or task_id in self._gone

    def _ack_all(self, agent: FakeAgent) -> None:
        some = list(agent.held.values())
        self.ask(agent.ack(*some), lambda _: _forget(agent, some))

    def _accept(self, command: SubmitTasks, answer: Answer) -> None:
        assert isinstance(answer, Submitted)
        first = dict(answer.existing)
        ids = [first.get(index, spec.id) for index, spec in enumerate(command.specs)]
        self.accepted |= dict.fromkeys(ids)

    def _check_stale(self, grant: Grant, answer: Answer) -> None:
        """A report under a lease that does not stand is not called recorded, unless its attempt was reported before."""
        assert isinstance(answer, ReportsRecorded)
        kept = self.shell.disk.of(records.ATTEMPT, AttemptRecord).values()
        outcomes = {each.outcome for each in kept if each.token == grant.token}
        if grant.token in self._given_back:
            outcomes.discard(RELEASED)  # that may have been its end: its report is known
        if outcomes & {LOST, RELEASED}:
            assert answer.recorded == [], f"nobody has reported {grant.token}"

    def _drain_reads(self) -> None:
        shell = self.shell
        for _ in range(1_000):
            self.turn()
            self.flush()
            while shell.reads:
                self._checked(lambda: shell.step(shell.reads[0]))
            for waiting in list(shell.waiting):
                self.feed(waiting)
            if not (shell.reads or shell.waiting or shell.working.mutations or shell.working.effects):
                return
        raise AssertionError("it never comes to rest")

    # -- checks ---------------------------------------------------------------------------

    def ask(self, command: Command, respond: Callable[[Answer], None] = lambda _: None) -> None:
        """Apply a command: a refused one has changed nothing."""
        self._checked(lambda: self.shell.ask(command, respond))

    def _checked(self, act: Callable[[], None]) -> None:
        w = self.shell.working
        before, waiting = pickle.dumps(vars(w)), len(self.shell.waiting)
        try:
            act()
        except (*REFUSALS, AgentDuplicate, AgentUnknown) as refusal:
            assert pickle.dumps(vars(w)) == before, "a refused command changes nothing"
            if isinstance(refusal, AgentDuplicate | AgentUnknown):
                raise
        else:
            if len(self.shell.waiting) > waiting:
                assert pickle.dumps(vars(w)) == before, "a command that needs records changes nothing"
        check_invariants(w)

    def _check_turn(self, mutations: Sequence[Mutation]) -> None:
        shell = self.shell
        states = check_disk(shell.disk)
        check_budgets(shell.disk, self._may_be_retried())
        check_beside(shell)
        check_invariants(shell.working)
        leases = {key: value for key, value in _values(mutations).items() if isinstance(value, LeaseRecord)}
        tokens = [lease.token for lease in leases.values() if lease.token > self._token]
        known = [lease.token for lease in leases.values() if lease.token <= self._token]
        assert len(set(tokens)) == len(tokens)
        holders = [agent.leases for agent in shell.working.agents.values()]
        assert all(any(token in held for held in holders) for token in known), "tokens rise"
        self._token = max([self._token, *tokens])
        terminal = _terminal(shell)
        for task_id, record in self._terminal.items():
            if self._is_revived(record, task_id, terminal.get(task_id), states.get(task_id)):
                self._revivals[task_id] += 1
            elif task_id not in terminal:
                assert task_id not in states, "a task that has ended stays so"
                self._gone.add(task_id)
            else:
                now = terminal[task_id]
                assert (now.state, now.result, now.token) == (record.state, record.result, record.token)
        self._terminal = terminal
        # A job that takes dead tasks away may find one in the turn in which it has died.
        ended = [i for _, i, value in mutations if isinstance(value, StateRecord) and value.state in TERMINAL]
        self._gone.update(task_id for task_id in ended if task_id not in states)
        for task_id in self.accepted:
            assert task_id in states or task_id in self._gone, "what was accepted is not lost"
        for task_id, state in self.ended.items():
            assert self._revivals[task_id] or states.get(task_id, state) == state

    def _may_be_retried(self) -> set[bytes]:
        """Return what a person asked to retry: by its id, or with all that there was at a bulk retry."""
        ids = [spec.id for command in self.submits for spec in command.specs]
        return self._retried | {i for i in ids if task_id_unix_ms(TaskId(i)) <= self._bulk_retry_at_ms}

    def _is_revived(
        self, record: StateRecord, task_id: bytes, terminal: StateRecord | None, state: State | None
    ) -> bool:
        """Tell whether a task that had ended was put back in line since; it may have ended again."""
        if task_id not in self._may_be_retried() or record.state not in RETRIABLE or state is None:
            return False
        return terminal is None or terminal.end_order > record.end_order

    def _advance(self, ms: int) -> None:
        self.shell.mono_ms += ms
        self.shell.wall_ms += ms


def random_step(world: World, rng: random.Random) -> None:
    """Do one thing by chance."""
    act = rng.choices(ACTIONS, WEIGHTS)[0]
    act(world, rng, rng.choice(list(world.agents)))


def submit_some(world: World, rng: random.Random, _name: str) -> None:
    """Submit a few tasks by chance."""
    world.submit([random_spec(world, rng) for _ in range(rng.randrange(1, 12))])


def _credit(world: World, rng: random.Random, name: str) -> None:
    world.credit(name, rng.randrange(0, 9))


def _nack(world: World, rng: random.Random, name: str) -> None:
    outcome, final = rng.choice(OUTCOMES), rng.random() < 0.1
    world.nack(name, random_indexes(rng), outcome, final=final, retry_after_ms=rng.choice([None, None, 0, 5_000]))


def _turn(world: World, rng: random.Random, _name: str) -> None:
    world.turn()
    if rng.random() < 0.7:
        world.flush()


def _read(world: World, rng: random.Random, _name: str) -> None:
    for index in random_indexes(rng):
        world.read(index)


def random_indexes(rng: random.Random) -> list[int]:
    """Point at a few of something."""
    return [rng.randrange(1_000) for _ in range(rng.randrange(1, 6))]


Act = Callable[[World, random.Random, str], None]

CHOICES: list[tuple[int, Act]] = [
    (15, submit_some),
    (5, lambda world, rng, _: world.resend(rng.randrange(1_000))),
    (5, lambda world, rng, _: world.cancel(random_indexes(rng), force=rng.random() < 0.3)),
    (5, lambda world, rng, _: world.retry(random_indexes(rng))),
    (2, lambda world, rng, _: world.hasten(random_indexes(rng))),
    (2, lambda world, rng, _: world.start_job(rng.choice(["cancel", "retry", "purge"]), rng.choice(FILTERS))),
    (5, lambda world, rng, name: world.connect(name, is_new_boot=rng.random() < 0.2)),
    (10, _credit),
    (10, lambda world, rng, name: world.ack(name, random_indexes(rng), rng.choice([b"\xc0", b"r" * 40]))),
    (10, _nack),
    (4, lambda world, rng, name: world.start(name, random_indexes(rng))),
    (5, lambda world, rng, name: world.report_stale(name, rng.randrange(1_000))),
    (5, lambda world, rng, name: world.print_logs(name, rng.randrange(1_000))),
    (5, lambda world, rng, name: world.checkpoint(name, rng.randrange(1_000), rng.choice([b"\x01", b"d" * 30]))),
    (5, lambda world, rng, name: world.beat(name, is_forgetful=rng.random() < 0.3)),
    (3, lambda world, rng, name: world.use(name, rng.choice(PERCENTS), rng.choice([0, 0, GIB]))),
    (5, lambda world, rng, _: world.pass_ms(rng.choice([1, 400, 900, 16_000]), beats=rng.random() < 0.7)),
    (10, _turn),
    (15, _read),
    (1, lambda world, rng, _: world.crash(rng.randrange(10))),
    (1, lambda world, _rng, _: world.stall()),
    (1, lambda world, _rng, name: world.lose(name)),
    (1, lambda world, rng, _: world.step_wall_clock(rng.choice([-100_000, 300_000]))),
    (1, lambda world, _rng, name: world.offer_again(name)),
    (1, lambda world, _rng, name: world.drain(name)),
    (2, lambda world, rng, name: world.order_agent(name, drain=rng.random() < 0.3)),
    (1, lambda world, rng, _: world.weigh_queue(rng.choice(QUEUES), rng.randint(1, 4))),
    (
        2,
        lambda world, rng, _: world.order_queue(rng.choice(QUEUES), drain=rng.random() < 0.3, pause=rng.random() < 0.2),
    ),
    (1, lambda world, rng, _: world.set_limit(rng.choice(LIMITS))),
    (1, lambda world, rng, _: world.remove_limit(rng.choice(LIMITS).name)),
    (2, lambda world, _rng, _: world.check_restored()),
]
WEIGHTS = [weight for weight, _ in CHOICES]
ACTIONS = [act for _, act in CHOICES]


def random_spec(world: World, rng: random.Random) -> TaskSpec:
    """Make a spec by chance; of those with a key most agree on the rest."""
    key = rng.choice(KEYS)
    at_most_once = not key and rng.random() < 0.1
    preemptible = not key and not at_most_once and rng.random() < 0.4
    return world.shell.spec(
        NAMES[0] if key else rng.choice(NAMES),
        payload=PAYLOADS[0] if key and rng.random() < 0.9 else rng.choice(PAYLOADS),
        queue=QUEUES[0] if key else rng.choice(QUEUES),
        priority=rng.choice(PRIORITIES),
        retry=rng.choice(RETRIES),
        key=key,
        at_most_once=at_most_once,
        preemptible=preemptible,
        sticky="" if key else rng.choice(("", "", "w1", "w2")),
        unique=None if key else rng.choice(UNIQUES),
        where=None if key else rng.choice(WHERES),
        **sharing(
            random_times(rng),
            () if key else rng.choice(USES),
            "" if key else rng.choice(FIFO_KEYS),
            rng.choice(FAIR_KEYS),
        ),
    )


def sharing(chosen: Times, uses: Sequence[Use], fifo_key: str, fair_key: str) -> Times:
    """Return these with what goes together: with a delay no ``fifo_key``."""
    fifo_key = "" if chosen.get("delay_ms") else fifo_key
    return {**chosen, "limits": uses, "fifo_key": fifo_key, "fair_key": fair_key}


def random_times(rng: random.Random) -> Times:
    """Choose a delay and limits that go together."""
    delay_ms, ttl_ms, deadline_ms = rng.choice(DELAYS_MS), rng.choice(TTLS_MS), rng.choice(DEADLINES_MS)
    return times(delay_ms, ttl_ms, deadline_ms)


def times(delay_ms: int, ttl_ms: int, deadline_ms: int) -> Times:
    """Return these without the limits that would pass during the delay."""
    return {
        "delay_ms": delay_ms,
        "ttl_ms": ttl_ms if ttl_ms > delay_ms else 0,
        "deadline_ms": deadline_ms if deadline_ms > delay_ms else 0,
    }


def _standing(w: Working) -> object:
    """Return what must be the same after a start: all that is not a window of something longer."""
    return (
        w.counters.record(),
        {queue: counts for queue in sorted(w.counters.by_queue) if (counts := w.counters.of_queue(queue)) is not None},
        dict(sorted(w.tokens.items())),
        dict(sorted(w.dead_groups.items())),
        dict(sorted(w.jobs.items())),
        dict(sorted(w.queues.items())),
        dict(sorted(w.schedules.left.items())),
        {name: (gauge.limit, gauge.running) for name, gauge in sorted(w.limits.items())},
        dict(sorted(w.drained_agents.items())),
        {queue: (pace.at, pace.highest) for queue, pace in sorted(w.fair.paces.items())},
        {key: line.ready for key, line in sorted(w.lines.items()) if line.ready},
        {
            token: (t.spec, t.rank, t.owner, t.granted_at_ms, t.details, lease_record(t))
            for agent in w.agents.values()
            for token, t in sorted(agent.leases.items())
        },
    )


def _values(mutations: Sequence[Mutation]) -> dict[records.Key, records.Record | bytes | None]:
    return {(kind, record_id): value for kind, record_id, value in mutations}


def _terminal(shell: Shell) -> dict[bytes, StateRecord]:
    states = shell.disk.of(records.STATE, StateRecord)
    return {task_id: state for task_id, state in states.items() if state.state in TERMINAL}


def _count(w: Working, kind: type[AgentLost]) -> int:
    return sum(isinstance(effect, kind) for effect in w.effects)


def _pick(grants: Sequence[Grant], indexes: Sequence[int]) -> list[Grant]:
    return [grants[i] for i in dict.fromkeys(index % len(grants) for index in indexes)] if grants else []


def _forget(agent: FakeAgent, grants: Sequence[Grant]) -> None:
    for grant in grants:
        agent.held.pop(grant.token, None)
