"""The load: what clients ask for, by chance."""

import random
from math import inf
from typing import TYPE_CHECKING

import trio

from simulation.bodies import ASYNC, BLOCKING, COMMAND, Body, read_body
from simulation.clients import ClientMachine, perform
from taskd.client import operations
from taskd.client.ends import Awaited
from taskd_protocol.command import pack_command, read_command
from taskd_protocol.errors import SubmitConflict, SubmitTooOld, TaskdError
from taskd_protocol.messages import Cancel, Cancelled, TaskQuery, TaskViews
from taskd_protocol.task import Retry, TaskSpec

if TYPE_CHECKING:
    from simulation.plan import Plan
    from simulation.world import World

PATIENCE_SECONDS = 30.0
KEYS = 30
QUEUES = ("default", "other")
BACKOFF_MS_MAX = 4_000
ATTEMPTS_MAX = 4


class Load:
    """What one client does with its lives."""

    def __init__(self, world: "World", rng: random.Random) -> None:
        self._world = world
        self._plan: Plan = world.plan
        self._rng = rng

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
            while not world.calm.is_set():
                await trio.sleep(rng.expovariate(self._plan.rate / self._plan.clients))
                if not world.calm.is_set():
                    nursery.start_soon(self._act, machine)

    async def _act(self, machine: ClientMachine) -> None:
        chance = self._rng.random()
        known = self._world.known
        features = self._plan.features
        with trio.move_on_after(PATIENCE_SECONDS if self._rng.random() < 0.2 else inf):
            if known and chance < 0.1:
                await self._look(machine)
            elif known and chance < 0.2 and "cancels" in features:
                await self._cancel(machine, self._some())
            elif known and chance < 0.25 and "resends" in features:
                await self._submit(machine, [self._world.known[task_id] for task_id in self._some()])
            else:
                await self._submit(machine, self._new_specs(machine))

    # -- what it asks -----------------------------------------------------------------------

    async def _submit(self, machine: ClientMachine, specs: list[TaskSpec]) -> None:
        assert machine.link is not None
        self._world.note_submit(specs)
        try:
            [accepted] = await perform(operations.submit(machine.link, [specs], None))
        except SubmitConflict:
            return  # a key of other work
        except SubmitTooOld:
            return
        firsts = dict(accepted.existing)
        tasks = [Awaited(firsts.get(index, spec.id)) for index, spec in enumerate(specs)]
        self._world.note_accepted({task.raw_id: spec for task, spec in zip(tasks, specs, strict=True)})
        await self._wait(machine, tasks)

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

    async def _cancel(self, machine: ClientMachine, ids: list[bytes]) -> None:
        assert machine.link is not None
        await perform(operations.call(machine.link, Cancel(0, ids), Cancelled, None))

    async def _look(self, machine: ClientMachine) -> None:
        assert machine.link is not None
        await perform(operations.call(machine.link, TaskQuery(0, self._some()), TaskViews, None))

    def _some(self) -> list[bytes]:
        ids = list(self._world.known)
        recent = ids[-50:] if self._rng.random() < 0.8 else ids
        return self._rng.sample(recent, min(len(recent), self._rng.randint(1, 4)))

    # -- what it submits --------------------------------------------------------------------

    def _new_specs(self, machine: ClientMachine) -> list[TaskSpec]:
        rng, features = self._rng, self._plan.features
        count = rng.randint(2, 20) if "bulk" in features and rng.random() < 0.1 else 1
        name = rng.choice([BLOCKING, BLOCKING, ASYNC])
        body = self._body()
        payload = body.pack()
        if "commands" in features and rng.random() < 0.1:
            name = COMMAND
            payload = pack_command(["play", str(body.run_ms), str(int(body.end == "raise")), str(rng.randrange(4))])
        key = f"key-{rng.randrange(KEYS)}" if "keys" in features and count == 1 and rng.random() < 0.2 else ""
        if key:
            name, payload = BLOCKING, Body(5).pack() if rng.random() < 0.9 else Body(6).pack()
        return [
            TaskSpec(
                id=task_id,
                name=name,
                payload=payload,
                queue="default" if key or "queues" not in features else rng.choice(QUEUES),
                priority=rng.randint(-1, 1) if "priorities" in features else 0,
                delay_ms=rng.choice([0, 0, 300, 8_000]) if "delays" in features else 0,
                retry=Retry(rng.randint(1, ATTEMPTS_MAX), base_ms=rng.choice([0, 300, 2_000]), max_ms=BACKOFF_MS_MAX),
                key=key,
            )
            for task_id in machine.make_ids(count)
        ]

    def _body(self) -> Body:
        rng, features = self._rng, self._plan.features
        run_ms = rng.choice([0, 1, 10, 200, 2_000])
        if "long" in features and rng.random() < 0.05:
            run_ms = rng.choice([10_000, 40_000])
        end = "return"
        good_from = 1
        if rng.random() < 0.25:
            end, good_from = "raise", rng.choice([2, 3, 1_000])
        elif "crashes" in features and rng.random() < 0.05:
            end, good_from = "exit", rng.choice([2, 1_000])
        return Body(run_ms, end, good_from, rng.choice([0, 0, 40, 2_000]))


def cost_s(spec: TaskSpec) -> float:
    """Return how long it takes, at most, until a task has ended, beside what goes wrong."""
    run_ms = int(read_command(spec.payload).argv[1]) if spec.name == COMMAND else read_body(spec.payload).run_ms
    attempts = 1 if spec.retry is None else spec.retry.max_attempts
    return (attempts * (run_ms + 1.25 * BACKOFF_MS_MAX) + spec.delay_ms) / 1_000
