"""Patience: when to try again, and how long a silence may last. Seconds of a clock that is handed in."""

from collections.abc import Callable
from typing import Final

RECONNECT_FIRST_S: Final = 0.5
"""The first try after a lost connection comes within so long; each further one within twice the last."""
RECONNECT_MAX_S: Final = 5.0
"""Long enough for a server that restarts under a thousand clients, short enough for a person."""

WELCOME_WITHIN_S: Final = 10.0
PING_AFTER_S: Final = 10.0
"""After so long a silence the server is asked whether it is there."""
PONG_WITHIN_S: Final = 10.0
"""And after so long a silence again the connection is given up."""

BUSY_FIRST_S: Final = 0.05
"""Wait before a request that the server put off is sent again, when it did not say; doubled each time."""
BUSY_MAX_S: Final = 5.0

Chance = Callable[[], float]
"""Gives numbers from 0 up to 1."""


class Reconnects:
    """When to connect next: exponential backoff with full jitter, so that a thousand clients come spread out.

    Attributes:
        at_s: Not before.
    """

    def __init__(self, chance: Chance) -> None:
        self.at_s = 0.0
        self._chance = chance
        self._losses = 0

    def lost(self, now_s: float) -> None:
        """Count a connection that broke, or could not be made."""
        widest_s = min(RECONNECT_MAX_S, RECONNECT_FIRST_S * 2.0 ** min(self._losses, 10))
        self._losses += 1
        self.at_s = now_s + self._chance() * widest_s

    def welcomed(self) -> None:
        """Be quick again next time."""
        self._losses = 0

    def forget(self) -> None:
        """Connect at once when somebody asks for it."""
        self._losses = 0
        self.at_s = 0.0


class Silence:
    """How long the server has said nothing on this connection."""

    def __init__(self, now_s: float) -> None:
        self._heard_s = now_s
        self._asked = False

    def heard(self, now_s: float) -> None:
        """Any byte is a sign of life."""
        self._heard_s = now_s
        self._asked = False

    def due_s(self, *, live: bool) -> float:
        """Return when the next of the three below turns true."""
        if not live:
            return self._heard_s + WELCOME_WITHIN_S
        return self._heard_s + (PING_AFTER_S + PONG_WITHIN_S if self._asked else PING_AFTER_S)

    def unwelcome(self, now_s: float) -> bool:
        """Tell whether a WELCOME is overdue."""
        return now_s >= self._heard_s + WELCOME_WITHIN_S

    def over(self, now_s: float) -> bool:
        """Tell whether a live connection has to be given up."""
        return now_s >= self._heard_s + (PING_AFTER_S + PONG_WITHIN_S)  # as ``due_s`` adds it, to the last bit

    def to_be_asked(self, now_s: float) -> bool:
        """Tell, once for each silence, whether to ask the server if it is there."""
        if self._asked or now_s < self._heard_s + PING_AFTER_S:
            return False
        self._asked = True
        return True


def put_off_s(refusals: int, retry_after_ms: int, chance: Chance) -> float:
    """Return how long to wait with a request that a busy server put off.

    Args:
        refusals: Of the same request before.
        retry_after_ms: What the server asked for; 0: it did not say.
        chance: Spreads those who were refused together; never to sooner than the server asked for.
    """
    wait_s = max(retry_after_ms / 1000, min(BUSY_MAX_S, BUSY_FIRST_S * 2.0 ** min(refusals, 10)))
    return wait_s * (1 + 0.5 * chance())
