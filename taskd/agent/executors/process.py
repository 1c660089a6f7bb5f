"""Blocking functions in worker processes, one at a time in each."""

from collections.abc import Callable, Iterable, Sequence

import trio

from taskd.agent import wire
from taskd.agent.core import ENDED, AgentCore, Kill
from taskd.agent.crew import Crew, Member
from taskd.agent.executors.alarm import Alarm
from taskd.agent.executors.crash import crash
from taskd.agent.executors.prints import STREAMS, Prints
from taskd.agent.executors.seat import SOFT_S, Hand, Seat
from taskd.agent.executors.signs import Gate, note_children, note_sign, note_speech, show
from taskd.agent.limits import How
from taskd.agent.platform import Exit, Platform
from taskd_protocol.task import Grant

LOOK_S = 0.05
"""A worker that ended nothing for so long, though it has more to do, has met a long task."""

LOSSES_MAX = 2
"""Workers that may die with an attempt next to run, of nothing that is known, before it is blamed."""

SETTLE_S = 0.005
"""From a recall until every worker must have seen it: one store to memory, and a page that is never paged out."""

LISTEN_SHARE = 0.25
"""Of the work that a worker has: for so long what it ends may come together before it is read."""

LISTEN_MAX_S = 0.002


class ProcessExecutor:
    """One pool of worker processes."""

    def __init__(
        self, platform: Platform, core: AgentCore, pool: int, *, first: Hand | None, ring: Callable[[], None]
    ) -> None:
        """Prepare.

        Args:
            platform: Starts the workers.
            core: Holds the leases.
            pool: The pool's index; it has a worker for each slot.
            first: A worker that is ready.
            ring: To be called when there is something to tell the server.
        """
        self._clock = platform.clock
        self._core = core
        self._pool = pool
        self._slots = core.pools[pool]
        self._crew = Crew(self._slots)
        self._members: dict[Hand, Member] = {}
        self._hands: dict[Member, Hand] = {}
        self._prints: dict[Hand, Prints] = {}
        setup = wire.Setup("process", 1, core.streams.bounds.bytes_per_s)
        self._seats = [Seat(platform, self, setup) for _ in range(self._slots.count)]
        self._first = first
        self._ring = ring
        self._gate = Gate(core)
        self._losses: dict[int, int] = {}
        self._gone: dict[int, trio.Event] = {}  # of attempts that were told to end
        self._unmarked: dict[Member, Grant] = {}  # dealt, and to be handed over when its start is marked
        self._stopping = False
        self._behind = trio.Event()  # somewhere a lease waits behind another
        self._alarm = Alarm(self._slots.gathering, self._clock, self.wake)
        self._nursery: trio.Nursery | None = None

    # -- for the agent ------------------------------------------------------------------

    async def run(self) -> None:
        """See ``Executor``."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._look_after)
            nursery.start_soon(self._alarm.run)
            async with trio.open_nursery() as seats:
                for seat in self._seats:
                    seats.start_soon(seat.run, self._first)
                    self._first = None
            nursery.cancel_scope.cancel()

    def wake(self) -> None:
        """See ``Executor``."""
        self._gate.look(self._members)
        if not self._core.streams.is_full:
            for prints in self._prints.values():
                if prints.waits:
                    prints.room()
        for member, grant in list(self._unmarked.items()):
            if grant.token not in member.assigned:
                del self._unmarked[member]  # taken back
            elif self._core.may_start(grant, self._clock.mono_ns):
                del self._unmarked[member]
                self._hand_over(member, [grant])
        if self._slots.waiting:
            self._deal()

    def end(self, kill: Kill) -> None:
        """See ``Executor``."""
        for member, hand in self._hands.items():
            with_it = [token for token in kill.tokens if token in member.assigned]
            if with_it:
                assert self._nursery is not None
                self._nursery.start_soon(self._end, member, hand, kill._replace(tokens=with_it))
        assigned = {token for member in self._hands for token in member.assigned}
        for token in kill.tokens:
            if token not in assigned:
                self._core.dropped(self._pool, token)

    def alone(self) -> Iterable[tuple[int, int]]:
        """See ``Executor``."""
        for member, hand in self._hands.items():
            for token, grant in member.assigned.items():
                if grant.granted is not None and member not in self._unmarked:
                    yield token, hand.process.pid

    def keep(self) -> None:
        """See ``Executor``."""
        for member, hand in self._hands.items():
            hand.process.live_until(self._core.live_until(member.assigned.values()))

    async def recall(self) -> None:
        """See ``Executor``."""
        for member, grant in self._unmarked.items():
            self._crew.ended(member, [grant.token])
            self._core.unstarted(self._pool, grant)
        self._unmarked.clear()
        async with trio.open_nursery() as nursery:
            for member, hand in self._hands.items():
                nursery.start_soon(self._recall, member, hand)

    def stop(self) -> None:
        """See ``Executor``."""
        self._stopping = True
        for member, hand in self._hands.items():
            if member.assigned:
                hand.process.kill()

    def close(self) -> None:
        """See ``Executor``."""
        for seat in self._seats:
            seat.close()
        for hand in self._members:
            hand.process.hang_up()

    def _deal(self) -> None:
        """Hand leases over that wait, as far as there are workers for them."""
        now_ns = self._clock.mono_ns() if self._slots.gathering.count else 0
        for member, grants in self._crew.deal(now_ns):
            if self._core.may_start(grants[0], self._clock.mono_ns):
                self._hand_over(member, grants)
            else:
                self._unmarked[member] = grants[0]
                self._ring()
        self._alarm.look()
        for member in self._crew.take_unfit():
            assert self._nursery is not None
            self._nursery.start_soon(self._hands[member].retire)

    def _hand_over(self, member: Member, grants: list[Grant]) -> None:
        core, holds = self._core, grants[0].granted is not None
        timed, cpus = core.limits.timed(grants), core.share.pin(grants[0]) if holds else []
        batch = wire.Batch(
            member.batch, core.clock_ahead_ms, core.result_bytes_max, grants, timed, cpus, bool(member.call)
        )
        process = self._hands[member].process
        process.live_until(core.live_until(grants))
        process.limit_memory((core.footprints.limit_of(grants[0].token) or 0) if holds else 0)
        process.send(wire.encode(batch))
        if member.has_behind:
            self._behind.set()

    # -- for the seats ------------------------------------------------------------------

    def joined(self, hand: Hand) -> None:
        """See ``Occupant``."""
        member = Member()
        self._prints[hand] = Prints(hand.process, self._core, self._pool, self._clock, self._ring)
        self._members[hand] = member
        self._hands[member] = hand
        self._crew.members.append(member)
        self._slots.vacant = False
        self.wake()
        self._ring()

    async def listen(self, hand: Hand) -> None:
        """See ``Occupant``."""
        async with trio.open_nursery() as nursery:
            for stream in STREAMS:
                nursery.start_soon(self._prints[hand].follow, stream)

    def missing(self) -> None:
        """See ``Occupant``."""
        self._slots.vacant = not self._hands

    def heard(self, hand: Hand, messages: Sequence[wire.FromWorker]) -> float:
        """See ``Occupant``."""
        member = self._members[hand]
        member.leaving = member.leaving or hand.ended.is_set()
        returned = [message for message in messages if type(message) is wire.Returned]
        if len(returned) < len(messages):
            note_children(self._core, self._pool, messages)
            if note_speech(self._core, self._pool, self._clock, messages):
                self._prints[hand].read()
            self._gate.look(self._members)
        self._core.succeeded(self._pool, returned)
        tokens = [end.token for end in returned]
        recalled = False
        for message in messages if len(returned) < len(messages) else ():
            if isinstance(message, wire.Raised):
                tokens.append(message.token)
                self._core.failed(self._pool, message)
            elif isinstance(message, wire.Recalled) and message.number == member.batch:
                recalled = True  # what it ended before is among the tokens
            else:
                note_sign(self._core, self._pool, message)
        self._crew.ended(member, tokens)
        if self._losses:
            for token in tokens:
                self._losses.pop(token, None)
        if self._gone:
            self._tell_gone(tokens)
        if recalled:
            self._take_back(member, 0)
        self.wake()
        self._ring()
        listen_s = member.cost_us * LISTEN_SHARE / 1e6
        return min(listen_s, LISTEN_MAX_S) if member.has_behind else 0.0

    def left(self, hand: Hand, how: Exit, *, out_of_memory: bool) -> bool:
        """See ``Occupant``."""
        self._prints.pop(hand).read(running=hand.process.running())
        member = self._members.pop(hand)
        del self._hands[member]
        if self._gone:
            self._tell_gone(member.assigned)
        unmarked = self._unmarked.pop(member, None)
        ran, back = self._crew.left(member, hand.process.running())
        if not ran and back and back != [unmarked]:
            blamed = None
            if back[0].spec.rules.at_most_once:
                blamed = self._slots.take_back(back[0])  # that it had not started is not proven
            elif not self._stopping and (hand.insane or not how.ordered):
                blamed = self._suspect(back[0])
            ran = [] if blamed is None else [blamed]
        self._core.waits_again(self._pool, back)
        by_itself = hand.insane or not how.ordered
        is_told = any(self._core.is_ordered(grant.token) for grant in ran)
        for grant in ran:
            if not by_itself and not self._stopping:
                self._core.outlived(grant)
            if self._core.is_ordered(grant.token):
                self._core.crashed(self._pool, grant.token, ENDED)
            elif self._stopping or (len(ran) > 1 and (is_told or not by_itself)):
                self._core.stopped(self._pool, grant)  # in the latter case over another in the same call
            elif len(ran) > 1:
                self._core.lost(self._pool, grant)  # of one of them, who knows of which: the next time each is alone
            else:
                self._core.crashed(self._pool, grant.token, crash(how, out_of_memory=out_of_memory))
        self.wake()
        self._ring()
        return bool(ran) or member.ended > 0

    def _tell_gone(self, tokens: Iterable[int]) -> None:
        """Tell whoever waits for the end of one of these."""
        for token in tokens:
            if (gone := self._gone.pop(token, None)) is not None:
                gone.set()

    def _suspect(self, first: Grant) -> Grant | None:
        """Blame the lease that was next to run when a worker died of nothing known, the second time."""
        losses = self._losses.pop(first.token, 0) + 1
        if losses >= LOSSES_MAX:
            return self._slots.take_back(first)  # it waits again, before all others
        self._losses[first.token] = losses
        return None

    # -- taking back --------------------------------------------------------------------

    async def _look_after(self) -> None:
        """Take back what waits behind tasks that run longer than was thought."""
        while True:
            await self._behind.wait()
            await trio.sleep(LOOK_S)
            async with trio.open_nursery() as nursery:
                for member in self._crew.held_up():
                    nursery.start_soon(self._recall, member, self._hands[member])
            if not any(member.has_behind for member in self._crew.members):
                self._behind = trio.Event()

    async def _recall(self, member: Member, hand: Hand) -> None:
        """Take back what a worker has not started; returns when that is certain."""
        if not member.assigned:
            return
        member.recalling = True
        hand.process.recall(member.batch)
        await trio.sleep(SETTLE_S)
        if hand.ended.is_set():
            return  # its end has given everything back
        # In this order: what ends between the two lines is taken for running, and its result comes.
        running = hand.process.running()
        self.heard(hand, hand.messages_nowait())
        if member.recalling:
            self._take_back(member, running)
            self.wake()

    def _take_back(self, member: Member, running: int) -> None:
        self._core.waits_again(self._pool, self._crew.recalled(member, running))

    async def _end(self, member: Member, hand: Hand, kill: Kill) -> None:
        """End attempts that were handed to a worker."""
        await self._recall(member, hand)
        running = [token for token in kill.tokens if token in member.assigned]
        if running:  # one, since all others were taken back; or several, in one call
            if kill.show:
                text = await hand.process.stacks()
                for token in running:
                    show(self._core, member.assigned.get(token), text, self._clock)
            await self._end_running(member, hand, running, kill.how)
        self._ring()

    async def _end_running(self, member: Member, hand: Hand, tokens: Sequence[int], how: How) -> None:
        if how in {How.TELL, How.CANCEL}:
            places = {token: place for place, token in enumerate(member.assigned)} if member.call else {}
            for token in tokens:
                hand.process.cancel(token, places.get(token, 0))
        if how is How.TELL:
            return
        if how is How.CANCEL:
            gone = [self._gone.setdefault(token, trio.Event()) for token in tokens]
            with trio.move_on_after(SOFT_S):
                for each in gone:
                    await each.wait()
        if not any(token in member.assigned for token in tokens):
            return
        member.leaving = True
        if how is How.KILL:
            hand.process.kill()
        else:
            await hand.end()
