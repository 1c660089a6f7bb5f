"""Shares converge: over any mix of arrivals what backlogged queues, and fair keys, are served differs by a bound.

Of a queue the bound is what one turn grants for its weight, and what a pass may have left over: it does not grow with
what has been served. Of a fair key it is one task of each.
"""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.agent import FakeAgent
from harness.core import Shell
from taskd.core.commands import WeighFairKey, WeighQueue
from taskd.core.shares import TURN_TASKS
from taskd_protocol.task import Grant

weights = st.dictionaries(st.sampled_from("abcde"), st.integers(1, 5), min_size=2, max_size=5)
credits_ = st.lists(st.integers(1, 60), min_size=5, max_size=40)
arrivals = st.lists(st.tuples(st.sampled_from("abcde"), st.integers(1, 40), st.integers(0, 3)), max_size=12)


def serve(agent: FakeAgent, credit: int) -> list[Grant]:
    agent.shell.do(agent.credit(credit))
    grants = agent.receive()
    if grants:
        agent.shell.do(agent.ack(*grants))
    return grants


@settings(deadline=None, max_examples=60)
@given(weights, credits_, arrivals)
def test_queues_that_stay_backlogged_are_served_by_their_weights(
    shares: dict[str, int], rooms: list[int], more: list[tuple[str, int, int]]
) -> None:
    """Whatever else comes into whichever of them, of however many names, however much room there is at a time."""
    shell = Shell()
    backlog = 1 + max(shares.values()) * (sum(rooms) // len(shares) + 200)
    for queue, weight in shares.items():
        shell.do(WeighQueue(queue, weight))
        for start in range(0, backlog, 500):
            shell.submit(*[shell.spec(queue=queue) for _ in range(min(500, backlog - start))])
    agent = FakeAgent(shell, names=["m.f", "m.g", "m.h"]).join()
    served: Counter[str] = Counter()
    for step, room in enumerate(rooms):
        for queue, count, name in more[step : step + 1]:
            if queue in shares:
                shell.submit(*[shell.spec(["m.f", "m.g", "m.h"][name % 3], queue=queue) for _ in range(count)])
        served.update(grant.spec.queue for grant in serve(agent, room))
        assert sum(served.values()) == sum(rooms[: step + 1])
        times = [served[queue] / weight for queue, weight in shares.items()]
        assert max(times) - min(times) <= 2 * TURN_TASKS, "no queue gets ahead of another by more than some turns"


@settings(deadline=None, max_examples=60)
@given(weights, credits_, arrivals)
def test_fair_keys_that_stay_backlogged_are_served_by_their_weights(
    shares: dict[str, int], rooms: list[int], more: list[tuple[str, int, int]]
) -> None:
    """Whatever else comes of them, and of others, at whatever priority."""
    shell = Shell()
    for key, weight in shares.items():
        shell.do(WeighFairKey("default", key, weight))
    backlog = sum(rooms) + 1
    for key in shares:
        for start in range(0, backlog, 500):
            shell.submit(*[shell.spec(fair_key=key) for _ in range(min(500, backlog - start))])
    agent = FakeAgent(shell).join()
    served: Counter[str] = Counter()
    others = 0
    for step, room in enumerate(rooms):
        for key, count, priority in more[step : step + 1]:
            shell.submit(*[shell.spec(fair_key=f"{key}-too", priority=priority) for _ in range(count)])
            others += 1
        grants = serve(agent, room)
        served.update(grant.spec.rules.fair_key for grant in grants)
        assert len(grants) == room
        times = [served[key] / weight for key, weight in shares.items()]
        assert max(times) - min(times) <= 1.5, "no key gets ahead of another by more than a task"
