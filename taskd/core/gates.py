"""Gates: limits that count by key, and strict order by key, kept before tasks come into line.

A task has a gate for its ``fifo_key``, and one for each limit that it names with a key. It passes them one by one,
each when there is room, and only then comes into its line: so nothing in a line is ever passed over, a pass looks at
no gate, and a million tasks that wait for one key cost disk alone. The gates of all tasks are in one order, so that no
two wait for each other.

What is on disk is two indexes, PARKED and HELD, which are written blindly with what they follow from, in its batch. So
whatever a crash cuts off, a gate is found as it is by reading it: it is read when something has happened to it,
and all gates that something waits at are looked at once after a start, or when a limit is changed.

Places of a limit are given back when the lease ends; that of a ``fifo_key`` when the task does. Nobody who could run
waits for a place that somebody holds who cannot: tasks of a line that stands still (``taskd.core.stillness``) give
theirs back, and are passed over at the first gate of a limit until it goes on. PARKED tells there of which line each
is, so that many of them are stepped over unread.

A rate is a bucket of tokens for each gate (``buckets``). They are set aside as a task passes, and taken as it begins:
no more begin at once than the bucket holds, however long they were in line.

Invariants:
- A task in line, or leased, holds places of all its gates; one that is parked at a gate, of those before it.
- ``empty`` and ``floor`` of a gate are about what is not passed over; when a line goes on, they begin anew.
- What a gate counts as held is what HELD holds of it, unless it is being read for the first time.
- No gate has more passed than its limit had room for, whatever was read meanwhile.
"""

import hashlib
from collections.abc import Sequence
from typing import Final, NamedTuple

from msgspec.structs import replace

from taskd.core import buckets, fair, holdups, records, timers
from taskd.core.bounds import Gate, Still
from taskd.core.commands import GoOn, Now, TakeGate, TakeGates
from taskd.core.effects import Continue, WantGate, WantGates
from taskd.core.lifecycle import State
from taskd.core.lines import (
    AGEING_MS,
    ORDER_MASK,
    RANK_BYTES,
    Task,
    is_fair,
    line_id,
    place_of,
    rank_in,
    rank_of,
    task_of,
    where_of,
)
from taskd.core.records import Past, StateRecord
from taskd.core.working import Working
from taskd_protocol.explanation import Reason, Reasons
from taskd_protocol.task import TaskSpec

GATES_MAX: Final = 65_536
"""Gates in memory that nothing is read of: some 20 MB."""

ADMITTED_MAX: Final = 256
"""Tasks read at once that may pass a gate."""

ADMITTED_BYTES: Final = 1024 * 1024
"""Of their arguments, roughly: many gates may be read at a time."""

WALK_GATES: Final = 64
"""Gates found at once, when all are looked at."""

GATE_BYTES: Final = 16

WAKE: Final = b"\0gate"
"""Before a gate's id in TIMER, which tells it from a task's. Such a timer is a reminder: one too many does no harm."""

PLACES_BYTES: Final = 4

UNBOUNDED: Final = 1 << 62
"""More places than any gate has."""

_FRESH: Final = StateRecord(State.READY, 0, 0, 0, "", 0)


class Way(NamedTuple):
    """A task's way through one gate."""

    gate: bytes
    limit: str
    """Empty: it is that of a ``fifo_key``."""
    key: str
    weight: int


def ways(spec: TaskSpec) -> Sequence[Way]:
    """Return the gates of a task, in the order in which it passes them: that of its ``fifo_key`` first."""
    given = spec.given
    if given is None or not (given.limits or given.fifo_key):
        return ()
    of_limits = [Way(_gate(b"limit", use.limit, use.key), use.limit, use.key, use.weight) for use in given.limits]
    of_limits.sort()
    return [Way(_gate(b"fifo", given.fifo_key), "", given.fifo_key, 1), *of_limits] if given.fifo_key else of_limits


def kept(spec: TaskSpec) -> int:
    """Return how many gates of a task stay passed when its lease ends and it does not."""
    return 1 if spec.given is not None and spec.given.fifo_key else 0


def subject_of(way: Way) -> str:
    """Return how its limit is named where it is told what is waited for."""
    return f"{way.limit} {way.key}".rstrip()


def parked_id(way: Way, rank: int) -> bytes:
    """Return the PARKED id of a task of that rank (``rank_before``): of a ``fifo_key`` the order of submits decides."""
    return way.gate + _rank(way, rank).to_bytes(RANK_BYTES, "big")


def held_id(way: Way, task_id: bytes) -> bytes:
    """Return the HELD id of a task at a gate."""
    return way.gate + task_id


def places(way: Way) -> bytes:
    """Return the value of its HELD."""
    return way.weight.to_bytes(PLACES_BYTES, "big")


def parked_value(spec: TaskSpec, gates: int, past: Past | None) -> bytes:
    """Return the value of its PARKED: its id, and its line's, where it holds no place of a limit that others want."""
    return spec.id + _line(spec, past) if gates == kept(spec) else spec.id


# -- what happens to tasks --------------------------------------------------------------


def enter(w: Working, task: Task, state: StateRecord | None) -> bool:
    """Put a ready task where it waits next: into its line, or at a gate; return whether it is in line.

    Args:
        w: The working set.
        task: Ready; its STATE is written, and it is counted as ready.
        state: That record; None: there is none.
    """
    its = ways(task.spec)
    if task.gates >= len(its):
        if its and is_fair(task.spec) and task.rank == _rank_before(task):
            fair.tag(w, task)
        w.enter_line(task)
        if task.gates > kept(task.spec):
            watch(w, task)
        return True
    way = its[task.gates]
    before = _rank_before(task)
    rank = _rank(way, before)
    w.put(records.PARKED, parked_id(way, before), parked_value(task.spec, task.gates, task.past))
    w.tasks.pop(task.spec.id, None)  # it was leased
    w.counters.park(task.spec.queue, 1)
    w.counters_dirty = True
    if task.gates == kept(task.spec) and (still := still_of(w, task)) is not None:
        still.note(way.gate)
        return False
    w.gates.parking.setdefault(way.gate, {})[rank] = task, state
    gate = w.gates.known.get(way.gate)
    if gate is not None:
        gate.floor = min(gate.floor, rank)
        if gate.reading:
            gate.late[rank] = None
            gate.gone.pop(rank, None)
    w.gates.touched[way.gate] = None
    return False


def is_parked(spec: TaskSpec, gates: int) -> bool:
    """Tell whether a ready task waits at a gate."""
    return gates < len(ways(spec))


def leave(w: Working, spec: TaskSpec, rank: int, gates: int) -> None:
    """Take a parked task from its gate; what it holds of others stays its own."""
    way = ways(spec)[gates]
    _unpark(w, way, spec, rank)
    w.gates.touched[way.gate] = None


def begin(w: Working, task: Task, now: Now) -> None:
    """Take the tokens that were set aside for a task that is leased."""
    for way in ways(task.spec):
        gate, gauge = w.gates.known.get(way.gate), w.limits.get(way.limit)
        if gate is not None and _is_counted(gate, way, task.spec.id):
            gate.reserved -= way.weight
        if gauge is not None and gauge.limit.tokens:
            if gate is None:
                gate = w.gates.known[way.gate] = Gate(way.gate)
                gate.limit = way.limit
            buckets.take(w, gate, gauge, min(way.weight, gauge.limit.burst_tokens), now.mono_ms)
            if not gate.empty and not gate.reading and _has_tokens(w, gate, 1, now):
                w.gates.touched[gate.id] = None
                w.effects.append(Continue(GoOn()))


def let_go(w: Working, spec: TaskSpec, passed: int, *, keep: int = 0, begun: bool = False) -> None:
    """Give back the places of gates that a task has passed, but the first ones that it is to keep.

    Args:
        w: The working set.
        spec: Of the task.
        passed: How many it has passed.
        keep: So many.
        begun: It was leased: its tokens are spent.
    """
    for way in ways(spec)[keep:passed]:
        w.delete(records.HELD, held_id(way, spec.id))
        gate = w.gates.known.get(way.gate)
        if gate is not None:
            if _is_counted(gate, way, spec.id):
                gate.held -= way.weight
                gate.reserved -= 0 if begun else way.weight
            else:
                gate.given_back[spec.id] = None
        w.gates.touched[way.gate] = None


def end_lease(w: Working, task: Task, *, ends: bool) -> None:
    """Give back what a leased task holds of its gates, whose lease is gone; if it goes on, it may keep some."""
    if task.gates:
        keep = 0 if ends else kept(task.spec)
        let_go(w, task.spec, task.gates, keep=keep, begun=True)
        task.gates = keep


# -- lines that stand still -------------------------------------------------------------


def watch(w: Working, task: Task) -> None:
    """Note a line in which a task holds places: if it stands still, they are given back."""
    line = _line(task.spec, task.past)
    if line not in w.gates.watched:
        w.gates.watched[line] = (-1, -1), w.ticked_mono_ms or 0


def still_of(w: Working, task: Task) -> Still | None:
    """Return what is known of a task's line if that stands still; None: it does not."""
    return w.gates.still.get(_line(task.spec, task.past)) if w.gates.still else None


def stand_aside(w: Working, task: Task, state: StateRecord) -> None:
    """Have a task that is in no line, and parked nowhere, give back its places, and wait where it would take one."""
    keep = kept(task.spec)
    let_go(w, task.spec, task.gates, keep=keep)
    task.gates = keep
    state = replace(state, gates=keep)
    w.put(records.STATE, task.spec.id, state)
    enter(w, task, state)


# -- what happens to gates --------------------------------------------------------------


def advance(w: Working, now: Now) -> None:
    """At a turn's end: have tasks pass the gates at which there is room, or have gates read that are not known."""
    touched = w.gates.touched
    while touched:
        gate_id = next(iter(touched))
        del touched[gate_id]
        gate = w.gates.known.get(gate_id)
        if gate is None:
            gate = w.gates.known[gate_id] = Gate(gate_id)
            _read(w, gate)
        elif not gate.reading:
            _open(w, gate, now)
        elif gate.answer is not None:
            _take(w, gate, gate.answer, now)
        if not gate.reading:
            w.gates.walking.pop(gate_id, None)
    w.gates.parking.clear()
    _walk_on(w)
    if len(w.gates.known) > GATES_MAX:
        idle = [gate_id for gate_id, gate in w.gates.known.items() if not gate.reading and gate_id not in w.spent]
        for gate_id in idle[: len(w.gates.known) - GATES_MAX * 3 // 4]:
            del w.gates.known[gate_id]


def take(w: Working, command: TakeGate) -> None:
    """Take what was read of a gate: at the turn's end tasks pass it, by what holds then."""
    gate = w.gates.known[command.gate]
    assert gate.reading
    gate.answer = command
    w.gates.touched[gate.id] = None


def _take(w: Working, gate: Gate, command: TakeGate, now: Now) -> None:
    if not gate.is_counted:
        held = [(task_id, weight) for task_id, weight in command.held if task_id not in gate.given_back]
        gate.held += sum([weight for _, weight in held])
        gate.reserved += sum([weight for task_id, weight in held if not _is_leased(w, task_id)])
        gate.given_back.clear()
        gate.is_counted = command.counted
        if not gate.is_counted:
            gate.counted_to, gate.answer = gate.id + command.held[-1][0], None
            _read(w, gate)
            return
    w.gates.walking.pop(gate.id, None)
    if gate.bucket is None and command.bucket is not None:
        gate.bucket = buckets.of_record(w, command.bucket)
    first_late = min(gate.late, default=None)
    entries = [entry for entry in command.entries if entry.rank not in gate.gone]
    in_order = [entry for entry in entries if first_late is None or entry.rank < first_late]
    gate.reading, gate.empty, gate.answer = False, command.last and not gate.late, None
    if command.reached >= 0:
        beyond = command.reached + 1
        gate.floor = beyond if first_late is None else min(beyond, first_late)
    gate.late.clear()
    gate.gone.clear()
    for line in command.over:
        if line in w.gates.still:
            w.gates.still[line].note(gate.id)
        else:
            gate.stale = True
    if gate.stale:  # a line goes on since, and what was passed over comes first
        gate.stale, gate.empty, gate.floor = False, False, 0
        w.gates.touched[gate.id] = None
        return
    for entry in in_order:
        task = task_of(entry, rank_in(entry.spec))
        if not _is_passed_over(w, gate, task, entry.state) and not _pass(w, gate, task, entry.state, now):
            gate.empty, gate.floor = False, entry.rank
            return  # until something happens: one that takes several places may wait while there is one
    w.gates.touched[gate.id] = None


def walk(w: Working) -> None:
    """Have all gates looked at that something waits at: some at a time, however many there are."""
    w.gates.walks += 1
    w.gates.walk_after = b""


def _walk_on(w: Working) -> None:
    """Have the next gates found when the last ones are looked at."""
    if w.gates.walk_after is not None and not w.gates.walking:
        w.effects.append(WantGates(w.gates.walks, w.gates.walk_after, WALK_GATES))
        w.gates.walk_after = None


def take_some(w: Working, command: TakeGates) -> None:
    """Look at some of all gates, and have the next ones found then; of a walk that began anew the old one ends."""
    if command.walk != w.gates.walks:
        return
    for gate_id in command.gates:
        w.gates.touched[gate_id] = w.gates.walking[gate_id] = None
    if not command.last:
        w.gates.walk_after = command.gates[-1]


def waits_at(w: Working, spec: TaskSpec, gates: int, past: Past | None, now: Now) -> Reason | None:
    """Return what a ready task waits for that has passed so many gates; None: it is in line."""
    its = ways(spec)
    if gates >= len(its):
        return None
    way = its[gates]
    if not way.limit:
        return Reason(Reasons.FIFO, way.key)
    still = w.gates.still.get(_line(spec, past)) if w.gates.still else None
    if still is not None and gates == kept(spec):
        return still.reason
    gate, gauge = w.gates.known.get(way.gate), w.limits.get(way.limit)
    subject = subject_of(way)
    if gate is not None and gate.bucket is not None and gauge is not None and gate.held < _most(w, way.limit):
        wait_ms = buckets.wait_ms(gate.bucket, min(way.weight, gauge.limit.burst_tokens), now.mono_ms)
        if gauge.limit.tokens and wait_ms:
            return Reason(Reasons.RATE, subject, until_ms=now.wall_ms + wait_ms)
    return Reason(Reasons.KEY, subject, count=gate.held if gate is not None and gate.is_counted else 0)


def _gate(kind: bytes, *parts: str) -> bytes:
    digest = hashlib.blake2b(digest_size=GATE_BYTES, person=kind)
    for part in parts:
        packed = part.encode()
        digest.update(len(packed).to_bytes(4, "big"))
        digest.update(packed)
    return digest.digest()


def _line(spec: TaskSpec, past: Past | None) -> bytes:
    return line_id(spec.queue, spec.name, where_of(spec, past), fair=is_fair(spec))


def _rank_before(task: Task) -> int:
    if not is_fair(task.spec):
        return task.rank
    return rank_of(place_of(task.created_at_ms, task.spec, AGEING_MS), task.rank & ORDER_MASK)


def _rank(way: Way, rank: int) -> int:
    return rank if way.limit else rank & ORDER_MASK


def _most(w: Working, limit: str | None) -> int:
    """Return how many places a gate has; one of which nothing is known yet may have any number."""
    gauge = w.limits.get(limit) if limit else None
    if gauge is None or not gauge.limit.concurrency:
        return 1 if limit == "" else UNBOUNDED
    return gauge.limit.concurrency


def _read(w: Working, gate: Gate) -> None:
    """Have no more read than may pass, and one beyond, that shows whether there is one."""
    gate.reading = True
    held_after = None if gate.is_counted else gate.counted_to
    after = gate.id + (gate.floor - 1).to_bytes(RANK_BYTES, "big") if gate.floor else b""
    limit = min(ADMITTED_MAX, _most(w, gate.limit) - gate.held + 1)
    w.effects.append(WantGate(gate.id, held_after, after, max(limit, 1), ADMITTED_BYTES, w.gates.over))


def _open(w: Working, gate: Gate, now: Now) -> None:
    """Have what waits pass a gate that is known: what this turn has parked, if nothing is on disk before it."""
    parking = w.gates.parking.get(gate.id, {})
    if gate.empty:
        for rank in sorted(parking):
            task, state = parking[rank]
            if not _is_passed_over(w, gate, task, state) and not _pass(w, gate, task, state, now):
                gate.empty = False
                return
        gate.full = ""
    elif gate.held < _most(w, gate.limit) and _has_tokens(w, gate, 1, now):
        _read(w, gate)


def _is_counted(gate: Gate, way: Way, task_id: bytes) -> bool:
    return gate.is_counted or held_id(way, task_id) <= gate.counted_to


def _is_leased(w: Working, task_id: bytes) -> bool:
    task = w.tasks.get(task_id)
    return task is not None and bool(task.token)


def _has_tokens(w: Working, gate: Gate, weight: int, now: Now) -> bool:
    """Tell whether so many tokens are left beside those that are set aside; if not, have the gate looked at then."""
    gauge = w.limits.get(gate.limit) if gate.limit else None
    if gauge is None or not gauge.limit.tokens:
        return True
    gate.bucket = buckets.settle(gate.bucket, gauge, now.mono_ms)
    burst = gauge.limit.burst_tokens
    needed = gate.reserved + min(weight, burst)
    wait_ms = buckets.wait_ms(gate.bucket, needed, now.mono_ms)
    if not wait_ms:
        return True
    if needed <= burst and not now.mono_ms < gate.wake_mono_ms <= now.mono_ms + wait_ms:
        gate.wake_mono_ms = now.mono_ms + wait_ms
        timers.start(w, WAKE + gate.id, now.wall_ms + wait_ms, wait_ms, now)
    return False  # of more than a full bucket: until a task that has its tokens begins, or goes back


def wake(w: Working, timer: bytes, gate_id: bytes) -> None:
    """Look at a gate for which there are tokens by now."""
    w.delete(records.TIMER, timer)
    gate = w.gates.known.get(gate_id)
    if gate is not None:
        gate.wake_mono_ms = 0
    w.gates.touched[gate_id] = None


def _is_passed_over(w: Working, gate: Gate, task: Task, state: StateRecord | None) -> bool:
    """Tell whether a parked task is to hold no place, since its line stands still."""
    still = still_of(w, task)
    if still is None or task.gates < kept(task.spec):
        return False
    if task.gates == kept(task.spec):
        still.note(gate.id)
    else:  # it has places of other limits
        _unpark(w, ways(task.spec)[task.gates], task.spec, _rank_before(task))
        stand_aside(w, task, state or _FRESH)
    return True


def _pass(w: Working, gate: Gate, task: Task, state: StateRecord | None, now: Now) -> bool:
    """Have a parked task pass a gate, and wait at the next one, or come into line; return False if there is no room."""
    its = ways(task.spec)
    way = its[task.gates]
    gate.limit = way.limit
    most = _most(w, way.limit)
    is_laden = gate.held + min(way.weight, most) > most
    if is_laden or not _has_tokens(w, gate, way.weight, now):
        _turn_away(gate, Reasons.KEY if is_laden else Reasons.RATE, now)
        return False
    if gate.full:
        code, subject = (gate.full, subject_of(way)) if way.limit else (Reasons.FIFO, way.key)
        task.past = holdups.at_gate(task, gate.full_mono_ms, code, subject, now)
    _unpark(w, way, task.spec, _rank_before(task))
    w.put(records.HELD, held_id(way, task.spec.id), places(way))
    gate.held += way.weight
    gate.reserved += way.weight
    task.gates += 1
    state = replace(state or _FRESH, gates=task.gates, past=task.past)
    w.put(records.STATE, task.spec.id, state)
    task.fresh = False
    task.ready_mono_ms = w.ticked_mono_ms or 0
    enter(w, task, state)
    return True


def _turn_away(gate: Gate, code: str, now: Now) -> None:
    if not gate.full:
        gate.full_mono_ms = now.mono_ms
    gate.full = code


def _unpark(w: Working, way: Way, spec: TaskSpec, rank: int) -> None:
    w.delete(records.PARKED, parked_id(way, rank))
    w.counters.park(spec.queue, -1)
    w.counters_dirty = True
    at = _rank(way, rank)
    parking = w.gates.parking.get(way.gate)
    if parking is not None:
        parking.pop(at, None)
    gate = w.gates.known.get(way.gate)
    if gate is not None and gate.reading:
        gate.late.pop(at, None)
        gate.gone[at] = None
