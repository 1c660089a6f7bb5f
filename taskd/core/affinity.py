"""Affinity: on which agent a task would find what it needs, left there by those before it.

Only a wish: it decides between agents that have room, and nothing waits for it. In memory alone, of what was used last.
"""

from collections import OrderedDict
from typing import Final

from taskd_protocol.explanation import Wishes
from taskd_protocol.task import TaskSpec

WORDS_MAX: Final = 16_384
"""Words of ``sticky`` that are remembered: a few MB; of what ran longer ago an agent has hardly anything left."""

_NOTHING: Final = "", ""


class Affinity:
    """Of one working set; false, and so without cost, until something is known that a task may wish for."""

    def __init__(self) -> None:
        self._words: OrderedDict[str, str] = OrderedDict()

    def __bool__(self) -> bool:
        """Tell whether any task may wish for an agent."""
        return bool(self._words)

    def note_granted(self, word: str, agent: str) -> None:
        """Note where a task was granted that has a word."""
        self._words[word] = agent
        self._words.move_to_end(word)
        if len(self._words) > WORDS_MAX:
            self._words.popitem(last=False)

    def agent_of(self, spec: TaskSpec) -> str:
        """Return the agent that a task wishes for, which may be gone; empty: it wishes for none."""
        return self.wish_of(spec)[0]

    def wish_of(self, spec: TaskSpec) -> tuple[str, str]:
        """Return the same, and what for, of ``Wishes``."""
        given = spec.given
        if given is None:
            return _NOTHING
        if given.sticky and (agent := self._words.get(given.sticky)) is not None:
            return agent, Wishes.STICKY
        return _NOTHING
