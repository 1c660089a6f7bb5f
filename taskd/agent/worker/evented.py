"""Coroutines: what is alike on every event loop.

Tasks are started straight from the batch, up to the concurrency; their results
are written once per round of the loop.
"""

from collections import deque
from collections.abc import Callable
from typing import cast

from taskd.agent import wire
from taskd.agent.clock import Clock
from taskd.agent.worker import calls
from taskd.agent.worker.link import Link
from taskd.agent.worker.watched import UserCoroutine, Watched
from taskd.client.context import TaskContext, running
from taskd_protocol.errors import TaskCodes
from taskd_protocol.task import Failure, Grant

FLUSH_BYTES = 1024 * 1024
"""Results that are written before the loop's round is over, so that no frame holds many large ones."""


class Floor:
    """The coroutines that run, those that wait for room, and the results that wait to be written.

    Attributes:
        running: What to call to cancel each attempt, by token.
        told: Attempts that were cancelled on the agent's order.
    """

    def __init__(
        self,
        link: Link,
        functions: calls.Functions,
        clock: Clock,
        *,
        concurrency: int,
        start: Callable[[Grant], Callable[[], object]],
        soon: Callable[[Callable[[], None]], object],
        told: set[int],
    ) -> None:
        """Prepare.

        Args:
            link: To the agent.
            functions: By task name.
            clock: For run times.
            concurrency: Attempts at the same time.
            start: Starts ``attempt`` on the loop; returns what cancels it.
            soon: Has the loop call something in its next round.
            told: To be kept to be the attempts that were cancelled.
        """
        self.running: dict[int, Callable[[], object]] = {}
        self.told = told
        self._link = link
        self._functions = functions
        self._clock = clock
        self._start = start
        self._soon = soon
        self._concurrency = concurrency
        self._waiting: deque[Grant] = deque()
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
                self._zero_at_ms = self._clock.wall_ms() + message.clock_ahead_ms - self._clock.mono_ns() // 1_000_000
                self._result_bytes_max = message.result_bytes_max
                self._waiting.extend(message.grants)
                self._timed.update(message.timed)
                self._fill()
            elif isinstance(message, wire.Stop):
                self._stop(message.tokens)
        return True

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
            end = Failure(TaskCodes.CANCELLED, "cancelled") if stopped else calls.raised(error, spec.retry)
            if isinstance(error, cancelled):
                raise  # the loop keeps count of its cancellations
        finally:
            page[wire.PAGE_RUNNING] = 0
            if self.told:
                self.told.discard(token)
            del self.running[token]
            run_us = (self._clock.mono_ns() - start_ns) / 1_000
            started_at_ms = self._zero_at_ms + start_ns // 1_000_000
            if context.family is not None:
                end = calls.with_family(context.family, end)
            self._tell(
                wire.Returned(token, end, started_at_ms, run_us)
                if isinstance(end, bytes)
                else calls.bad_end(token, end, started_at_ms, run_us)
            )
            if self._waiting:
                self._fill()

    def _fill(self) -> None:
        waiting = self._waiting
        while waiting and len(self.running) < self._concurrency:
            grant = waiting.popleft()
            token = grant.token
            if self._timed and token in self._timed:
                self._timed.discard(token)
                self._link.tell(wire.Started(token))
            self.running[token] = self._start(grant)

    def _stop(self, tokens: list[int]) -> None:
        dropped = {grant.token for grant in self._waiting}.intersection(tokens)
        self._waiting = deque([grant for grant in self._waiting if grant.token not in dropped])
        self._timed.difference_update(dropped)
        for token in tokens:
            if token in dropped:
                self._tell(wire.Raised(token, Failure(TaskCodes.CANCELLED, "cancelled"), 0, 0.0))
            elif token in self.running:
                self.told.add(token)
                # In the next round: an attempt that has not taken its first step could not tell its end.
                self._soon(self.running[token])  # type: ignore[arg-type]  # what it returns is of no interest

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
