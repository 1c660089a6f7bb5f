"""Marks: leases whose start must be on the server's disk before it happens.

A task that was lost with its agent once is leased so. The mark is asked for when
the attempt is about to start, not when its lease comes: what waits cannot be to
blame for what happens here.

Pure: knows neither workers nor connections.
"""

from collections.abc import Callable, Iterable

from taskd_protocol.task import Grant


class Marks:
    """The marks of the leases that are held."""

    def __init__(self) -> None:
        self._durable: dict[int, bool] = {}  # of what was asked for, by fencing token
        self._unsent: list[int] = []

    def may_start(self, grant: Grant, is_held: Callable[[int], bool]) -> bool:
        """Tell whether an attempt may start now; if not, have the server asked.

        Args:
            grant: About to start.
            is_held: Tells of a token whether its lease is held: the marks of all others are forgotten.
        """
        token = grant.token
        if not grant.mark_start or self._durable.get(token, False):
            return True
        if token not in self._durable:
            self._durable = {known: durable for known, durable in self._durable.items() if is_held(known)}
            self._durable[token] = False
            self._unsent.append(token)
        return False

    @property
    def has_news(self) -> bool:
        """There is something to ask."""
        return bool(self._unsent)

    def take_unsent(self) -> list[int]:
        """Return what is to be asked for now."""
        unsent, self._unsent = self._unsent, []
        return unsent

    def recorded(self, tokens: Iterable[int]) -> None:
        """Take note that these marks are durable."""
        for token in tokens:
            if token in self._durable:
                self._durable[token] = True

    def connect(self) -> None:
        """Ask again for all that was not answered: a new connection is about to be used."""
        self._unsent = [token for token, durable in self._durable.items() if not durable]
