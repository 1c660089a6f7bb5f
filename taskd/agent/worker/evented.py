"""Coroutines: what is alike on every event loop.

Tasks are started straight from the batch, up to the concurrency; their results
are written once per round of the loop.
"""

from collections import deque
from collections.abc import Callable, Coroutine
from typing import cast

from msgspec import structs

from taskd.agent import wire
from taskd.agent.clock import Clock
from taskd.agent.worker import calls, together
from taskd.agent.worker.joining import join_trace
from taskd.agent.worker.link import Link
from taskd.agent.worker.printing import SharedPrinting
from taskd.agent.worker.speech import Speech
from taskd.agent.worker.watched import UserCoroutine, Watched
from taskd.client.context import TaskContext, running
from taskd_protocol.errors import TaskCodes
from taskd_protocol.task import Failure, Grant

FLUSH_BYTES = 1024 * 1024
"""Results that are written before the loop's round is over, so that no frame holds many large ones."""


_CANCELLED = Failure(TaskCodes.CANCELLED, "cancelled")


class Floor:
    """The coroutines that run, those that wait for room, and the results that wait to be written.

    Attributes:
        running: What to call to cancel each attempt, by token; of many in one call, by the first's.
        told: Attempts that were cancelled on the agent's order.
    """

    def __init__(
        self,
        link: Link,
        functions: calls.Functions,
        clock: Clock,
        *,
        concurrency: int,
        start: Callable[[Grant | list[Grant]], Callable[[], object]],
        soon: Callable[[Callable[[], None]], object],
        told: set[int],
        speech: Speech,
    ) -> None:
        """Prepare.

        Args:
            link: To the agent.
            functions: By task name.
            clock: For run times.
            concurrency: Attempts at the same time.
            start: Starts ``run`` on the loop; returns what cancels it.
            soon: Has the loop call something in its next round.
            told: To be kept to be the attempts that were cancelled.
            speech: What attempts say.
        """
        self.running: dict[int, Callable[[], object]] = {}
        self.told = told
        self._link = link
        self._speech = speech
        self._printing = SharedPrinting(speech)
        self._functions = functions
        self._clock = clock
        self._start = start
        self._soon = soon
        self._concurrency = concurrency
        self._waiting: deque[Grant] = deque()
        self._calls: deque[list[Grant]] = deque()  # that wait, too
        self._first: dict[int, int] = {}  # of those that run in one call, by token
        self._timed: set[int] = set()  # of these the agent wants to know when they start
        self._ends: list[wire.Returned | wire.Raised] = []
        self._ends_bytes = 0
        self._zero_at_ms = 0  # when the monotonic clock was 0, by the server's clock
        self._result_bytes_max = 0

    def readable(self) -> bool:
        """Take in what the agent said; return False when it closed the link."""
        try:
            messages = self._link.receive()
        except EOFError:
            return False
        for message in messages:
            if isinstance(message, wire.Batch):
                self._speech.ahead_ms = message.clock_ahead_ms
                self._zero_at_ms = self._clock.wall_ms() + message.clock_ahead_ms - self._clock.mono_ns() // 1_000_000
                self._result_bytes_max = message.result_bytes_max
                if message.together:
                    self._calls.append(message.grants)
                else:
                    self._waiting.extend(message.grants)
                self._timed.update(message.timed)
                self._fill()
            elif isinstance(message, wire.Stop):
                self._stop(message.tokens)
        return True

    def run(self, what: Grant | list[Grant], cancelled: type[BaseException]) -> Coroutine[object, object, None]:
        """Return what runs one attempt, or many in one call, and tells its end; see ``attempt``."""
        return self.attempt(what, cancelled) if isinstance(what, Grant) else self._attempt_together(what, cancelled)

    async def attempt(self, grant: Grant, cancelled: type[BaseException]) -> None:
        """Run one attempt and tell its end.

        Args:
            grant: What to run.
            cancelled: What the loop raises in a coroutine that is cancelled.
        """
        token, spec, page = grant.token, grant.spec, self._link.page
        start_ns = self._clock.mono_ns()
        end: bytes | Failure | calls.Thrown
        context = TaskContext(grant, None, None if grant.spawned is None else wire.found_of(grant))
        running.set(context)
        join_trace(context)
        try:
            function = self._functions.get(spec.name)
            arguments = calls.read_arguments(spec)
            if function is None:
                end = calls.unknown(spec.name)
            elif isinstance(arguments, Failure):
                end = arguments
            else:
                args, kwargs = arguments
                coro = cast("UserCoroutine", function(*args, **kwargs))
                page[wire.PAGE_RUNNING] = token
                try:  # the first step here and not by `Watched`: it is the last of most, and that saves 1 us
                    waits_for = coro.send(None)
                except StopIteration as stop:
                    result = stop.value
                else:
                    page[wire.PAGE_RUNNING] = 0
                    result = await Watched(coro, waits_for, token, page)
                end = calls.pack_result(result, self._result_bytes_max)
        except BaseException as error:
            stopped = isinstance(error, cancelled) and token in self.told
            end = _CANCELLED if stopped else calls.raised(error, spec.retry)
            if isinstance(error, cancelled):
                raise  # the loop keeps count of its cancellations
        finally:
            page[wire.PAGE_RUNNING] = 0
            if self.told:
                self.told.discard(token)
            del self.running[token]
            self._ended(token)
            run_us = (self._clock.mono_ns() - start_ns) / 1_000
            started_at_ms = self._zero_at_ms + start_ns // 1_000_000
            if context.family is not None:
                end = calls.with_family(context.family, end)
            self._tell(
                wire.Returned(token, end, started_at_ms, run_us)
                if isinstance(end, bytes)
                else calls.bad_end(token, end, started_at_ms, run_us)
            )
            if self._waiting or self._calls:
                self._fill()

    async def _attempt_together(self, grants: list[Grant], cancelled: type[BaseException]) -> None:
        """Run many attempts in one call; if one of them is to end, the call is, and the others have not failed."""
        first, start_ns = grants[0].token, self._clock.mono_ns()
        call = together.Call(self._functions, grants)
        stopped = False
        try:
            if call.items:
                coro = cast("UserCoroutine", self._functions[grants[0].spec.name](call.items))
                call.returned(await self._watched(coro, first), self._result_bytes_max)
        except BaseException as error:
            call.raised(error)
            if isinstance(error, cancelled):
                stopped = any(grant.token in self.told for grant in grants)
                raise  # the loop keeps count of its cancellations
        finally:
            self._link.page[wire.PAGE_RUNNING] = 0
            del self.running[first]
            each_us = (self._clock.mono_ns() - start_ns) / 1_000 / len(grants)
            for token, end in call.ends.items():
                self._ended(token)
                told = together.told(token, end, self._zero_at_ms + start_ns // 1_000_000, each_us)
                if stopped and isinstance(told, wire.Raised):
                    told = structs.replace(told, failure=_CANCELLED, released=token not in self.told)
                self.told.discard(token)
                del self._first[token]
                self._tell(told)
            self._fill()

    async def _watched(self, coro: UserCoroutine, token: int) -> object:
        page = self._link.page
        page[wire.PAGE_RUNNING] = token
        try:
            waits_for = coro.send(None)
        except StopIteration as stop:
            return stop.value
        page[wire.PAGE_RUNNING] = 0
        return await Watched(coro, waits_for, token, page)

    def _fill(self) -> None:
        while self._calls and len(self.running) < self._concurrency:
            grants = self._calls.popleft()
            tokens = [grant.token for grant in grants]
            for token in self._timed.intersection(tokens):
                self._link.tell(wire.Started(token))
            self._timed.difference_update(tokens)
            self._first.update(dict.fromkeys(tokens, tokens[0]))
            self.running[tokens[0]] = self._start(grants)
        waiting = self._waiting
        while waiting and len(self.running) < self._concurrency:
            grant = waiting.popleft()
            token = grant.token
            if self._timed and token in self._timed:
                self._timed.discard(token)
                self._link.tell(wire.Started(token))
            self.running[token] = self._start(grant)

    def _stop(self, tokens: list[int]) -> None:
        waiting = [*self._waiting, *(grant for call in self._calls for grant in call)]
        dropped = {grant.token for grant in waiting}.intersection(tokens)
        self._waiting = deque([grant for grant in self._waiting if grant.token not in dropped])
        calls_left = [[grant for grant in call if grant.token not in dropped] for call in self._calls]
        self._calls = deque(filter(None, calls_left))
        self._timed.difference_update(dropped)
        for token in tokens:
            if token in dropped:
                self._tell(wire.Raised(token, _CANCELLED, 0, 0.0))
            elif (first := self._first.get(token, token)) in self.running:
                self.told.add(token)
                # In the next round: an attempt that has not taken its first step could not tell its end.
                self._soon(self.running[first])  # type: ignore[arg-type]  # what it returns is of no interest

    def _ended(self, token: int) -> None:
        """Say what is left to be said of an attempt."""
        self._printing.ended(token)
        self._speech.ended(token)

    def _tell(self, end: wire.Returned | wire.Raised) -> None:
        if not self._ends:
            self._soon(self._flush)
        self._ends.append(end)
        if isinstance(end, wire.Returned):
            self._ends_bytes += len(end.result)
            if self._ends_bytes > FLUSH_BYTES:
                self._flush()

    def _flush(self) -> None:
        if self._ends:
            ends, self._ends, self._ends_bytes = self._ends, [], 0
            self._link.tell(wire.Ends(ends))
