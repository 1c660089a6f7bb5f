"""A seat: where one worker process after the other works.

Invariants:
- What a worker wrote before it died is taken in before it is judged.
- A worker that dies of itself is followed by another, after a pause that grows while none of them gets anything done.
- An agent's first worker may be killed as any other; only what it says itself, or its own exit, is about the modules.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec
import structlog
import trio

from taskd.agent import wire
from taskd.agent.executors.crash import signal_name
from taskd.agent.platform import Exit, Platform, WorkerProcess
from taskd_protocol.errors import ConfigInvalid, TaskdError
from taskd_protocol.framing import FrameDecoder

log = structlog.get_logger("taskd.agent")

PAUSE_MIN_S = 0.1
PAUSE_MAX_S = 30.0
"""Between two workers that got nothing done: a module that no longer imports is no reason to be busy."""

FIRST_MAX = 5
"""Of an agent's first workers, so many may be killed before they are ready: some two seconds, in which who is short of
memory may have got it back; what takes every one of them down is in the modules."""

SOFT_S = 2.0
"""From a blocking call's being told that it is cancelled to TERM: time for one that looks to end in its own way."""

TERM_S = 5.0
"""From TERM to KILL: time for user code to tidy up."""

_DECODER = msgspec.msgpack.Decoder(wire.FromWorker)


class Hand:
    """A worker process that is ready, and what of its words is not whole yet.

    Attributes:
        ended: Nothing is left of it.
        insane: It said what no worker says, and was killed for that.
        retired: It was asked to leave, to be followed by another.
    """

    def __init__(self, process: WorkerProcess) -> None:
        self.process = process
        self.ended = trio.Event()
        self.insane = False
        self.retired = False
        self._frames = FrameDecoder(wire.FRAME_BYTES)

    async def messages(self) -> list[wire.FromWorker] | None:
        """Wait for what it says; None: it has closed its end."""
        data = await self.process.receive()
        return self._decode(data) if data else None

    def messages_nowait(self) -> list[wire.FromWorker]:
        """Return what it has said."""
        return self._decode(self.process.receive_nowait())

    async def end(self) -> None:
        """End it: TERM, then KILL; return when nothing is left of it."""
        self.process.terminate()
        with trio.move_on_after(TERM_S):
            await self.ended.wait()
        self.process.kill()
        await self.ended.wait()

    async def retire(self) -> None:
        """Let it leave in its own time, if that is short; it has nothing to do."""
        self.retired = True
        self.process.hang_up()
        with trio.move_on_after(TERM_S):
            await self.ended.wait()
        self.process.kill()

    def _decode(self, data: bytes) -> list[wire.FromWorker]:
        """Read what it says; a worker whose pipe user code wrote to makes no sense any more, and is killed."""
        if self.insane:
            return []
        messages: list[wire.FromWorker] = []
        try:
            for body in self._frames.feed(data):
                message = _DECODER.decode(body)
                if type(message) is wire.Ends:
                    messages += message.ends
                else:
                    messages.append(message)
        except (TaskdError, msgspec.DecodeError) as error:
            log.warning("worker_makes_no_sense", pid=self.process.pid, reason=str(error)[:200])
            self._frames = FrameDecoder(wire.FRAME_BYTES)
            self.insane = True
            self.process.kill()
            return []
        return messages


class WorkerKilled(Exception):
    """A signal ended a worker before it was ready: that says nothing of what is configured."""


class Occupant(Protocol):
    """Whom the worker works for."""

    def joined(self, hand: Hand) -> None:
        """A worker is ready for batches."""
        ...

    async def listen(self, hand: Hand) -> None:
        """Listen to what attempts of the worker print, until it is dead."""
        ...

    def missing(self) -> None:
        """The worker that was to be here could not be started, or died before it got anything done."""
        ...

    def heard(self, hand: Hand, messages: Sequence[wire.FromWorker]) -> float:
        """Take in what a worker said; return for how many seconds it need not be listened to."""
        ...

    def left(self, hand: Hand, how: Exit, *, out_of_memory: bool) -> bool:
        """A worker is dead, and all that came from it; return whether it had got anything done."""
        ...


async def hire_first(platform: Platform) -> tuple[Hand, wire.Ready]:
    """Start an agent's first worker, again where one is killed before it is ready.

    Raises:
        ConfigInvalid: As ``hire``; or each of several was killed.
    """
    killed, pause_s = 0, PAUSE_MIN_S
    while True:
        try:
            return await hire(platform)
        except WorkerKilled as error:
            killed += 1
            if killed == FIRST_MAX:
                raise ConfigInvalid(
                    f"{error}, as were those before it: is memory short, or does a module crash when it is imported?"
                ) from None
            log.warning("worker_not_started", reason=str(error), again_in_s=pause_s)
        await trio.sleep(pause_s)
        pause_s *= 2


async def hire(platform: Platform) -> tuple[Hand, wire.Ready]:
    """Start a worker and wait until it has imported the modules, or failed to.

    Raises:
        ConfigInvalid: It cannot be started, or is no worker of this release.
        WorkerKilled: It was ended by a signal before it was ready.
    """
    process = await platform.spawner.worker()
    hand = Hand(process)
    try:
        return hand, await _readiness(hand)
    except BaseException:
        process.close()
        raise


async def _readiness(hand: Hand) -> wire.Ready:
    messages: list[wire.FromWorker] | None = []
    while messages == []:
        messages = await hand.messages()
    if messages is None:
        how = await hand.process.wait()
        if how.code < 0:
            raise WorkerKilled(f"a worker was ended by {signal_name(-how.code)} before it was ready")
        raise ConfigInvalid(
            f"a worker ended before it was ready (exit code {how.code}):"
            " is taskd installed for the Python that --python names?"
        )
    ready = messages[0]
    if not isinstance(ready, wire.Ready) or ready.version != wire.VERSION:
        raise ConfigInvalid("the Python that --python names has another release of taskd: install this one")
    return ready


class Seat:
    """Keeps one worker at work."""

    def __init__(self, platform: Platform, occupant: Occupant, setup: wire.Setup) -> None:
        self._closed = False
        self._empty = trio.CancelScope()
        self._platform = platform
        self._occupant = occupant
        self._setup = setup
        self._pause_s = 0.0

    async def run(self, first: Hand | None = None) -> None:
        """Have workers work, one after the other, until the seat is closed; ``first`` is one that is ready."""
        hand = first
        while not self._closed:
            if hand is None:
                with trio.CancelScope() as self._empty:
                    await trio.sleep(self._pause_s)
                    hand = await self._hire()
            done = hand is not None and await self._serve(hand)
            hand = None
            self._pause_s = 0.0 if done else min(max(self._pause_s * 2, PAUSE_MIN_S), PAUSE_MAX_S)
            if not done:
                self._occupant.missing()

    def close(self) -> None:
        """Have ``run`` return when the worker of now, if there is one, has ended."""
        self._closed = True
        self._empty.cancel()

    async def _hire(self) -> Hand | None:
        """Start a worker that knows the modules; None when that failed, and was logged."""
        try:
            hand, ready = await hire(self._platform)
        except (ConfigInvalid, WorkerKilled) as error:
            log.warning("worker_not_started", reason=str(error), again_in_s=self._pause_s)
            return None
        if ready.error:
            log.warning("worker_not_started", reason=ready.error, again_in_s=self._pause_s)
            hand.process.close()
            return None
        return hand

    async def _serve(self, hand: Hand) -> bool:
        """Have one worker work until it is dead; return whether it got anything done."""
        try:
            return not self._closed and await self._work(hand)
        finally:
            hand.process.close()

    async def _work(self, hand: Hand) -> bool:
        process = hand.process
        oom_kills = self._platform.oom_kills()
        process.send(wire.encode(self._setup))
        self._occupant.joined(hand)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(process.pump)
            nursery.start_soon(self._listen, hand)
            nursery.start_soon(self._occupant.listen, hand)
            how = await process.wait()
            nursery.cancel_scope.cancel()
        hand.ended.set()
        self._occupant.heard(hand, hand.messages_nowait())
        log.log(
            _LOG_LEVELS[self._closed or how.ordered or hand.retired],
            "worker_ended",
            pid=process.pid,
            exit_code=how.code,
        )
        out_of_memory = self._platform.oom_kills() > oom_kills
        return self._occupant.left(hand, how, out_of_memory=out_of_memory)

    async def _listen(self, hand: Hand) -> None:
        while True:
            messages = await hand.messages()
            if messages is None:
                return
            pause_s = self._occupant.heard(hand, messages)
            if pause_s:
                await trio.sleep(pause_s)


_LOG_LEVELS = {True: 10, False: 30}
"""Debug for an end that was asked for, warning for one that was not."""
