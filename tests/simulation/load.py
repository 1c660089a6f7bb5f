"""The load: what clients ask for, by chance."""

import random
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, TypeAlias

import trio

from simulation.bodies import ASYNC, BLOCKING, COMMAND
from simulation.clients import ClientMachine, perform
from simulation.graphs import SIGNALS, GraphMaker
from simulation.schedules import ask_of_schedules, remove_schedules
from simulation.sites import LIMITED, LIMITS
from simulation.tasks import QUEUES, TaskMaker
from taskd.client import operations
from taskd.client.ends import Awaited
from taskd.client.promise import Looking
from taskd_protocol.connection_messages import Done
from taskd_protocol.errors import (
    BadRequest,
    QueueDraining,
    SubmitConflict,
    SubmitTooNew,
    SubmitTooOld,
    TaskdError,
    WorkflowInvalid,
)
from taskd_protocol.event_messages import EventsFollow
from taskd_protocol.filtering import TaskFilter
from taskd_protocol.house_messages import AgentDrain, QueueDrain, QueueWeigh
from taskd_protocol.limit_messages import LimitRemove, LimitSet, QueuePause
from taskd_protocol.messages import (
    Cancel,
    Cancelled,
    JobList,
    JobPage,
    JobStart,
    TaskQuery,
    TaskRetried,
    TaskRetry,
    TaskViews,
)
from taskd_protocol.payload import pack
from taskd_protocol.task import TaskSpec
from taskd_protocol.workflow import member_id, workflow_of
from taskd_protocol.workflow_messages import WorkflowOrder, WorkflowSignal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from simulation.plan import Plan
    from simulation.world import World

Order: TypeAlias = (
    AgentDrain | QueueDrain | QueuePause | QueueWeigh | LimitSet | LimitRemove | WorkflowOrder | WorkflowSignal
)

PATIENCE_SECONDS = 30.0
TIDY_SECONDS = 5.0
FILTERS = (
    TaskFilter(queue="other"),
    TaskFilter(name=BLOCKING),
    TaskFilter(name=ASYNC, state="ready"),
    TaskFilter(name=COMMAND),
    TaskFilter(state="dead"),
    TaskFilter(error="no luck"),
)


class Load:
    """What one client does with its lives."""

    def __init__(self, world: "World", rng: random.Random) -> None:
        self._world = world
        self._plan: Plan = world.plan
        self._rng = rng
        self._maker = TaskMaker(self._plan, rng)
        self._graphs = GraphMaker(self._plan.features, rng)
        self._pace = random.Random(self._plan.seed)
        self._seen = 0  # the last event that it has seen, life after life

    async def __call__(self, machine: ClientMachine) -> None:
        """Be the client's program, until the process ends."""
        world, rng = self._world, self._rng
        assert machine.link is not None
        while True:
            try:
                await perform(operations.connect(machine.link, None))
                break
            except TaskdError:
                await trio.sleep(rng.random())
        async with trio.open_nursery() as nursery:
            if "audience" in self._plan.features:
                nursery.start_soon(self._look_on, machine)
            while not world.calm.is_set():
                await trio.sleep(rng.expovariate(self._plan.rate / self._plan.clients))
                if not world.calm.is_set():
                    nursery.start_soon(self._act, machine)
            if machine is world.clients[0]:
                nursery.start_soon(self._tidy, machine)

    async def _act(self, machine: ClientMachine) -> None:
        acts: list[tuple[str, float, Callable[[ClientMachine], Awaitable[None]]]] = [
            ("", 0.1, self._look),
            ("cancels", 0.1, self._cancel),
            ("resends", 0.05, self._resend),
            ("retries", 0.04, self._retry),
            ("jobs", 0.01, self._start_job),
            ("orders", 0.02, self._order),
            ("schedules", 0.05, self._schedule),
            ("workflows", 0.04, self._run_workflow),
            ("placement", 0.03, self._bound),
        ]
        chance = self._rng.random() if self._world.known else 1.0
        with trio.move_on_after(PATIENCE_SECONDS if self._rng.random() < 0.2 else inf):
            for feature, share, act in acts:
                if chance < share and (not feature or feature in self._plan.features):
                    await act(machine)
                    return
                chance -= share
            await self._submit(machine, self._maker.make(machine))

    async def _look_on(self, machine: ClientMachine) -> None:
        """Read all that happens, now quickly and now slowly, from where the life before had come to."""
        assert machine.link is not None
        looking = Looking(EventsFollow(0, self._seen))
        machine.link.ask(looking)
        while True:
            page = await perform(operations.next_events(machine.link, looking, None))
            self._world.looked_on(self._seen, page)
            self._seen = page.after
            if not self._world.calm.is_set():
                await trio.sleep(self._pace.choice([0.0, 0.0, 0.3, 5.0]))

    # -- what it asks -----------------------------------------------------------------------

    async def _submit(self, machine: ClientMachine, specs: list[TaskSpec]) -> None:
        assert machine.link is not None
        world = self._world
        world.note_submit(specs)
        try:
            [accepted] = await perform(operations.submit(machine.link, [specs], None))
        except (SubmitConflict, SubmitTooOld, SubmitTooNew, QueueDraining):
            return  # a key of other work, an id of long ago or of a clock that was put back, or nobody wants more of it
        firsts = dict(accepted.existing)
        ids = [firsts.get(index, spec.id) for index, spec in enumerate(specs)]
        world.note_accepted({task_id: world.known.get(task_id, spec) for task_id, spec in zip(ids, specs, strict=True)})
        tasks = [Awaited(task_id) for task_id in ids]
        endless = [task_id for task_id in ids if task_id in world.endless]
        if endless:
            with trio.move_on_after(self._rng.choice([0.5, 3.0, 20.0])):
                await self._wait(machine, tasks)
            await self._cancel_these(machine, endless)
        await self._wait(machine, tasks)

    async def _resend(self, machine: ClientMachine) -> None:
        await self._submit(machine, [self._world.known[task_id] for task_id in self._some()])

    async def _wait(self, machine: ClientMachine, tasks: list[Awaited]) -> None:
        assert machine.link is not None
        self._world.waits += 1
        try:
            await perform(operations.ends_of(machine.link, tasks, None))
            for task in tasks:
                assert task.outcome is not None
                self._world.note_outcome(task.outcome)
        finally:
            self._world.waits -= 1

    async def _cancel(self, machine: ClientMachine) -> None:
        members = list(self._world.members)[-20:]
        some = self._rng.sample(members, 2) if len(members) > 1 and self._rng.random() < 0.2 else []
        self._world.steered.update(workflow_of(task_id) for task_id in some)
        await self._cancel_these(machine, [*self._some(), *some])

    async def _cancel_these(self, machine: ClientMachine, ids: list[bytes], *, force: bool = False) -> None:
        assert machine.link is not None
        await perform(operations.call(machine.link, Cancel(0, ids, force), Cancelled, None))

    async def _look(self, machine: ClientMachine) -> None:
        assert machine.link is not None
        await perform(operations.call(machine.link, TaskQuery(0, self._some()), TaskViews, None))

    async def _retry(self, machine: ClientMachine) -> None:
        assert machine.link is not None
        with suppress(TaskdError):  # another does its work, or nobody knows whether it was heard
            await perform(operations.call(machine.link, TaskRetry(0, self._some()), TaskRetried, None))

    async def _start_job(self, machine: ClientMachine) -> None:
        assert machine.link is not None
        [job_id] = machine.make_ids(1)
        action = self._rng.choice(["cancel", "retry", "purge"])
        with suppress(TaskdError):  # as many as may be are under way
            start = JobStart(0, job_id, action, self._rng.choice(FILTERS))
            page = await perform(operations.call(machine.link, start, JobPage, None))
            while page.jobs and page.jobs[0].finished_at_ms is None:
                ask = JobList(0, [job_id], page.jobs[0].looked_at)
                page = await perform(operations.call(machine.link, ask, JobPage, None))

    async def _order(self, machine: ClientMachine) -> None:
        """Drain an agent or a queue for a while."""
        agent = self._rng.choice(self._world.agents).name
        queue = self._rng.random() < 0.3
        for resume in (False, True):
            await self._tell(machine, QueueDrain(0, "other", resume) if queue else AgentDrain(0, agent, resume))
            await trio.sleep(self._rng.choice([1.0, 5.0, 20.0]))

    async def _bound(self, machine: ClientMachine) -> None:
        """Set a limit, or forget one; weigh a queue, or pause it for a while."""
        queue, chance = self._rng.choice(QUEUES), self._rng.random()
        if chance < 0.5:
            await self._tell(machine, LimitSet(0, self._rng.choice(LIMITS)))
        elif chance < 0.7:
            await self._tell(machine, LimitRemove(0, self._rng.choice(LIMITED)))
        elif chance < 0.85:
            await self._tell(machine, QueueWeigh(0, queue, self._rng.randint(1, 4)))
        else:
            await self._tell(machine, QueuePause(0, queue))
            await trio.sleep(self._rng.choice([0.5, 5.0]))
            await self._tell(machine, QueueDrain(0, queue, resume=True))

    async def _schedule(self, machine: ClientMachine) -> None:
        await ask_of_schedules(machine, self._rng)

    async def _tell(self, machine: ClientMachine, order: Order) -> None:
        assert machine.link is not None
        with suppress(TaskdError):  # no such agent, or workflow, or it stands where that cannot be done
            await perform(operations.call(machine.link, order, Done, None))

    async def _run_workflow(self, machine: ClientMachine) -> None:
        """Submit a workflow, perhaps do something to it, and wait for its end."""
        assert machine.link is not None
        world, rng = self._world, self._rng
        spec, nodes = self._graphs.make(machine.unix_ms())
        world.flows[spec.id] = nodes
        part = rng.choice([len(nodes), 1 + len(nodes) // 3])
        parts = [nodes[first : first + part] for first in range(0, len(nodes), part)]
        try:
            await perform(operations.submit_workflow(machine.link, spec, parts, None))
        except (QueueDraining, SubmitTooNew, SubmitTooOld, BadRequest, WorkflowInvalid):
            return  # nobody wants it, or its parts got lost again and again
        ids = [spec.id, *[member_id(spec.id, rng.randrange(len(nodes))) for _ in range(rng.randrange(3))]]
        if rng.random() < 0.5:
            await trio.sleep(rng.choice([0.0, 0.5, 5.0]))
            await self._steer(machine, spec.id)
        await self._wait(machine, [Awaited(task_id) for task_id in dict.fromkeys(ids)])
        if rng.random() < 0.3:
            await self._steer(machine, spec.id)
            await self._wait(machine, [Awaited(spec.id)])

    async def _steer(self, machine: ClientMachine, workflow: bytes) -> None:
        """Signal a workflow, end it, or have it, or a node of it, run again."""
        action = self._rng.choice(["signal", "signal", "cancel", "resume", "resume", "rerun", "rerun"])
        if action == "signal":
            await self._tell(machine, WorkflowSignal(0, workflow, self._rng.choice(SIGNALS), self._value()))
        else:
            self._world.steered.add(workflow)
            node = self._rng.choice(self._world.flows[workflow]).name if action == "rerun" else ""
            await self._tell(machine, WorkflowOrder(0, workflow, action, node))

    async def _tidy(self, machine: ClientMachine) -> None:
        """Be the person who lets go on what was drained, and ends what would never end."""
        world = self._world
        if "orders" in self._plan.features:
            await self._tell(machine, QueueDrain(0, "other", resume=True))
            for agent in world.agents:
                await self._tell(machine, AgentDrain(0, agent.name, resume=True))
        while True:
            await self._unbound(machine)
            if "schedules" in self._plan.features:
                await remove_schedules(machine)
            endless = world.left_endless()
            if endless:
                await self._cancel_these(machine, endless)
            for workflow in world.left_flows():
                for signal in world.journal.signals_of(workflow):
                    await self._tell(machine, WorkflowSignal(0, workflow, signal, self._value()))
            gone = [task_id for task_id in world.left() if world.is_held_up(task_id)]
            if gone:
                await self._cancel_these(machine, gone, force=True)
            await trio.sleep(TIDY_SECONDS)

    async def _unbound(self, machine: ClientMachine) -> None:
        """Let go on what is limited or paused; another client may have asked for that since."""
        journal = self._world.journal
        for queue in sorted(journal.paused):
            await self._tell(machine, QueueDrain(0, queue, resume=True))
        for name in list(journal.limits):
            await self._tell(machine, LimitRemove(0, name))

    def _value(self) -> bytes:
        """Return what no signal had before."""
        self._world.signals_sent += 1
        return pack(self._world.signals_sent)

    def _some(self) -> list[bytes]:
        ids = list(self._world.known)
        recent = ids[-50:] if self._rng.random() < 0.8 else ids
        return self._rng.sample(recent, min(len(recent), self._rng.randint(1, 4)))
