"""The core's promises, under commands, crashes and clocks in any order.

One door, and what is restored equals what was lost; check, then change; no hidden
inputs; and every index agrees with the records. No acknowledged task is lost, a
task ends once, tokens rise, stale reports change nothing; when faults stop, all
work ends. ``harness.world`` checks each of them after every step.
"""

import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from harness.trace import trace
from harness.world import (
    AGENTS,
    DEADLINES_MS,
    DELAYS_MS,
    FAIR_KEYS,
    FIFO_KEYS,
    FILTERS,
    GIB,
    KEYS,
    LIMITS,
    NAMES,
    OUTCOMES,
    PAYLOADS,
    PERCENTS,
    PRIORITIES,
    QUEUES,
    RETRIES,
    TTLS_MS,
    UNIQUES,
    USES,
    WHERES,
    World,
    random_step,
    sharing,
    shrink,
    times,
)
from taskd_protocol.filtering import TaskFilter
from taskd_protocol.limiting import Limit
from taskd_protocol.resources import Where
from taskd_protocol.task import Retry, Unique, Use

TESTS = Path(__file__).parent.parent

Wish = tuple[
    str, str, int, int, int, int, Retry | None, str, bytes, bool, Unique | None, Where | None, Sequence[Use], str, str
]

wishes = st.tuples(
    st.sampled_from(NAMES),
    st.sampled_from(QUEUES),
    st.sampled_from(PRIORITIES),
    st.sampled_from(DELAYS_MS),
    st.sampled_from(TTLS_MS),
    st.sampled_from(DEADLINES_MS),
    st.sampled_from(RETRIES),
    st.sampled_from(KEYS),
    st.sampled_from(PAYLOADS),
    st.sampled_from((False, False, False, True)),
    st.sampled_from(UNIQUES),
    st.sampled_from(WHERES),
    st.sampled_from(USES),
    st.sampled_from(FIFO_KEYS),
    st.sampled_from(FAIR_KEYS),
)
agents = st.sampled_from(list(AGENTS))
index = st.integers(0, 40)
some = st.lists(index, min_size=1, max_size=4)


class CoreMachine(RuleBasedStateMachine):
    """Everything that may happen to a coordinator, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        shrink(self.patch)
        self.world = World()

    def teardown(self) -> None:
        try:
            self.world.check_restored()
            self.world.finish()
        finally:
            self.patch.undo()

    @rule(asked=st.lists(wishes, min_size=1, max_size=12))
    def submit(self, asked: list[Wish]) -> None:
        self.world.submit(
            [
                self.world.shell.spec(
                    name,
                    queue=queue,
                    priority=priority,
                    retry=retry,
                    key=key,
                    payload=payload,
                    at_most_once=once,
                    unique=None if key else unique,
                    where=None if key else where,
                    preemptible=not once and priority < 0,
                    **sharing(
                        times(delay_ms, ttl_ms, deadline_ms),
                        () if key else uses,
                        "" if key else fifo_key,
                        "" if not once and priority < 0 else fair_key,
                    ),
                    sticky=name if priority > 0 else "",
                )
                for (
                    name,
                    queue,
                    priority,
                    delay_ms,
                    ttl_ms,
                    deadline_ms,
                    retry,
                    key,
                    payload,
                    once,
                    unique,
                    where,
                    uses,
                    fifo_key,
                    fair_key,
                ) in asked
            ]
        )

    @rule(which=index)
    def resend(self, which: int) -> None:
        self.world.resend(which)

    @rule(which=some, force=st.booleans())
    def cancel(self, which: list[int], force: bool) -> None:  # noqa: FBT001 - drawn
        self.world.cancel(which, force=force)

    @rule(which=some)
    def retry(self, which: list[int]) -> None:
        self.world.retry(which)

    @rule(which=some)
    def hasten(self, which: list[int]) -> None:
        self.world.hasten(which)

    @rule(action=st.sampled_from(["cancel", "retry", "purge"]), wanted=st.sampled_from(FILTERS))
    def start_job(self, action: str, wanted: TaskFilter) -> None:
        self.world.start_job(action, wanted)

    @rule(name=agents, drain=st.booleans())
    def order_agent(self, name: str, drain: bool) -> None:  # noqa: FBT001 - drawn by name
        self.world.order_agent(name, drain=drain)

    @rule(queue=st.sampled_from(QUEUES), drain=st.booleans(), pause=st.booleans())
    def order_queue(self, queue: str, drain: bool, pause: bool) -> None:  # noqa: FBT001 - drawn by name
        self.world.order_queue(queue, drain=drain, pause=pause)

    @rule(limit=st.sampled_from(LIMITS))
    def set_limit(self, limit: Limit) -> None:
        self.world.set_limit(limit)

    @rule(limit=st.sampled_from(LIMITS))
    def remove_limit(self, limit: Limit) -> None:
        self.world.remove_limit(limit.name)

    @rule(queue=st.sampled_from(QUEUES), weight=st.integers(1, 4))
    def weigh_queue(self, queue: str, weight: int) -> None:
        self.world.weigh_queue(queue, weight)

    @rule(name=agents, is_new_boot=st.booleans(), leases=st.integers(0, 9))
    def connect(self, name: str, is_new_boot: bool, leases: int) -> None:  # noqa: FBT001 - drawn by name
        self.world.connect(name, is_new_boot=is_new_boot)
        if leases:
            self.world.credit(name, leases)

    @rule(name=agents, leases=st.integers(1, 9))
    def credit(self, name: str, leases: int) -> None:
        self.world.credit(name, leases)

    @rule(name=agents)
    def lose(self, name: str) -> None:
        self.world.lose(name)

    @rule(name=agents)
    def drain(self, name: str) -> None:
        self.world.drain(name)

    @rule(name=agents)
    def offer_again(self, name: str) -> None:
        self.world.offer_again(name)

    @rule(name=agents, which=some, result=st.sampled_from([b"\xc0", b"r" * 40]))
    def ack(self, name: str, which: list[int], result: bytes) -> None:
        self.world.ack(name, which, result)

    @rule(
        name=agents,
        which=some,
        outcome=st.sampled_from(OUTCOMES),
        final=st.booleans(),
        retry_after_ms=st.sampled_from([None, 0, 5_000]),
    )
    def nack(self, name: str, which: list[int], outcome: str, final: bool, retry_after_ms: int | None) -> None:  # noqa: FBT001 - drawn by name
        self.world.nack(name, which, outcome, final=final, retry_after_ms=retry_after_ms)

    @rule(name=agents, which=some)
    def start(self, name: str, which: list[int]) -> None:
        self.world.start(name, which)

    @rule(name=agents, which=index)
    def report_stale(self, name: str, which: int) -> None:
        self.world.report_stale(name, which)

    @rule(name=agents, which=index)
    def print_logs(self, name: str, which: int) -> None:
        self.world.print_logs(name, which)

    @rule(name=agents, which=index, details=st.sampled_from([b"\x01", b"d" * 30]))
    def checkpoint(self, name: str, which: int, details: bytes) -> None:
        self.world.checkpoint(name, which, details)

    @rule(name=agents, is_forgetful=st.booleans())
    def beat(self, name: str, is_forgetful: bool) -> None:  # noqa: FBT001 - drawn by name
        self.world.beat(name, is_forgetful=is_forgetful)

    @rule(name=agents, percent=st.sampled_from(PERCENTS), memory=st.sampled_from([0, 0, GIB]))
    def use(self, name: str, percent: int, memory: int) -> None:
        self.world.use(name, percent, memory)

    @rule(ms=st.sampled_from([1, 400, 900, 16_000]), beats=st.booleans())
    def pass_ms(self, ms: int, beats: bool) -> None:  # noqa: FBT001 - drawn by name
        self.world.pass_ms(ms, beats=beats)

    @rule()
    def stall(self) -> None:
        self.world.stall()

    @rule(ms=st.sampled_from([-100_000, 300_000]))
    def step_wall_clock(self, ms: int) -> None:
        self.world.step_wall_clock(ms)

    @rule(flushes=st.booleans())
    def turn(self, flushes: bool) -> None:  # noqa: FBT001 - drawn by name
        self.world.turn()
        if flushes:
            self.world.flush()

    @rule(which=some)
    def read(self, which: list[int]) -> None:
        for each in which:
            self.world.read(each)

    @rule(kept=index)
    def crash(self, kept: int) -> None:
        self.world.crash(kept)

    @rule()
    def check_restored(self) -> None:
        self.world.check_restored()


CoreMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=40)
test_promises_hold_in_any_order = CoreMachine.TestCase


@pytest.mark.parametrize("seed", range(8))
def test_promises_hold_in_a_long_life(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of steps at random, weighted as in life, reach what short runs do not."""
    shrink(monkeypatch)
    rng, world = random.Random(seed), World(seed)
    for _ in range(250):
        random_step(world, rng)
    world.check_restored()
    world.finish()


def test_no_hidden_inputs() -> None:
    """The same seed decides the same in another process, whatever the order of its sets."""
    traces = {trace(7, 200)}
    for hash_seed in ("0", "4242"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(TESTS)}
        command = [sys.executable, "-m", "harness.trace", "7", "200"]
        traces.add(subprocess.run(command, env=environment, capture_output=True, check=True, text=True).stdout)
    assert len(traces) == 1
    assert trace(8, 200) not in traces
