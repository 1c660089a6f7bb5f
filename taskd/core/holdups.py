"""Hold-ups: what lines have waited for, so that their tasks can tell it afterwards.

Looked at twice a second, some lines at a time, and never in a pass of placement: only a
line whose first task has not moved since, or that a limit holds back, is asked what it waits for. What a task has
waited for, more than a second in all, it carries away when it is granted; so what
does not wait costs and writes nothing. What it had waited for at gates it was told as it passed them.

Invariants:
- Of a line changes are kept, in order, the newest ``CHANGES_KEPT``. In memory only: a start begins anew.
- Nobody has waited for longer than its line was seen to.
"""

from collections.abc import Sequence
from itertools import islice
from typing import Final

import msgspec
from msgspec.structs import replace

from taskd.core import limiting
from taskd.core.commands import Now
from taskd.core.fitting import NEARNESS, ruled_out
from taskd.core.lines import Line, Task
from taskd.core.records import Past
from taskd.core.working import Working
from taskd_protocol.explanation import WAITS_KEPT_MAX, Obstacle, Reasons, Waited

LOOK_MS: Final = 500
"""Between two looks."""

LINES_LOOKED_AT: Final = 64
AGENTS_ASKED: Final = 2_000
"""In one look; some two milliseconds. The next goes on where it ended."""

CHANGES_KEPT: Final = 64

NOTED_MS: Final = 1_000
"""What has waited for less in all tells nothing of it."""

MOVING: Final = ""
"""The code of a line whose tasks are being granted."""

NEAR: Final = NEARNESS[Obstacle.RESOURCE]
"""An agent that is so near says what is waited for: no other is asked."""


class Change(msgspec.Struct, frozen=True, gc=False):
    """What a line waits for from an instant on, by the clock that never steps."""

    since_ms: int
    code: str
    subject: str


class Holdups:
    """What one line has waited for.

    Attributes:
        changes: The oldest first; never empty.
    """

    __slots__ = ("changes",)

    def __init__(self, since_ms: int, code: str, subject: str) -> None:
        self.changes = [Change(since_ms, code, subject)]

    def note(self, since_ms: int, code: str, subject: str) -> None:
        """Note what is waited for from an instant on."""
        last = self.changes[-1]
        if (last.code, last.subject) != (code, subject):
            self.changes.append(Change(max(since_ms, last.since_ms), code, subject))
            del self.changes[:-CHANGES_KEPT]

    def since(self, since_ms: int, now_ms: int) -> list[Waited]:
        """Return what was waited for from an instant until now, the longest first; empty: next to nothing."""
        spent: dict[tuple[str, str], int] = {}
        until_ms = now_ms
        for change in reversed(self.changes):
            if until_ms <= since_ms:
                break
            if change.code != MOVING:
                key = change.code, change.subject
                spent[key] = spent.get(key, 0) + until_ms - max(change.since_ms, since_ms)
            until_ms = change.since_ms
        if sum(spent.values()) < NOTED_MS:
            return []
        longest = sorted(spent.items(), key=_by_length)[:WAITS_KEPT_MAX]
        return [Waited(code, subject, ms) for (code, subject), ms in longest if ms]


def tick(w: Working, now: Now) -> None:
    """Look at some of the lines that wait, at intervals."""
    if now.mono_ms < w.next_look_mono_ms or not w.active:
        return
    w.next_look_mono_ms = now.mono_ms + LOOK_MS
    start, asked = w.looked_at % len(w.active), 0
    lines = list(islice(w.active.values(), start, start + LINES_LOOKED_AT))
    if len(lines) < LINES_LOOKED_AT:
        lines += islice(w.active.values(), min(start, LINES_LOOKED_AT - len(lines)))
    for count, line in enumerate(lines, 1):
        asked += _look(w, line, now)
        if asked >= AGENTS_ASKED:
            lines = lines[:count]
            break
    w.looked_at = start + len(lines)


def carry_away(line: Line, tasks: Sequence[Task], now: Now) -> None:
    """Have tasks that are granted tell what they had waited for."""
    holdups = line.holdups
    assert holdups is not None
    began_ms = holdups.changes[0].since_ms
    whole: list[Waited] | None = None
    shared: Past | None = None
    for task in tasks:
        since_ms = _since_ms(task, now)
        if since_ms > began_ms:
            waited = holdups.since(since_ms, now.mono_ms)
        else:  # of many that have waited since before, all tell the same
            if whole is None:
                whole = holdups.since(began_ms, now.mono_ms)
                shared = Past(waited=whole)
            waited = whole
        if task.gates and task.past is not None and task.past.waited:
            waited = _added(task.past.waited, waited)
        if waited:
            alike = task.past is None and waited is whole
            task.past = shared if alike else replace(task.past or Past(), waited=waited)


def so_far(line: Line, task: Task, now: Now) -> list[Waited]:
    """Return what a task has waited for that is in line still."""
    waited = [] if line.holdups is None else line.holdups.since(_since_ms(task, now), now.mono_ms)
    return _added(task.past.waited, waited) if task.gates and task.past is not None else waited


def at_gate(task: Task, full_mono_ms: int, code: str, subject: str, now: Now) -> Past | None:
    """Return a task's past with what it had waited for at a gate that it passes.

    Args:
        task: Of a later attempt that was read from disk nobody knows when it came there: nothing is told of it.
        full_mono_ms: Since when the gate has turned tasks away.
        code: What for.
        subject: Of whom.
        now: The instant.
    """
    if task.attempt and not task.ready_mono_ms:
        return task.past
    before = [] if task.past is None else task.past.waited
    if task.ready_mono_ms:
        here_ms = now.mono_ms - task.ready_mono_ms
    else:
        here_ms = now.wall_ms - task.since_ms - task.spec.delay_ms - sum([each.ms for each in before])
    ms = min(here_ms, now.mono_ms - full_mono_ms)
    if ms < NOTED_MS:
        return task.past
    return replace(task.past or Past(), waited=_added(before, [Waited(code, subject, ms)]))


def _since_ms(task: Task, now: Now) -> int:
    """Return when a task came into its line, by the clock that never steps."""
    return task.ready_mono_ms or now.mono_ms - max(0, now.wall_ms - task.created_at_ms)


def _look(w: Working, line: Line, now: Now) -> int:
    """Note what a line waits for, if its first task does; return how many agents were asked."""
    head = line.head_rank()
    is_stuck = head in {line.seen_head, line.stuck_rank if line.stuck >= 0 else -1}
    line.seen_head = head
    held_back = limiting.holds_back(w, line.queue, line.name, now)
    if not is_stuck and held_back is None:
        if line.holdups is not None:
            line.holdups.note(now.mono_ms, MOVING, "")
            if not line.holdups.since(_since_ms(line.first, now), now.mono_ms):
                line.holdups = None  # those that waited have been granted
        return 0
    why, asked = ((held_back.code, held_back.subject), 0) if held_back is not None else _asked(w, line, now)
    if why is not None:
        since_ms = line.stuck_since_ms or now.mono_ms
        if line.holdups is None:
            line.holdups = Holdups(since_ms, *why)
        else:
            line.holdups.note(now.mono_ms, *why)
    return asked


def why(w: Working, line: Line, now: Now) -> tuple[str, str] | None:
    """Return what the line's first task waits for of agents, as code and subject; None: one has room for it."""
    return _asked(w, line, now)[0]


def _asked(w: Working, line: Line, now: Now) -> tuple[tuple[str, str] | None, int]:
    """Return that, and how many agents were asked."""
    nearest: tuple[str, str] | None = None
    near, is_connected = -1, False
    for asked, agent in enumerate(w.agents.values(), 1):
        ruled, _ = ruled_out(w, agent, line, now)
        if ruled is None:
            return None, asked
        is_connected = is_connected or bool(agent.connection)
        if NEARNESS[ruled[0]] > near:
            near, nearest = NEARNESS[ruled[0]], (str(ruled[0]), ruled[1])
            if near >= NEAR:
                return nearest, asked
    return (nearest if is_connected else (Reasons.NO_AGENT, "")), len(w.agents)


def _added(before: list[Waited], waited: list[Waited]) -> list[Waited]:
    spent: dict[tuple[str, str], int] = {}
    for each in (*before, *waited):
        key = each.code, each.subject
        spent[key] = spent.get(key, 0) + each.ms
    return [Waited(*key, ms) for key, ms in sorted(spent.items(), key=_by_length)[:WAITS_KEPT_MAX]]


def _by_length(entry: tuple[tuple[str, str], int]) -> tuple[int, tuple[str, str]]:
    return -entry[1], entry[0]
