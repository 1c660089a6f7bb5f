"""Affinity: on which agents a task would find what it needs, left there by those before it.

That is what the last task of its ``sticky`` word has loaded, and, of a workflow's, the large results that it is given:
an agent keeps those that it made.

Only a wish: it decides between agents that have room, and nothing waits for it. In memory alone, of what was used last.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, NamedTuple

from taskd_protocol.explanation import Wishes
from taskd_protocol.limits import KEPT_RESULT_BYTES_MIN
from taskd_protocol.task import Given, TaskSpec

WORDS_MAX: Final = 16_384
"""Words of ``sticky`` that are remembered: a few MB; of what ran longer ago an agent has hardly anything left."""

RESULTS_MAX: Final = 16_384
"""Results of which it is remembered who made them: some 5 MB."""


class _Made(NamedTuple):
    """Who made a result: by which lease, and how many bytes it has."""

    token: int
    agent: str
    size: int


class Affinity:
    """Of one working set; false, and so without cost, until something is known that a task may wish for."""

    def __init__(self) -> None:
        self._words: OrderedDict[str, str] = OrderedDict()
        self._made: OrderedDict[bytes, _Made] = OrderedDict()

    def __bool__(self) -> bool:
        """Tell whether any task may wish for an agent."""
        return bool(self._words or self._made)

    def note_granted(self, word: str, agent: str) -> None:
        """Note where a task was granted that has a word."""
        self._words[word] = agent
        self._words.move_to_end(word)
        if len(self._words) > WORDS_MAX:
            self._words.popitem(last=False)

    def note_made(self, task_id: bytes, token: int, agent: str, size: int) -> None:
        """Note who made the result of a workflow's task; a small one is sent as fast as it is found."""
        if size < KEPT_RESULT_BYTES_MIN:
            return
        self._made[task_id] = _Made(token, agent, size)
        self._made.move_to_end(task_id)
        if len(self._made) > RESULTS_MAX:
            self._made.popitem(last=False)

    def maker_of(self, task_id: bytes) -> int:
        """Return by which lease a large result was made last; 0: it is not, or that is not known."""
        made = self._made.get(task_id)
        return 0 if made is None else made.token

    def agents_of(self, spec: TaskSpec) -> Sequence[str]:
        """Return the agents that a task wishes for, the best first, which may be gone: of its word, then by bytes."""
        given = spec.given
        if given is None:
            return ()
        known = self._words.get(given.sticky) if given.sticky else None
        nearest = self._nearest(given.member.inputs) if given.member is not None and given.member.inputs else []
        return nearest if known is None else [known, *nearest]

    def wish_of(self, spec: TaskSpec, agent: str) -> str:
        """Return what a task would find on an agent that it wishes for, of ``Wishes``."""
        word = "" if spec.given is None else spec.given.sticky
        return Wishes.STICKY if word and self._words.get(word) == agent else Wishes.INPUTS

    def _nearest(self, inputs: Sequence[Given]) -> list[str]:
        sizes: dict[str, int] = {}
        for each in inputs:
            made = self._made.get(each.id) if each.maker else None
            if made is not None and made.token == each.maker:
                sizes[made.agent] = sizes.get(made.agent, 0) + made.size
        return sorted(sizes, key=lambda agent: -sizes[agent])
