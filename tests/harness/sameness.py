"""That the same work is there once: one checker, of what clients were told and of what is stored.

Under one key all submits of a day are one task. Of the tasks that are unique while they
run, no two of the same work go on at the same time.
"""

from collections.abc import Iterable

from taskd.core.claims import claim_id
from taskd_protocol.ids import format_task_id
from taskd_protocol.task import RUNNING, TaskSpec


class Sameness:
    """What was answered so far; a run lasts less than a day."""

    def __init__(self) -> None:
        self._keys: dict[str, bytes] = {}
        self._firsts = 0

    @property
    def firsts_named(self) -> int:
        """How many submits turned out to be another one's task."""
        return self._firsts

    def note_accepted(self, spec: TaskSpec, task_id: bytes) -> None:
        """Enter what a submit of a task was answered: the id that it is known under."""
        self._firsts += task_id != spec.id
        if spec.key:
            first = self._keys.setdefault(spec.key, task_id)
            assert first == task_id, (
                f"under key {spec.key} there are {format_task_id(first)} and {format_task_id(task_id)}"
            )

    def check(self, going_on: Iterable[TaskSpec]) -> None:
        """Compare with the tasks that are stored and have not ended."""
        single: dict[bytes, TaskSpec] = {}
        for spec in going_on:
            if spec.rules.unique is not None and spec.rules.unique.mode == RUNNING:
                other = single.setdefault(claim_id(spec, spec.rules.unique), spec)
                assert other is spec, f"{format_task_id(other.id)} and {format_task_id(spec.id)} do the same work"
