"""Inputs: results of other tasks that go with leases, and are fetched before those are handed on.

A lease comes with each input of its arguments as a value, or with a reference to it. What is referred to is asked of
the server once, however many leases want it, and kept for those that come later, up to a bound; so are large results
that tasks of workflows have made here. What has become of the
tasks that a lease's own has spawned is asked for by each lease, since it may be more than was known before.

Invariants:
- One fetch at most is under way for each result. It is asked for by the token of a lease that is held.
- A lease is handed on once, with every input a value; or it fails once.

Pure: knows neither workers nor connections.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, TypeAlias

import msgspec
from msgspec.structs import replace

from taskd.agent.slots import argument_bytes, failure_bytes
from taskd.agent.wire import ARGUMENTS_BYTES_MAX, handed
from taskd.client.family import Found
from taskd_protocol.connection_messages import Error
from taskd_protocol.errors import PayloadTooLarge, UnexpectedMessage
from taskd_protocol.limits import KEPT_RESULT_BYTES_MIN
from taskd_protocol.task import Failure, Given, Grant
from taskd_protocol.workflow_messages import InputPage, InputQuery, Missed

CACHE_BYTES = 256 * 1024 * 1024
"""Results kept for leases to come: those of one node mostly go to many, and what came from here often comes back."""


ASKED_MAX: Final = 32
"""Under way at a time: servers read so many for an agent, and put off the others."""

SPAWNED: Final = -1
"""In place of an input's number: what the task has spawned."""

_Key: TypeAlias = Given | int
"""What is fetched: a result, or by the token of its lease what that one's task has spawned. What is kept: a result that
was fetched, or by its token what a lease has made."""


class Ready(NamedTuple):
    """A lease that waited for its inputs."""

    pool: int
    grant: Grant
    """Each of its inputs is a value; ``Handed``, if its task has spawned anything."""


class Failed(NamedTuple):
    """A lease whose inputs cannot be had."""

    pool: int
    token: int
    failure: Failure


class _Waiting:
    """A lease that waits.

    Attributes:
        missing: Numbers of inputs that are on their way.
        found: What has become of what its task has spawned; None: nothing that is known yet.
    """

    __slots__ = ("found", "given", "grant", "missing", "pool")

    def __init__(self, pool: int, grant: Grant, given: list[Given]) -> None:
        self.pool = pool
        self.grant = grant
        self.given = given
        self.found: Found | None = None
        self.missing: dict[int, _Key] = {n: each for n, each in enumerate(given) if _refers(each)}
        if grant.spawned is not None:
            self.missing[SPAWNED] = grant.token


class _Fetch:
    """A result on its way.

    Attributes:
        wanted: By which leases, and as which of their inputs.
        single: It is one result, and no list.
        parts: Of a list, those that have come.
        missed: Of these, why there is no result.
        token: Of the lease that it was asked for with; 0: not asked.
    """

    __slots__ = ("bytes", "key", "missed", "parts", "single", "token", "wanted")

    def __init__(self, key: _Key) -> None:
        self.key = key
        self.single = isinstance(key, Given) and key.count < 0
        self.wanted: dict[int, int] = {}
        self.parts: list[bytes] = []
        self.missed: list[Missed] = []
        self.bytes = 0
        self.token = 0


class Inputs:
    """The inputs of all leases of the agent."""

    def __init__(self, is_held: Callable[[int], bool], numbers: Iterator[int]) -> None:
        """Begin with none.

        Args:
            is_held: Tells the agent's leases by their tokens: others are forgotten.
            numbers: For requests.
        """
        self._is_held = is_held
        self._waiting: dict[int, _Waiting] = {}
        self._fetches: dict[_Key, _Fetch] = {}
        self._unsent: dict[_Key, None] = {}
        self._asked: dict[int, _Fetch] = {}
        self._numbers = numbers
        self._ready: list[Ready] = []
        self._failed: list[Failed] = []
        self._known: OrderedDict[_Key, bytes] = OrderedDict()
        self._known_bytes = 0

    def hold(self, pool: int, grant: Grant) -> None:
        """Take on a lease that waits for something; it comes back from ``take_ready``, or ``take_failed``."""
        member = grant.spec.rules.member
        waiting = self._waiting[grant.token] = _Waiting(pool, grant, [] if member is None else list(member.inputs))
        for number, key in waiting.missing.copy().items():
            packed = self._find(key)
            if packed is not None:
                self._fill(waiting, key, packed)
                continue
            fetch = self._fetches.get(key)
            if fetch is None:
                fetch = self._fetches[key] = _Fetch(key)
                self._unsent[key] = None
            fetch.wanted[grant.token] = number
        self._hand_on(waiting)

    def keep_made(self, grant: Grant, packed: bytes) -> None:
        """Keep what an attempt has made, if nodes of its workflow may be given it: the server sends them here."""
        if grant.spec.rules.member is not None and len(packed) >= KEPT_RESULT_BYTES_MIN:
            self._keep(grant.token, packed)

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
        if (fetch.single and (len(answer.parts) != 1 or not answer.last)) or (not answer.parts and not answer.last):
            raise UnexpectedMessage(f"an INPUT_PAGE of {len(answer.parts)} parts")
        fetch.parts += answer.parts
        fetch.missed += answer.missed
        fetch.bytes += sum([len(part) for part in answer.parts])
        fetch.bytes += sum([failure_bytes(each.failure) for each in answer.missed])
        if fetch.bytes > ARGUMENTS_BYTES_MAX:
            self._forget(fetch)
            for token in fetch.wanted:
                self._fail(token, _too_large(fetch.bytes, "or more"))
        elif answer.last:
            self._arrived(fetch)
        else:
            self._unsent[fetch.key] = None

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
        """There is something to ask now."""
        return bool(self._unsent) and len(self._asked) < ASKED_MAX

    def messages(self) -> list[InputQuery]:
        """Take what is to be asked now."""
        queries: list[InputQuery] = []
        while self._unsent and len(self._asked) < ASKED_MAX:
            key = next(iter(self._unsent))
            del self._unsent[key]
            fetch = self._fetches.get(key)
            if fetch is None:
                continue
            token = next((token for token in fetch.wanted if self._is_held(token)), 0)
            if not token:
                self._forget(fetch)
                continue
            number = next(self._numbers)
            fetch.token = token
            self._asked[number] = fetch
            queries.append(InputQuery(number, token, fetch.wanted[token], len(fetch.parts)))
        return queries

    def connect(self) -> None:
        """Ask again for all that was not answered: a new connection is about to be used."""
        self._asked.clear()
        self._unsent = dict.fromkeys(self._fetches)

    def look(self) -> None:
        """Forget leases that are held no longer; ask again what a busy server put off. Call about once a second."""
        if self._waiting:
            self._waiting = {token: each for token, each in self._waiting.items() if self._is_held(token)}
            asked = {fetch.key for fetch in self._asked.values()}
            self._unsent.update(dict.fromkeys([key for key in self._fetches if key not in asked]))

    # -- the inside -----------------------------------------------------------------------

    def _arrived(self, fetch: _Fetch) -> None:
        self._forget(fetch)
        packed = b""
        if isinstance(fetch.key, Given):
            packed = fetch.parts[0] if fetch.single else msgspec.msgpack.encode(list(map(msgspec.Raw, fetch.parts)))
            self._keep(fetch.key, packed)
        for token in fetch.wanted:
            waiting = self._waiting.get(token)
            if waiting is None:
                continue
            if isinstance(fetch.key, Given):
                self._fill(waiting, fetch.key, packed)
            else:
                waiting.found = Found(fetch.parts, fetch.missed)
                del waiting.missing[SPAWNED]
            self._hand_on(waiting)

    def _fill(self, waiting: _Waiting, key: _Key, packed: bytes) -> None:
        """Put a value wherever its reference stands."""
        for number in [number for number, missing in waiting.missing.items() if missing == key]:
            waiting.given[number] = Given(packed)
            del waiting.missing[number]

    def _hand_on(self, waiting: _Waiting) -> None:
        """Let a lease go that has all its inputs."""
        if waiting.missing:
            return
        filled, rules = waiting.grant, waiting.grant.spec.rules
        if waiting.given:
            assert rules.member is not None
            member = replace(rules.member, inputs=waiting.given)
            filled = replace(filled, spec=replace(filled.spec, given=replace(rules, member=member)))
        if waiting.found is not None:
            filled = handed(filled, waiting.found)
        size = argument_bytes(filled)
        if size > ARGUMENTS_BYTES_MAX:
            self._fail(filled.token, _too_large(size))
            return
        del self._waiting[filled.token]
        self._ready.append(Ready(waiting.pool, filled))

    def _refused(self, fetch: _Fetch, error: Error) -> None:
        """Fail the lease that asked, if it is ours and no patience helps; whoever else wants the same asks next."""
        if error.retryable:
            return  # `look` asks again
        if self._is_held(fetch.token):
            self._fail(fetch.token, Failure(error.code, f"an input cannot be had: {error.message}"))
        fetch.wanted.pop(fetch.token, None)
        self._unsent[fetch.key] = None

    def _fail(self, token: int, failure: Failure) -> None:
        waiting = self._waiting.pop(token, None)
        if waiting is not None:
            self._failed.append(Failed(waiting.pool, token, failure))

    def _forget(self, fetch: _Fetch) -> None:
        del self._fetches[fetch.key]
        self._unsent.pop(fetch.key, None)

    def _find(self, key: _Key) -> bytes | None:
        """Return a result that is kept, because it was fetched, or made here."""
        for kept in (key, key.maker) if isinstance(key, Given) else ():
            packed = self._known.get(kept)
            if packed is not None:
                self._known.move_to_end(kept)
                return packed
        return None

    def _keep(self, key: _Key, packed: bytes) -> None:
        """Keep a result, in place of those that were wanted longest ago."""
        self._known[key] = packed
        self._known_bytes += len(packed)
        while self._known_bytes > CACHE_BYTES:
            _, oldest = self._known.popitem(last=False)
            self._known_bytes -= len(oldest)


def refers(grant: Grant) -> bool:
    """Tell whether something must be fetched for a lease."""
    if grant.spawned is not None:
        return True
    member = grant.spec.rules.member
    return member is not None and any(_refers(given) for given in member.inputs)


def _refers(given: Given) -> bool:
    return bool(given.id) and not given.packed


def _too_large(size: int, more: str = "") -> Failure:
    return Failure(
        PayloadTooLarge.code,
        f"the arguments with their inputs are {size} bytes{more and f' {more}'}, the limit is {ARGUMENTS_BYTES_MAX}:"
        " have the tasks that these come from store their results elsewhere and return references",
    )
