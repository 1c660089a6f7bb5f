"""Webhooks: events posted to whoever asked for them, at least once, in order.

Each hook is a reader of the journal: what it has delivered is its place, which is kept with everything else, so that a
restart goes on where it was. A post that is not taken is tried again, ever later; after the last try its events are a
dead letter, which a person may send again, and the hook goes on behind it.
"""

import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final

import structlog
import trio
from msgspec.structs import replace

from taskd.core import records
from taskd.core.records import Mutation
from taskd.core.webhook_records import LetterRecord, WebhookRecord
from taskd.server.bus import Bus, Wanted
from taskd.store import codec
from taskd.store.interface import Store
from taskd_protocol.errors import BadRequest, TaskdError
from taskd_protocol.event_messages import EventView

log = structlog.get_logger("taskd.server")

WEBHOOKS_MAX: Final = 100

LETTERS_MAX: Final = 1_000
"""Dead letters kept, of all webhooks; beyond that no more are, and the log says so."""

TRIES_MAX: Final = 12
"""In some forty minutes."""

FIRST_WAIT_S: Final = 1.0
LONGEST_WAIT_S: Final = 600.0

Post = Callable[[WebhookRecord, str, bytes], Awaitable[str]]
"""Posts a body under a delivery's id; returns why it was not taken, empty if it was."""

Encode = Callable[[str, Sequence[EventView]], bytes]
"""Makes the body: of the webhook's name, and the events."""


class Webhooks:
    """All of them.

    Attributes:
        hooks: By name.
        letters: Dead letters by their ids, oldest first.
    """

    def __init__(self, bus: Bus, store: Store, keep: Callable[[Sequence[Mutation]], None], rng: random.Random) -> None:
        """Prepare.

        Args:
            bus: Tells what happens.
            store: Where they are kept.
            keep: Has something written with the next turn.
            rng: For waits between tries.
        """
        self.hooks: dict[str, WebhookRecord] = {}
        self.letters: dict[bytes, LetterRecord] = {}
        self._bus = bus
        self._store = store
        self._keep = keep
        self._rng = rng
        self._running: dict[str, trio.CancelScope] = {}
        self._nursery: trio.Nursery | None = None
        self._post: Post | None = None
        self._encode: Encode | None = None

    async def open(self) -> None:
        """Read what is kept.

        Raises:
            StoreCorrupt: A record is not what was written.
        """
        for record_id, value in await self._store.scan(records.WEBHOOK, limit=WEBHOOKS_MAX):
            self.hooks[record_id.decode()] = codec.decode_as(WebhookRecord, records.WEBHOOK, record_id, value)
        for record_id, value in await self._store.scan(records.LETTER, limit=LETTERS_MAX):
            self.letters[record_id] = codec.decode_as(LetterRecord, records.LETTER, record_id, value)

    async def run(self, post: Post, encode: Encode) -> None:
        """Deliver, until cancelled."""
        self._post, self._encode = post, encode
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for name in self.hooks:
                self._begin(name)
            await trio.sleep_forever()

    # -- what people order ------------------------------------------------------------------

    def put(self, name: str, record: WebhookRecord) -> None:
        """Have a new webhook, or another one of its name.

        Raises:
            BadRequest: There are too many.
        """
        if name not in self.hooks and len(self.hooks) >= WEBHOOKS_MAX:
            raise BadRequest(f"a server has at most {WEBHOOKS_MAX} webhooks")
        self._write(name, record)
        self._begin(name)

    def order(self, name: str, order: str, now_ms: int) -> None:
        """Pause, resume or remove one, or have its dead letters sent again, or dropped.

        Raises:
            BadRequest: There is none of that name, or no such order.
        """
        hook = self.hooks.get(name)
        if hook is None:
            raise BadRequest(f"no webhook is named {name[:64]!r}; `taskd webhook ls` lists those that are")
        match order:
            case "pause" | "resume":
                self._write(name, replace(hook, paused=order == "pause"))
                self._begin(name)
            case "remove":
                self._end(name)
                del self.hooks[name]
                self._keep([(records.WEBHOOK, name.encode(), None)])
                self._drop_letters(name)
            case "drop":
                self._drop_letters(name)
            case "redrive":
                if self._nursery is not None:
                    self._nursery.start_soon(self._redrive, name, now_ms)
            case _:
                raise BadRequest(f"{order[:32]!r} is no order; say pause, resume, remove, redrive or drop")

    def letters_of(self, name: str) -> Iterator[tuple[bytes, LetterRecord]]:
        """Yield a webhook's dead letters, oldest first."""
        prefix = _prefix(name)
        return ((record_id, letter) for record_id, letter in self.letters.items() if record_id.startswith(prefix))

    # -- delivering -------------------------------------------------------------------------

    def _begin(self, name: str) -> None:
        self._end(name)
        if self._nursery is not None and not self.hooks[name].paused:
            scope = self._running[name] = trio.CancelScope()
            self._nursery.start_soon(self._deliver, name, scope)

    def _end(self, name: str) -> None:
        scope = self._running.pop(name, None)
        if scope is not None:
            scope.cancel()

    async def _deliver(self, name: str, scope: trio.CancelScope) -> None:
        hook = self.hooks[name]
        wanted = Wanted(tuple(hook.topics), hook.queue, hook.name)
        with scope, self._bus.read(wanted, hook.after) as reader:
            try:
                while True:
                    page = await reader.page()
                    if page.events:
                        await self._hand_over(name, page.events)
                    self._write(name, replace(self.hooks[name], after=page.after))
            except TaskdError as why:
                log.error("webhook_stopped", webhook=name, code=why.code, reason=why.message)  # noqa: TRY400 - it says all

    async def _hand_over(self, name: str, events: Sequence[EventView]) -> None:
        """Post events until they are taken, or are a dead letter."""
        assert self._encode is not None
        assert self._post is not None
        delivery = f"{name}-{events[0].number}-{events[-1].number}"
        body = self._encode(name, events)
        for tried in range(1, TRIES_MAX + 1):
            error = await self._post(self.hooks[name], delivery, body)
            hook = self.hooks[name]
            if not error:
                self._write(name, replace(hook, failures=0, error=""))
                return
            self._write(name, replace(hook, failures=hook.failures + 1, error=error))
            log.warning("webhook_failed", webhook=name, tried=tried, reason=error)
            if tried < TRIES_MAX:
                await trio.sleep(min(FIRST_WAIT_S * 2 ** (tried - 1), LONGEST_WAIT_S) * self._rng.uniform(0.75, 1.25))
        self._bury(name, LetterRecord(events[-1].at_ms, TRIES_MAX, error, len(events), body), events[-1].number)

    def _bury(self, name: str, letter: LetterRecord, number: int) -> None:
        if len(self.letters) >= LETTERS_MAX:
            log.error("webhook_letter_lost", webhook=name, events=letter.events, kept=LETTERS_MAX)
            return
        record_id = _prefix(name) + number.to_bytes(8, "big")
        self.letters[record_id] = letter
        self._keep([(records.LETTER, record_id, letter)])

    async def _redrive(self, name: str, now_ms: int) -> None:
        """Post the dead letters once more; those that are taken are gone."""
        assert self._post is not None
        for record_id, letter in list(self.letters_of(name)):
            delivery = f"{name}-letter-{int.from_bytes(record_id[-8:], 'big')}"
            error = await self._post(self.hooks[name], delivery, letter.body)
            if error:
                again = replace(letter, attempts=letter.attempts + 1, error=error, at_ms=now_ms)
                self.letters[record_id] = again
                self._keep([(records.LETTER, record_id, again)])
                return
            self._drop(record_id)

    def _drop_letters(self, name: str) -> None:
        for record_id, _ in list(self.letters_of(name)):
            self._drop(record_id)

    def _drop(self, record_id: bytes) -> None:
        if self.letters.pop(record_id, None) is not None:
            self._keep([(records.LETTER, record_id, None)])

    def _write(self, name: str, record: WebhookRecord) -> None:
        if self.hooks.get(name) != record:
            self.hooks[name] = record
            self._keep([(records.WEBHOOK, name.encode(), record)])


def _prefix(name: str) -> bytes:
    """Return how the ids of a webhook's dead letters begin: no other's begin so, as no name holds a zero byte."""
    return name.encode() + b"\0"
