"""The hub: who is connected, who waits for what, and how effects reach them.

Knows sessions by connection number. What a session has waited for and was told is
forgotten; so is everything about a session that has gone.
"""

from collections.abc import Sequence
from typing import Protocol

import structlog
import trio

from taskd.core.effects import (
    AgentLost,
    AgentQuarantined,
    AgentReadmitted,
    AgentReplaced,
    Continue,
    Effect,
    JobsMoved,
    LogsAppended,
    ScheduleStopped,
    SendDrain,
    SendLease,
    SendRevoke,
    TasksEnded,
    TokenRevoked,
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
    WorkflowBroken,
)
from taskd_protocol.agent_messages import Drain, HostStats, Lease, Revoke
from taskd_protocol.errors import AuthRefused, ConnectionLost, TaskdError
from taskd_protocol.ids import TASK_ID_BYTES, format_task_id
from taskd_protocol.messages import Message
from taskd_protocol.task import Outcome

log = structlog.get_logger("taskd.server")


class Peer(Protocol):
    """A session as the hub sees it."""

    connection: int
    key_id: str
    version: int
    """Of the protocol, spoken with it."""

    def send_in_turn(self, message: Message) -> None:
        """Put a message into the outbox when there is room, behind those that wait for it."""

    def tell_outcomes(self, outcomes: list[Outcome]) -> None:
        """Tell of ends that the peer waits for, under its credit."""

    def tell_logs(self, task_id: bytes) -> None:
        """A task that it follows has more output, or has ended."""

    def end(self, why: TaskdError) -> None:
        """Tell why, and close."""

    def end_in_turn(self, why: TaskdError) -> None:
        """Let go out what waits to be sent, tell why, and close."""


class Hub:
    """The sessions.

    Attributes:
        follows: How many follow a task's output.
        paces: They are told of it at a pace; False: at once, since the clock stands still.
        hosts: What each connected agent measured last; by connection.
        jobs_moved: Set, and replaced, when bulk jobs have come further.
    """

    def __init__(self) -> None:
        self._peers: dict[int, Peer] = {}
        # Tuples, as nearly all hold one peer, and those can be one and the same.
        self._waiters: dict[bytes, tuple[Peer, ...]] = {}
        self.follows = 0
        self.paces = True
        self._followers: dict[bytes, tuple[Peer, ...]] = {}
        self.hosts: dict[int, HostStats] = {}
        self.jobs_moved = trio.Event()
        self._closed: TaskdError | None = None
        self._last_connection = 0

    def next_connection(self) -> int:
        """Return the number of a new connection; they rise."""
        self._last_connection += 1
        return self._last_connection

    @property
    def peers_count(self) -> int:
        """Sessions that there are."""
        return len(self._peers)

    def join(self, peer: Peer) -> None:
        """Take in a session.

        Raises:
            TaskdError: All sessions were ended, for this reason.
        """
        if self._closed is not None:
            raise self._closed
        self._peers[peer.connection] = peer

    def leave(self, peer: Peer, waited: set[bytes], followed: set[bytes]) -> None:
        """Forget a session, and what it waited for."""
        self._peers.pop(peer.connection, None)
        self.hosts.pop(peer.connection, None)
        for task_id in waited:
            _drop(self._waiters, task_id, peer)
        for task_id in followed:
            _drop(self._followers, task_id, peer)

    def wait(self, peer: Peer, ids: Sequence[bytes]) -> None:
        """Tell this session when these tasks end; asked twice, told once."""
        _add(self._waiters, ids, peer)

    def stop_waiting(self, peer: Peer, task_id: bytes) -> bool:
        """Forget that it waits; return whether it did."""
        return _drop(self._waiters, task_id, peer)

    def follow(self, peer: Peer, task_id: bytes) -> None:
        """Tell this session when the task has more output."""
        _add(self._followers, [task_id], peer)

    def stop_following(self, peer: Peer, task_id: bytes) -> None:
        """Forget that it follows."""
        _drop(self._followers, task_id, peer)

    def end_all(self, why: TaskdError) -> None:
        """End every session, each behind what it is owed, and take in no more."""
        self._closed = why
        for peer in list(self._peers.values()):
            peer.end_in_turn(why)

    def deliver(self, effect: Effect) -> None:  # noqa: C901, PLR0912 - one case an effect: the table itself
        """Carry out an effect that is durable."""
        match effect:
            case SendLease():
                peer = self._peers.get(effect.connection)
                if peer is not None:
                    peer.send_in_turn(Lease(effect.number, effect.pool, effect.grants))
            case TasksEnded():
                self._tell_ended(effect)
            case SendRevoke():
                peer = self._peers.get(effect.connection)
                if peer is not None:
                    peer.send_in_turn(Revoke(effect.tokens))
            case SendDrain():
                peer = self._peers.get(effect.connection)
                if peer is not None and peer.version > 1:  # an older one would go
                    peer.send_in_turn(Drain("a person drained this agent", stay=True))
            case AgentQuarantined():
                log.warning("agent in quarantine", agent=effect.agent, failures=effect.failures, tasks=effect.tasks)
            case AgentReadmitted():
                log.info("agent let in again", agent=effect.agent)
            case LogsAppended():
                for task_id in effect.ids:
                    self._tell_followers(task_id)
            case TokenRevoked():
                for peer in [peer for peer in self._peers.values() if peer.key_id == effect.key_id]:
                    peer.end(AuthRefused("the token was revoked; ask for another one"))
            case AgentReplaced():
                self._end_agent(effect)
            case AgentLost():
                log.warning("agent lost", agent=effect.agent, requeued=effect.requeued)
            case JobsMoved():
                self.jobs_moved.set()
                self.jobs_moved = trio.Event()
            case ScheduleStopped():
                event = "schedule cannot be read" if effect.broken else "schedule paused"
                log.warning(event, schedule=effect.name, reason=effect.why)
            case WorkflowBroken():
                log.error("workflow cannot be read", id=_id_text(effect.id), workflow=effect.name, reason=effect.why)
            case (
                WantLine()
                | WantGate()
                | WantGates()
                | WantTimers()
                | WantFinished()
                | WantLapsed()
                | WantFair()
                | WantTasks()
                | WantFlow()
                | WantItems()
                | Continue()
            ):
                raise AssertionError("the loop reads for the core itself")

    def _tell_ended(self, effect: TasksEnded) -> None:
        outcomes: dict[int, list[Outcome]] = {}
        waiters = self._waiters
        for ended in effect.ended:
            peers = waiters.pop(ended.id, None)
            if peers is not None:
                for peer in peers:
                    outcomes.setdefault(peer.connection, []).append(ended)
            if self._followers:
                self._tell_followers(ended.id)
        for connection, told in outcomes.items():
            self._peers[connection].tell_outcomes(told)

    def _tell_followers(self, task_id: bytes) -> None:
        for peer in self._followers.get(task_id, ()):
            peer.tell_logs(task_id)

    def _end_agent(self, effect: AgentReplaced) -> None:
        peer = self._peers.get(effect.connection)
        if peer is not None:
            # Retryable: an agent that was only stopped for a while connects again and is told what it lost.
            peer.end(ConnectionLost(f"agent {effect.agent!r} was silent for too long, or is on another connection now"))


def _id_text(raw: bytes) -> str:
    """Return an id as people write it; what stood where one should, in hexadecimal."""
    return format_task_id(raw) if len(raw) == TASK_ID_BYTES else raw.hex()


def _add(table: dict[bytes, tuple[Peer, ...]], ids: Sequence[bytes], peer: Peer) -> None:
    alone = (peer,)
    for task_id in ids:
        peers = table.get(task_id)
        if peers is None:
            table[task_id] = alone
        elif peer not in peers:
            table[task_id] = peers + alone


def _drop(table: dict[bytes, tuple[Peer, ...]], task_id: bytes, peer: Peer) -> bool:
    peers = table.get(task_id)
    if peers is None or peer not in peers:
        return False
    others = tuple([other for other in peers if other is not peer])
    if others:
        table[task_id] = others
    else:
        del table[task_id]
    return True
