"""The core over the store in memory, the core over RocksDB, and a model of both: given the same, they show the same.

Examples are drawn, and made small when they fail, by hypothesis; a case is a hundred of them, of fifty steps each.
"""

import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from campaigns.flow_pair import FlowPair
from campaigns.report import Found

EXAMPLES = 100
STEPS = 50

Act = Callable[[FlowPair, int, int, int], Awaitable[None]]

ACTS: tuple[Act, ...] = (
    FlowPair.submit,
    FlowPair.submit,
    FlowPair.resend,
    FlowPair.cancel,
    FlowPair.retry,
    FlowPair.offer,
    FlowPair.offer,
    FlowPair.credit,
    FlowPair.ack,
    FlowPair.ack,
    FlowPair.nack,
    FlowPair.nack,
    FlowPair.nack,
    FlowPair.begin,
    FlowPair.report_stale,
    FlowPair.wait,
    FlowPair.be_silent,
    FlowPair.lose,
    FlowPair.age,
    FlowPair.restart,
    FlowPair.submit_workflow,
    FlowPair.submit_parent,
    FlowPair.steer,
    FlowPair.work,
    FlowPair.work,
    FlowPair.work,
    FlowPair.schedule,
)

numbers = st.integers(0, 99)
plans = st.lists(st.tuples(st.sampled_from(ACTS), numbers, numbers, numbers), min_size=STEPS, max_size=STEPS)


async def live(plan: list[tuple[Act, int, int, int]], root: Path, found: Found) -> None:
    """Take the steps, and compare after each."""
    pair = FlowPair(root, found)
    try:
        await pair.start()
        for act, a, b, third in plan:
            await act(pair, a, b, third)
            await pair.check()
            found.ops += 1
        await pair.check_schedules()
    finally:
        await pair.close()
    for name in ("succeeded", "dead", "cancelled", "scheduled", "cancelling", "ready", "running"):
        found.reach(name, sum([task.state == name for task in pair.model.tasks.values()]))
    found.reach("purged", len(pair.model.purged))
    for name, count in pair.onlooker.tally().items():
        found.reach(name, count)


def play(case: int, home: Path, found: Found) -> None:
    """Draw examples by the number."""

    @seed(case)
    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(plans)
    def explore(plan: list[tuple[Act, int, int, int]]) -> None:
        root = Path(tempfile.mkdtemp(dir=home))
        try:
            trio.run(live, plan, root, found)
        finally:
            shutil.rmtree(root)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("taskd.core.quarantine.STREAK_MIN", 1 << 30)  # what an agent's fault is, is another matter
        explore()
