"""Inputs: results of other tasks that go into the arguments of leases, and are fetched before those are handed on.

A lease comes with each input as a value, or with a reference to it. What is referred to is asked of the server once,
however many leases want it, and kept for those that come later, up to a bound.

Invariants:
- One fetch at most is under way for each result. It is asked for by the token of a lease that is held.
- A lease is handed on once, with every input a value; or it fails once.

Pure: knows neither workers nor connections.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from taskd.agent.wire import ARGUMENTS_BYTES_MAX
from taskd_protocol.errors import PayloadTooLarge, UnexpectedMessage
from taskd_protocol.messages import Error, InputPage, InputQuery
from taskd_protocol.task import Failure, Given, Grant

CACHE_BYTES = 256 * 1024 * 1024
"""Results kept for leases to come: those of one node mostly go to many."""


class Ready(NamedTuple):
    """A lease that waited for its inputs."""

    pool: int
    grant: Grant
    """Each of its inputs is a value."""


class Failed(NamedTuple):
    """A lease whose inputs cannot be had."""

    pool: int
    token: int
    failure: Failure


class _Waiting:
    """A lease that waits.

    Attributes:
        missing: Numbers of inputs that are on their way.
    """

    __slots__ = ("given", "grant", "missing", "pool")

    def __init__(self, pool: int, grant: Grant, given: list[Given]) -> None:
        self.pool = pool
        self.grant = grant
        self.given = given
        self.missing: dict[int, Given] = {n: each for n, each in enumerate(given) if _refers(each)}


class _Fetch:
    """A result on its way.

    Attributes:
        wanted: By which leases, and as which of their inputs.
        parts: Of a list, those that have come.
        token: Of the lease that it was asked for with; 0: not asked.
    """

    __slots__ = ("bytes", "given", "parts", "token", "wanted")

    def __init__(self, given: Given) -> None:
        self.given = given
        self.wanted: dict[int, int] = {}
        self.parts: list[bytes] = []
        self.bytes = 0
        self.token = 0


class Inputs:
    """The inputs of all leases of the agent."""

    def __init__(self, is_held: Callable[[int], bool]) -> None:
        """Begin with none.

        Args:
            is_held: Tells the agent's leases by their tokens: others are forgotten.
        """
        self._is_held = is_held
        self._waiting: dict[int, _Waiting] = {}
        self._fetches: dict[Given, _Fetch] = {}
        self._unsent: dict[Given, None] = {}
        self._asked: dict[int, _Fetch] = {}
        self._numbers = 0
        self._ready: list[Ready] = []
        self._failed: list[Failed] = []
        self._known: OrderedDict[Given, bytes] = OrderedDict()
        self._known_bytes = 0

    def hold(self, pool: int, grant: Grant) -> None:
        """Take on a lease that refers to inputs; it comes back from ``take_ready``, or ``take_failed``."""
        member = grant.spec.rules.member
        assert member is not None
        waiting = self._waiting[grant.token] = _Waiting(pool, grant, list(member.inputs))
        for number, given in waiting.missing.copy().items():
            packed = self._known.get(given)
            if packed is not None:
                self._known.move_to_end(given)
                self._fill(waiting, given, packed)
                continue
            fetch = self._fetches.get(given)
            if fetch is None:
                fetch = self._fetches[given] = _Fetch(given)
                self._unsent[given] = None
            fetch.wanted[grant.token] = number
        self._hand_on(waiting)

    def receive(self, answer: InputPage | Error) -> None:
        """Take in what the server answered.

        Raises:
            UnexpectedMessage: It was not asked that, or the answer makes no sense; close the connection.
        """
        fetch = self._asked.pop(answer.request_id, None)
        if fetch is None:
            raise UnexpectedMessage(f"an answer to {answer.request_id}, which nobody asked")
        if isinstance(answer, Error):
            self._refused(fetch, answer)
            return
        single = fetch.given.count < 0
        if (single and (len(answer.parts) != 1 or not answer.last)) or (not answer.parts and not answer.last):
            raise UnexpectedMessage(f"an INPUT_PAGE of {len(answer.parts)} parts")
        fetch.parts += answer.parts
        fetch.bytes += sum([len(part) for part in answer.parts])
        if fetch.bytes > ARGUMENTS_BYTES_MAX:
            self._forget(fetch)
            for token in fetch.wanted:
                self._fail(token, _too_large(fetch.bytes, "or more"))
        elif answer.last:
            self._arrived(
                fetch, answer.parts[0] if single else msgspec.msgpack.encode(list(map(msgspec.Raw, fetch.parts)))
            )
        else:
            self._unsent[fetch.given] = None

    def take_ready(self) -> list[Ready]:
        """Take the leases that have all their inputs."""
        ready, self._ready = self._ready, []
        return [each for each in ready if self._is_held(each.grant.token)]

    def take_failed(self) -> list[Failed]:
        """Take the leases whose inputs cannot be had."""
        failed, self._failed = self._failed, []
        return [each for each in failed if self._is_held(each.token)]

    @property
    def has_news(self) -> bool:
        """There is something to ask."""
        return bool(self._unsent)

    def messages(self) -> list[InputQuery]:
        """Take what is to be asked now."""
        queries: list[InputQuery] = []
        unsent, self._unsent = self._unsent, {}
        for given in unsent:
            fetch = self._fetches.get(given)
            if fetch is None:
                continue
            token = next((token for token in fetch.wanted if self._is_held(token)), 0)
            if not token:
                self._forget(fetch)
                continue
            self._numbers += 1
            fetch.token = token
            self._asked[self._numbers] = fetch
            queries.append(InputQuery(self._numbers, token, fetch.wanted[token], len(fetch.parts)))
        return queries

    def connect(self) -> None:
        """Ask again for all that was not answered: a new connection is about to be used."""
        self._asked.clear()
        self._unsent = dict.fromkeys(self._fetches)

    def look(self) -> None:
        """Forget leases that are held no longer; ask again what a busy server put off. Call about once a second."""
        if self._waiting:
            self._waiting = {token: each for token, each in self._waiting.items() if self._is_held(token)}
            asked = {fetch.given for fetch in self._asked.values()}
            self._unsent.update(dict.fromkeys([given for given in self._fetches if given not in asked]))

    # -- the inside -----------------------------------------------------------------------

    def _arrived(self, fetch: _Fetch, packed: bytes) -> None:
        self._forget(fetch)
        self._keep(fetch.given, packed)
        for token in fetch.wanted:
            waiting = self._waiting.get(token)
            if waiting is not None:
                self._fill(waiting, fetch.given, packed)
                self._hand_on(waiting)

    def _fill(self, waiting: _Waiting, given: Given, packed: bytes) -> None:
        """Put a value wherever its reference stands."""
        for number in [number for number, missing in waiting.missing.items() if missing == given]:
            waiting.given[number] = Given(packed)
            del waiting.missing[number]

    def _hand_on(self, waiting: _Waiting) -> None:
        """Let a lease go that has all its inputs."""
        if waiting.missing:
            return
        grant, spec = waiting.grant, waiting.grant.spec
        size = len(spec.payload) + sum([len(given.packed) for given in waiting.given])
        if size > ARGUMENTS_BYTES_MAX:
            self._fail(grant.token, _too_large(size))
            return
        del self._waiting[grant.token]
        rules = spec.rules
        assert rules.member is not None
        member = replace(rules.member, inputs=waiting.given)
        filled = replace(grant, spec=replace(spec, given=replace(rules, member=member)))
        self._ready.append(Ready(waiting.pool, filled))

    def _refused(self, fetch: _Fetch, error: Error) -> None:
        """Fail the lease that asked, if it is ours and no patience helps; whoever else wants the same asks next."""
        if error.retryable:
            return  # `look` asks again
        if self._is_held(fetch.token):
            self._fail(fetch.token, Failure(error.code, f"an input cannot be had: {error.message}"))
        fetch.wanted.pop(fetch.token, None)
        self._unsent[fetch.given] = None

    def _fail(self, token: int, failure: Failure) -> None:
        waiting = self._waiting.pop(token, None)
        if waiting is not None:
            self._failed.append(Failed(waiting.pool, token, failure))

    def _forget(self, fetch: _Fetch) -> None:
        del self._fetches[fetch.given]
        self._unsent.pop(fetch.given, None)

    def _keep(self, given: Given, packed: bytes) -> None:
        """Keep a result, in place of those that were wanted longest ago."""
        self._known[given] = packed
        self._known_bytes += len(packed)
        while self._known_bytes > CACHE_BYTES:
            _, oldest = self._known.popitem(last=False)
            self._known_bytes -= len(oldest)


def refers(grant: Grant) -> bool:
    """Tell whether a lease refers to inputs, which must be fetched."""
    member = grant.spec.rules.member
    return member is not None and any(_refers(given) for given in member.inputs)


def _refers(given: Given) -> bool:
    return bool(given.id) and not given.packed


def _too_large(size: int, more: str = "") -> Failure:
    return Failure(
        PayloadTooLarge.code,
        f"the arguments with their inputs are {size} bytes{more and f' {more}'}, the limit is {ARGUMENTS_BYTES_MAX}:"
        " have the tasks before it store their results elsewhere and return references",
    )
