"""A world of the core whose clients submit workflows and schedules, and whose tasks spawn others."""

import contextlib
import random
from collections.abc import Callable, Sequence

from campaigns.onlooker import Onlooker, brood_in
from campaigns.worlds import LightWorld
from harness.agent import FakeAgent
from harness.clockwork import a_schedule
from harness.world import CHOICES, REFUSALS, Act, World, random_indexes
from simulation.bodies import ASYNC, BLOCKING, Body
from simulation.broods import new_brood
from simulation.graphs import GraphMaker
from taskd.core import records
from taskd.core.commands import Answer, Command
from taskd.core.lifecycle import State
from taskd.core.records import Mutation, StateRecord
from taskd.core.schedule_commands import OrderSchedule, PutSchedule, TriggerSchedule
from taskd.core.workflow_commands import OrderWorkflow, SignalWorkflow, SpawnTasks, SubmitWorkflow
from taskd_protocol.errors import (
    BadRequest,
    LeaseStale,
    ScheduleUnknown,
    ServerBusy,
    SubmitTooNew,
    WorkflowEnded,
    WorkflowInvalid,
    WorkflowUnknown,
)
from taskd_protocol.ids import TaskId, is_made_id, task_id_unix_ms
from taskd_protocol.payload import pack
from taskd_protocol.schedule import MISSED, OVERLAPS, Timing
from taskd_protocol.task import Grant, Pool
from taskd_protocol.workflow import Node, workflow_of

REFUSED = (
    *REFUSALS,
    BadRequest,
    LeaseStale,
    ScheduleUnknown,
    ServerBusy,
    SubmitTooNew,
    WorkflowEnded,
    WorkflowInvalid,
    WorkflowUnknown,
)
SCHEDULES = ("s0", "s1")
TIMINGS = (Timing(every_ms=4_000), Timing(every_ms=9_000), Timing(cron=("*/10 * * * * *",)))
FEATURES = ("finals", "queues", "families")
FINISH_ROUNDS = 30


class GraphWorld(LightWorld):
    """The same world with workflows, families and schedules, and an onlooker who knows what is promised of them.

    Attributes:
        flows: Nodes of the workflows that were submitted.
        signals_sent: So far.
        written: In the last turn.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.onlooker = Onlooker()
        self.flows: dict[bytes, list[Node]] = {}
        self.graphs = GraphMaker(FEATURES, random.Random(f"graphs of {seed}"))
        self.signals_sent = 0
        self.written: Sequence[Mutation] = ()
        self._told: dict[int, int] = {}  # how many were spawned, by the token of the attempt
        for agent in self.agents.values():
            agent.pools = [Pool("process", 8, [*agent.pools[0].names, BLOCKING, ASYNC])]

    # -- what may happen ------------------------------------------------------------------

    def ask(self, command: Command, respond: Callable[[Answer], None] = lambda _: None) -> None:
        """See ``World``."""
        self.onlooker.asked(command)
        super().ask(command, respond)

    def signal(self, workflow: bytes, name: str) -> None:
        """Signal a workflow, with what no signal had before."""
        self.signals_sent += 1
        self.ask(SignalWorkflow(workflow, name, pack(self.signals_sent)))

    def raise_brood(self, name: str, grant: Grant, *, again: bool) -> None:
        """Have an attempt spawn what is next, some of it perhaps once more; when that is all, it waits."""
        known = 0 if grant.spawned is None else grant.spawned.count
        told = self._told.setdefault(grant.token, known)
        children = brood_in(grant.spec).all
        first = max(told - again, 0)
        if told < len(children):
            self.ask(SpawnTasks(name, grant.token, first, children[first : told + 2]))
            self._told[grant.token] = min(told + 2, len(children))
        elif brood_in(grant.spec).waits and known < len(children):
            agent = self.agents[name]
            self.ask(agent.nack(grant, outcome="waiting"), lambda _: _forget(agent, grant))

    # -- the onlooker -----------------------------------------------------------------------

    def flush(self) -> None:
        """See ``World``."""
        super().flush()
        self.onlooker.flush()
        self.onlooker.check_schedules(self.shell.disk)

    def crash(self, kept: int) -> None:
        """See ``World``."""
        staged = self.shell.staged_count
        super().crash(kept)
        self.onlooker.flush(lost=staged - kept % (staged + 1))
        self.onlooker.check_schedules(self.shell.disk)

    def finish(self) -> None:
        """See ``World``: workflows end, too."""
        self._drain_reads()  # some of them may be about to be made
        for name in SCHEDULES:
            self.ask(OrderSchedule(name, "remove"))
        for _ in range(FINISH_ROUNDS):
            super().finish()
            if not self.shell.disk.scan(records.OPEN):
                return
            for workflow, name in self.onlooker.open_signals():
                self.signal(workflow, name)
            self.pass_ms(5_000, beats=True)
        raise AssertionError("when faults stop, all workflows end")

    # -- checks -------------------------------------------------------------------------------

    def _checked(self, act: Callable[[], None]) -> None:
        with contextlib.suppress(*REFUSED):
            act()

    def _check_turn(self, mutations: Sequence[Mutation]) -> None:
        super()._check_turn(mutations)
        self.onlooker.stage(mutations)
        self.written = mutations

    def _may_be_retried(self) -> set[bytes]:
        stored = self.shell.disk.scan(records.SPEC)
        ours = [i for i in stored if self._is_steered(i) or task_id_unix_ms(TaskId(i)) <= self._bulk_retry_at_ms]
        return super()._may_be_retried() | set(ours)

    def _is_revived(
        self, record: StateRecord, task_id: bytes, terminal: StateRecord | None, state: State | None
    ) -> bool:
        if self._is_steered(task_id) and state is not None:
            return terminal is None or terminal.end_order > record.end_order
        return super()._is_revived(record, task_id, terminal, state)

    def _is_steered(self, task_id: bytes) -> bool:
        return is_made_id(task_id) and workflow_of(task_id) in self.onlooker.steered


def _forget(agent: FakeAgent, grant: Grant) -> None:
    agent.held.pop(grant.token, None)


def _submit_workflow(world: World, rng: random.Random, _name: str) -> None:
    assert isinstance(world, GraphWorld)
    spec, nodes = world.graphs.make(world.shell.wall_ms)
    world.flows[spec.id] = nodes
    part = rng.choice([len(nodes), 1 + len(nodes) // 2])
    for first in range(0, len(nodes), part):
        world.ask(SubmitWorkflow("client", spec, first, nodes[first : first + part]))


def _submit_parent(world: World, rng: random.Random, _name: str) -> None:
    world.submit([world.shell.spec(rng.choice([BLOCKING, ASYNC]), payload=Body(brood=new_brood(rng)).pack())])


def _steer(world: World, rng: random.Random, _name: str) -> None:
    assert isinstance(world, GraphWorld)
    if world.flows:
        workflow = rng.choice(list(world.flows)[-6:])
        action = rng.choice(["cancel", "resume", "resume", "rerun", "rerun"])
        node = rng.choice(world.flows[workflow]).name if action == "rerun" else ""
        world.ask(OrderWorkflow(workflow, action, node))


def _signal(world: World, rng: random.Random, _name: str) -> None:
    assert isinstance(world, GraphWorld)
    signals = world.onlooker.open_signals()
    if signals:
        world.signal(*rng.choice(signals))


def _raise_brood(world: World, rng: random.Random, name: str) -> None:
    assert isinstance(world, GraphWorld)
    for grant in list(world.agents[name].held.values()):
        if brood_in(grant.spec).all:
            world.raise_brood(name, grant, again=rng.random() < 0.3)


def _put_schedule(world: World, rng: random.Random, _name: str) -> None:
    missed = rng.choice(MISSED)
    schedule = a_schedule(
        rng.choice(SCHEDULES),
        rng.choice(TIMINGS),
        overlap=rng.choice(OVERLAPS),
        missed=missed,
        missed_max=3 if missed == "all" else 0,
        pause_after=rng.choice([0, 2]),
    )
    world.ask(PutSchedule("client", schedule))


def _order_schedule(world: World, rng: random.Random, _name: str) -> None:
    name, action = rng.choice(SCHEDULES), rng.choice(["pause", "resume", "resume", "remove", "trigger"])
    trigger = action == "trigger"
    world.ask(TriggerSchedule(name, world.shell.new_id()) if trigger else OrderSchedule(name, action))


MORE: list[tuple[int, Act]] = [
    (6, _submit_workflow),
    (4, _submit_parent),
    (4, _steer),
    (3, _signal),
    (12, _raise_brood),
    (4, lambda world, rng, name: world.ack(name, random_indexes(rng), pack([1, 2, 3]))),
    (2, _put_schedule),
    (2, _order_schedule),
    (3, lambda world, _rng, _name: world.turn()),
]
WEIGHTS = [weight for weight, _ in [*CHOICES, *MORE]]
ACTIONS = [act for _, act in [*CHOICES, *MORE]]


def random_graph_step(world: GraphWorld, rng: random.Random) -> None:
    """Do one thing by chance."""
    act = rng.choices(ACTIONS, WEIGHTS)[0]
    act(world, rng, rng.choice(list(world.agents)))
