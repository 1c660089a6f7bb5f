"""The commit loop: the one path of everything that happens to the state.

A turn gathers what has arrived, lets the core decide, stages all mutations as one
atomic batch, and, when a flush covers the batch, releases answers and effects.
While a flush runs, the next turns are gathered, decided and staged: deciding ahead
is safe because the log is a prefix, and nothing of it is told before it is durable.

Invariants:
- Answers and effects leave in the order in which they were decided.
- What leaves is covered by a flush of the newest batch that it has seen.
- After a storage error nothing leaves any more, and the process ends.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import NoReturn, Protocol

import trio

from taskd.core.commands import (
    NOTHING_LOADED,
    Answer,
    Command,
    NeedRecords,
    Now,
    PurgeFinished,
    SubmitTasks,
    Submitted,
    SweepLogs,
)
from taskd.core.coordinator import Coordinator
from taskd.core.effects import (
    Continue,
    Effect,
    SendLease,
    TasksEnded,
    WantFair,
    WantFinished,
    WantFlow,
    WantGate,
    WantGates,
    WantItems,
    WantLapsed,
    WantLine,
    WantTasks,
    WantTimers,
)
from taskd.core.events import Event
from taskd.core.records import Key, Mutation
from taskd.core.schedule_commands import LookAtSchedules
from taskd.net.ears import Deaf, Hearing
from taskd.server import merging
from taskd.server.clock import Clock
from taskd.server.flow_loading import FlowLoader
from taskd.server.intake import Intake, Request, Respond
from taskd.server.loading import Loader
from taskd.server.outgoing import Outgoing
from taskd.server.tally import Tally
from taskd.store import codec
from taskd.store.interface import Store, Write
from taskd_protocol.errors import StoreStalled, TaskdError

TICK_SECONDS = 0.5
"""Time is looked at so often at least, so that a longer gap is known for a stall of our own."""

STALL_SECONDS = 0.01
"""Wait before a batch that the store was too busy for is staged again."""

FULL_SECONDS = 2.0
"""Between two looks whether a full disk has room again."""


class Deliver(Protocol):
    """Carries out what the core wants told."""

    def __call__(self, effect: Effect, /) -> None:
        """Carry out one effect; it is durable."""


class Quick(Protocol):
    """Knows how quick flushes are: see ``Flusher``."""

    waits: Callable[[], None]
    """Called when a flush does not end on the spot."""

    def is_quick(self) -> bool:
        """Tell whether the next one is thought to end on the spot."""
        ...


class Onlooker(Protocol):
    """Looks on: nothing is decided by it."""

    def look(self, events: Sequence[Event], now: Now) -> tuple[Sequence[Mutation], int]:
        """Return what a turn is to write for who looks on, and what to ``release`` when that is durable; 0: nothing."""
        ...

    def release(self, mark: int, now: Now) -> None:
        """What was looked at up to this mark is durable."""
        ...


class Nobody:
    """An ``Onlooker`` for whom nothing is written."""

    def look(self, events: Sequence[Event], now: Now) -> tuple[Sequence[Mutation], int]:
        """See ``Onlooker``."""
        del events, now
        return (), 0

    def release(self, mark: int, now: Now) -> None:
        """See ``Onlooker``."""


class Stages:
    """Processor time of the loop's thread since the start, in ns; ``decode`` and ``send`` include the sessions'."""

    def __init__(self) -> None:
        self.ns = {"decode": 0, "decide": 0, "encode": 0, "stage": 0, "send": 0}
        self.counts = {
            "turns": 0,
            "flushes": 0,
            "submitted": 0,
            "leased": 0,
            "completed": 0,
            "bytes_in": 0,
            "bytes_out": 0,
        }


class CommitLoop:
    """Owns the coordinator and the store; others talk to it by ``ask`` and ``after_durable``.

    Attributes:
        stages: What it costs.
        tally: What has happened.
        onlooker: Set before the loop runs.
        is_disk_full: Tells whether so little is left that nothing new is taken; whoever watches the disk sets it.
    """

    def __init__(
        self,
        *,
        coordinator: Coordinator,
        store: Store,
        clock: Clock,
        deliver: Deliver,
        fail: Callable[[TaskdError], None],
        flusher: Quick | None = None,
        ears: Hearing | None = None,
    ) -> None:
        """Join the parts.

        Args:
            coordinator: Restored.
            store: What it was restored from.
            clock: Of the server.
            deliver: Carries out effects.
            fail: Ends the process after a storage error; does not return in earnest.
            flusher: Does the store's flushes, and knows which are quick; None: none is.
            ears: Hear what comes for sessions; None: these read by themselves.
        """
        self.coordinator = coordinator
        self.store = store
        self.stages = Stages()
        self.tally = Tally()
        self.onlooker: Onlooker = Nobody()
        self.is_disk_full: Callable[[], bool] = lambda: False
        self.outgoing = Outgoing()
        self._clock = clock
        self._deliver = deliver
        self._fail = fail
        self._flusher = flusher
        if flusher is not None:
            flusher.waits = self._flush_waits
        self.loader = Loader(store, coordinator.working)
        self._flow_loader = FlowLoader(store)
        self._intake = Intake()
        self._unreleased: deque[tuple[int, Callable[[], None]]] = deque()
        self._staging = 0  # turns that are decided and not staged: one at most, while the store stalls
        self._ears: Hearing = Deaf() if ears is None else ears
        self._alarm = trio.CancelScope()
        self._is_time = True  # to look what time alone asks for
        self._turned = trio.Event()
        self._unflushed = False  # something is staged that no flush covers which has begun
        self._flushing = False
        self._turner_flushes = False  # in the task that turns, which has not waited for it
        self._staged = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._failed = False

    # -- what others call ---------------------------------------------------------------

    def now(self) -> Now:
        """Return this instant."""
        return Now(self._clock.mono_ns() // 1_000_000, self._clock.wall_ms())

    def ask(self, command: Command, respond: Respond | None = None) -> None:
        """Put a command in line for the next turn. Agents' reports and all that is small go first.

        Raises:
            ServerBusy: Too many submits wait already.
            ServerStopping: Submits are refused.
        """
        self._intake.put(command, respond)
        self._ears.wake()

    def after_durable(self, tell: Callable[[], None]) -> None:
        """Call ``tell`` once all that is decided now is durable: at once, if it is."""
        sequence = self.store.staged_sequence + self._staging
        if self._failed:
            return
        if self.store.durable_sequence >= sequence and not self._unreleased:
            tell()
        else:
            self._unreleased.append((sequence, tell))

    async def until_durable(self) -> None:
        """Return once all that is decided now is durable."""
        done = trio.Event()
        self.after_durable(done.set)
        await done.wait()

    def refuse_submits(self) -> None:
        """Take no more tasks: those that were submitted are decided still."""
        self._intake.refuse_submits()

    async def until_settled(self) -> None:
        """Return once all that was asked is decided and durable; who goes on asking keeps it from returning."""
        while not self._intake.is_empty or self.loader.reading:
            await self._turned.wait()
        await self.until_durable()

    # -- the turns ----------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Turn until cancelled; what is staged then is flushed by closing the store."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._ring_for_ever)
            nursery.start_soon(self._flush_for_ever)
            nursery.start_soon(self._turn_for_ever)
            task_status.started()

    async def _turn_for_ever(self) -> None:
        while True:
            self._ears.hear()
            if self._is_time or self._intake.has_work:
                self._is_time = False
                await self._turn()
                self._set_alarm()
            if self._unflushed and not await self._see_to_flush():
                return
            if self._intake.has_work:
                await trio.lowlevel.checkpoint()
            else:
                await self._ears.sleep()

    def _set_alarm(self) -> None:
        due = trio.current_time() + self._seconds_to_deadline()
        if due < self._alarm.deadline:  # noqa: PLR1730 - to set it costs ten calls, also to what it was
            self._alarm.deadline = due

    async def _ring_for_ever(self) -> None:
        """Wake who turns when time is to be looked at. A cancel scope for each sleep costs thirty calls."""
        while True:
            with trio.CancelScope() as self._alarm:
                await trio.sleep_forever()
            self._is_time = True
            self._ears.wake()

    def _seconds_to_deadline(self) -> float:
        wait_ms = self.coordinator.next_deadline_mono_ms() - self._clock.mono_ns() // 1_000_000
        return min(max(wait_ms / 1000, 0.0), TICK_SECONDS)

    async def _turn(self) -> None:
        began_ns, began_mono_ns = self._clock.thread_cpu_ns(), self._clock.mono_ns()
        now = Now(began_mono_ns // 1_000_000, self._clock.wall_ms())
        self.coordinator.tick(now)
        self.loader.begin_turn()
        answered: list[tuple[Respond, Answer | TaskdError]] = []
        gathered, owed_weight = self._intake.take()
        for some in merging.together(gathered) if len(gathered) > 1 else (gathered,):
            decided = merging.decide(self.coordinator, some, now) if len(some) > 1 else None
            if decided is not None:
                self.stages.counts["submitted"] += decided.fresh
                answered += decided.answered
                continue
            for request in some:
                self._decide(request, now, answered)
        turn = self.coordinator.take_turn(now)
        decided_ns = self._clock.thread_cpu_ns()
        self.stages.ns["decide"] += decided_ns - began_ns
        self.stages.counts["turns"] += 1
        if turn.events:
            self.tally.note(turn.events, now.mono_ms)
        kept, mark = self.onlooker.look(turn.events, now)
        turn.mutations.extend(kept)
        if turn.mutations:
            self.loader.note(turn.mutations)
            writes = codec.encode(turn.mutations)
            encoded_ns = self._clock.thread_cpu_ns()
            self.stages.ns["encode"] += encoded_ns - decided_ns
            self._staging = 1
            try:
                await self._stage(writes, turn.mutations)
            except TaskdError as failure:
                await self._end(failure)
            self._staging = 0
            self.stages.ns["stage"] += self._clock.thread_cpu_ns() - encoded_ns
        self.tally.turn_us.note((self._clock.mono_ns() - began_mono_ns) // 1_000)
        told = self._sort_effects(turn.effects)
        if answered or told or owed_weight or mark:
            self.after_durable(lambda: self._release(answered, told, owed_weight, mark))
        self._turned.set()
        self._turned = trio.Event()

    def _decide(self, request: Request, now: Now, answered: list[tuple[Respond, Answer | TaskdError]]) -> None:
        loaded = NOTHING_LOADED if request.found is None else self.loader.take(request.found)
        try:
            answer: Answer | TaskdError = self.coordinator.apply(request.command, now, loaded)
        except NeedRecords as need:
            self.loader.open(need.keys)
            self._start(partial(self._load_for, request, need.keys))
            return
        except TaskdError as refusal:
            answer = refusal
        if isinstance(answer, Submitted) and isinstance(request.command, SubmitTasks):
            self.stages.counts["submitted"] += len(request.command.specs) - len(answer.existing)
        if request.respond is not None:
            answered.append((request.respond, answer))

    async def _stage(self, writes: Sequence[Write], mutations: Sequence[Mutation]) -> None:
        """Stage the turn's batch; while the store stalls no new turn starts, so the order stays."""
        if self._stage_once(writes):
            return
        self.loader.hold(mutations)
        while True:
            await trio.sleep(STALL_SECONDS)
            self._ears.hear()
            if self._stage_once(writes):
                self.loader.let_go()
                return

    def _stage_once(self, writes: Sequence[Write]) -> bool:
        try:
            self.store.stage(writes)
        except StoreStalled:
            return False
        self._unflushed = True
        return True

    async def _see_to_flush(self) -> bool:
        """Have flushed what the turn has staged: here, if that ends on the spot, else beside the next turns.

        Coming to it in the flusher's task costs a round of trio's scheduler.

        Returns:
            Whether this task goes on turning: if the flush took longer than was thought, another one does.
        """
        if self._flushing:
            return True  # its end sees to this
        if self._flusher is None or not self._flusher.is_quick():
            self._staged.set()
            return True
        self._turner_flushes = True
        await self._flush()
        turns_on, self._turner_flushes = self._turner_flushes, False
        return turns_on

    def _flush_waits(self) -> None:
        """Take note that the flush under way does not end on the spot: turns go on beside it."""
        if self._turner_flushes:
            self._turner_flushes = False
            assert self._nursery is not None
            self._nursery.start_soon(self._turn_for_ever)

    async def _flush_for_ever(self) -> None:
        while True:
            await self._staged.wait()
            self._staged = trio.Event()
            if self._unflushed and not self._flushing:
                await self._flush()

    async def _flush(self) -> None:
        self._flushing, self._unflushed = True, False
        began_mono_ns = self._clock.mono_ns()
        try:
            durable = await self.store.flush()
        except TaskdError as failure:
            await self._end(failure)
        self.tally.flush_us.note((self._clock.mono_ns() - began_mono_ns) // 1_000)
        self._flushing = False
        if self._unflushed:
            self._staged.set()
        self.stages.counts["flushes"] += 1
        began_ns = self._clock.thread_cpu_ns()
        unreleased = self._unreleased
        self.outgoing.hold()
        while unreleased and unreleased[0][0] <= durable:
            unreleased.popleft()[1]()
        self.outgoing.let_go()
        self.stages.ns["send"] += self._clock.thread_cpu_ns() - began_ns

    def _release(
        self, answered: list[tuple[Respond, Answer | TaskdError]], told: list[Effect], owed_weight: int, mark: int
    ) -> None:
        if owed_weight:
            self._intake.settle(owed_weight)
            if self._intake.has_work:
                self._ears.wake()
        for respond, answer in answered:
            respond(answer)
        for effect in told:
            self._deliver(effect)
        if mark:
            self.onlooker.release(mark, self.now())

    async def _end(self, failure: TaskdError) -> NoReturn:
        """Tell nobody anything any more: what the disk holds is unknown."""
        if not self._failed:
            self._failed = True
            self._unreleased.clear()
            self._fail(failure)
        await trio.sleep_forever()

    # -- records that the core asks for --------------------------------------------------

    def _sort_effects(self, effects: Sequence[Effect]) -> list[Effect]:  # noqa: C901, PLR0912 - one case an effect
        """Start the reads that the core asks for; return what is to be told."""
        told: list[Effect] = []
        for effect in effects:
            match effect:
                case WantLine():
                    self._start(partial(self._read_line, effect))
                case WantGate():
                    self._start(partial(self._read_gate, effect))
                case WantGates():
                    self._start(partial(self._read_gates, effect))
                case WantTimers():
                    self._start(partial(self._read_timers, effect))
                case WantFinished():
                    self._start(partial(self._read_finished, effect))
                case WantLapsed():
                    self._start(partial(self._read_lapsed, effect))
                case WantFair():
                    self._start(partial(self._read_fair, effect))
                case WantTasks():
                    self._start(partial(self._read_tasks, effect))
                case WantFlow():
                    self._start(partial(self._read_flow, effect))
                case WantItems():
                    self._start(partial(self._read_items, effect))
                case Continue(LookAtSchedules()) if self.is_disk_full():
                    self._start(partial(self._ask_when_there_is_room, effect.command))
                case Continue():
                    self.ask(effect.command)
                case _:
                    told.append(effect)
                    if isinstance(effect, SendLease):
                        self.stages.counts["leased"] += len(effect.grants)
                    elif isinstance(effect, TasksEnded):
                        self.stages.counts["completed"] += len(effect.ended)
        return told

    def _start(self, work: Callable[[], Awaitable[None]]) -> None:
        assert self._nursery is not None, "the loop is not running"
        self._nursery.start_soon(self._guarded, work)

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except TaskdError as failure:  # a read that fails is a store that does not hold what was written
            await self._end(failure)

    async def _load_for(self, request: Request, keys: Sequence[Key]) -> None:
        self._intake.put_again(request._replace(found=await self.loader.read(keys)))
        self._ears.wake()

    async def _ask_when_there_is_room(self, command: Command) -> None:
        """Have schedules submit nothing while clients may not either: their times are missed meanwhile."""
        await trio.sleep(FULL_SECONDS)
        self._sort_effects([Continue(command)])

    async def _read_line(self, want: WantLine) -> None:
        self.ask(await self.loader.read_line(want))

    async def _read_gate(self, want: WantGate) -> None:
        self.ask(await self.loader.read_gate(want))

    async def _read_gates(self, want: WantGates) -> None:
        self.ask(await self.loader.read_gates(want))

    async def _read_timers(self, want: WantTimers) -> None:
        self.ask(await self.loader.read_timers(want))

    async def _read_finished(self, want: WantFinished) -> None:
        after = want.after
        for finished_id in await self.loader.read_finished(want):
            self.ask(SweepLogs(finished_id, after) if want.logs_only else PurgeFinished(finished_id))
            after = finished_id

    async def _read_lapsed(self, want: WantLapsed) -> None:
        lapsed = await self.loader.read_lapsed(want)
        if lapsed.ids:
            self.ask(lapsed)

    async def _read_fair(self, want: WantFair) -> None:
        self.ask(await self.loader.read_fair(want))

    async def _read_tasks(self, want: WantTasks) -> None:
        self.ask(await self.loader.read_tasks(want))

    async def _read_flow(self, want: WantFlow) -> None:
        self.ask(await self._flow_loader.read_flow(want))

    async def _read_items(self, want: WantItems) -> None:
        self.ask(await self._flow_loader.read_items(want))
