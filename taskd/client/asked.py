"""What was asked and is not answered yet.

Invariants:
- Numbers are never used twice in one session, so an answer that comes late finds nobody.
- A request that was put off is in the table all the while; only its turn comes later.
"""

import heapq
from collections.abc import Iterator

import msgspec

from taskd.client.patience import Chance, put_off_s
from taskd.client.promise import Request
from taskd_protocol.errors import TaskdError
from taskd_protocol.messages import Wait


class Asked:
    """The open requests of one session, in the order asked."""

    def __init__(self, chance: Chance) -> None:
        self._chance = chance
        self._numbers = 0
        self._open: dict[int, Request] = {}
        self._later: list[tuple[float, int]] = []  # when to send one again that was put off, by number

    def __bool__(self) -> bool:
        """Tell whether anything is open."""
        return bool(self._open)

    def number(self) -> int:
        """Return the next number."""
        self._numbers += 1
        return self._numbers

    def add(self, request: Request) -> None:
        """Take on a request, under a number that goes into its message."""
        request.number = self.number()
        if request.message is not None:
            request.message = msgspec.structs.replace(request.message, request_id=request.number)
        self._open[request.number] = request

    def find(self, number: int) -> Request | None:
        """Return an open request."""
        return self._open.get(number)

    def take(self, number: int) -> Request | None:
        """Remove a request that is answered; None: its asker has gone."""
        return self._open.pop(number, None)

    def every(self) -> list[Request]:
        """Return all that is open."""
        return list(self._open.values())

    def put_off(self, request: Request, told: TaskdError, now_s: float) -> None:
        """Have a request sent again later: a busy server refused it."""
        wait_s = put_off_s(request.refusals, told.retry_after_ms, self._chance)
        request.refusal = told
        request.refusals += 1
        request.sent = False  # refused before anything moved: even what must not be done twice may be asked again
        heapq.heappush(self._later, (now_s + wait_s, request.number))

    def due_s(self) -> float | None:
        """Return when the first that was put off has its turn; None: none was."""
        return self._later[0][0] if self._later else None

    def due(self, now_s: float) -> Iterator[Request]:
        """Give those whose turn has come."""
        while self._later and self._later[0][0] <= now_s:
            request = self._open.get(heapq.heappop(self._later)[1])
            if request is not None:
                yield request

    def disconnected(self) -> list[Request]:
        """Make ready for the next connection, on which all is sent anew; WAITs are made anew there.

        Returns:
            Those that may have been done and must not be asked twice, which are open no longer.
        """
        self._later.clear()
        lost = [request for request in self._open.values() if request.sent and not request.repeatable]
        self._open = {
            number: request
            for number, request in self._open.items()
            if not (request.sent and not request.repeatable) and not isinstance(request.message, Wait)
        }
        for request in self._open.values():
            request.sent = False
        return lost
