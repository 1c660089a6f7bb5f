"""Rare states: what a campaign has to have seen before it proves anything, counted where it shows from the outside.

Those of the disk and of processes are counted by the disk and by the machines, all others here.
"""

from collections import defaultdict
from typing import TYPE_CHECKING

import trio

from simulation.checkers.checker import Checker
from simulation.checkers.l02_agents import SILENCE_SECONDS
from simulation.journal import Standing
from simulation.tap import Conversation
from taskd.core.attempts import RELEASED
from taskd.core.lifecycle import State
from taskd.core.records import LeaseRecord, Past, StateRecord
from taskd.core.working import EPOCH_BITS
from taskd_protocol.agent_messages import Ack, Lease, Nack, Offer, Offered, Recorded
from taskd_protocol.connection_messages import Error, Hello
from taskd_protocol.errors import (
    AgentDuplicate,
    DiskFull,
    JobLimit,
    QueueDraining,
    ServerBusy,
    SubmitConflict,
    SubmitTooOld,
    TaskCodes,
    UniqueHeld,
)
from taskd_protocol.messages import Accepted, Cancel, Cancelled, Message, Outcomes, Submit

if TYPE_CHECKING:
    from simulation.world import World

REFUSALS = {
    AgentDuplicate.code: "a second agent of a name refused",
    DiskFull.code: "submit refused on a full disk",
    ServerBusy.code: "refused as busy",
    SubmitConflict.code: "other work under a key refused",
    SubmitTooOld.code: "submit under an id of long ago refused",
    QueueDraining.code: "submit into a drained queue refused",
    UniqueHeld.code: "retry of work that another does refused",
    JobLimit.code: "one bulk job too many refused",
}

FAILURES = {
    TaskCodes.TIMED_OUT: "over its time and ended by its agent",
    TaskCodes.STALLED: "fallen silent and ended by its agent",
    TaskCodes.DEADLINE: "at its deadline and ended by its agent",
}

NONE = Past()


class Rare(Checker):
    """Counts; breaks nothing."""

    def __init__(self, world: "World") -> None:
        super().__init__(world)
        self._reported: dict[int, str] = {}  # outcomes, by token
        self._granted: defaultdict[bytes, dict[int, bytes]] = defaultdict(dict)  # tasks by token, of an agent's life
        self._heard_s: dict[Conversation, float] = {}
        self._cancels: dict[tuple[Conversation, int], list[str]] = {}  # states when the cancel was heard
        self._known: set[tuple[Conversation, int]] = set()  # submits of what is stored already
        self._offers: dict[Conversation, Offer] = {}
        self._newest: dict[str, Conversation] = {}

    def recovered(self) -> None:
        self._heard_s.clear()
        self._cancels.clear()
        self._known.clear()
        self._offers.clear()

    # -- what the server hears ----------------------------------------------------------

    def heard(self, conversation: Conversation, message: Message) -> None:
        world = self.world
        match message:
            case Submit():
                if any(world.journal.find(spec.id).spec is not None for spec in message.tasks):
                    self._known.add((conversation, message.request_id))
            case Cancel():
                states = [world.journal.find(task_id).name for task_id in message.ids]
                self._cancels[conversation, message.request_id] = states
            case Ack():
                self._reported.update((report.token, State.SUCCEEDED.value) for report in message.reports)
            case Nack():
                self._reported.update((failure.token, failure.outcome) for failure in message.failures)
                self._note_failures(message)
            case Offer() if conversation not in self._offers:
                self._offers[conversation] = message
                self._look_for_lost_grants(conversation, message)
            case _:
                pass
        self._note_sign(conversation, message)

    def _note_sign(self, conversation: Conversation, message: Message) -> None:
        if isinstance(message, Hello):
            self._newest[conversation.near.name] = conversation
        elif self._newest.get(conversation.near.name) is not conversation:
            self.world.reach("a frame of an old connection heard after the HELLO of the new one")
        if conversation in self._offers:
            now_s = trio.current_time()
            if now_s - self._heard_s.get(conversation, now_s) > SILENCE_SECONDS:
                self.world.reach("a stall of the server cost no agent its leases")
            self._heard_s[conversation] = now_s

    def _note_failures(self, message: Nack) -> None:
        for report in message.failures:
            if report.failure is not None and report.failure.code in FAILURES:
                self.world.reach(FAILURES[report.failure.code])
            if report.final:
                self.world.reach("failed for good by its own word")
            if report.retry_after_ms is not None:
                self.world.reach("asked for a wait of its own")

    def _look_for_lost_grants(self, conversation: Conversation, offer: Offer) -> None:
        assert conversation.hello is not None
        granted = self._granted[conversation.hello.boot_id]
        for held in offer.holding:
            granted.pop(held.token, None)
        for token, task_id in granted.items():
            lease = self.world.journal.find(task_id).lease
            if lease is not None and lease.token == token and token not in self._reported:
                self.world.reach("a lease lost on its way to its agent")
        granted.clear()

    # -- what it says ---------------------------------------------------------------------

    def said(self, conversation: Conversation, message: Message) -> None:
        match message:
            case Error() if message.code in REFUSALS:
                self.world.reach(REFUSALS[message.code])
            case Accepted():
                self._accepted(conversation, message)
            case Cancelled():
                self._cancelled(conversation, message)
            case Lease():
                self._leased(conversation, message)
            case Offered():
                self._offered(conversation, message)
            case Recorded():
                self._recorded(message)
            case Outcomes() if any(outcome.state == "unknown" for outcome in message.outcomes):
                self.world.reach("asked for a task that is kept no longer")
            case _:
                pass

    def _accepted(self, conversation: Conversation, message: Accepted) -> None:
        submit = conversation.requests.get(message.request_id)
        assert isinstance(submit, Submit)
        for index, _ in message.existing:
            is_unique = submit.tasks[index].rules.unique is not None
            self.world.reach("unique work found its first task" if is_unique else "a key found its first task")
        if (conversation, message.request_id) in self._known:
            self.world.reach("submit sent again found what it had stored")

    def _cancelled(self, conversation: Conversation, message: Cancelled) -> None:
        before = self._cancels.get((conversation, message.request_id), [])
        for was, state in zip(before, message.states, strict=False):
            if was == State.RUNNING and state == State.SUCCEEDED:
                self.world.reach("success came before the cancel")

    def _leased(self, conversation: Conversation, message: Lease) -> None:
        assert conversation.hello is not None
        for grant in message.grants:
            self._granted[conversation.hello.boot_id][grant.token] = grant.spec.id
            if grant.details:
                self.world.reach("an attempt went on where the one before was")
            if grant.mark_start:
                self.world.reach("an attempt granted alone after a loss")

    def _offered(self, conversation: Conversation, message: Offered) -> None:
        world, offer = self.world, self._offers.get(conversation)
        if message.stale:
            world.reach("an agent came back to leases it had lost")
        for held in offer.holding if offer is not None else ():
            standing = world.journal.find(held.id)
            if held.token in message.stale or standing.lease is None or standing.lease.token != held.token:
                continue
            if held.token >> EPOCH_BITS < world.journal.epoch:
                world.reach("an agent kept a lease over a restart of the server")
            if standing.lease.cancelling:
                world.reach("an agent came back to a cancel")
        if offer is not None:
            offer.holding.clear()

    def _recorded(self, message: Recorded) -> None:
        world = self.world
        for token in message.stale:
            task_id = world.journal.leases.get(token, (b"", 0, ""))[0]
            standing = world.journal.find(task_id)
            if standing.lease is not None and standing.lease.token > token:
                world.reach("a report after its task was granted anew called stale")
            elif standing.has_ended:
                world.reach("a report after its task had ended otherwise called stale")
        for token in message.tokens:
            if token >> EPOCH_BITS < world.journal.epoch:
                world.reach("a report for a former life of the server recorded")

    # -- what becomes durable -------------------------------------------------------------

    def moved(self, task_id: bytes, before: Standing, after: Standing) -> None:
        if _refunds(after.state) > _refunds(before.state or before.lease):
            self.world.reach("failures taken back by a quarantine")
        if after.spec is None:
            self.world.reach("purged")
        elif before.lease is not None and after.lease is None:
            self._ended(before, after)
        elif before.name == State.DEAD and after.name == State.READY:
            self.world.reach("a dead task ran again")
        elif before.name != after.name and before.name in {State.READY, State.SCHEDULED}:
            if after.name == State.EXPIRED:
                self.world.reach("expired in line")
            elif after.name == State.DEAD:
                self.world.reach("deadline passed between two attempts")
            elif after.name == State.CANCELLED and before.attempt:
                self.world.reach("cancelled between two attempts")

    def _ended(self, before: Standing, after: Standing) -> None:
        """A lease has ended."""
        assert before.lease is not None
        lease, state = before.lease, after.state
        reported = self._reported.get(lease.token)
        past, was = (state and state.past) or NONE, lease.past or NONE
        crashed = past.crashes > was.crashes
        facts = {
            "a lease given up while it was cancelling": after.name == State.CANCELLED and reported is None,
            "done before the cancel reached it": lease.cancelling and after.name == State.SUCCEEDED,
            "a lease given back": reported == RELEASED and after.name == State.READY,
            "lost with its agent at no charge": past.losses > was.losses,
            "crashed a second time": crashed and was.crashes,
            "lost after it had marked its start": crashed and lease.started and reported is None,
            "dead of crashes alone": crashed and after.name == State.DEAD and state and not state.failures,
            "dead because it may have run": after.name == State.DEAD and _may_have_run(state),
            "a result kept apart": state is not None and state.result_apart,
        }
        for name, holds in facts.items():
            if holds:
                self.world.reach(name)


def _refunds(record: StateRecord | LeaseRecord | None) -> int:
    return 0 if record is None or record.past is None else record.past.refunds


def _may_have_run(state: StateRecord | None) -> bool:
    return state is not None and state.failure is not None and state.failure.code == TaskCodes.MAYBE_RAN
