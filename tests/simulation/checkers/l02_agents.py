"""L2, S18: an agent that comes back goes on with what it holds, and hears what is to end; none is given up early."""

from typing import NamedTuple

import trio

from simulation.checkers.checker import Checker
from simulation.tap import Conversation
from taskd_protocol.agent_messages import Ack, HeartbeatSeen, Nack, Offer, Offered, Revoke
from taskd_protocol.limits import HEARTBEAT_MS, HEARTBEATS_MISSED
from taskd_protocol.messages import Message
from taskd_protocol.task import Held

SILENCE_SECONDS = HEARTBEAT_MS * HEARTBEATS_MISSED / 1_000
NOTED_SECONDS = 1.0
"""What an agent says is noted as a sign of life so often."""


class Returns(NamedTuple):
    """How an agent came back.

    Attributes:
        at_s: When its first OFFER was heard.
        holding: What it held.
        cancelling: What of that was to be cancelled when it was taken in.
    """

    at_s: float
    holding: list[Held]
    cancelling: set[int]


class Agents(Checker):
    """Compares what agents hold and say with what the server makes of it."""

    promise = "L2/S18"

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]  # the one argument
        self._heard_s: dict[str, float] = {}
        self._silent_s: dict[str, float] = {}  # for how long at most, since the server's start or it was given up
        self._started_s = 0.0
        self._reported: set[int] = set()
        self._returns: dict[Conversation, Returns] = {}
        self._taken_in: set[Conversation] = set()  # another process of the name may talk, too, and is refused

    def heard(self, conversation: Conversation, message: Message) -> None:
        if conversation in self._taken_in:
            self._note(conversation.name, trio.current_time())
        if isinstance(message, Offer) and conversation not in self._returns:
            self._returns[conversation] = Returns(trio.current_time(), list(message.holding), set())
        elif isinstance(message, Ack):
            self._reported.update(report.token for report in message.reports)
        elif isinstance(message, Nack):
            self._reported.update(failure.token for failure in message.failures)

    def said(self, conversation: Conversation, message: Message) -> None:
        returns = self._returns.get(conversation)
        if returns is None:
            return
        if isinstance(message, Offered):
            if conversation not in self._taken_in:
                self._note(conversation.name, returns.at_s)
            self._taken_in.add(conversation)
            self._compare(conversation, returns, set(message.stale))
            returns.holding.clear()  # a later OFFER of the connection is about what the agent has, not what it holds
        elif isinstance(message, Revoke):
            returns.cancelling.difference_update(message.tokens)
        elif isinstance(message, HeartbeatSeen) and returns.cancelling:
            self.broken(
                f"{conversation.name} came back with {sorted(returns.cancelling)}, and was not told to end them"
            )

    def lost(self, agent: str) -> None:
        self._note(agent, trio.current_time())
        silent_s = self._silent_s.pop(agent)
        if silent_s < SILENCE_SECONDS - NOTED_SECONDS:
            self.broken(f"{agent} was given up, and was silent for {silent_s:.1f} s at most")

    def recovered(self) -> None:
        self._started_s = trio.current_time()
        self._heard_s.clear()
        self._silent_s.clear()
        self._returns.clear()
        self._taken_in.clear()

    def _note(self, agent: str, at_s: float) -> None:
        last_s = self._heard_s.get(agent, self._started_s)
        self._silent_s[agent] = max(at_s - last_s, self._silent_s.get(agent, 0.0))
        self._heard_s[agent] = max(at_s, last_s)

    def _compare(self, conversation: Conversation, returns: Returns, stale: set[int]) -> None:
        for held in returns.holding:
            if held.token in stale or held.token in self._reported:
                continue
            standing = self.world.journal.find(held.id)
            if standing.lease is None or standing.lease.token != held.token:
                self.broken(f"{conversation.name} came back with {held.token}, and it was taken from it unsaid")
            elif standing.lease.cancelling:
                returns.cancelling.add(held.token)
