"""How good placement is: workloads on agents that are played, in time that is played, against two other schedulers.

    python bench/placement_quality.py [--tasks N] [--seeds N]

Three workloads, each drawn from a seed, on eight agents of three sizes:

mixed       One to eight CPUs, memory from a quarter to eight GiB a CPU, run times from a log-normal distribution.
heavy tail  One CPU each; run times from a Pareto distribution, of which a few tasks make up most of the work.
dag         Layers of tasks, each after two of the layer before.

The makespan of taskd's core, which knows no run times, is told beside that of a list scheduler that knows them all
(the longest way to the end first, each task on the agent that is left fullest) and of first fit in the order of
submits. A ratio above 1 is longer than the list scheduler.
"""

import argparse
import heapq
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from taskd.core.agent_commands import AckAttempts, AddCredit, BeatHeart, OfferAgent
from taskd.core.commands import Now, SubmitTasks
from taskd.core.coordinator import Coordinator
from taskd.core.effects import SendLease
from taskd.core.working import Settings
from taskd_protocol.ids import RANDOM_BYTES_PER_TASK_ID, make_task_ids
from taskd_protocol.resources import Need, Request, Supply, Where
from taskd_protocol.task import Grant, Pool, Report, Rules, TaskSpec

GIB = 1 << 30
AGENTS = ((8, 32), (8, 32), (16, 32), (16, 128), (16, 128), (32, 128), (32, 64), (4, 64))
"""CPUs and GiB of each."""
WALL_MS = 1_764_000_000_000
BEAT_MS = 5_000


@dataclass(slots=True)
class Job:
    """One task of a workload: what it holds, how long it runs, and what it comes after."""

    number: int
    cpus: int
    memory: int
    run_ms: int
    after: list[int] = field(default_factory=list)


def mixed(count: int, rng: random.Random) -> list[Job]:
    """Draw tasks of many shapes."""
    jobs = []
    for number in range(count):
        cpus = rng.choice([1, 1, 1, 1, 2, 2, 4, 8])
        memory = int(cpus * GIB * rng.choice([0.25, 0.5, 1, 1, 2, 4, 8]))
        jobs.append(Job(number, cpus, memory, max(100, int(rng.lognormvariate(8.5, 1.0)))))
    return jobs


def heavy_tail(count: int, rng: random.Random) -> list[Job]:
    """Draw tasks of which few are long."""
    return [Job(number, 1, GIB // 4, min(600_000, int(500 * rng.paretovariate(1.1)))) for number in range(count)]


def dag(count: int, rng: random.Random) -> list[Job]:
    """Draw layers of tasks, each after two of the layer before."""
    jobs = mixed(count, rng)
    width = max(1, count // 20)
    for job in jobs[width:]:
        first = (job.number // width - 1) * width
        job.after = sorted({first + rng.randrange(width) for _ in range(2)})
    return jobs


WORKLOADS: dict[str, Callable[[int, random.Random], list[Job]]] = {"mixed": mixed, "heavy tail": heavy_tail, "dag": dag}


class Plain:
    """A scheduler that goes through the ready tasks in one order and puts each where it fits."""

    def __init__(self, jobs: Sequence[Job], *, clairvoyant: bool) -> None:
        self._jobs = jobs
        self._clairvoyant = clairvoyant
        self._rank = _ways(jobs) if clairvoyant else [-job.number for job in jobs]

    def makespan_ms(self) -> int:
        """Play it; return when the last task ends."""
        waits, children = _graph(self._jobs)
        ready = [job for job in self._jobs if not waits[job.number]]
        free = [[cpus, memory * GIB] for cpus, memory in AGENTS]
        running: list[tuple[int, int, int]] = []
        now = 0
        while ready or running:
            ready.sort(key=lambda job: -self._rank[job.number])
            left = []
            for job in ready:
                agent = self._agent_for(job, free)
                if agent is None:
                    left.append(job)
                    continue
                free[agent][0] -= job.cpus
                free[agent][1] -= job.memory
                heapq.heappush(running, (now + job.run_ms, job.number, agent))
            ready = left
            now, number, agent = heapq.heappop(running)
            job = self._jobs[number]
            free[agent][0] += job.cpus
            free[agent][1] += job.memory
            ready += _released(self._jobs, number, waits, children)
        return now

    def _agent_for(self, job: Job, free: list[list[int]]) -> int | None:
        fitting = [i for i, (cpus, memory) in enumerate(free) if cpus >= job.cpus and memory >= job.memory]
        if not fitting:
            return None
        if not self._clairvoyant:
            return fitting[0]
        return min(fitting, key=lambda i: (free[i][0] - job.cpus, free[i][1] - job.memory))


class Taskd:
    """taskd's core, with agents that are played."""

    def __init__(self, jobs: Sequence[Job], seed: int) -> None:
        self._jobs = jobs
        self._rng = random.Random(seed)  # noqa: S311 - the same run each time
        self._core = Coordinator(Settings(), self._rng)
        self._now_ms = 0
        self._number_of: dict[bytes, int] = {}
        self._running: list[tuple[int, int, str, Grant]] = []
        self._held: dict[str, list[int]] = {f"a{i}": [] for i in range(len(AGENTS))}

    @property
    def _now(self) -> Now:
        return Now(1 + self._now_ms, WALL_MS + self._now_ms)

    def makespan_ms(self) -> int:
        """Play it; return when the last task ends."""
        waits, children = _graph(self._jobs)
        for i, (cpus, memory) in enumerate(AGENTS):
            supplies = [Supply("cpu", cpus * 1_000), Supply("memory", memory * GIB)]
            offer = OfferAgent(
                agent=f"a{i}",
                boot_id=b"b",
                connection=i + 1,
                pools=[Pool("process", cpus, ["job"])],
                queues=frozenset(),
                supplies=supplies,
            )
            self._core.apply(offer, self._now)
            self._core.apply(AddCredit(f"a{i}", i + 1, 0, cpus), self._now)
        self._submit([job for job in self._jobs if not waits[job.number]])
        self._turn()
        beat_ms = BEAT_MS
        while self._running:
            if self._running[0][0] > beat_ms:
                self._now_ms = beat_ms
                beat_ms += BEAT_MS
                self._beat()
                continue
            self._now_ms, number, agent, grant = heapq.heappop(self._running)
            self._held[agent].remove(grant.token)
            report = Report(grant.token, grant.spec.id, grant.attempt, b"\xc0", WALL_MS)
            self._core.apply(AckAttempts(agent, [report]), self._now)
            self._core.apply(AddCredit(agent, int(agent[1:]) + 1, 0, 1), self._now)
            self._submit(_released(self._jobs, number, waits, children))
            self._turn()
        return self._now_ms

    def _beat(self) -> None:
        for i, agent in enumerate(self._held):
            self._core.apply(BeatHeart(agent, i + 1, 1 << 40, self._held[agent]), self._now)
        self._core.tick(self._now)
        self._turn()

    def _submit(self, jobs: Sequence[Job]) -> None:
        if not jobs:
            return
        ids = make_task_ids(
            len(jobs), WALL_MS + self._now_ms, self._rng.randbytes(len(jobs) * RANDOM_BYTES_PER_TASK_ID)
        )
        specs = []
        for task_id, job in zip(ids, jobs, strict=True):
            self._number_of[task_id] = job.number
            where = Where([Request([Need("cpu", job.cpus * 1_000), Need("memory", job.memory)])])
            specs.append(TaskSpec(task_id, "job", given=Rules(where=where)))
        self._core.apply(SubmitTasks("bench", specs), self._now)

    def _turn(self) -> None:
        granted = True
        while granted:  # one turn grants a bounded number
            turn = self._core.take_turn(self._now)
            grants = [(e.agent, grant) for e in turn.effects if isinstance(e, SendLease) for grant in e.grants]
            granted = bool(grants)
            for agent, grant in grants:
                number = self._number_of[grant.spec.id]
                self._held[agent].append(grant.token)
                heapq.heappush(self._running, (self._now_ms + self._jobs[number].run_ms, number, agent, grant))


def _graph(jobs: Sequence[Job]) -> tuple[list[int], list[list[int]]]:
    """Return how many each waits for, and what comes after each."""
    children: list[list[int]] = [[] for _ in jobs]
    for job in jobs:
        for before in job.after:
            children[before].append(job.number)
    return [len(job.after) for job in jobs], children


def _released(jobs: Sequence[Job], ended: int, waits: list[int], children: list[list[int]]) -> list[Job]:
    released = []
    for number in children[ended]:
        waits[number] -= 1
        if not waits[number]:
            released.append(jobs[number])
    return released


def _ways(jobs: Sequence[Job]) -> list[int]:
    """Return the longest way from each task to the end, weighed by the CPUs it holds."""
    _, children = _graph(jobs)
    ways = [0] * len(jobs)
    for job in reversed(jobs):
        ways[job.number] = job.run_ms * job.cpus + max([ways[child] for child in children[job.number]], default=0)
    return ways


def measure(count: int, seed: int) -> list[dict[str, object]]:
    """Measure each workload."""
    facts: list[dict[str, object]] = []
    for name, draw in WORKLOADS.items():
        jobs = draw(count, random.Random(seed))  # noqa: S311
        known = Plain(jobs, clairvoyant=True).makespan_ms()
        fits = Plain(jobs, clairvoyant=False).makespan_ms()
        ours = Taskd(jobs, seed).makespan_ms()
        facts.append(
            {
                "workload": name,
                "tasks": count,
                "list_s": round(known / 1_000, 1),
                "taskd_ratio": round(ours / known, 3),
                "first_fit_ratio": round(fits / known, 3),
            }
        )
    return facts


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print, one JSON object a line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--tasks", type=int, default=2_000)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(arguments)
    for seed in range(1, options.seeds + 1):
        for facts in measure(options.tasks, seed):
            print(json.dumps({**facts, "seed": seed}))


if __name__ == "__main__":
    main()
