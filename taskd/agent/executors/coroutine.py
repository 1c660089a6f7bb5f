"""Coroutine functions: many at a time on the event loop of one worker process.

A worker that dies blames the coroutine that was taking a step, and the others are
released. If none was, as when the kernel killed it while all waited, each is lost: the
server grants it again with a marked start, and who has that is blamed the next time.
Nobody is run again under the same token: what it had begun may have been seen.

Many that are run in one call are one coroutine: what ends one of them ends it, and the others are released.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import trio

from taskd.agent import wire
from taskd.agent.core import ENDED, AgentCore, Kill
from taskd.agent.crew import BATCH_BYTES, BATCH_TASKS, BATCH_US
from taskd.agent.executors.alarm import Alarm
from taskd.agent.executors.crash import crash
from taskd.agent.executors.seat import TERM_S, Hand, Seat
from taskd.agent.executors.signs import Gate, note_children, note_sign, note_speech, show
from taskd.agent.limits import How
from taskd.agent.platform import Exit, Platform
from taskd.agent.slots import AHEAD_BYTES, argument_bytes
from taskd_protocol.task import Grant

DRAIN_S = 10.0
"""A worker that is ended over one coroutine leaves the others so long to end by themselves."""

KILL_S = 1.0
"""So long a coroutine has that must be gone at once: its neighbours are worth that."""

LISTEN_S = 0.003
"""Pause between two reads while more is to come: the worker writes once for each round of its loop."""


class _Call:
    """Attempts that are run in one call.

    Attributes:
        first: Token of the first, which the worker shows for all.
        left: So many have not ended.
    """

    __slots__ = ("first", "left", "size")

    def __init__(self, first: int, size: int) -> None:
        self.first = first
        self.size = self.left = size


class CoroutineExecutor:
    """One pool of coroutines."""

    def __init__(
        self,
        platform: Platform,
        core: AgentCore,
        pool: int,
        *,
        loop: str,
        first: Hand | None,
        ring: Callable[[], None],
    ) -> None:
        """Prepare.

        Args:
            platform: Starts the worker.
            core: Holds the leases.
            pool: The pool's index; its slots are the coroutines that run at the same time.
            loop: ``asyncio`` or ``trio``.
            first: A worker that is ready.
            ring: To be called when there is something to tell the server.
        """
        self._clock = platform.clock
        self._core = core
        self._pool = pool
        self._slots = core.pools[pool]
        self._seat = Seat(platform, self, wire.Setup(loop, self._slots.count, core.streams.bounds.bytes_per_s))
        self._first = first
        self._ring = ring
        self._gate = Gate(core)
        self._hand: Hand | None = None
        self._leaving: Hand | None = None  # to be ended, over a coroutine that does not end
        self._news = trio.Event()
        self._assigned = dict[int, Grant]()
        self._unmarked = dict[int, Grant]()  # to be handed over when their start is marked
        self._calls = dict[int, _Call]()  # by the tokens of all that are run in each
        self._alarm = Alarm(self._slots.gathering, self._clock, self.wake)
        self._batch = 0
        self._done = 0
        self._stopping = False
        self._nursery: trio.Nursery | None = None

    # -- for the agent ------------------------------------------------------------------

    async def run(self) -> None:
        """See ``Executor``."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._alarm.run)
            await self._seat.run(self._first)
            nursery.cancel_scope.cancel()

    def wake(self) -> None:
        """See ``Executor``."""
        hand, slots = self._hand, self._slots
        if hand is None or hand.ended.is_set() or hand is self._leaving:
            return
        self._gate.look([hand])
        if not (slots.waiting or self._unmarked):
            return
        gathering = slots.gathering
        room = slots.count + self._ahead() - len(self._assigned) + gathering.riding - len(self._unmarked)
        grants = [marked for marked in self._unmarked.values() if self._core.may_start(marked, self._clock.mono_ns)]
        for marked in grants:
            del self._unmarked[marked.token]
        now_ns = self._clock.mono_ns() if gathering.count else 0
        while len(grants) < room and gathering.count and (first := gathering.ripe(now_ns)):
            self._hand_over(hand, gathering.take(first, argument_bytes, AHEAD_BYTES), together=True)
            room -= 1
        self._alarm.look()
        while len(grants) < room and (grant := slots.take()) is not None:
            if self._core.may_start(grant, self._clock.mono_ns):
                grants.append(grant)
            else:
                self._unmarked[grant.token] = grant
                room -= 1
                self._ring()
        if gathering.rules:
            for grant in [grant for grant in grants if grant.spec.name in gathering.rules]:  # each alone
                grants.remove(grant)
                self._hand_over(hand, [grant], together=True)
        for part in _in_frames(grants):
            self._hand_over(hand, part)

    def _hand_over(self, hand: Hand, grants: list[Grant], *, together: bool = False) -> None:
        self._assigned.update([(grant.token, grant) for grant in grants])
        if together:
            self._slots.gathering.riding += len(grants) - 1
            self._calls.update(dict.fromkeys([grant.token for grant in grants], _Call(grants[0].token, len(grants))))
        self._batch += 1
        core = self._core
        timed = core.limits.timed(grants)
        batch = wire.Batch(self._batch, core.clock_ahead_ms, core.result_bytes_max, grants, timed, [], together)
        if timed and (until_ms := core.live_until(grants)):
            hand.process.live_until(until_ms)
        hand.process.send(wire.encode(batch))

    def end(self, kill: Kill) -> None:
        """See ``Executor``. For a coroutine, what force there is begins with its being told."""
        with_it = [token for token in kill.tokens if token in self._assigned]
        if with_it and self._hand is not None:
            assert self._nursery is not None
            self._nursery.start_soon(self._end, self._hand, kill._replace(tokens=with_it))
        for token in kill.tokens:
            waiting = self._unmarked.pop(token, None)
            if waiting is not None:
                self._core.unstarted(self._pool, waiting)
            elif token not in self._assigned:
                self._core.dropped(self._pool, token)

    def alone(self) -> Iterable[tuple[int, int]]:
        """See ``Executor``. None is: what one of them holds of their process's memory nobody can tell."""
        return ()

    def keep(self) -> None:
        """See ``Executor``. One exclusive attempt ties all others: they are run again, should it come to that."""
        if self._hand is not None:
            self._hand.process.live_until(self._core.live_until(self._assigned.values()))

    async def recall(self) -> None:
        """See ``Executor``. Here what a worker has is about to start."""
        for grant in self._unmarked.values():
            self._core.unstarted(self._pool, grant)
        self._unmarked.clear()

    def stop(self) -> None:
        """See ``Executor``."""
        self._stopping = True
        if self._hand is not None and self._assigned:
            self._hand.process.kill()

    def close(self) -> None:
        """See ``Executor``."""
        self._seat.close()
        if self._hand is not None:
            self._hand.process.hang_up()

    # -- for the seat -------------------------------------------------------------------

    def joined(self, hand: Hand) -> None:
        """See ``Occupant``."""
        self._hand = hand
        self._done = 0
        self._slots.vacant = False
        self.wake()
        self._ring()

    async def listen(self, hand: Hand) -> None:
        """See ``Occupant``: what it prints, it tells."""

    def missing(self) -> None:
        """See ``Occupant``."""
        self._slots.vacant = True

    def heard(self, hand: Hand, messages: Sequence[wire.FromWorker]) -> float:
        """See ``Occupant``."""
        assert hand is self._hand
        returned = [message for message in messages if type(message) is wire.Returned]
        if len(returned) < len(messages):
            note_children(self._core, self._pool, messages)
            note_speech(self._core, self._pool, self._clock, messages)
            self._gate.look([hand])
        self._core.succeeded(self._pool, returned)
        for end in returned:
            self._let_go(end.token)
        for message in messages if len(returned) < len(messages) else ():
            if isinstance(message, wire.Raised):
                self._done += 1
                self._let_go(message.token)
                self._core.failed(self._pool, message)
            else:
                note_sign(self._core, self._pool, message)
        self._news.set()
        self._done += len(returned)
        self.wake()
        self._ring()
        return LISTEN_S if len(self._assigned) > self._slots.count else 0.0

    def left(self, hand: Hand, how: Exit, *, out_of_memory: bool) -> bool:
        """See ``Occupant``."""
        self._hand = None
        stepping = hand.process.running()
        alone = len(self._assigned) == 1
        by_itself = hand.insane or not how.ordered
        for token, grant in list(self._assigned.items()):
            call = self._calls.get(token, _Call(token, 1))
            blamed = call.first == stepping or (not stepping and (alone or grant.mark_start))
            if self._core.is_ordered(token):
                self._core.crashed(self._pool, token, ENDED)
            elif self._stopping:
                self._core.stopped(self._pool, grant)
            elif blamed and by_itself and call.size > 1:
                self._core.lost(self._pool, grant)  # of one of them, who knows of which: the next time each is alone
            elif grant.spec.rules.at_most_once or (blamed and by_itself):
                self._core.crashed(self._pool, token, crash(how, out_of_memory=out_of_memory))
            elif by_itself and not stepping:
                self._core.lost(self._pool, grant)
            else:
                self._core.stopped(self._pool, grant)
        for token in list(self._assigned):
            self._let_go(token)
        self._news.set()
        self._ring()
        return self._done > 0 or bool(stepping)

    # -- itself -------------------------------------------------------------------------

    def _let_go(self, token: int) -> None:
        self._assigned.pop(token, None)
        call = self._calls.pop(token, None) if self._calls else None
        if call is not None:
            call.left -= 1
            self._slots.gathering.riding -= call.left > 0

    def _ahead(self) -> int:
        """Return how many leases the worker may have beyond its concurrency: some, when each takes no time."""
        pace = self._slots.pace
        if not pace.samples or pace.mean_us >= BATCH_US:
            return 0
        return min(BATCH_TASKS, int(self._slots.count * BATCH_US / pace.mean_us))

    async def _end(self, hand: Hand, kill: Kill) -> None:
        """Tell coroutines to end; a worker in which one does not is fed no more, and ended when the others are done."""
        tokens = kill.tokens
        if kill.show:
            text = await hand.process.stacks()
            for token in tokens:
                show(self._core, self._assigned.get(token), text, self._clock)
            self._ring()
        hand.process.send(wire.encode(wire.Stop(tokens)))
        if kill.how is How.TELL:
            return
        await self._until(hand, tokens, KILL_S if kill.how is How.KILL else TERM_S)
        stubborn = [token for token in tokens if token in self._assigned]
        if self._hand is not hand or not stubborn:
            return
        self._leaving = hand
        others = [token for token in self._assigned if not self._core.is_ordered(token)]
        if kill.how is not How.KILL and hand.process.running() not in stubborn:
            await self._until(hand, others, DRAIN_S)
        hand.process.kill()

    async def _until(self, hand: Hand, tokens: Sequence[int], seconds: float) -> None:
        """Wait until these have ended, or their worker has, but no longer than that."""
        with trio.move_on_after(seconds):
            while self._hand is hand and any(token in self._assigned for token in tokens):
                if self._news.is_set():
                    self._news = trio.Event()
                await self._news.wait()


def _in_frames(grants: list[Grant]) -> Iterator[list[Grant]]:
    """Cut a batch where its arguments would not fit a frame: each part has one attempt, or few large ones."""
    part: list[Grant] = []
    size = 0
    for grant in grants:
        size += argument_bytes(grant)
        if part and size > BATCH_BYTES:
            yield part
            part, size = [], argument_bytes(grant)
        part.append(grant)
    if part:
        yield part
