"""The world of one run: machines, network, disk, load and faults, and whoever watches them."""

import random
from collections import Counter
from collections.abc import Callable, Iterable

import trio

from campaigns.report import Found
from simulation.agents import AgentMachine
from simulation.checkers import every
from simulation.clients import ClientMachine
from simulation.clock import Alarms
from simulation.faults import CORE_AGENTS, Faults
from simulation.graphs import graph_cost_s
from simulation.journal import Journal, Standing
from simulation.load import Load
from simulation.machines import Machine
from simulation.net import Net
from simulation.plan import Plan, make_plan
from simulation.rare import Rare
from simulation.rare_graphs import RareGraphs
from simulation.rare_places import RarePlaces
from simulation.server import ServerMachine
from simulation.sites import sites
from simulation.tap import Conversation, Tap
from simulation.tasks import QUEUES, cost_s, is_endless, is_scheduled
from simulation.trace import Trace
from taskd.client.family import Found as ChildrenFound
from taskd.core.events import EventsRecord
from taskd.core.lifecycle import State
from taskd.core.records import LeaseRecord, SpecRecord
from taskd.core.workflow_records import NodeRecord, WorkflowRecord
from taskd.core.working import Settings
from taskd.server.certificates import Certificates
from taskd_protocol.event_messages import EventPage
from taskd_protocol.messages import Message
from taskd_protocol.task import Outcome, TaskSpec
from taskd_protocol.workflow import Node, workflow_of

CALM_SECONDS = 75.0
"""From the last fault until all that was acknowledged must have ended, beside what it takes to run: an agent is
given up, its tasks wait for their next attempt, and a minute."""

QUIET_LOOKS = 14
"""Half seconds in which nothing is left to be done: three points of the history."""


class AgentWatch:
    """Stands beside an agent's machine."""

    def __init__(self, world: "World", name: str) -> None:
        self._world = world
        self._name = name

    def began(self, task_id: bytes, attempt: int, token: int) -> None:
        """See ``Watch``."""
        self._world.ran(self._name, task_id, attempt, token)

    def given(self, task_id: bytes, inputs: list[bytes]) -> None:
        """See ``Watch``."""
        self._world.given(task_id, inputs)

    def found(self, task_id: bytes, node: bytes, found: ChildrenFound) -> None:
        """See ``Watch``."""
        for checker in self._world.checkers:
            checker.found(task_id, node, found)

    def gone(self, token: int) -> None:
        """See ``Watch``."""
        self._world.gone(token)


class World:
    """One run.

    Attributes:
        known: Every task that was submitted, by the id that it is known under.
        members: Tasks of workflows, as they were made.
        flows: Nodes of every workflow that was submitted.
        steered: Those of which a client asked that they, or a task of theirs, end or run again; or a schedule that they
            end, as the next one's time had come.
        purged: Tasks, and workflows, that had ended and are stored no more.
        quarantined: Agents that the server has put in quarantine.
        put_away: Those at whom nobody has looked since.
        revived: Tasks that had ended and run again.
        retried: Tasks of which a client asked that they run again after they have ended.
        retries_some: A client has asked for that by a filter.
        forced: Tasks that a person has said to be dead with their agent.
        endless: Tasks that run until somebody cancels them.
        calm: Set when no more new work is to be submitted.
        signals_sent: To workflows, so far.
        waits: Waits of clients that are not over.
    """

    def __init__(
        self,
        plan: Plan,
        found: Found,
        *,
        alarms: Alarms,
        certificates: Certificates,
        nursery: trio.Nursery,
        tell: Callable[[str], None] | None,
    ) -> None:
        self.plan = plan
        self.found = found
        self.rng = random.Random(f"world of {plan.seed}")
        self.trace = Trace(tell)
        self.journal = Journal(self)
        self.net = Net(self._rng(), self.trace, alarms, lambda near, far: Tap(near, far, self))
        self.calm = trio.Event()
        self.over = trio.Event()
        self.waits = 0
        self.signals_sent = 0
        self.known: dict[bytes, TaskSpec] = {}
        self.accepted: dict[bytes, TaskSpec] = {}
        self.members: dict[bytes, TaskSpec] = {}
        self.flows: dict[bytes, list[Node]] = {}
        self.steered: set[bytes] = set()
        self.purged: set[bytes] = set()
        self.quarantined: set[str] = set()
        self.put_away: set[str] = set()
        self.revived: set[bytes] = set()
        self.retried: set[bytes] = set()
        self.retries_some = False
        self.forced: set[bytes] = set()
        self.endless: set[bytes] = set()
        settings = Settings(gone_ms=plan.gone_ms, retention_age_ms=plan.retention_age_ms)
        self.server = ServerMachine(
            nursery,
            self.net,
            self._rng(),
            self.trace,
            journal=self.journal,
            certificates=certificates,
            settings=settings,
            reach=self.reach,
            watched="audience" in plan.features,
        )
        self._sites = sites(plan.seed, plan.agents) if "placement" in plan.features else []
        self.agents = [self._agent(number, nursery) for number in range(plan.agents)]
        self.clients = [self._client(number, nursery) for number in range(plan.clients)]
        self.checkers = [*every(self), Rare(self), RareGraphs(self), RarePlaces(self)]
        self._heard, self._said, self._moved, self._node_moved, self._flow_moved, self._committed = (
            [getattr(checker, what) for checker in self.checkers if what in vars(type(checker))]
            for what in ("heard", "said", "moved", "node_moved", "flow_moved", "committed")
        )
        self.faults = Faults(self)
        self.server.recovered = self.recovered
        for machine in self.machines:
            machine.fail = lambda how: self.violated("crash", how)

    def agent(self, name: str) -> AgentMachine:
        """Return the machine of an agent."""
        return self.agents[int(name.removeprefix("agent"))]

    @property
    def machines(self) -> list[Machine]:
        """All of them."""
        return [self.server, *self.agents, *self.clients]

    async def run(self, nursery: trio.Nursery) -> None:
        """Run to the end, or to the first broken promise."""
        for machine in self.machines:
            nursery.start_soon(machine.run)
        nursery.start_soon(self._play)
        await self.over.wait()
        for machine in self.machines:
            if machine.life is not None:
                machine.life.die()  # one that is stopped could not be cancelled
        self.found.sim_seconds = trio.current_time()

    async def _play(self) -> None:
        await self.server.ready.wait()
        async with trio.open_nursery() as troubles:
            self.faults.start(troubles)
            await trio.sleep(self.plan.seconds)
            troubles.cancel_scope.cancel()
        if self.plan.mode == "liveness":
            self.faults.settle()
            self.trace.add("calm")
            self.calm.set()
            await self._end_all()
        self.server.is_lost = True
        self.server.kill(power_cut=True)
        await self.server.lost.wait()
        for checker in self.checkers:
            checker.finished()
        self.over.set()

    async def _end_all(self) -> None:
        """Wait until everything that was acknowledged has ended, and every wait; find it broken if that takes long."""
        costs_s = [cost_s(self.find_spec(task_id)) for task_id in self.left()]
        journal = self.journal
        costs_s += [graph_cost_s(journal.graphs[each]) for each in self.left_flows() if not journal.flows[each].parent]
        slots = sum(agent.slots for agent in self.agents[:CORE_AGENTS])
        if self._sites:
            slots = 1  # what asks for much, or is limited, runs alone
        calm_s = trio.current_time()
        with trio.move_on_after(CALM_SECONDS + max(costs_s, default=0.0) + sum(costs_s) / slots):
            left = self.left()
            while left or self.left_flows() or self.waits:
                await trio.sleep(0.5)
                self._let_in()
                for checker in self.checkers:
                    checker.looked(calm_s)
                left = self._open(left) or self.left()  # those that had ended may run again
            if "audience" in self.plan.features:
                await self._grow_quiet(calm_s)
            return
        left, flows = self.left(), self.left_flows()
        if not left and flows:
            self.violated("L1", f"{len(flows)} workflows have not ended, such as {flows[0].hex()}")
        elif left:
            stand = Counter(self.journal.find(task_id).name for task_id in left)
            self.violated("L1", f"{len(left)} tasks have not ended: {dict(stand)}, such as {left[0].hex()}")
        else:
            self.violated("L1", f"{self.waits} waits have not ended, and the tasks have")

    async def _grow_quiet(self, calm_s: float) -> None:
        """Wait until what is kept for who looks on has come up with what has happened."""
        for _ in range(QUIET_LOOKS):
            await trio.sleep(0.5)
            for checker in self.checkers:
                checker.looked(calm_s)

    def _let_in(self) -> None:
        """Be the person who starts an agent again that was put in quarantine."""
        for agent in self.agents[:CORE_AGENTS]:
            if agent.name in self.put_away:
                agent.kill()
        self.put_away.clear()

    def left(self) -> list[bytes]:
        """Return what was acknowledged, or made for a workflow, and has not ended."""
        return self._open([*self.accepted, *self.members])

    def left_endless(self) -> list[bytes]:
        """Return what runs until somebody cancels it, and is kept; its client may have died before it heard so."""
        return [task_id for task_id in self._open(self.endless) if self.journal.find(task_id).spec is not None]

    def left_flows(self) -> list[bytes]:
        """Return the workflows that have not ended."""
        return [workflow for workflow, flow in self.journal.flows.items() if not flow.finished_at_ms]

    def find_spec(self, task_id: bytes) -> TaskSpec:
        """Return what was submitted, or made for a workflow, under an id."""
        return self.members[task_id] if task_id in self.members else self.known[task_id]

    def may_run_again(self, task_id: bytes) -> bool:
        """Tell whether a task that has ended may have gone back in line."""
        return task_id in self.revived or task_id in self.retried or self.retries_some or self.is_steered(task_id)

    def is_steered(self, task_id: bytes) -> bool:
        """Tell whether a task is of a workflow of which a client asked that it ends, or runs again."""
        return workflow_of(task_id) in self.steered

    def is_held_up(self, task_id: bytes) -> bool:
        """Tell whether a task is to be cancelled on an agent of which nobody will hear again."""
        standing = self.journal.find(task_id)
        if standing.name != State.CANCELLING or standing.lease is None:
            return False
        machine = self.agent(standing.lease.agent)
        return machine.is_lost or machine.name in self.net.cut_off

    def _open(self, ids: Iterable[bytes]) -> list[bytes]:
        """Return those that have not ended."""
        return [task_id for task_id in ids if task_id not in self.purged and not self.journal.find(task_id).has_ended]

    # -- what happens -----------------------------------------------------------------------

    def note_submit(self, specs: list[TaskSpec]) -> None:
        """A client submits these."""
        self.known.update({spec.id: spec for spec in specs})
        self.endless.update(spec.id for spec in specs if is_endless(spec))

    def note_accepted(self, tasks: dict[bytes, TaskSpec]) -> None:
        """A client was told that these are kept."""
        self.accepted.update(tasks)

    def note_outcome(self, outcome: Outcome) -> None:
        """A client was told how a task has ended."""
        for checker in self.checkers:
            checker.told(outcome)

    def heard(self, conversation: Conversation, message: Message) -> None:
        """See ``Witness``."""
        self.found.ops += 1
        self.trace.say(conversation.near.name, "->", message)
        for check in self._heard:
            check(conversation, message)

    def said(self, conversation: Conversation, message: Message) -> None:
        """See ``Witness``."""
        self.found.ops += 1
        self.trace.say(conversation.near.name, "<-", message)
        for check in self._said:
            check(conversation, message)

    def kept(self, spec: SpecRecord) -> None:
        """See ``Reader``: what a schedule or a workflow submits, no client does, and it must end all the same."""
        if spec.spec.rules.member is not None:
            self.members[spec.spec.id] = spec.spec
        elif is_scheduled(spec.spec):
            self.known[spec.spec.id] = self.accepted[spec.spec.id] = spec.spec

    def leased(self, task_id: bytes, lease: LeaseRecord, over: LeaseRecord | None) -> None:
        """See ``Reader``."""
        for checker in self.checkers:
            checker.leased(task_id, lease, over)

    def moved(self, task_id: bytes, before: Standing, after: Standing) -> None:
        """See ``Reader``."""
        if after.spec is None:
            self.purged.add(task_id)
        for check in self._moved:
            check(task_id, before, after)

    def node_moved(self, node_id: bytes, before: NodeRecord | None, after: NodeRecord | None) -> None:
        """See ``Reader``."""
        for check in self._node_moved:
            check(node_id, before, after)

    def flow_moved(self, workflow: bytes, before: WorkflowRecord | None, after: WorkflowRecord | None) -> None:
        """See ``Reader``."""
        if after is None:
            self.purged.add(workflow)
        elif after.schedule and after.state in {State.CANCELLING, State.CANCELLED}:
            self.steered.add(workflow)  # at once the second, if nothing of it ran
        for check in self._flow_moved:
            check(workflow, before, after)

    def given(self, task_id: bytes, inputs: list[bytes]) -> None:
        """An attempt of a workflow's task has these inputs."""
        for checker in self.checkers:
            checker.given(task_id, inputs)

    def ran(self, agent: str, task_id: bytes, attempt: int, token: int) -> None:
        """An attempt has begun to run."""
        self.trace.add("ran", agent, task_id, attempt, token)
        for checker in self.checkers:
            checker.ran(agent, task_id, attempt, token)

    def gone(self, token: int) -> None:
        """Nothing of an attempt runs any more."""
        for checker in self.checkers:
            checker.gone(token)

    def ordered(self, kind: str, name: str, *, drained: bool) -> None:
        """See ``Reader``."""
        for checker in self.checkers:
            checker.ordered(kind, name, drained=drained)

    def journaled(self, number: int, record: EventsRecord | None) -> None:
        """See ``Reader``."""
        for checker in self.checkers:
            checker.journaled(number, record)

    def looked_on(self, after: int, page: EventPage) -> None:
        """A client that has seen all events up to ``after`` takes the next page of them."""
        for checker in self.checkers:
            checker.looked_on(after, page)

    def committed(self) -> None:
        """See ``Reader``."""
        for check in self._committed:
            check()

    def lost(self, agent: str) -> None:
        """The server has given up an agent."""
        for checker in self.checkers:
            checker.lost(agent)

    def recovered(self) -> None:
        """The server's disk is what the next life of it will find."""
        for checker in self.checkers:
            checker.recovered()

    def reach(self, name: str) -> None:
        """Count a rare state."""
        self.found.reach(name)

    def violated(self, promise: str, how: str) -> None:
        """A promise is broken: there is no need to go on."""
        self.trace.add("violated", promise, how)
        mode = "" if self.plan.mode == make_plan(self.plan.seed).mode else f" MODE={self.plan.mode}"
        self.found.violations.append(f"{promise}: {how} | make simulate SEED={self.plan.seed}{mode}")
        self.over.set()

    # -- the inside -------------------------------------------------------------------------

    def _rng(self) -> random.Random:
        return random.Random(self.rng.random())

    def _agent(self, number: int, nursery: trio.Nursery) -> AgentMachine:
        name = f"agent{number}"
        rng = self._rng()
        return AgentMachine(
            name,
            nursery,
            self.net,
            rng,
            self.trace,
            server=self.server,
            watch=AgentWatch(self, name),
            slots=rng.randint(1, 4),
            queues=() if number < 2 or "queues" not in self.plan.features else (rng.choice(QUEUES),),
            site=self._sites[number] if self._sites else None,
            neighbours=bool(self._sites) and "neighbours" in self.plan.features,
        )

    def _client(self, number: int, nursery: trio.Nursery) -> ClientMachine:
        return ClientMachine(
            f"client{number}",
            nursery,
            self.net,
            self._rng(),
            self.trace,
            server=self.server,
            role="operator" if {"orders", "placement"} & {*self.plan.features} else "client",
            program=Load(self, self._rng()),
        )
