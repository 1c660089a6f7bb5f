"""Tasks: what clients submit, by chance, and how long it takes."""

import random
from typing import TYPE_CHECKING

from msgspec import structs

from simulation.bodies import ASYNC, BLOCKING, COMMAND, Body, read_body
from simulation.broods import brood_of, new_brood
from simulation.sites import HOARD_MIB, asks_for_memory, wishes
from taskd.core.preemption import PREEMPTED_MAX
from taskd_protocol.command import pack_command, read_command
from taskd_protocol.schedule import SCHEDULE_HEADER
from taskd_protocol.task import NO_RULES, QUEUED, RUNNING, WINDOW, Retry, Rules, TaskSpec, Unique

if TYPE_CHECKING:
    from simulation.clients import ClientMachine
    from simulation.plan import Plan

KEYS = 30
WORKS = 4
"""Of unique work there are so many."""
QUEUES = ("default", "other")
BACKOFF_MS_MAX = 4_000
ATTEMPTS_MAX = 4
UNIQUES = (
    Unique(QUEUED),
    Unique(QUEUED, replace=True),
    Unique(RUNNING),
    Unique(RUNNING, replace=True),
    Unique(WINDOW, 5_000),
)


class TaskMaker:
    """Makes tasks of the features of a plan."""

    def __init__(self, plan: "Plan", rng: random.Random) -> None:
        self._features = plan.features
        self._rng = rng

    def make(self, machine: "ClientMachine") -> list[TaskSpec]:
        """Make what one submit brings."""
        rng, features = self._rng, self._features
        count = rng.randint(2, 20) if "bulk" in features and rng.random() < 0.1 else 1
        name = rng.choice([BLOCKING, BLOCKING, ASYNC])
        delay_ms = rng.choice([0, 0, 300, 8_000]) if "delays" in features else 0
        body, rules = self._limited(self._body(), delay_ms)
        payload = body.pack()
        if "commands" in features and body.end in {"return", "raise"} and rng.random() < 0.1:
            name = COMMAND
            payload = pack_command(["play", str(body.run_ms), str(int(body.end == "raise")), str(rng.randrange(4))])
        key = f"key-{rng.randrange(KEYS)}" if "keys" in features and count == 1 and rng.random() < 0.2 else ""
        if key:
            name, payload, rules = BLOCKING, Body(5).pack() if rng.random() < 0.9 else Body(6).pack(), None
        elif "unique" in features and count == 1 and rng.random() < 0.1:
            work = rng.randrange(WORKS)
            name, payload = ASYNC, Body(300 + work, "raise", 1_000 if work % 2 else 1).pack()
            rules = Rules(unique=rng.choice(UNIQUES))
        priorities = "priorities" in features
        if "placement" in features and not key:
            rules, priorities = self._placed(rules, delay_ms), True
            if name == BLOCKING and asks_for_memory(rules) and rng.random() < 0.5:
                payload = body._replace(run_ms=max(body.run_ms, 2_000), holds_mib=HOARD_MIB).pack()
        return [
            TaskSpec(
                id=task_id,
                name=name,
                payload=payload,
                queue="default" if key or "queues" not in features else rng.choice(QUEUES),
                priority=rng.randint(-1, 1) if priorities else 0,
                delay_ms=delay_ms,
                retry=Retry(rng.randint(1, ATTEMPTS_MAX), base_ms=rng.choice([0, 300, 2_000]), max_ms=BACKOFF_MS_MAX),
                key=key,
                given=rules,
            )
            for task_id in machine.make_ids(count)
        ]

    def _placed(self, rules: Rules | None, delay_ms: int) -> Rules | None:
        """Have some ask for agents of a certain sort, and for turns."""
        if self._rng.random() < 0.4:
            return rules
        rules = rules or Rules()
        made = structs.replace(rules, **wishes(self._rng, delayed=delay_ms > 0, once=rules.at_most_once))
        return None if made == NO_RULES else made

    def _body(self) -> Body:
        rng, features = self._rng, self._features
        run_ms = rng.choice([0, 1, 10, 200, 2_000])
        if "long" in features and rng.random() < 0.05:
            run_ms = rng.choice([10_000, 40_000])
        end, good_from = "return", 1
        chance = rng.random()
        if chance < 0.25:
            ends = ["raise", "raise", "final", "later"] if "finals" in features else ["raise"]
            end, good_from = rng.choice(ends), rng.choice([2, 3, 1_000])
        elif "crashes" in features and chance < 0.3:
            end, good_from = "exit", rng.choice([2, 1_000])
        elif "endless" in features and chance < 0.33:
            end = "never"
        beat_ms = rng.choice([0, 100, 400]) if "beats" in features and run_ms else 0
        spawns = "families" in features and end != "never" and rng.random() < 0.2
        result_bytes, heeds = rng.choice([0, 0, 40, 2_000]), rng.random() < 0.7
        return Body(run_ms, end, good_from, result_bytes, heeds, beat_ms, brood=new_brood(rng) if spawns else 0)

    def _limited(self, body: Body, delay_ms: int) -> tuple[Body, Rules | None]:
        """Choose rules that suit a body."""
        rng, features = self._rng, self._features
        given: dict[str, int | bool] = {}
        if "limits" in features and rng.random() < 0.3:
            kind = rng.choice(["timeout_ms", "soft_timeout_ms", "ttl_ms", "deadline_ms", "heartbeat_ms"])
            given[kind] = rng.choice([600, 2_000, 15_000]) + (delay_ms if kind in {"ttl_ms", "deadline_ms"} else 0)
        if "exclusive" in features and rng.random() < 0.1:
            given["exclusive"] = True
        if "once" in features and rng.random() < 0.05:
            given["at_most_once"] = True
        return body, Rules(**given) if given else None  # type: ignore[arg-type]  # one type for each name


def is_scheduled(spec: TaskSpec) -> bool:
    """Tell whether a schedule has submitted a task."""
    return SCHEDULE_HEADER in (spec.rules.headers or {})


def is_endless(spec: TaskSpec) -> bool:
    """Tell whether a task runs until somebody cancels it."""
    if spec.name == COMMAND or read_body(spec.payload).end != "never":
        return False
    rules = spec.rules
    stalls = rules.heartbeat_ms and not 0 < read_body(spec.payload).beat_ms <= rules.heartbeat_ms
    told = rules.soft_timeout_ms and read_body(spec.payload).heeds
    return not (rules.timeout_ms or rules.deadline_ms or stalls or told)


def cost_s(spec: TaskSpec) -> float:
    """Return how long it takes, at most, until a task has ended, beside what goes wrong."""
    body = Body() if spec.name == COMMAND else read_body(spec.payload)
    run_ms = int(read_command(spec.payload).argv[1]) if spec.name == COMMAND else body.run_ms
    brood = brood_of(body.brood)
    limits = spec.rules
    run_ms += limits.timeout_ms + limits.soft_timeout_ms + limits.heartbeat_ms + limits.deadline_ms  # which it may need
    attempts = (1 if spec.retry is None else spec.retry.max_attempts) + len(brood.stages)
    if limits.preemptible:
        attempts += PREEMPTED_MAX
    alone_s = (attempts * (run_ms + 1.25 * BACKOFF_MS_MAX) + spec.delay_ms) / 1_000
    return alone_s + attempts * len(brood.stages) * brood.pause_s + sum(map(cost_s, brood.all))
