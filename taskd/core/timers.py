"""Timers: when tasks that wait are to be looked at, of which those that are near are in memory.

A timer is stored with the instant at which it is due and the length of the wait.
The wall clock may step and the server may be down, so a wait that is taken up
lasts ``clamp(due - wall, 0, length)`` from then on, by the clock that never steps.
A wall clock that was put back would leave what was begun before far ahead of it; so the
horizon goes by the latest time that the wall clock has shown, over restarts, and runs on.

Invariants:
- Every stored timer whose id is at or before the cursor is in memory.
"""

import heapq

from taskd.core import records
from taskd.core.commands import Now, RefillTimers, ReleaseDue
from taskd.core.effects import Continue, WantTimers
from taskd.core.working import Timers, Working

HORIZON_MS = 120_000
"""Timers due within it are in memory."""

REFILL_MS = 30_000
"""The horizon is moved on so often; well under its length, so that a wall clock that steps is noticed in time."""

REFILL_TIMERS = 20_000
"""Read by one refill."""

NEAR_MAX = 50_000
"""Timers in memory; beyond it by a quarter, the last of them are on disk only."""

NEAR_LOW = 20_000
"""When the disk holds more within the horizon, a refill is asked for below this."""

DUE_TASKS = 1_000
"""Looked at by one command, to bound a turn."""

INSTANT_BYTES = 8

NEVER_MONO_MS = 1 << 62


def timer_id(due_at_ms: int, task_id: bytes) -> bytes:
    """Return the TIMER id of a task that is due then."""
    return due_at_ms.to_bytes(INSTANT_BYTES, "big") + task_id


def start(w: Working, task_id: bytes, due_at_ms: int, length_ms: int, now: Now) -> None:
    """Store a timer; what it is for shows in the task's own records."""
    timer = timer_id(due_at_ms, task_id)
    w.put(records.TIMER, timer, length_ms.to_bytes(INSTANT_BYTES, "big"))
    latest_wall_ms(w, now)
    timers = w.timers
    if timer <= timers.cursor or (timers.reading and timer <= timers.reading_until):
        _admit(timers, timer, length_ms, now)
        if len(timers.near) > NEAR_MAX + NEAR_MAX // 4 and not timers.reading:
            _spill(timers)


def latest_wall_ms(w: Working, now: Now) -> int:
    """Return the wall clock's time, or what it would be had it never been put back; from then on it is never less."""
    timers, counters = w.timers, w.counters
    timers.wall_ahead_ms = max(timers.wall_ahead_ms, now.wall_ms - now.mono_ms)
    latest_ms = now.mono_ms + timers.wall_ahead_ms
    if latest_ms > counters.latest_wall_ms:
        counters.latest_wall_ms = latest_ms
        w.counters_dirty = True
    return latest_ms


def stop(w: Working, task_id: bytes, due_at_ms: int) -> None:
    """Delete a timer."""
    timer = timer_id(due_at_ms, task_id)
    w.delete(records.TIMER, timer)
    timers = w.timers
    if timers.near.pop(timer, None) is not None and len(timers.heap) > 2 * len(timers.near) + REFILL_TIMERS:
        _rebuild_heap(timers)
    if timers.reading:
        timers.cancelled.add(timer)


def refill(w: Working, command: RefillTimers, now: Now) -> None:
    """Take in what was read beyond the cursor."""
    timers = w.timers
    for timer, length_ms in command.timers:
        if timer not in timers.cancelled and timer not in timers.near:
            _admit(timers, timer, length_ms, now)
    timers.cursor = timers.reading_until if command.last else command.timers[-1][0]
    timers.short = not command.last
    timers.reading = False
    timers.cancelled.clear()


def tick(w: Working, now: Now) -> None:
    """Have those looked at that are due; read on when it is time."""
    timers = w.timers
    timers.wall_ahead_ms = max(timers.wall_ahead_ms, now.wall_ms - now.mono_ms)
    if not timers.reading and now.mono_ms >= _next_refill_mono_ms(timers):
        timers.reading = True
        timers.reading_until = timer_id(now.mono_ms + timers.wall_ahead_ms + HORIZON_MS, b"\xff" * 16)
        timers.next_refill_mono_ms = now.mono_ms + REFILL_MS
        w.effects.append(WantTimers(timers.cursor, timers.reading_until, REFILL_TIMERS))
    due: list[bytes] = []
    while timers.heap and timers.heap[0][0] <= now.mono_ms and len(due) < DUE_TASKS:
        mono_ms, timer = heapq.heappop(timers.heap)
        if timers.near.get(timer) == mono_ms:
            del timers.near[timer]
            due.append(timer)
    if due:
        w.effects.append(Continue(ReleaseDue(due)))


def next_deadline_mono_ms(timers: Timers) -> int:
    """Return when ``tick`` has something to do."""
    refill = NEVER_MONO_MS if timers.reading else _next_refill_mono_ms(timers)
    return min(timers.heap[0][0], refill) if timers.heap else refill


def _next_refill_mono_ms(timers: Timers) -> int:
    """Return when to read on: at intervals, or, while the disk holds more, when few are left in memory."""
    if not timers.short:
        return timers.next_refill_mono_ms
    return 0 if len(timers.near) < NEAR_LOW else NEVER_MONO_MS


def _admit(timers: Timers, timer: bytes, length_ms: int, now: Now) -> None:
    due_at_ms = int.from_bytes(timer[:INSTANT_BYTES], "big")
    mono_ms = now.mono_ms + min(max(due_at_ms - now.wall_ms, 0), length_ms)
    timers.near[timer] = mono_ms
    heapq.heappush(timers.heap, (mono_ms, timer))


def _spill(timers: Timers) -> None:
    """Forget all but the first; they are on disk."""
    kept = sorted(timers.near)[:NEAR_MAX]
    timers.near = {timer: timers.near[timer] for timer in kept}
    timers.cursor = min(timers.cursor, kept[-1])  # some were started beyond it, during a refill
    timers.short = True
    _rebuild_heap(timers)


def _rebuild_heap(timers: Timers) -> None:
    timers.heap = [(mono_ms, timer) for timer, mono_ms in timers.near.items()]
    heapq.heapify(timers.heap)
