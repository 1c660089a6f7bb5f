"""Fair keys under measurement: the core alone, with all its records in a dict as the disk.

    python bench/fair.py [--tasks N] [--keys N]

One key submits many tasks, then another one: how many tasks, and milliseconds of the core, come before it? The
same with many keys. And what a keyed task costs the core beside one without a key.
"""

import argparse
import gc
import json
import random
from time import perf_counter_ns
from typing import Final

from taskd.core.agent_commands import AckAttempts, AddCredit, OfferAgent
from taskd.core.commands import LineEntry, Now, RefillWindow, SubmitTasks
from taskd.core.coordinator import Coordinator
from taskd.core.effects import SendLease, WantLine
from taskd.core.lines import RANK_BYTES, ready_id
from taskd.core.records import READY, SPEC, SpecRecord
from taskd.core.working import Settings
from taskd_protocol.ids import RANDOM_BYTES_PER_TASK_ID, make_task_ids
from taskd_protocol.task import Grant, Pool, Report, Rules, TaskSpec

BATCH: Final = 500
AGENT: Final = "a"


class Bench:
    """A coordinator, an agent, and what lies on disk of the lines."""

    def __init__(self) -> None:
        self.coordinator = Coordinator(Settings(), random.Random(1))  # noqa: S311
        self.now = Now(1, 1_764_000_000_000)
        self._rng = random.Random(2)  # noqa: S311 - the same run each time
        self._specs: dict[bytes, SpecRecord] = {}
        self._ready: dict[bytes, bytes] = {}
        offer = OfferAgent(
            agent=AGENT,
            boot_id=b"b",
            connection=1,
            pools=[Pool("process", 100, ["m.f"])],
            queues=frozenset(),
            holding=[],
        )
        self.coordinator.apply(offer, self.now)

    def submit(self, keys: list[str]) -> None:
        """Submit a task of each key."""
        for start in range(0, len(keys), BATCH):
            some = keys[start : start + BATCH]
            self.now = Now(self.now.mono_ms + 1, self.now.wall_ms + 1)
            ids = make_task_ids(len(some), self.now.wall_ms, self._rng.randbytes(RANDOM_BYTES_PER_TASK_ID * len(some)))
            specs = [
                TaskSpec(task_id, "m.f", given=Rules(fair_key=key) if key else None)
                for task_id, key in zip(ids, some, strict=True)
            ]
            self.coordinator.apply(SubmitTasks("c", specs), self.now)
            self.turn()

    def grant(self, count: int) -> list[Grant]:
        """Have so many granted, and reported."""
        self.coordinator.apply(AddCredit(AGENT, 1, 0, count), self.now)
        grants = self.turn()
        self.coordinator.apply(
            AckAttempts(AGENT, [Report(g.token, g.spec.id, g.attempt, b"\xc0") for g in grants]), self.now
        )
        return grants

    def turn(self) -> list[Grant]:
        """Take a turn; put on disk what it wrote, and read what it wants."""
        turn = self.coordinator.take_turn(self.now)
        for kind, record_id, value in turn.mutations:
            if kind == SPEC and isinstance(value, SpecRecord):
                self._specs[record_id] = value
            elif kind == READY and isinstance(value, bytes):
                self._ready[record_id] = value
            elif kind == READY:
                self._ready.pop(record_id, None)
        for effect in turn.effects:
            if isinstance(effect, WantLine):
                self._refill(effect)
        return [grant for effect in turn.effects if isinstance(effect, SendLease) for grant in effect.grants]

    def _refill(self, want: WantLine) -> None:
        after = ready_id(want.line, want.after) if want.after >= 0 else want.line
        found = sorted(i for i in self._ready if i > after)[: want.limit]
        entries = [LineEntry(int.from_bytes(i[-RANK_BYTES:], "big"), self._specs[self._ready[i]], None) for i in found]
        self.coordinator.apply(RefillWindow(want.line, entries, last=len(found) < want.limit), self.now)


def first_of_another(tasks: int, keys: int) -> dict[str, float]:
    """Return how long the first task of a key that comes late waits behind so many of so many keys."""
    bench = Bench()
    bench.submit([f"k{number % keys}" for number in range(tasks)])
    bench.grant(BATCH)
    started = perf_counter_ns()
    bench.submit(["late"])
    before = 0
    while "late" not in (found := [grant.spec.rules.fair_key for grant in bench.grant(BATCH)]):
        before += len(found)
    return {"before": before + found.index("late"), "core_ms": (perf_counter_ns() - started) / 1e6}


def cost(key: str, tasks: int = 20_000) -> float:
    """Return the microseconds of the core that a task takes from submit to report."""
    best = 1e9
    for _ in range(5):
        bench = Bench()
        gc.collect()
        gc.disable()
        started = perf_counter_ns()
        for _ in range(tasks // BATCH):
            bench.submit([key] * BATCH)
            bench.grant(BATCH)
        best = min(best, (perf_counter_ns() - started) / tasks / 1e3)
        gc.enable()
    return best


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--keys", type=int, default=1_000)
    given = parser.parse_args()
    shown = {
        "behind one key": first_of_another(given.tasks, 1),
        f"behind {given.keys} keys": first_of_another(given.tasks, given.keys),
        "us a task, no key": cost(""),
        "us a task, one key": cost("k"),
    }
    print(json.dumps(shown, indent=2))


if __name__ == "__main__":
    main()
