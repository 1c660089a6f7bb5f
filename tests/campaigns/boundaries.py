"""A crash at every write boundary of a life of 500 steps.

A life of a coordinator, its clients and agents is played by chance, with workflows, what tasks spawn, and schedules.
At each batch and at each flush it is forked, and the power is cut in the child: before the batch was written, when it
was written and not synced (it is lost, or it survives), and when it was synced and nobody was told yet. The child
starts again from what is left, sometimes to be cut off once more while it recovers; it must find its disk in order
and everything acknowledged, and goes on to the end.
"""

import os
import random
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from campaigns.graph_world import GraphWorld, random_graph_step
from campaigns.report import Found
from harness.world import shrink
from taskd.core.lifecycle import State
from taskd.core.records import FIRING, SPEC, STATE, WORKFLOW, StateRecord
from taskd_protocol.ids import is_made_id

STEPS = 500
STEPS_PER_CASE = 50
CASES_PER_LIFE = STEPS // STEPS_PER_CASE
RECOVERIES_CUT = 0.2
"""So many recoveries are cut off once more."""


class Life(GraphWorld):
    """One life, forked where it would write."""

    def __init__(self, seed: int, found: Found) -> None:
        super().__init__(seed)
        self.rng = random.Random(seed)
        self.chance = random.Random(f"cuts of {seed}")
        self.found = found
        self.step = 0
        self.cuts = range(0)
        """Steps in which the power is cut."""

    def live(self, last: int) -> None:
        """Go on up to that step."""
        while self.step < last:
            random_graph_step(self, self.rng)
            self.step += 1

    def turn(self) -> None:
        """End the turn: a boundary of its own before the batch and after it."""
        self._cut("before the write", [0, self.shell.staged_count])
        super().turn()
        if self.step in self.cuts:
            self._note_what_is_cut()
        self._cut("written, not synced", [0, self.chance.randrange(self.shell.staged_count), self.shell.staged_count])

    def flush(self) -> None:
        """Make it durable: a boundary before anybody is told."""
        if self.step in self.cuts:
            self._cut("synced, not told", [self.shell.staged_count])
        super().flush()

    def _note_what_is_cut(self) -> None:
        """Count what lies in the batch that is about to be lost, or kept and not told of."""
        values = [(kind, record_id, value) for kind, record_id, value in self.written if value is not None]
        kinds = {kind for kind, _, _ in values}
        made = [record_id for kind, record_id, _ in values if kind == SPEC and is_made_id(record_id)]
        facts = {
            "ends that released others": WORKFLOW in kinds and made and STATE in kinds,
            "a task that began to wait": any(
                isinstance(v, StateRecord) and v.state == State.BLOCKED for _, _, v in values
            ),
            "decisions on a schedule": FIRING in kinds,
        }
        for name, holds in facts.items():
            self.found.reach(name, int(bool(holds)))

    def _cut(self, where: str, kept: Sequence[int]) -> None:
        """Cut the power here, in a child each for so many of the batches that are not durable."""
        if self.step not in self.cuts:
            return
        for count in dict.fromkeys(kept):
            self.found.fault(where)
            self.found.ops += 1
            again = self.chance.random() < RECOVERIES_CUT
            if again:
                self.found.fault("again while it recovers")
            said = in_child(partial(self._go_on, count, cut_again=again))
            if said:
                self.found.violations.append(f"step {self.step}, {where}, {count} kept: {said}")

    def _go_on(self, kept: int, *, cut_again: bool) -> None:
        """Start again after the cut, and live to the end."""
        self.cuts = range(0)
        self.crash(kept)
        if cut_again:
            super().turn()  # the new epoch is on its way to the disk
            self.crash(self.chance.randrange(self.shell.staged_count + 1))
        super().turn()
        self.live(STEPS)
        self.finish()


def in_child(work: Callable[[], None]) -> str:
    """Call it in a copy of this process; return what went wrong, in a line."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        said = b""
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - told to the parent
            last = traceback.extract_tb(error.__traceback__)[-1]
            said = f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}: {error}"[:500].encode()
        finally:
            os.write(writing, said)
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    return said.decode() if status == 0 else f"the child ended with {status}: {said.decode()}"


def play(case: int, _home: Path, found: Found) -> None:
    """Cut the power at every boundary of a tenth of a life."""
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        life = Life(case // CASES_PER_LIFE, found)
        first = case % CASES_PER_LIFE * STEPS_PER_CASE
        life.live(first)
        life.cuts = range(first, first + STEPS_PER_CASE)
        life.live(first + STEPS_PER_CASE)
