"""Learned memory: what attempts come to need, taken from their reports.

An attempt that died for want of memory counts as one that needed all it had, and its
task asks for twice that from then on, or for more than it was seen to hold, and for no more than an agent has. Only
attempts that were granted memory report their peak, so others cost nothing here.
"""

import math
from collections.abc import Iterable
from typing import Final

from msgspec.structs import replace

from taskd.core import attempts, records
from taskd.core.lines import Task
from taskd.core.peaks import MARGIN, added, proposal
from taskd.core.working import Working
from taskd_protocol.resources import MEMORY

NAMES_MAX: Final = 10_000
"""Names of which peaks are kept: more are made up, not written."""

AGAIN: Final = 2
"""After a death for want of memory so many times what it had is asked for."""


def note_peaks(w: Working, peaks: Iterable[tuple[str, int]]) -> None:
    """Keep how much memory attempts held at most: task names and bytes, of those that are known."""
    changed: dict[str, None] = {}
    for name, peak in peaks:
        known = w.peaks.get(name)
        if peak > 0 and (known is not None or len(w.peaks) < NAMES_MAX):
            w.peaks[name] = added(known, peak)
            changed[name] = None
    for name in changed:
        w.put(records.PEAKS, name.encode(), w.peaks[name])
    if changed:
        for line in w.lines.values():
            if line.learns and line.name in changed:
                line.ask_for_memory(proposal(w.peaks[line.name]))
                w.shares.loosen(line)


def note_death(w: Working, task: Task, peak: int) -> None:
    """Have a task that died for want of memory ask for more, before its end is settled."""
    granted = task.granted
    had = sum([hold.amount for hold in granted.holds if hold.name == MEMORY]) if granted is not None else 0
    if not had:
        return
    most = max([agent.room.total.get(MEMORY, 0) for agent in w.having.get(task.spec.name, {}).values()], default=0)
    wanted = max(had * AGAIN, math.ceil(peak * MARGIN))  # it was killed at its peak, on its way up
    wanted = min(wanted, most)  # it may be enough; for more than there is it would wait for ever
    if wanted > had:
        task.past = replace(task.past or attempts.NO_PAST, memory=wanted)
    note_peaks(w, [(task.spec.name, max(peak, had))])
