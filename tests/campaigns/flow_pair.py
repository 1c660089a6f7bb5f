"""Workflows, what tasks spawn, and schedules on both stores: one agent works for them, apart from the model's."""

import random
from pathlib import Path
from typing import TYPE_CHECKING

from campaigns.onlooker import brood_in
from campaigns.pair import WORKER, Pair
from campaigns.report import Found
from harness.clockwork import a_schedule
from simulation.bodies import ASYNC, BLOCKING, Body
from simulation.broods import LEAVES
from simulation.graphs import GraphMaker
from taskd.core import commands as c
from taskd.core.agent_commands import AckAttempts, AddCredit, AgentAccepted, LoseConnection, NackAttempts, OfferAgent
from taskd.core.schedule_commands import OrderSchedule, PutSchedule, TriggerSchedule
from taskd.core.workflow_commands import OrderWorkflow, SignalWorkflow, SpawnTasks, SubmitWorkflow
from taskd_protocol.errors import TaskdError
from taskd_protocol.ids import make_task_ids
from taskd_protocol.payload import pack
from taskd_protocol.schedule import MISSED, NO_TASK_ID, OVERLAPS, Timing
from taskd_protocol.task import Failure, FailureReport, Grant, Held, Pool, Report, TaskSpec

if TYPE_CHECKING:
    from taskd_protocol.workflow import Node

FEATURES = ("finals", "families")
SCHEDULES = ("s0", "s1")
TIMINGS = (Timing(every_ms=4_000), Timing(every_ms=9_000), Timing(cron=("*/10 * * * * *",)))
BOOM = Failure("task.raised", "boom")


class FlowPair(Pair):
    """The same pair, with what the model knows nothing of."""

    def __init__(self, root: Path, found: Found) -> None:
        super().__init__(root, found)
        self._flows: dict[bytes, list[Node]] = {}
        self._signals = 0
        self._told: dict[int, int] = {}  # how many were spawned, by the token of the attempt
        self._worker_boots = 1

    async def submit_workflow(self, a: int, b: int, third: int) -> None:
        """Submit one; the same numbers in the same instant are the same workflow."""
        spec, nodes = GraphMaker(FEATURES, random.Random(f"{a} {b} {third}")).make(self.model.wall_ms)
        part = (len(nodes), 1 + len(nodes) // 2)[a % 2]
        self._flows[spec.id] = nodes
        for first in range(0, len(nodes), part):
            await self.ask(SubmitWorkflow("client", spec, first, nodes[first : first + part]))

    async def submit_parent(self, a: int, b: int, _: int) -> None:
        """Submit a task that spawns others."""
        [task_id] = make_task_ids(1, self.model.wall_ms, self._ids.randbytes(10))
        body = Body(brood=1 + (100 * a + b) % (LEAVES - 1))
        await self.ask(c.SubmitTasks("client", [TaskSpec(task_id, (BLOCKING, ASYNC)[a % 2], body.pack())]))

    async def steer(self, a: int, b: int, third: int) -> None:
        """Signal a workflow, end it, or have it, or a node of it, run again."""
        if not self._flows:
            return
        workflow = list(self._flows)[-1 - a % min(4, len(self._flows))]
        nodes = self._flows[workflow]
        signals = [name for flow, name in self.onlooker.open_signals() if flow == workflow]
        if b % 2 and signals:
            self._signals += 1
            await self.steered(SignalWorkflow(workflow, signals[third % len(signals)], pack(self._signals)))
        else:
            action = ("cancel", "resume", "rerun", "rerun")[b % 4]
            node = nodes[third % len(nodes)].name if action == "rerun" else ""
            await self.steered(OrderWorkflow(workflow, action, node))

    async def steered(self, command: OrderWorkflow | SignalWorkflow) -> c.Answer | TaskdError:
        """Ask, with the onlooker's knowing."""
        self.onlooker.asked(command)
        return await self.ask(command)

    async def schedule(self, a: int, b: int, third: int) -> None:
        """Make or change a schedule, or order something of it."""
        name = SCHEDULES[a % 2]
        if b % 2:
            missed = MISSED[a % len(MISSED)]
            schedule = a_schedule(
                name,
                TIMINGS[third % 3],
                task=TaskSpec(NO_TASK_ID, BLOCKING, Body().pack()),
                overlap=OVERLAPS[b % len(OVERLAPS)],
                missed=missed,
                missed_max=3 if missed == "all" else 0,
                pause_after=third % 3,
            )
            await self.ask(PutSchedule("client", schedule))
        elif third % 5 == 4:
            [task_id] = make_task_ids(1, self.model.wall_ms, self._ids.randbytes(10))
            await self.ask(TriggerSchedule(name, task_id))
        else:
            await self.ask(OrderSchedule(name, ("pause", "resume", "resume", "remove")[third % 5]))

    async def work(self, a: int, b: int, third: int) -> None:
        """Have the agent of all these ask for work, and go on with some."""
        await self._join(anew=b % 20 == 0)
        await self.ask(AddCredit(WORKER, self._connections[WORKER], 0, 1 + a % 8))
        self.follow()
        for index, grant in enumerate(list(self.held.values())):
            if (index + b) % 4:
                await self._go_on(grant, (a + third + index) % 7)

    async def _join(self, *, anew: bool) -> None:
        """Connect, if it is not, or anew; forget what is no longer its own."""
        if anew:
            await self.ask(LoseConnection(WORKER, self._connections[WORKER]))
        self._connection += 1
        self._connections[WORKER] = self._connection
        self._numbers[WORKER] = 0
        holding = [Held(token, grant.spec.id, grant.attempt) for token, grant in self.held.items()]
        self._worker_boots += anew
        if anew:
            self.held.clear()
            holding = []
        offer = OfferAgent(
            agent=WORKER,
            boot_id=b"w%d" % self._worker_boots,
            connection=self._connection,
            pools=[Pool("process", 8, [BLOCKING, ASYNC])],
            queues=frozenset(),
            holding=holding,
        )
        answer = await self.ask(offer)
        assert isinstance(answer, AgentAccepted)
        for token in answer.stale:
            self.held.pop(token, None)
        self.follow()

    async def _go_on(self, grant: Grant, choice: int) -> None:
        """Have an attempt spawn what is next, or end."""
        token, children = grant.token, brood_in(grant.spec).all
        known = 0 if grant.spawned is None else grant.spawned.count
        told = self._told.setdefault(token, known)
        outcome, failure = "", None
        if told < len(children):
            first = max(told - choice % 2, 0)
            await self.ask(SpawnTasks(WORKER, token, first, children[first : told + 2]))
            self._told[token] = min(told + 2, len(children))
            return
        if known < len(children) and brood_in(grant.spec).waits:
            outcome = "waiting"
        elif choice == 0:
            outcome, failure = "failed", BOOM
        del self.held[token]
        if outcome:
            report = FailureReport(token, grant.spec.id, grant.attempt, outcome, failure)
            await self.ask(NackAttempts(WORKER, [report]))
        else:
            result = pack([1, 2, 3]) if choice % 2 else pack("xy"[choice % 4 // 2])
            await self.ask(AckAttempts(WORKER, [Report(token, grant.spec.id, grant.attempt, result)]))
