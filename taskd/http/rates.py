"""How often a token, or an address, may ask: buckets that fill with time.

Invariants:
- A full bucket is forgotten: what is remembered is bounded by what was asked lately, and by a number.

What shows a good token is charged to that, all else to its address. Behind a proxy all requests come from one address:
those without a token share its bucket.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

import trio

from taskd.http.errors import TooManyRequests
from taskd.server.listener import origin_of


class Rate(NamedTuple):
    """What a bucket holds, and how fast it fills."""

    per_second: float
    burst: float


TOKEN_RATE: Final = Rate(200, 1_000)
"""Requests of one token: a hundred open pages that all begin at once."""

ADDRESS_RATE: Final = Rate(500, 2_000)
"""Requests of one address that show no good token."""

REFUSED_COST: Final = 20
"""A request without a good token costs its address so many."""

STREAMS_MAX: Final = 512
"""Streams open at a time for one token."""

BUCKETS_MAX: Final = 10_000


class Buckets:
    """One bucket a key; those that are not known are full."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # by key: what was left, and when

    def take(self, key: str, cost: float = 1) -> float:
        """Take so much; return 0, or after how many seconds it will be there."""
        now_s = trio.current_time()
        left, at_s = self._left.pop(key, (self._rate.burst, now_s))
        left = min(self._rate.burst, left + (now_s - at_s) * self._rate.per_second)
        wait_s = 0.0 if left > 0 else (1 - left) / self._rate.per_second
        self._left[key] = (left if wait_s else left - cost, now_s)
        self._forget(now_s)
        return wait_s

    def _forget(self, now_s: float) -> None:
        """Drop the oldest if it is full by now, or there are too many."""
        left, at_s = next(iter(self._left.values()))
        if left + (now_s - at_s) * self._rate.per_second >= self._rate.burst or len(self._left) > BUCKETS_MAX:
            self._left.popitem(last=False)


class Rates:
    """What tokens and addresses may ask."""

    def __init__(
        self, token: Rate = TOKEN_RATE, address: Rate = ADDRESS_RATE, *, streams_max: int = STREAMS_MAX
    ) -> None:
        self._tokens = Buckets(token)
        self._addresses = Buckets(address)
        self._streams: Counter[str] = Counter()
        self._streams_max = streams_max

    def take_of_address(self, host: str, cost: float = 1) -> None:
        """Count a request.

        Raises:
            TooManyRequests: There were too many.
        """
        _refuse(self._addresses.take(origin_of(host) if host else "", cost), "this address")

    def take_of_token(self, key_id: str) -> None:
        """Count a request.

        Raises:
            TooManyRequests: There were too many.
        """
        _refuse(self._tokens.take(key_id), "this token")

    @contextmanager
    def stream_of(self, key_id: str) -> Iterator[None]:
        """Count a stream while the body runs.

        Raises:
            TooManyRequests: Too many are open.
        """
        if self._streams[key_id] >= self._streams_max:
            raise TooManyRequests(
                f"this token has {self._streams_max} streams open already; close some of them", retry_after_ms=5_000
            )
        self._streams[key_id] += 1
        try:
            yield
        finally:
            self._streams[key_id] -= 1
            if not self._streams[key_id]:
                del self._streams[key_id]


def _refuse(wait_s: float, who: str) -> None:
    if wait_s:
        raise TooManyRequests(
            f"{who} asks too often; wait as long as Retry-After says", retry_after_ms=round(wait_s * 1_000) or 1
        )
