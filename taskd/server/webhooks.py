"""Webhooks: events posted to whoever asked for them, at least once, in order.

Each hook is a reader of the journal: what it has delivered is its place, which is kept with everything else, so that a
restart goes on where it was. A post that is not taken is tried again, ever later; after the last try its events are a
dead letter, which a person may send again, and the hook goes on behind it.

Invariants:
- What changes here is written with the next turn; before that is durable nothing follows from it: no answer, no post.
- A post's events are fixed, durably, before it goes out: whatever crashes, it goes out again, the same, under its id.
- What is lost to a hook is counted and told; no hook is told of webhooks, whose failing would feed itself.
"""

import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, Protocol

import structlog
import trio
from msgspec.structs import replace

from taskd.core import records
from taskd.core.commands import GoOn
from taskd.core.events import Noted
from taskd.core.records import Mutation
from taskd.core.webhook_records import LetterRecord, WebhookRecord
from taskd.server.bus import Bus, Page, Wanted, pick
from taskd.server.intake import Respond
from taskd.store import codec
from taskd.store.interface import Store
from taskd_protocol.errors import BadRequest, TaskdError
from taskd_protocol.event_messages import EventView

log = structlog.get_logger("taskd.server")

WEBHOOKS_MAX: Final = 100

LETTERS_MAX: Final = 1_000
"""Dead letters kept, of all webhooks; beyond that no more are, which is counted and told."""

LETTERS_BYTES_MAX: Final = 64 * 1024 * 1024
"""What they weigh together, at most: they are in memory. One has up to a megabyte."""

DEAD: Final = "webhook.dead"
LOST: Final = "webhook.lost"
OWN: Final = "webhook."
"""How the words of events about webhooks begin."""

TRIES_MAX: Final = 12
"""In some forty minutes."""

FIRST_WAIT_S: Final = 1.0
LONGEST_WAIT_S: Final = 600.0

Post = Callable[[WebhookRecord, str, bytes], Awaitable[str]]
"""Posts a body under a delivery's id; returns why it was not taken, empty if it was."""

Encode = Callable[[str, Sequence[EventView], int], bytes]
"""Makes the body: of the webhook's name, the events, and how often some were lost to it."""


class Ask(Protocol):
    """As ``CommitLoop.ask``."""

    def __call__(self, command: GoOn, respond: Respond, /) -> None:
        """Have a command decided in the next turn; ``respond`` is called when that is durable."""


class Webhooks:
    """All of them.

    Attributes:
        hooks: By name.
        letters: Dead letters by their ids, oldest first.
    """

    def __init__(
        self,
        bus: Bus,
        store: Store,
        keep: Callable[[Sequence[Mutation]], None],
        tell: Callable[[Noted], None],
        rng: random.Random,
    ) -> None:
        """Prepare.

        Args:
            bus: Tells what happens.
            store: Where they are kept.
            keep: Has something written with the next turn.
            tell: Has an event told with the next turn.
            rng: For waits between tries.
        """
        self.hooks: dict[str, WebhookRecord] = {}
        self.letters: dict[bytes, LetterRecord] = {}
        self._bus = bus
        self._store = store
        self._keep = keep
        self._tell = tell
        self._rng = rng
        self._running: dict[str, trio.CancelScope] = {}
        self._redriving: dict[str, trio.CancelScope] = {}
        self._nursery: trio.Nursery | None = None
        self._post: Post | None = None
        self._encode: Encode | None = None
        self._ask: Ask | None = None
        self._letters_bytes = 0

    async def open(self) -> None:
        """Read what is kept.

        Raises:
            StoreCorrupt: A record is not what was written.
        """
        for record_id, value in await self._store.scan(records.WEBHOOK, limit=WEBHOOKS_MAX):
            self.hooks[record_id.decode()] = codec.decode_as(WebhookRecord, records.WEBHOOK, record_id, value)
        for record_id, value in await self._store.scan(records.LETTER, limit=LETTERS_MAX):
            self._put_letter(record_id, codec.decode_as(LetterRecord, records.LETTER, record_id, value))

    async def run(self, post: Post, encode: Encode, ask: Ask) -> None:
        """Deliver, until cancelled."""
        self._post, self._encode, self._ask = post, encode, ask
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
                if name in self._redriving:
                    self._redriving.pop(name).cancel()
                del self.hooks[name]
                self._keep([(records.WEBHOOK, name.encode(), None)])
                self._drop_letters(name)
            case "drop":
                self._drop_letters(name)
            case "redrive":
                if self._nursery is not None and name not in self._redriving:
                    scope = self._redriving[name] = trio.CancelScope()
                    self._nursery.start_soon(self._redrive, name, now_ms, scope)
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
        with scope:
            await self._until_durable()
            try:
                await self._finish(name)
                with self._bus.read(_wanted(self.hooks[name]), self.hooks[name].after) as reader:
                    while True:
                        await self._hand_over(name, await reader.page())
            except TaskdError as why:
                log.error("webhook_stopped", webhook=name, code=why.code, reason=why.message)  # noqa: TRY400 - it says all

    async def _finish(self, name: str) -> None:
        """Post what was under way when the server, or an order, ended that: the same events under the same id."""
        hook = self.hooks[name]
        events: list[EventView] = []
        after = hook.after
        while after < hook.until and (read := await self._bus.journal.read(after)):
            events += [view for one in read if one.number <= hook.until for view in pick(_wanted(hook), one)]
            after = read[-1].number
        if hook.until > hook.after:
            await self._hand_over(name, Page(hook.until, events, missed=False))

    async def _hand_over(self, name: str, page: Page) -> None:
        """Post events until they are taken, or are a dead letter, and note that this is done."""
        hook = self.hooks[name]
        events = [event for event in page.events if not event.what.startswith(OWN)]
        if page.missed:
            hook = self._lose(name, "kept no longer")
        if events:
            self._write(name, replace(hook, until=page.after))
            await self._until_durable()
            await self._post_until_taken(name, events)
        self._write(name, replace(self.hooks[name], after=page.after))

    async def _post_until_taken(self, name: str, events: Sequence[EventView]) -> None:
        assert self._encode is not None
        assert self._post is not None
        hook = self.hooks[name]
        delivery = f"{name}-{events[0].number}-{hook.until}"
        body = self._encode(name, events, hook.lost)
        for tried in range(1, TRIES_MAX + 1):
            error = await self._post(self.hooks[name], delivery, body)
            await (
                trio.lowlevel.checkpoint_if_cancelled()
            )  # a thread that posts cannot be: the webhook may be another one
            hook = self.hooks[name]
            if not error:
                self._write(name, replace(hook, failures=0, error=""))
                return
            self._write(name, replace(hook, failures=hook.failures + 1, error=error))
            log.warning("webhook_failed", webhook=name, tried=tried, reason=error)
            if tried < TRIES_MAX:
                await trio.sleep(min(FIRST_WAIT_S * 2 ** (tried - 1), LONGEST_WAIT_S) * self._rng.uniform(0.75, 1.25))
        self._bury(name, LetterRecord(events[-1].at_ms, TRIES_MAX, error, len(events), body), hook.until)

    def _bury(self, name: str, letter: LetterRecord, number: int) -> None:
        if len(self.letters) >= LETTERS_MAX or self._letters_bytes + len(letter.body) > LETTERS_BYTES_MAX:
            self._lose(name, "no room for another dead letter")
            return
        record_id = _prefix(name) + number.to_bytes(8, "big")
        self._put_letter(record_id, letter)
        self._keep([(records.LETTER, record_id, letter)])
        self._tell(Noted(DEAD, name))

    def _lose(self, name: str, why: str) -> WebhookRecord:
        """Count, and tell, that events are lost to a webhook."""
        hook = replace(self.hooks[name], lost=self.hooks[name].lost + 1)
        self._write(name, hook)
        self._tell(Noted(LOST, name))
        log.error("webhook_events_lost", webhook=name, reason=why, after=hook.after)
        return hook

    async def _redrive(self, name: str, now_ms: int, scope: trio.CancelScope) -> None:
        """Post the dead letters once more; those that are taken are gone."""
        with scope:
            await self._until_durable()
            for record_id, letter in list(self.letters_of(name)):
                if not await self._post_letter(name, record_id, letter, now_ms):
                    break
            del self._redriving[name]

    async def _post_letter(self, name: str, record_id: bytes, letter: LetterRecord, now_ms: int) -> bool:
        """Post one; return whether it was taken."""
        assert self._post is not None
        delivery = f"{name}-letter-{int.from_bytes(record_id[-8:], 'big')}"
        error = await self._post(self.hooks[name], delivery, letter.body)
        await trio.lowlevel.checkpoint_if_cancelled()
        if not error:
            self._drop(record_id)
        elif record_id in self.letters:  # nobody has dropped it meanwhile
            again = replace(letter, attempts=letter.attempts + 1, error=error, at_ms=now_ms)
            self._put_letter(record_id, again)
            self._keep([(records.LETTER, record_id, again)])
        return not error

    def _drop_letters(self, name: str) -> None:
        for record_id, _ in list(self.letters_of(name)):
            self._drop(record_id)

    def _put_letter(self, record_id: bytes, letter: LetterRecord) -> None:
        before = self.letters.get(record_id)
        self._letters_bytes += len(letter.body) - (0 if before is None else len(before.body))
        self.letters[record_id] = letter

    def _drop(self, record_id: bytes) -> None:
        letter = self.letters.pop(record_id, None)
        if letter is not None:
            self._letters_bytes -= len(letter.body)
            self._keep([(records.LETTER, record_id, None)])

    async def _until_durable(self) -> None:
        """Return when what has changed so far is durable."""
        assert self._ask is not None
        durable = trio.Event()
        self._ask(GoOn(), lambda _: durable.set())
        await durable.wait()

    def _write(self, name: str, record: WebhookRecord) -> None:
        if self.hooks.get(name) != record:
            self.hooks[name] = record
            self._keep([(records.WEBHOOK, name.encode(), record)])


def _wanted(hook: WebhookRecord) -> Wanted:
    return Wanted(tuple(hook.topics), hook.queue, hook.name)


def _prefix(name: str) -> bytes:
    """Return how the ids of a webhook's dead letters begin: no other's begin so, as no name holds a zero byte."""
    return name.encode() + b"\0"
