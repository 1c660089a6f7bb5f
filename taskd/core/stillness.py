"""Stillness: tasks in a line that is granted nothing hold no places of limits by key.

A task takes its places as it comes into its line. If no agent has its name, or room for it, or its queue is paused or
at a limit of its own, the places would keep others of the key waiting that could run. So a line that was granted
nothing for ``STILL_MS``, and waits for something that can be told, is still: what is in it goes back to its gates,
which pass over what is of such a line. It goes on when an agent has room for its tasks and nothing holds it back, and
is tried again every ``AGAIN_MS`` in any case. Then its tasks come first again, by their ranks.

A strict order by key is not given up: what comes later has to wait for what came first, wherever that waits.

Invariants:
- Looked at twice a second, some lines at a time, and only while a task that names a limit is in line, or a line is
  still.
- A line for which an agent is kept free is not still: it is served next.
- In memory only: a start takes all lines to move, and finds out anew.
"""

from itertools import islice
from typing import Final, TypeVar

from msgspec.structs import replace

from taskd.core import gates, holdups, limiting, records
from taskd.core.bounds import Still
from taskd.core.commands import GiveBack, Loaded, Now
from taskd.core.effects import Continue
from taskd.core.lines import Line
from taskd.core.peaks import proposal
from taskd.core.records import StateRecord
from taskd.core.working import NEVER_MS, Working
from taskd_protocol.explanation import Reason

_T = TypeVar("_T")

LOOK_MS: Final = 500
"""Between two looks."""

STILL_MS: Final = 5_000
"""Granted nothing for so long. Above what a restart of an agent takes, or a gap between two short tasks."""

AGAIN_MS: Final = 60_000
"""A still line is tried again: an agent may be kept free for a first task, and is not for one that is not there."""

LINES_LOOKED_AT: Final = 64
"""In one look; some milliseconds with many agents."""

TASKS_LOOKED_AT: Final = 1_000
TASKS_AT_ONCE: Final = 256
"""Of one line in one look: their records are read."""


def next_look_mono_ms(w: Working) -> int:
    """Return when lines are to be looked at."""
    is_needed = w.gates.still or (w.limits and w.gates.watched)  # what was passed over goes on without any limit, too
    return w.gates.next_look_mono_ms if is_needed else NEVER_MS


def tick(w: Working, now: Now) -> None:
    """Find lines that stand still, and those that go on."""
    if now.mono_ms < next_look_mono_ms(w):
        return
    w.gates.next_look_mono_ms = now.mono_ms + LOOK_MS
    for line_id, still in _some(w.gates.still):
        reason = _waits_for(w, still.line, now)
        if reason is None or now.mono_ms - still.since_ms >= AGAIN_MS:
            _go_on(w, line_id, still)
        else:
            still.reason = reason
    for line_id, (granted, since_ms) in _some(w.gates.watched):
        _watch(w, line_id, granted, since_ms, now)


def give_back(w: Working, command: GiveBack, loaded: Loaded) -> None:
    """Have tasks of still lines give back their places, and wait at their gates; others are left as they are.

    Raises:
        NeedRecords: They are not loaded.
    """
    w.need([(records.STATE, task_id) for task_id in command.tasks], loaded)
    for task_id in command.tasks:
        task, state = w.tasks.get(task_id), loaded[records.STATE, task_id]
        if task is None or task.token or not isinstance(state, StateRecord):
            continue
        if task.gates > gates.kept(task.spec) and gates.still_of(w, task) is not None:
            w.leave_line(task.spec, task.past, task.rank)
            gates.stand_aside(w, task, replace(state, gates=task.gates))


def _some(lines: dict[bytes, _T]) -> list[tuple[bytes, _T]]:
    """Return the next few; they come last from now on."""
    some = list(islice(lines.items(), LINES_LOOKED_AT))
    if len(lines) > LINES_LOOKED_AT:
        for line_id, each in some:
            del lines[line_id]
            lines[line_id] = each
    return some


def _watch(w: Working, line_id: bytes, granted: tuple[int, int], since_ms: int, now: Now) -> None:
    line = w.active.get(line_id)
    if line is None:
        del w.gates.watched[line_id]
        return
    if granted != (line.paced_ms, line.paced):
        w.gates.watched[line_id] = (line.paced_ms, line.paced), now.mono_ms
        return
    if line_id not in w.gates.still:
        if now.mono_ms - since_ms < STILL_MS or line_id in w.rooms.held:
            return
        reason = _waits_for(w, line, now)
        if reason is None:
            return
        w.gates.still[line_id] = Still(line, reason, now.mono_ms)
        w.gates.over = tuple(w.gates.still)
    holding = [
        task.spec.id for task in line.window()[:TASKS_LOOKED_AT] if task.gates and task.gates > gates.kept(task.spec)
    ]
    if holding:
        w.effects.append(Continue(GiveBack(holding[:TASKS_AT_ONCE])))


def _go_on(w: Working, line_id: bytes, still: Still) -> None:
    del w.gates.still[line_id]
    w.gates.over = tuple(w.gates.still)
    w.gates.watched.pop(line_id, None)
    known = w.gates.known
    for gate in known.values() if still.gates is None else [known[i] for i in still.gates if i in known]:
        gate.empty, gate.floor, gate.stale = False, 0, gate.reading
    if still.gates is None:
        gates.walk(w)
    else:
        w.gates.touched.update(still.gates)


def _waits_for(w: Working, line: Line, now: Now) -> Reason | None:
    """Return what a line waits for, though it may be empty; None: some agent has room for it."""
    known = w.lines_by_id.get(line.id)
    if known is None and line.learns:
        line.ask_for_memory(proposal(w.peaks.get(line.name)))
    line = known or line
    held_back = limiting.holds_back(w, line.queue, line.name, now)
    if held_back is not None:
        return held_back
    why = holdups.why(w, line, now)
    return None if why is None else Reason(*why)
