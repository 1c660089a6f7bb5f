"""Outgoing: what several answers and effects have put into outboxes goes out when all of them are told.

Each session has a writer, which comes to an outbox one round of trio's scheduler after something was put into it.
Where many things are told in one go, the sessions concerned write once, then, and without that round.
"""

from typing import Final, Protocol

WRITES_MAX: Final = 32
"""Sessions that write at once after one release: some 30 us each. More leave it to their writers, so that what has
arrived meanwhile gets its turn."""


class Writes(Protocol):
    """Who has an outbox."""

    def write_now(self) -> None:
        """Write what is in it, or have that done soon."""

    def wake_writer(self) -> None:
        """Have what is in it written soon."""


class Outgoing:
    """Whose outboxes were filled since ``hold``."""

    def __init__(self) -> None:
        self._held: dict[Writes, None] | None = None

    def hold(self) -> None:
        """From now on put off all writing until ``let_go``; nothing is awaited between the two."""
        assert self._held is None, "held already"
        self._held = {}

    def let_go(self) -> None:
        """Have everybody write whose outbox was filled."""
        held, self._held = self._held, None
        # What follows from a command was told after its answer, and is what somebody waits for.
        for count, who in enumerate(reversed(held or {})):
            if count < WRITES_MAX:
                who.write_now()
            else:
                who.wake_writer()

    def note(self, who: Writes) -> None:
        """Take note that an outbox was filled."""
        if self._held is None:
            who.wake_writer()
        else:
            self._held[who] = None
