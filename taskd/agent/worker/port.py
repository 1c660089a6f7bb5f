"""The port: what user code may ask and tell of its attempt, by way of ``current()``."""

import time
from typing import Final

from msgspec import structs

from taskd.agent import wire
from taskd.agent.clock import Clock
from taskd.agent.metering import RATE_BYTES_PER_S
from taskd.agent.worker.link import Link
from taskd.agent.worker.speech import ROOM_LOOK_S, Speech
from taskd_protocol.errors import ServerBusy
from taskd_protocol.streams import DataLine
from taskd_protocol.task import TaskSpec

SIGN_NS: Final = 100_000_000
"""Signs without details that come sooner after the one before tell nothing new: no limit is under five times this."""

ROOM_RETRY_MS: Final = 1_000


class Port:
    """See ``taskd.client.context.Port``.

    Attributes:
        told: Coroutines that were told to end, by token.
        may_block: Attempts have their thread to themselves.
        speech: What attempts say.
    """

    def __init__(
        self, link: Link, clock: Clock, *, may_block: bool = True, bytes_per_s: int = RATE_BYTES_PER_S
    ) -> None:
        self.may_block = may_block
        self.told: set[int] = set()
        self.speech = Speech(link, clock, self.is_cancelled, bytes_per_s)
        self._link = link
        self._clock = clock
        self._sent_ns: dict[int, int] = {}  # latest signs by token, in the order sent; older than SIGN_NS: no matter

    def is_cancelled(self, token: int) -> bool:
        """Tell whether the attempt is to end."""
        link = self._link
        cancelled = link.page[wire.PAGE_CANCELLED : wire.PAGE_CANCELLED + link.places]
        return token in cancelled or token in self.told

    def beat(self, token: int, details: bytes) -> None:
        """Tell the agent that the attempt goes on, and how far it has come."""
        if self._link.forked:  # the parent speaks
            return
        now_ns = self._clock.mono_ns()
        sent_ns = self._sent_ns
        if not details and now_ns - sent_ns.get(token, now_ns - SIGN_NS) < SIGN_NS:
            return
        sent_ns.pop(token, None)
        sent_ns[token] = now_ns
        while now_ns - sent_ns[first := next(iter(sent_ns))] >= SIGN_NS:  # so it stays small, whoever has ended
            del sent_ns[first]
        self._link.tell(wire.Beat(token, details))

    def say(self, token: int, stream: int, line: DataLine) -> None:
        """Tell the agent what the attempt says."""
        self.speech.say(token, stream, structs.replace(line, at_ms=self.speech.now_ms()))

    def spawn(self, token: int, first: int, tasks: list[TaskSpec]) -> None:
        """Tell the agent what the attempt has spawned."""
        if not self._link.forked:
            self._link.tell(wire.Children(token, first, tasks))

    def wait_for_room(self, token: int) -> None:
        """Return once the agent takes more of what attempts spawn.

        Raises:
            ServerBusy: It does not, and the attempt may not wait here, or is to end.
        """
        while self._link.page[wire.PAGE_SPAWNS_FULL] and not self._link.forked:
            if not self.may_block or self.is_cancelled(token):
                raise ServerBusy(
                    "its agent holds as much as it may of what tasks have spawned and the server has not made: spawn"
                    " the rest later",
                    retry_after_ms=ROOM_RETRY_MS,
                )
            self.beat(token, b"")  # it is held up, and has not fallen silent
            time.sleep(ROOM_LOOK_S)
