"""Invariants: every index of the working set, derived again from its tasks.

For tests and simulation, after each command; too slow for a server at work.
"""

from collections import Counter

from taskd.core import attempts, jobs
from taskd.core.fleet import Agent
from taskd.core.lifecycle import State
from taskd.core.lines import is_fair, where_of
from taskd.core.rows import UNSERVED
from taskd.core.standing import Schedules, is_armed
from taskd.core.working import Working
from taskd_protocol.limiting import QUEUE_PREFIX, TASK_PREFIX
from taskd_protocol.resources import ONE


def check_invariants(w: Working) -> None:
    """Assert that the working set agrees with itself, between two turns."""
    windowed = {}
    for key, line in w.lines.items():
        window = line.window()
        ranks = [task.rank for task in window]
        assert key == (line.queue, line.name, line.where, line.fair)
        assert w.lines_by_id[line.id] is line
        assert ranks == sorted(set(ranks)), "a window is in order, and no place is taken twice"
        assert len(window) <= line.ready
        assert line.window_bytes == sum(len(task.spec.payload) + len(task.details) for task in window)
        assert not line.complete or len(window) == line.ready, "a complete window is the whole line"
        assert line.complete or all(rank <= line.tail for rank in ranks), "a window is a prefix"
        assert (line.id in w.active) == bool(window)
        for task in window:
            assert (task.spec.queue, task.spec.name, where_of(task.spec, task.past), is_fair(task.spec)) == key
            assert task.token == 0
            assert not task.cancelling
            windowed[task.spec.id] = task
    assert len(w.lines_by_id) == len(w.lines)
    assert w.active.keys() <= w.lines_by_id.keys()
    assert w.rooms.cpu_left.keys() <= w.agents.keys() | w.rooms.grown.keys(), "no place is kept of who is gone"
    w.slots.check(w)
    assert w.rooms.by_cpu_left == sorted((left, name) for name, left in w.rooms.cpu_left.items())
    leased = {}
    for name, agent in w.agents.items():
        assert name == agent.name
        assert agent.drained == (name in w.drained_agents) or not agent.connection
        assert agent.quarantined == (name in w.quarantined) or not agent.connection
        assert agent.granted_bytes >= sum(len(t.spec.payload) + len(t.details) for t in agent.leases.values())
        _check_room(agent)
        for token, task in agent.leases.items():
            assert (task.token, task.agent) == (token, name)
            past = task.past or attempts.NO_PAST
            assert task.attempt > task.failures + past.crashes + past.losses
            kept_max = min(task.attempt - 1, attempts.ATTEMPTS_KEPT)
            assert past.kept <= kept_max, "attempts before this one are kept, and not too many"
            leased[task.spec.id] = task
            if task.spec.rules.preemptible:
                assert w.yielding.tasks.get(task.spec.id) is task
            assert not task.preempted or task.spec.rules.preemptible, "only what may be stopped is"
    assert not windowed.keys() & leased.keys(), "a task is in line or leased"
    assert w.tasks == windowed | leased
    assert all(group.count > 0 for group in w.dead_groups.values())
    assert sum(group.count for group in w.dead_groups.values()) <= w.counters.ended.get(State.DEAD, 0)
    assert sum(not job.finished_at_ms for job in w.jobs.values()) <= jobs.RUNNING_MAX
    _check_agents(w)
    _check_shares(w)
    _check_limits(w)
    _check_schedules(w.schedules)
    _check_counters(w)


def _check_room(agent: Agent) -> None:
    """Assert that what is left of an agent is what it offered, less what its leases hold."""
    if not agent.pools:
        return  # it offers nothing until it is back
    room, granted = agent.room, [task for task in agent.leases.values() if task.granted is not None]
    free = dict(room.total)
    items = {(name, item): ONE for name, left in room.items.items() for item in left}
    for hold in [hold for task in granted if task.granted for hold in task.granted.holds]:
        free[hold.name] = free.get(hold.name, 0) - hold.amount
        for item in hold.items:
            items[hold.name, item] = items.get((hold.name, item), 0) - min(hold.amount, ONE)
    assert room.free == {name: free[name] for name in room.total}
    assert {(name, item): left for name, its in room.items.items() for item, left in its.items()} == {
        key: left for key, left in items.items() if key[1] in room.items.get(key[0], {})
    }
    for index, pool in enumerate(agent.pools):
        here = [task for task in agent.leases.values() if agent.pool_of(task.spec.name) == index]
        assert {task.pool for task in here} <= {index if pool.has_slots else -1}
        assert pool.granted == sum(pool.has_slots and task.granted is not None for task in here)
        assert pool.busy == sum(pool.has_slots and task.granted is None for task in here)
    words = Counter(task.spec.rules.where.apart for task in granted if task.spec.rules.where)
    assert agent.apart == {word: count for word, count in words.items() if word}
    holders = [task.token for task in granted if task.granted and task.granted.exclusive_host]
    assert agent.holder == (holders[-1] if holders else 0)


def _check_shares(w: Working) -> None:
    """Assert that each line which has tasks stands in its queue, or waits for an agent that serves it."""
    shares = w.shares
    standing: Counter[int] = Counter()
    for line in w.active.values():
        if line.shelf == UNSERVED:
            assert shares.unserved[line.name][line.id] is line
            assert not any(agent.can_run(line.queue, line.name) for agent in w.agents.values())
            continue
        assert line.entry is not None, "what has tasks has its place"
        row = shares.queues[line.queue].rows[line.fair]
        assert any(entry is line.entry for entry in row.shelves[line.shelf])
        assert line.entry[0] <= line.head_rank()
        standing[line.shelf] += 1
    assert {shelf: count for shelf, count in shares.standing.items() if count} == dict(standing)
    assert sum(len(lines) for lines in shares.unserved.values()) == len(w.active) - standing.total()
    assert shares.weights == sum(share.weight for share in shares.queues.values())
    for queue, share in shares.queues.items():
        assert sum(row.count for row in share.rows) == sum(
            line.queue == queue and line.shelf != UNSERVED for line in w.active.values()
        )
        assert share.is_empty or share.weight == w.weight_of(queue)
        assert share.is_empty or share.turn is not None, "a queue that has tasks has its turn"


def _check_limits(w: Working) -> None:
    """Assert that each gauge counts the leases that there are, and that no bucket owes or runs over."""
    running = Counter(
        limited
        for agent in w.agents.values()
        for task in agent.leases.values()
        for limited in (QUEUE_PREFIX + task.spec.queue, TASK_PREFIX + task.spec.name)
    )
    for name, gauge in w.limits.items():
        assert gauge.running == running[name], "a limit counts the leases that there are"
        assert 0 <= gauge.level <= gauge.full, "no more is granted than there are tokens for"


def _check_schedules(schedules: Schedules) -> None:
    running = [(task_id, name) for name, standing in schedules.of.items() for task_id in standing.running]
    assert schedules.of_task == dict(running)
    assert len(running) == len(schedules.of_task), "a task is of one schedule"
    assert schedules.unchecked.keys() <= schedules.of.keys()
    assert set(schedules.heap) >= {(at_ms, name) for name, at_ms in schedules.armed.items()}
    for name, standing in schedules.of.items():
        if name not in schedules.looking and name not in schedules.unchecked:
            at_ms = standing.next_at_ms if is_armed(standing) else None
            assert schedules.armed.get(name) == at_ms, "a schedule that fires is looked at in its time"
        assert not standing.next_at_ms or standing.next_at_ms > standing.decided_to_ms
        assert (standing.last is None) == (standing.sequence == 0)
        assert standing.waiting is None or 0 <= standing.waiting_sequence < standing.sequence


def _check_agents(w: Working) -> None:
    having: dict[str, set[str]] = {}
    for agent in w.agents.values():
        for pool in agent.pools:
            for name in pool.names:
                having.setdefault(name, set()).add(agent.name)
    assert {name: set(agents) for name, agents in w.having.items()} == having
    assert all(w.agents[name] is agent for agents in w.having.values() for name, agent in agents.items())
    for agent in w.agents.values():
        assert agent.name in w.asking or not any(pool.credit for pool in agent.pools), "credit is to be used"
        assert agent.lost or agent.seen_mono_ms + w.settings.silence_ms >= w.silence_look_mono_ms
    assert all(w.agents.get(name) is agent for name, agent in w.asking.items())


def _check_counters(w: Working) -> None:
    expected: dict[tuple[str, State], int] = {}
    for line in w.lines.values():
        expected[line.queue, State.READY] = expected.get((line.queue, State.READY), 0) + line.ready
    for queue, count in w.counters.parked.items():
        expected[queue, State.READY] = expected.get((queue, State.READY), 0) + count
        assert count >= 0
    for agent in w.agents.values():
        for task in agent.leases.values():
            key = (task.spec.queue, State.CANCELLING if task.cancelling else State.RUNNING)
            expected[key] = expected.get(key, 0) + 1
    counted = {
        (queue, State(state)): count
        for queue, states in w.counters.by_queue.items()
        for state, count in states.items()
        if count and state not in {State.SCHEDULED, State.BLOCKED}
    }
    assert counted == {key: count for key, count in expected.items() if count}
    assert all(count >= 0 for states in w.counters.by_queue.values() for count in states.values())
    assert all(count >= 0 for count in w.counters.ended.values())
