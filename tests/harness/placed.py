"""What was granted, looked at from outside: no agent has more than it has, and no task is where it may not be."""

from collections import Counter
from collections.abc import Sequence

from harness.core import Disk
from taskd.core import gates, limiting, records
from taskd.core.commands import GoOn, Now
from taskd.core.effects import Continue, Effect, SendLease
from taskd.core.explain import explain_task
from taskd.core.fitting import never, not_now
from taskd.core.fleet import Agent
from taskd.core.lifecycle import TERMINAL, State
from taskd.core.lines import rank_before
from taskd.core.records import Mutation, SpecRecord, StateRecord
from taskd.core.working import Working
from taskd_protocol.explanation import Reasons
from taskd_protocol.ids import TASK_ID_BYTES
from taskd_protocol.resources import ALL, Granted, Request, Where
from taskd_protocol.task import Grant


def check_placed(w: Working, effects: Sequence[Effect], now: Now) -> None:
    """Check what a turn has granted, and that nothing waits for which there is room."""
    for effect in effects:
        if isinstance(effect, SendLease):
            agent = w.agents[effect.agent]
            for grant in effect.grants:
                _check_grant(agent, grant)
    for agent in w.agents.values():
        if agent.connection:
            _check_agent(agent)
    _check_limits(w, effects)
    if Continue(GoOn()) in effects:
        return  # there was more to grant than one turn grants
    for line in w.active.values():
        left = limiting.left(w, line.queue, line.name, now)
        for agent in w.agents.values():
            if left and never(agent, line) is None:
                assert not_now(agent, line, now) is not None, "what has room moves"


def check_explained(disk: Disk, w: Working, effects: Sequence[Effect], now: Now) -> None:
    """Check that of each task that waits after a turn something is told that it waits for, and of others nothing."""
    for task_id in disk.scan(records.SPEC):
        spec, state = disk.get(records.SPEC, task_id, SpecRecord), disk.find(records.STATE, task_id, StateRecord)
        told = explain_task(w, spec, state, now)
        is_leased = (records.LEASE, task_id) in disk.values
        waits = not is_leased and (state is None or state.state not in TERMINAL)
        if not waits:
            assert told.reason is None or told.state == State.CANCELLING
            assert not told.agents
            continue
        assert told.reason is not None, "what waits, waits for something"
        if told.state == State.READY and gates.is_parked(spec.spec, state.gates if state else 0):
            still = [each.reason for each in w.gates.still.values()]
            assert told.reason.code in {Reasons.KEY, Reasons.FIFO, Reasons.RATE} or told.reason in still
            continue
        if Continue(GoOn()) not in effects:
            assert told.reason.code not in {Reasons.PLACING, Reasons.AHEAD}, "what nothing rules out was granted"
        if told.state == State.READY:
            assert len(told.agents) + sum(told.others.values()) == len(w.agents)
            assert told.place is not None
            assert told.place.ahead_min <= told.place.ahead < told.place.ready


def check_passed(disk: Disk, w: Working, mutations: Sequence[Mutation]) -> None:
    """Check that a gate which a task has passed in this turn had room for it, and that nothing before it is left."""
    passed = {record_id: value for kind, record_id, value in mutations if kind == records.HELD and value is not None}
    parked = {record_id for kind, record_id, _ in mutations if kind == records.PARKED}  # perhaps after that
    for record_id in passed:
        gate, task_id = record_id[: gates.GATE_BYTES], record_id[gates.GATE_BYTES :]
        record = disk.get(records.SPEC, task_id, SpecRecord)
        [way] = [way for way in gates.ways(record.spec) if way.gate == gate]
        held = {i: int.from_bytes(disk.raw(records.HELD, i), "big") for i in disk.scan(records.HELD, gate)}
        gauge = w.limits.get(way.limit)
        most = 1 if not way.limit else gauge.limit.concurrency if gauge else 0
        places = sum(min(weight, most) for weight in held.values())
        assert not most or places <= most, "no more pass than there is room for"
        for first in [i for i in disk.scan(records.PARKED, gate) if i not in parked and not _is_still(disk, w, i)][:1]:
            assert first > gates.parked_id(way, rank_before(record)), "who came first passes first"


def _is_still(disk: Disk, w: Working, parked: bytes) -> bool:
    """Tell whether what is parked is of a line that stands still: it is passed over."""
    return disk.raw(records.PARKED, parked)[TASK_ID_BYTES:] in w.gates.still


def _check_limits(w: Working, effects: Sequence[Effect]) -> None:
    """What begins, begins within its limits, and in no paused queue; what ran before a limit was lowered, may."""
    leased = [task.spec for agent in w.agents.values() for task in agent.leases.values()]
    for grant in [grant for effect in effects if isinstance(effect, SendLease) for grant in effect.grants]:
        order = w.queues.get(grant.spec.queue)
        assert order is None or not order.paused, "nothing of a paused queue begins"
        queue, name = f"queue:{grant.spec.queue}", f"task:{grant.spec.name}"
        for limited, running in (
            (queue, sum(spec.queue == grant.spec.queue for spec in leased)),
            (name, sum(spec.name == grant.spec.name for spec in leased)),
        ):
            gauge = w.limits.get(limited)
            if gauge is not None and gauge.limit.concurrency:
                assert running <= gauge.limit.concurrency, "no more run than a limit allows"


def _check_grant(agent: Agent, grant: Grant) -> None:
    where = grant.spec.rules.where
    if where is None:
        assert grant.granted is None
        return
    for rule in where.labels:
        has = agent.labels.get(rule.label)
        assert (has in rule.values) == (rule.operator in {"=", "in"}), "a label rule is obeyed"
    if where.requests:
        assert grant.granted is not None
        _check_holds(agent, where.requests[grant.granted.alternative], grant.granted, where)
    if where.exclusive_host:
        assert [lease.token for lease in agent.leases.values()] == [grant.token], "it has the agent for itself"
    if where.apart:
        others = [t.spec.rules.where for t in agent.leases.values() if t.token != grant.token]
        assert where.apart not in [other.apart for other in others if other], "what is to be apart is apart"


def _check_holds(agent: Agent, request: Request, granted: Granted, where: Where) -> None:
    if where.exclusive_host:
        assert {hold.name: hold.amount for hold in granted.holds} == agent.room.total
        return
    held = {hold.name: hold for hold in granted.holds}
    assert held.keys() == {need.name for need in request.needs}
    for need in request.needs:
        hold = held[need.name]
        if need.name != "memory" or need.amount == ALL:  # an attempt that died for want of it asks for more
            assert hold.amount == (agent.room.total[need.name] if need.amount == ALL else need.amount)
        else:
            assert 0 < hold.amount >= need.amount
        if need.items:
            assert hold.items == need.items
        if need.kind:
            assert {agent.room.kinds[need.name][item] for item in hold.items} == {need.kind}
        if need.name in agent.room.items:
            assert len(hold.items) == max(1, hold.amount // 1_000)


def _check_agent(agent: Agent) -> None:
    """Add up what its leases hold."""
    used: Counter[str] = Counter()
    items: Counter[tuple[str, str]] = Counter()
    for task in agent.leases.values():
        for hold in task.granted.holds if task.granted else ():
            used[hold.name] += hold.amount
            items.update({(hold.name, item): min(hold.amount, 1_000) for item in hold.items})
    assert all(amount <= agent.room.total[name] for name, amount in used.items()), "no agent is over-committed"
    assert all(amount <= 1_000 for amount in items.values()), "no item is given twice"
