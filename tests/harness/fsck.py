"""What must be true of a disk between any two batches, from the records alone, and of memory beside it."""

from collections import Counter
from collections.abc import Container

from harness.core import Disk, Shell
from taskd.core import attempts, expiry, gates, records
from taskd.core.attempts import NO_PAST, kept_ids
from taskd.core.claims import claim_id, is_held
from taskd.core.commands import ReleaseDue
from taskd.core.dead import dead_id
from taskd.core.endings import weight_of
from taskd.core.lapses import lapse_id, record_of
from taskd.core.lifecycle import TERMINAL, State
from taskd.core.lines import is_fair, line_id, rank_before, rank_in, ready_id, where_of
from taskd.core.log_retention import is_swept_mark
from taskd.core.records import (
    AttemptRecord,
    BucketRecord,
    CountersRecord,
    CountsRecord,
    DeadGroupRecord,
    FairRecord,
    FinishedRecord,
    KeyRecord,
    LeaseRecord,
    LineRecord,
    LogRecord,
    PaceRecord,
    SpecRecord,
    StateRecord,
    UniqueRecord,
)
from taskd.core.reports import log_id
from taskd.core.timers import timer_id
from taskd.core.workflow_records import NodeRecord
from taskd_protocol.task import DEFAULT_RETRY, TaskSpec


def check_disk(disk: Disk) -> dict[bytes, State]:
    """Derive every index and counter from the tasks; return each task's state."""
    specs = disk.of(records.SPEC, SpecRecord)
    states = disk.of(records.STATE, StateRecord)
    leases = disk.of(records.LEASE, LeaseRecord)
    assert not states.keys() & leases.keys(), "a leased task has no state record"
    assert states.keys() | leases.keys() <= specs.keys(), "of each task there is the spec"
    found = {task_id: _state(states.get(task_id), leases.get(task_id)) for task_id in specs}
    _check_lines(disk, specs, found)
    _check_timers(disk, specs, states, found)
    _check_fair(disk, specs, found)
    _check_details(disk, states, leases)
    _check_ends(disk, specs, states, found)
    _check_dead(disk, states)
    _check_logs(disk, states, leases)
    _check_attempts(disk, specs, states, leases)
    _check_keys(disk, specs)
    _check_claims(disk, specs, found)
    _check_gates(disk, specs, found)
    return found


def _check_gates(disk: Disk, specs: dict[bytes, SpecRecord], found: dict[bytes, State]) -> None:
    """What a task's gates hold of it follows from its records; nothing else is there."""
    held: dict[bytes, bytes] = {}
    parked: dict[bytes, bytes] = {}
    counts: Counter[str] = Counter()
    for task_id, record in specs.items():
        ways, state = gates.ways(record.spec), disk.find(records.STATE, task_id, StateRecord)
        if found[task_id] in TERMINAL:
            assert state is not None
            assert not state.gates
            continue
        is_leased = found[task_id] in {State.RUNNING, State.CANCELLING}
        passed = len(ways) if is_leased else state.gates if state else 0
        assert found[task_id] == State.READY or is_leased or passed <= gates.kept(record.spec)
        held |= {gates.held_id(way, task_id): gates.places(way) for way in ways[:passed]}
        if found[task_id] == State.READY and passed < len(ways):
            value = gates.parked_value(record.spec, passed, state.past if state else None)
            parked[gates.parked_id(ways[passed], rank_before(record))] = value
            counts[record.spec.queue] += 1
    assert {i: disk.raw(records.HELD, i) for i in disk.scan(records.HELD)} == held
    assert {i: disk.raw(records.PARKED, i) for i in disk.scan(records.PARKED)} == parked
    counted = {queue.decode(): record.parked for queue, record in disk.of(records.COUNTS, CountsRecord).items()}
    assert {queue: parked for queue, parked in counted.items() if parked} == counts


def check_beside(shell: Shell) -> None:
    """Check, after a turn, that what memory holds of lines and timers is an exact beginning of what the disk holds."""
    disk, w = shell.disk, shell.working
    for line in w.lines.values():
        on_disk = disk.scan(records.READY, line.id)
        window = [ready_id(line.id, task.rank) for task in line.window()]
        assert window == on_disk[: len(window)], "a window is an exact prefix"
        assert line.ready == len(on_disk)
        for task in line.window():
            state = disk.find(records.STATE, task.spec.id, StateRecord)
            assert task.fresh == (state is None)
            if state is not None:
                assert (task.attempt, task.failures, task.failure) == (state.attempt, state.failures, state.failure)
                assert (task.logs, task.log_bytes, task.past) == (state.logs, state.log_bytes, state.past)
            assert task.details == disk.details(task.spec.id)
            assert task.revived_at_ms == (state.revived_at_ms if state else 0)
    for agent in w.agents.values():
        for task in agent.leases.values():
            assert task.details == disk.details(task.spec.id)
    releases = [*(waiting.command for waiting in shell.waiting), *shell.continued]
    due = [timer for release in releases if isinstance(release, ReleaseDue) for timer in release.timers]
    late = {event.id for flow in w.flows.values() for event in flow.late}  # nodes of workflows that are being read
    for timer in [timer for timer in disk.scan(records.TIMER) if not timer[8:].startswith(gates.WAKE)]:
        assert timer > w.timers.cursor or timer in w.timers.near or timer in due or timer[8:] in late


def _state(state: StateRecord | None, lease: LeaseRecord | None) -> State:
    if lease is not None:
        return State.CANCELLING if lease.cancelling else State.RUNNING
    return State.READY if state is None else State(state.state)


def _check_lines(disk: Disk, specs: dict[bytes, SpecRecord], found: dict[bytes, State]) -> None:
    expected: dict[bytes, bytes] = {}
    ready: dict[bytes, int] = {}
    for task_id, state in found.items():
        last = disk.find(records.STATE, task_id, StateRecord)
        if state == State.READY and not gates.is_parked(specs[task_id].spec, last.gates if last else 0):
            spec = specs[task_id]
            where = where_of(spec.spec, last.past if last else None)
            line = line_id(spec.spec.queue, spec.spec.name, where, fair=is_fair(spec.spec))
            expected[ready_id(line, rank_in(spec))] = task_id
            ready[line] = ready.get(line, 0) + 1
    assert {i: disk.raw(records.READY, i) for i in disk.scan(records.READY)} == expected
    lines = disk.of(records.LINE, LineRecord)
    assert {i: line.ready for i, line in lines.items()} == ready
    assert all(i == line_id(line.queue, line.name, line.where, fair=line.fair) for i, line in lines.items())


def _check_fair(disk: Disk, specs: dict[bytes, SpecRecord], found: dict[bytes, State]) -> None:
    """A key ends, as long as that is ahead of its queue's time, behind all that it has waiting."""
    paces = disk.of(records.PACE, PaceRecord)
    ends = disk.of(records.FAIR, FairRecord)
    for record in ends.values():
        assert max(end for _, end in record.ends) <= paces[record.queue.encode()].highest
    for task_id, state in found.items():
        spec = specs[task_id]
        last = disk.find(records.STATE, task_id, StateRecord)
        in_line = state == State.READY and not gates.is_parked(spec.spec, last.gates if last else 0)
        if in_line and is_fair(spec.spec):
            assert 0 < spec.place < paces[spec.spec.queue.encode()].highest


def _check_timers(
    disk: Disk, specs: dict[bytes, SpecRecord], states: dict[bytes, StateRecord], found: dict[bytes, State]
) -> None:
    expected: list[bytes] = []
    for task_id, state in found.items():
        if state not in {State.READY, State.SCHEDULED, State.BLOCKED}:
            continue
        spec, last = specs[task_id], states.get(task_id)
        since_ms = (last.revived_at_ms if last else 0) or spec.created_at_ms
        instants = [expiry.limit_at_ms(spec.spec, since_ms, last.attempt if last else 0)]
        if state == State.SCHEDULED:
            instants.append(states[task_id].due_at_ms)
        expected += [timer_id(instant, task_id) for instant in instants if instant]
    for node_id, node in disk.of(records.NODE, NodeRecord).items():
        if node.state == "waiting" and node.due_at_ms:
            expected.append(timer_id(node.due_at_ms, node_id))
    assert [i for i in disk.scan(records.TIMER) if not i[8:].startswith(gates.WAKE)] == sorted(expected)


def _check_details(disk: Disk, states: dict[bytes, StateRecord], leases: dict[bytes, LeaseRecord]) -> None:
    telling = {task_id for holders in (states, leases) for task_id, holder in holders.items() if holder.has_details}
    assert set(disk.scan(records.DETAILS)) == telling


def _check_ends(
    disk: Disk, specs: dict[bytes, SpecRecord], states: dict[bytes, StateRecord], found: dict[bytes, State]
) -> None:
    ended = {task_id: state for task_id, state in found.items() if state in TERMINAL}
    finished = disk.of(records.FINISHED, FinishedRecord)
    listed = [
        task_id
        for finished_id, record in finished.items()
        for task_id in record.ids
        if task_id in ended and states[task_id].end_order <= int.from_bytes(finished_id[8:], "big")
    ]
    assert sorted(listed) == sorted(ended), "each ended task is in one FINISHED record"
    apart = [task_id for task_id in ended if states[task_id].result_apart]
    assert disk.scan(records.RESULT) == apart
    assert all(states[task_id].finished_at_ms for task_id in ended)
    counters = disk.find(records.META, b"counters", CountersRecord)
    if counters is None:
        assert not specs
        return
    by_queue: dict[str, dict[str, int]] = {}
    for task_id, state in found.items():
        if state not in TERMINAL:
            counts = by_queue.setdefault(specs[task_id].spec.queue, {})
            counts[state] = counts.get(state, 0) + 1
    counted = disk.of(records.COUNTS, CountsRecord)
    assert {queue.decode(): record.states for queue, record in counted.items()} == by_queue
    assert not counters.by_queue
    assert not counters.parked
    assert counters.ended == {state: list(ended.values()).count(state) for state in set(ended.values())}
    otherwise = sum(weight_of(specs[i].spec, states[i]) for i, state in ended.items() if state != State.SUCCEEDED)
    assert counters.finished_bytes == sum(record.stored_bytes for record in finished.values()) + otherwise
    assert counters.logs_bytes == sum(states[i].log_bytes for i in ended)
    orders = [spec.order for spec in specs.values()]
    assert len(orders) == len(set(orders))
    assert counters.next_order > max(orders, default=0)


def _check_dead(disk: Disk, states: dict[bytes, StateRecord]) -> None:
    dead = {task_id: state for task_id, state in states.items() if state.state == State.DEAD}
    expected = sorted(dead_id(state.fingerprint, state.finished_at_ms, task_id) for task_id, state in dead.items())
    assert disk.scan(records.DEAD) == expected, "a dead task is listed once, by what it died of"
    counts = Counter(state.fingerprint for state in dead.values())
    assert {i: group.count for i, group in disk.of(records.DEAD_GROUP, DeadGroupRecord).items()} == counts


def _check_logs(disk: Disk, states: dict[bytes, StateRecord], leases: dict[bytes, LeaseRecord]) -> None:
    counts = {task_id: state.logs for task_id, state in states.items()}
    counts |= {task_id: lease.logs for task_id, lease in leases.items()}
    marks = {log: said for log, said in disk.of(records.LOG, LogRecord).items() if is_swept_mark(said)}
    swept = {log[:16]: int.from_bytes(log[16:], "big") for log in sorted(marks)}
    expected = [log_id(i, sequence) for i, count in counts.items() for sequence in range(swept.get(i, 0), count)]
    assert disk.scan(records.LOG) == sorted(expected), "only what a mark stands for is missing"


def _check_attempts(
    disk: Disk, specs: dict[bytes, SpecRecord], states: dict[bytes, StateRecord], leases: dict[bytes, LeaseRecord]
) -> None:
    """Each attempt that ended without success is kept, or at least the newest."""
    expected: list[bytes] = []
    for task_id in specs:
        holder = leases.get(task_id) or states.get(task_id)
        if holder is not None:
            ended = _ended_count(holder)
            past = holder.past or NO_PAST
            assert past.kept == min(ended - past.passed_over, attempts.ATTEMPTS_KEPT)
            expected += kept_ids(task_id, ended, holder.past)
    assert disk.scan(records.ATTEMPT) == sorted(expected)


def _ended_count(holder: StateRecord | LeaseRecord) -> int:
    """Return how many attempts have ended without success."""
    return holder.attempt - (isinstance(holder, LeaseRecord) or holder.state == State.SUCCEEDED)


def check_budgets(disk: Disk, retried: Container[bytes]) -> None:
    """No task gets more attempts than its two budgets allow, and those that cost nothing.

    Args:
        disk: Between two batches.
        retried: Tasks whose budgets began anew, since a person said so.
    """
    leases, states = disk.of(records.LEASE, LeaseRecord), disk.of(records.STATE, StateRecord)
    for task_id, record in disk.of(records.SPEC, SpecRecord).items():
        holder = leases.get(task_id) or states.get(task_id)
        if holder is not None and task_id not in retried:
            ids = kept_ids(task_id, _ended_count(holder), holder.past)
            _check_budget(record.spec, holder, [disk.get(records.ATTEMPT, i, AttemptRecord).outcome for i in ids])


def _check_budget(spec: TaskSpec, holder: StateRecord | LeaseRecord, outcomes: list[str]) -> None:
    retry, past = spec.retry or DEFAULT_RETRY, holder.past or NO_PAST
    crash_limit = min(retry.crash_limit, retry.max_attempts)
    has_ended = isinstance(holder, StateRecord) and holder.state in TERMINAL
    assert holder.failures < retry.max_attempts + has_ended
    assert past.crashes < crash_limit + has_ended
    if len(outcomes) + past.passed_over < _ended_count(holder) or past.refunds:
        return
    charged, crashed, lost = (outcomes.count(word) for word in ("failed", "crashed", "lost"))
    assert (charged, crashed, lost) == (holder.failures, past.crashes, past.losses)
    free = lost + outcomes.count("released") + outcomes.count("cancelled") + past.passed_over
    assert holder.attempt <= retry.max_attempts + crash_limit - 1 + free
    if spec.rules.at_most_once:
        uncertain = holder.attempt - outcomes.count("released") - past.passed_over
        assert uncertain <= 1, "what may have started is never leased again"


def _check_keys(disk: Disk, specs: dict[bytes, SpecRecord]) -> None:
    """A key is its task's, as long as that is stored; what counts until an instant has its entry there."""
    keys = disk.of(records.KEY, KeyRecord)
    for key, record in keys.items():
        spec = specs.get(record.task_id)
        if spec is not None:
            assert (spec.spec.key.encode(), spec.created_at_ms) == (key, record.created_at_ms)
    claimed = disk.of(records.UNIQUE, UniqueRecord)
    lapses = [lapse_id(record.until_ms, records.KEY, key) for key, record in keys.items()]
    lapses += [lapse_id(record.until_ms, records.UNIQUE, i) for i, record in claimed.items() if record.until_ms]
    buckets = disk.of(records.BUCKET, BucketRecord)
    reminders = {lapse_id(record.until_ms, records.BUCKET, i) for i, record in buckets.items()}
    there = disk.scan(records.LAPSE)
    assert [i for i in there if record_of(i)[1][0] != records.BUCKET] == sorted(lapses)
    assert reminders <= set(there)


def _check_claims(disk: Disk, specs: dict[bytes, SpecRecord], found: dict[bytes, State]) -> None:
    """Of each piece of work that is to be there once there is one task, and it has the claim."""
    states, leases = disk.of(records.STATE, StateRecord), disk.of(records.LEASE, LeaseRecord)
    holders: list[tuple[bytes, bytes]] = []
    for task_id, task in specs.items():
        unique, holder = task.spec.rules.unique, leases.get(task_id) or states.get(task_id)
        revived_attempt = holder.revived_attempt if isinstance(holder, StateRecord) else 0
        if unique is not None and is_held(unique, found[task_id], holder.attempt if holder else 0, revived_attempt):
            holders.append((claim_id(task.spec, unique), task_id))
    claimed = disk.of(records.UNIQUE, UniqueRecord)
    assert sorted(holders) == [(i, record.task_id) for i, record in claimed.items() if not record.until_ms]
    for claim, record in claimed.items():
        first = specs.get(record.task_id)
        if record.until_ms and first is not None:
            assert first.spec.rules.unique is not None
            assert claim == claim_id(first.spec, first.spec.rules.unique)
            assert record.until_ms == first.created_at_ms + first.spec.rules.unique.window_ms
