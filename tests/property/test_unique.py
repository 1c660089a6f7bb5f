"""One task at a time of the same work, whatever happens in between.

A world in which nearly all tasks claim the same few pieces of work: submits, leases,
ends, lost agents, retries by hand and restarts come in any order. That no claim is lost
or left behind is checked after each turn with everything else.
"""

import random

import pytest

from harness.core import Shell
from harness.fsck import check_disk
from harness.world import CHOICES, OUTCOMES, World, random_indexes, shrink, submit_some
from taskd.core import records
from taskd.core.lifecycle import TERMINAL, State
from taskd.core.records import LeaseRecord, SpecRecord, StateRecord
from taskd_protocol.filtering import TaskFilter
from taskd_protocol.task import QUEUED, RUNNING, WINDOW, Retry, TaskSpec, Unique

UNIQUES = [
    Unique(mode, 4_000 if mode == WINDOW else 0, key, replace=replaces)
    for mode in (QUEUED, RUNNING, WINDOW)
    for key in ("", "u")
    for replaces in (False, True)
]
ACTS = [(weight, act) for weight, act in CHOICES if act is not submit_some]


def submit(world: World, rng: random.Random) -> None:
    """Submit some tasks of the same few pieces of work."""
    retry = rng.choice([None, Retry(1), Retry(3, base_ms=0)])
    specs = [
        world.shell.spec(unique=rng.choice(UNIQUES), retry=retry, delay_ms=rng.choice([0, 0, 900]))
        for _ in range(rng.randrange(1, 4))
    ]
    world.submit(specs)


def work_on(world: World, rng: random.Random, name: str) -> None:
    """Have an agent get something, and fail some of it."""
    if not world.agents[name].connection:
        world.connect(name)
    world.credit(name, 4)
    world.turn()
    world.flush()
    world.nack(name, random_indexes(rng), rng.choice(OUTCOMES), final=rng.random() < 0.5)


def work_of(spec: TaskSpec) -> tuple[str, bytes | str, str]:
    """Return what makes two tasks the same work."""
    assert spec.rules.unique is not None
    return spec.name, spec.rules.unique.key or spec.payload, spec.rules.unique.mode


def check_singles(shell: Shell) -> None:
    """Of each work that is unique while it runs, one task has not ended; while queued, one was never leased."""
    states = check_disk(shell.disk)
    specs = shell.disk.of(records.SPEC, SpecRecord)
    singles: list[tuple[str, bytes | str, str]] = []
    for task_id, record in specs.items():
        unique, state = record.spec.rules.unique, states[task_id]
        if unique is None:
            continue
        lease = shell.disk.find(records.LEASE, task_id, LeaseRecord)
        holder = lease or shell.disk.find(records.STATE, task_id, StateRecord)
        never_leased = state in {State.READY, State.SCHEDULED} and (holder is None or not holder.attempt)
        if (unique.mode == RUNNING and state not in TERMINAL) or (unique.mode == QUEUED and never_leased):
            singles.append(work_of(record.spec))
    assert len(singles) == len(set(singles))


@pytest.mark.parametrize("seed", range(8))
def test_there_is_one_task_of_each_unique_work(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In any order of what may happen; and when faults stop, all of it ends."""
    shrink(monkeypatch)
    rng, world = random.Random(seed), World(seed)
    for _ in range(300):
        if rng.random() < 0.25:
            submit(world, rng)
        elif rng.random() < 0.1:
            world.start_job("retry", TaskFilter())
        elif rng.random() < 0.2:
            work_on(world, rng, rng.choice(list(world.agents)))
        else:
            [(_, act)] = rng.choices(ACTS, [weight for weight, _ in ACTS])
            act(world, rng, rng.choice(list(world.agents)))
        if not world.shell.working.mutations:
            check_singles(world.shell)
    world.check_restored()
    world.finish()
    assert not [
        i for i, claim in world.shell.disk.of(records.UNIQUE, records.UniqueRecord).items() if not claim.until_ms
    ]
