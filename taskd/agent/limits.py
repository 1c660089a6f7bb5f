"""Limits: what attempts may take of time, and which of them are over it.

Only attempts that have a limit are here, from their lease on. Time is told by looking,
several times a second: what happened since the look before is taken to happen at this one,
so that an attempt is never ended early.

Pure: knows neither clocks nor processes.
"""

from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import Final, NamedTuple

from taskd_protocol.errors import TaskCodes
from taskd_protocol.task import Failure, Grant, Rules


class How(Enum):
    """How an attempt is ended."""

    TELL = auto()
    """It is told, and may end in its own way."""
    CANCEL = auto()
    """Told, then by force."""
    FORCE = auto()
    """TERM, then KILL."""
    KILL = auto()
    """KILL."""


class Breach(NamedTuple):
    """An attempt that is over a limit."""

    pool: int
    token: int
    how: How
    failure: Failure | None
    """What it is reported as; None: as released."""
    show: bool
    """Its stacks are worth keeping."""


class _Watched:
    """One attempt.

    Attributes:
        started_ms: When it was seen to run; None: it waits.
        beat_ms: When a sign of it was seen last.
        end_ms: Its deadline; None: not looked at yet, or it has none.
        fresh: Told of since the last look: that it started, or a sign.
        told: It was told to end.
        forced: Its end was ordered.
    """

    __slots__ = ("beat_ms", "end_ms", "forced", "fresh", "grant", "pool", "running", "started_ms", "told")

    def __init__(self, pool: int, grant: Grant) -> None:
        self.pool = pool
        self.grant = grant
        self.running = False
        self.fresh = False
        self.started_ms = 0
        self.beat_ms = 0
        self.end_ms: int | None = None
        self.told = False
        self.forced = False


class Limits:
    """All attempts of the agent that have limits."""

    def __init__(self) -> None:
        self._watched: Final[dict[int, _Watched]] = {}

    def __bool__(self) -> bool:
        """There is something to look at."""
        return bool(self._watched)

    @property
    def exclusive(self) -> bool:
        """Some attempt may not outlive the agent's touch with its server."""
        watched = self._watched
        return bool(watched) and any(each.grant.spec.rules.exclusive for each in watched.values())

    def hold(self, pool: int, grant: Grant) -> None:
        """Watch a lease that has limits, from its arrival on."""
        self._watched[grant.token] = _Watched(pool, grant)

    def timed(self, grants: Iterable[Grant]) -> list[int]:
        """Return the tokens of those of which it is to be known when they start."""
        return [grant.token for grant in grants if grant.token in self._watched] if self._watched else []

    def started(self, token: int) -> None:
        """Take note that the attempt runs."""
        watched = self._watched.get(token)
        if watched is not None:
            watched.running = watched.fresh = True
            watched.started_ms = 0

    def beat(self, token: int) -> None:
        """Take note of a sign of progress."""
        watched = self._watched.get(token)
        if watched is not None:
            watched.fresh = True

    def waits(self, token: int) -> None:
        """Take note that the attempt is to be run again from its beginning."""
        watched = self._watched.get(token)
        if watched is not None:
            watched.running = watched.told = watched.forced = False

    def look(self, is_held: Callable[[int], bool], now_ms: int, touch_until_ms: int) -> list[Breach]:
        """Return the attempts that are over a limit now, each once for each limit.

        Args:
            is_held: Tells the agent's leases by their tokens: others are forgotten.
            now_ms: By a clock that never steps.
            touch_until_ms: So long exclusive attempts may run.
        """
        for token in [token for token in self._watched if not is_held(token)]:
            del self._watched[token]
        breaches = (self._look_at(watched, now_ms, touch_until_ms) for watched in self._watched.values())
        return [breach for breach in breaches if breach is not None]

    @staticmethod
    def _look_at(watched: _Watched, now_ms: int, touch_until_ms: int) -> Breach | None:
        grant, spec = watched.grant, watched.grant.spec
        if watched.end_ms is None:
            watched.end_ms = now_ms + grant.deadline_in_ms
        if watched.fresh:
            watched.fresh = False
            watched.beat_ms = now_ms
            watched.started_ms = watched.started_ms or now_ms
        if watched.forced:
            return None
        if spec.rules.exclusive and now_ms >= touch_until_ms:
            watched.forced = True
            return Breach(watched.pool, grant.token, How.KILL, None, show=False)
        failure = _over(watched, now_ms)
        if failure is not None:
            watched.forced = True
            show = watched.running and not watched.told
            return Breach(watched.pool, grant.token, How.FORCE, failure, show=show)
        soft_ms = spec.rules.soft_timeout_ms
        if soft_ms and watched.running and not watched.told and now_ms - watched.started_ms >= soft_ms:
            watched.told = True
            failure = Failure(TaskCodes.TIMED_OUT, f"it ran for longer than its soft timeout of {soft_ms / 1000:g} s")
            return Breach(watched.pool, grant.token, How.TELL, failure, show=True)
        return None


def is_limited(rules: Rules) -> bool:
    """Tell whether an attempt under these is to be watched."""
    times_ms = rules.timeout_ms, rules.soft_timeout_ms, rules.deadline_ms, rules.heartbeat_ms
    return rules.exclusive or any(times_ms)


def _over(watched: _Watched, now_ms: int) -> Failure | None:
    """Return why the attempt is to be ended by force, if it is."""
    grant, rules = watched.grant, watched.grant.spec.rules
    assert watched.end_ms is not None
    if grant.deadline_in_ms and now_ms >= watched.end_ms:
        text = f"it had not ended by its deadline, {rules.deadline_ms / 1000:g} s after its submit"
        return Failure(TaskCodes.DEADLINE, text)
    if not watched.running:
        return None
    if rules.timeout_ms and now_ms - watched.started_ms >= rules.timeout_ms:
        return Failure(TaskCodes.TIMED_OUT, f"it ran for longer than its timeout of {rules.timeout_ms / 1000:g} s")
    if rules.heartbeat_ms and now_ms - watched.beat_ms > rules.heartbeat_ms:
        return Failure(TaskCodes.STALLED, f"it gave no heartbeat for longer than {rules.heartbeat_ms / 1000:g} s")
    return None
