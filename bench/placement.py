"""Placement under measurement: the core alone, without disk or network.

    python bench/placement.py pass|stalls [--agents N] [--classes N]
    python bench/placement.py quality

pass      Lines of many kinds wait for many agents; milliseconds that one turn takes: with all idle, with all
          full, and while some leases end in each turn.
stalls    The same load for minutes of played time: what ends is submitted anew, one class in ten asks for nothing, one
          in ten may be stopped for one in ten of a higher priority. Milliseconds of a turn, with its commands; of the
          processor, since the kernel stops what runs before all others (chrt) for 50 ms of each second.
quality   Makespan of workloads, against a list scheduler that knows each run time and against first fit in the order
          of submits; see ``workloads``.
"""

import argparse
import gc
import json
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter_ns, thread_time_ns

from taskd.core.agent_commands import AckAttempts, AddCredit, HearAgent, OfferAgent
from taskd.core.commands import Now, SubmitTasks
from taskd.core.coordinator import Coordinator
from taskd.core.effects import SendLease
from taskd.core.working import Settings
from taskd_protocol.ids import RANDOM_BYTES_PER_TASK_ID, make_task_ids
from taskd_protocol.resources import LabelRule, Need, Request, Supply, Where
from taskd_protocol.task import Grant, Pool, Report, Rules, TaskSpec

GIB = 1 << 30
GC_THRESHOLD = 50_000
"""As in the server."""

ENDING = 50
"""Leases that end in each turn of the steady state: at two hundred turns a second ten thousand tasks."""
TURNS = 200
STALL_TURNS = 1_000
HEARD = 40
"""Agents that are heard of in each turn of those: played time goes on by a ms for each task that is submitted."""

KINDS = ["plain", "preemptible", "urgent", *[""] * 7]
"""Of the classes of the mixed load."""


@dataclass
class Bench:
    """A coordinator, what it was given, and what it has granted."""

    coordinator: Coordinator = field(default_factory=lambda: Coordinator(Settings(), random.Random(1)))  # noqa: S311
    held: list[tuple[str, Grant]] = field(default_factory=list)
    now: Now = field(default_factory=lambda: Now(1, 1_764_000_000_000))
    mixed: bool = False
    """Some classes ask for nothing, some may be stopped for others."""
    rng: random.Random = field(default_factory=lambda: random.Random(2))  # noqa: S311 - the same run each time

    def offer(self, count: int) -> None:
        """Connect agents of four sorts: small and large, with GPUs and without."""
        names = [f"m.f{i % 10}" for i in range(10)]
        for i in range(count):
            cpus = (8, 16, 32, 64)[i % 4]
            supplies = [Supply("cpu", cpus * 1000), Supply("memory", cpus * 4 * GIB)]
            if i % 4 == 3:  # noqa: PLR2004 - the last sort
                supplies.append(Supply("gpu", 4_000, ["0", "1", "2", "3"]))
            command = OfferAgent(
                agent=f"a{i}",
                boot_id=b"b",
                connection=i + 1,
                pools=[Pool("process", cpus, names)],
                queues=frozenset(),
                labels={"zone": "abc"[i % 3]},
                supplies=supplies,
            )
            self.coordinator.apply(command, self.now)
            self.coordinator.apply(AddCredit(f"a{i}", i + 1, 0, cpus), self.now)

    def submit(self, classes: int, each: int) -> None:
        """Have tasks of many kinds wait."""
        for i in range(classes):
            self.submit_one(i, each)

    def submit_one(self, i: int, each: int) -> None:
        """Have tasks of one kind wait."""
        needs = [Need("cpu", (1 + i % 8) * 1000), Need("memory", (1 + i % 61) * GIB // 4)]
        if i % 10 == 9:  # noqa: PLR2004 - one kind in ten
            needs.append(Need("gpu", 1000))
        labels = [LabelRule("zone", "=", ["abc"[i % 3]])] if i % 5 == 0 else []
        kind = KINDS[i // 10 % 10] if self.mixed else ""
        where = None if kind == "plain" else Where([Request(needs)], labels)
        rules = Rules(where=where, preemptible=kind == "preemptible")
        ids = make_task_ids(each, self.now.wall_ms, self.rng.randbytes(each * RANDOM_BYTES_PER_TASK_ID))
        specs = [TaskSpec(task_id, f"m.f{i % 10}", priority=int(kind == "urgent"), given=rules) for task_id in ids]
        self.coordinator.apply(SubmitTasks("bench", specs), self.now)
        self.now = Now(self.now.mono_ms + 1, self.now.wall_ms + 1)

    def turn(self) -> tuple[float, int]:
        """Take a turn; return its milliseconds, and how many leases it granted."""
        start = perf_counter_ns()
        turn = self.coordinator.take_turn(self.now)
        spent_ms = (perf_counter_ns() - start) / 1e6
        granted = [(e.agent, grant) for e in turn.effects if isinstance(e, SendLease) for grant in e.grants]
        self.held += granted
        self.now = Now(self.now.mono_ms + 1, self.now.wall_ms + 1)
        return spent_ms, len(granted)

    def end_some(self, count: int) -> None:
        """Have leases end, drawn by chance; their agents ask for as many."""
        for _ in range(min(count, len(self.held))):
            drawn = self.rng.randrange(len(self.held))
            self.held[drawn], self.held[-1] = self.held[-1], self.held[drawn]
            agent, grant = self.held.pop()
            report = Report(grant.token, grant.spec.id, grant.attempt, b"\xc0", 1)
            self.coordinator.apply(AckAttempts(agent, [report]), self.now)
            self.coordinator.apply(AddCredit(agent, int(agent[1:]) + 1, 0, 1), self.now)


def measure_pass(agents: int, classes: int) -> dict[str, float]:
    """Measure turns: the first with all agents idle, then full, then with leases that end."""
    bench = Bench()
    bench.offer(agents)
    bench.turn()
    bench.submit(classes, 200)
    first_ms, granted = bench.turn()
    while bench.turn()[1]:
        pass
    gc.freeze()  # what was set up
    full = [bench.turn()[0] for _ in range(20)]
    steady: list[float] = []
    steady_granted = 0
    for _ in range(TURNS):
        bench.end_some(ENDING)
        spent_ms, count = bench.turn()
        steady.append(spent_ms)
        steady_granted += count
    steady.sort()
    return {
        "agents": agents,
        "classes": classes,
        "first_ms": round(first_ms, 1),
        "first_granted": granted,
        "full_ms": round(statistics.median(full), 2),
        "steady_p50_ms": round(steady[len(steady) // 2], 2),
        "steady_p99_ms": round(steady[int(len(steady) * 0.99)], 2),
        "steady_granted": round(steady_granted / TURNS, 1),
    }


def measure_stalls(agents: int, classes: int) -> dict[str, float]:
    """Measure whole turns of a steady state, of which none should stall the loop."""
    bench = Bench(mixed=True)
    bench.offer(agents)
    bench.turn()
    bench.submit(classes, 20)
    while bench.turn()[1]:
        pass
    gc.freeze()
    spent: list[float] = []
    granted = 0
    for turn in range(STALL_TURNS):
        start = thread_time_ns()
        for i in range(turn * HEARD, (turn + 1) * HEARD):
            bench.coordinator.apply(HearAgent(f"a{i % agents}", i % agents + 1), bench.now)
        bench.end_some(ENDING)
        for _ in range(ENDING):
            bench.submit_one(bench.rng.randrange(classes), 1)
        bench.coordinator.tick(bench.now)
        granted += bench.turn()[1]
        spent.append((thread_time_ns() - start) / 1e6)
    spent.sort()
    return {
        "agents": agents,
        "classes": classes,
        "p50_ms": round(spent[len(spent) // 2], 2),
        "p99_ms": round(spent[int(len(spent) * 0.99)], 2),
        "p99.9_ms": round(spent[int(len(spent) * 0.999)], 2),
        "max_ms": round(spent[-1], 2),
        "granted": round(granted / STALL_TURNS, 1),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print, one JSON object a line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("what", choices=["pass", "stalls", "quality"])
    parser.add_argument("--agents", type=int, default=2_000)
    parser.add_argument("--classes", type=int, default=1_000)
    options = parser.parse_args(arguments)
    gc.set_threshold(GC_THRESHOLD)
    measure = measure_stalls if options.what == "stalls" else measure_pass
    print(json.dumps(measure(options.agents, options.classes)))


if __name__ == "__main__":
    main()
