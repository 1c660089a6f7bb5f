"""Crew: which worker process has which leases.

A worker gets as much as it is thought to finish within ``BATCH_US``, so that the
cost of handing over is shared, and a task of unknown or long run time alone, so
that nothing waits behind it. Where the guess was wrong, what waits behind a long
task is taken back and dealt to others. One that was lost before, that may run at most
once, that is exclusive, or that holds something has a worker to itself, so that a crash or kill is its own. What is
run in one call is handed over together, to a worker that has nothing else.

Invariants:
- A lease is with one worker at most. One that was taken back will not be started where it was.
- Of a worker that died only the lease that it was running can be blamed, or those that it ran in one call.

Pure: the shell writes to workers, reads what they run, and tells time by calling.
"""

from collections.abc import Iterable
from typing import Final

from taskd.agent.slots import AHEAD_BYTES, Slots, argument_bytes, runs_alone
from taskd_protocol.resources import GPU
from taskd_protocol.task import Grant

BATCH_US = 10_000.0
"""Work that one worker has at a time."""

BATCH_TASKS = 512
"""Tasks that one worker has at a time, however short they are."""

BATCH_BYTES = 1024 * 1024
"""Arguments in one batch, unless one task alone has more: it is what a pipe is asked to hold."""


class Member:
    """One worker as the crew sees it.

    Attributes:
        assigned: Leases by token, in the order of their running, from handing over to the end.
        batch: Number of the last batch that was handed over; numbers start from 1.
        recalling: The last batch was recalled and the worker has not confirmed it: it is dealt nothing.
        leaving: It is being ended, or has ended: it is dealt nothing.
        ended: Leases that it is done with.
        gpus: Those of the first attempt here that held any. A library that has opened them keeps to these, whatever the
            environment says later: so a worker never gets others.
        call: First token of what it has, if that is run in one call, for all of which it shows that one; 0: it is not.
    """

    __slots__ = ("assigned", "batch", "call", "cost_us", "ended", "ended_at_look", "gpus", "leaving", "recalling")

    def __init__(self) -> None:
        self.assigned: dict[int, Grant] = {}
        self.batch = 0
        self.recalling = False
        self.leaving = False
        self.cost_us = 0.0
        self.ended = 0
        self.ended_at_look = -1
        self.gpus: tuple[str, ...] = ()
        self.call = 0

    @property
    def has_behind(self) -> bool:
        """Leases wait there behind another."""
        return len(self.assigned) > 1 and not self.call

    @property
    def is_plain(self) -> bool:
        """It has leases that hold nothing."""
        return any(grant.granted is None for grant in self.assigned.values())


class Crew:
    """All workers of one pool."""

    def __init__(self, slots: Slots) -> None:
        self.members: Final[list[Member]] = []
        self._slots = slots
        self._unfit: list[Member] = []

    def deal(self, now_ns: int = 0) -> list[tuple[Member, list[Grant]]]:
        """Hand waiting leases to workers; return a batch for each that gets one, ``batch`` counted up.

        Args:
            now_ns: By a clock that never steps, for what waits for others of its name.
        """
        slots = self._slots
        dealt: list[tuple[Member, list[Grant]]] = []
        if slots.holding_waits:
            dealt = self._deal_holding()
            if slots.holding_waits:
                return dealt  # for a worker: what gets done in a moment makes room, and nothing is put before them
        if slots.gathering.count and not self._deal_together(dealt, now_ns):
            return dealt  # likewise
        self._deal_alone(dealt)
        if slots.gathering.count:
            self._deal_together(dealt, now_ns)
        return dealt

    def _deal_together(self, dealt: list[tuple[Member, list[Grant]]], now_ns: int) -> bool:
        """Hand over what is to be run in one call, where it came first; return False if it waits for a worker."""
        slots = self._slots
        while first := slots.gathering.ripe(now_ns):
            head = slots.peek()
            if head is not None and head.token < first:
                break
            idle = [m for m in self.members if not (m.assigned or m.recalling or m.leaving)]
            if not idle or sum([member.is_plain for member in self.members]) >= slots.open_slots:
                return False
            call = slots.gathering.take(first, argument_bytes, AHEAD_BYTES)
            dealt.append((idle[0], call))
            self._assign(idle[0], call, BATCH_US, together=True)
        return True

    def _assign(self, member: Member, batch: list[Grant], cost_us: float, *, together: bool = False) -> None:
        member.batch += 1
        member.assigned.update({grant.token: grant for grant in batch})
        member.cost_us = cost_us
        member.call = batch[0].token if together else 0
        if together:
            self._slots.gathering.riding += len(batch) - 1

    def _got_off(self, member: Member, before: int) -> None:
        """Count leases out that a worker had, beyond one, to run in one call."""
        if member.call:
            self._slots.gathering.riding -= max(0, before - 1) - max(0, len(member.assigned) - 1)

    def _deal_alone(self, dealt: list[tuple[Member, list[Grant]]]) -> None:
        """Hand over leases that hold nothing, and wait for no others."""
        slots = self._slots
        waiting = slots.waiting_alone
        if not waiting:
            return
        open_slots = slots.open_slots
        busy = 0 if open_slots == slots.count else sum([member.is_plain for member in self.members])
        free = [
            member
            for member in self.members
            if member.cost_us < BATCH_US / 2 and not member.recalling and not member.leaving
        ]
        if len(free) > 1:
            free.sort(key=_cost)
        for left, member in zip(range(len(free), 0, -1), free, strict=True):
            if busy >= open_slots and not member.assigned:
                continue
            batch = self._batch(member, -(-waiting // left))
            if batch:
                waiting -= len(batch)
                busy += not member.assigned
                self._assign(member, batch, member.cost_us, together=self._runs_together(batch[0]))
                dealt.append((member, batch))

    def _runs_together(self, grant: Grant) -> bool:
        """Tell whether its function takes many; one that runs alone is given to it alone."""
        rules = self._slots.gathering.rules
        return bool(rules) and grant.spec.name in rules

    def _deal_holding(self) -> list[tuple[Member, list[Grant]]]:
        """Hand leases that hold something to workers that have nothing else."""
        dealt: list[tuple[Member, list[Grant]]] = []
        idle = [m for m in self.members if not (m.assigned or m.recalling or m.leaving)]
        while idle and (grant := self._slots.take_holding()) is not None:
            gpus = gpus_of(grant)
            member = min(idle, key=lambda m: (m.gpus != gpus, bool(m.gpus)))  # its own, then one that has seen none
            idle.remove(member)
            if gpus and member.gpus not in {(), gpus}:
                self._slots.put_back([grant])
                if not any(other.leaving for other in self.members):  # else a new one is on its way
                    member.leaving = True
                    self._unfit.append(member)
                break
            member.gpus = member.gpus or gpus
            self._assign(member, [grant], BATCH_US, together=self._runs_together(grant))
            dealt.append((member, [grant]))
        return dealt

    def take_unfit(self) -> list[Member]:
        """Return workers, once each, that are to leave: their libraries keep to GPUs that others are to use."""
        unfit, self._unfit = self._unfit, []
        return unfit

    def ended(self, member: Member, tokens: Iterable[int]) -> None:
        """Take note that a worker is done with these."""
        assigned = member.assigned
        before = len(assigned)
        for token in tokens:
            assigned.pop(token, None)
        member.ended += before - len(assigned)
        if member.call:
            self._got_off(member, before)
        if assigned:
            member.cost_us *= len(assigned) / before
        else:
            member.cost_us = 0.0
            member.recalling = False  # nothing is left that it could start

    def held_up(self) -> list[Member]:
        """Return the workers that ended nothing since the last call while leases wait behind what they run."""
        stuck: list[Member] = []
        for member in self.members:
            if member.has_behind and member.ended == member.ended_at_look and not member.recalling:
                stuck.append(member)
            member.ended_at_look = member.ended
        return stuck

    def recalled(self, member: Member, running: int) -> list[Grant]:
        """Take back all that a worker has not started, after a recall that it can no longer miss.

        Args:
            member: Whose.
            running: The token that it runs now, 0 for none; it stays there, and what is run in one call with it.

        Returns:
            What was taken back; it waits again.
        """
        stays = member.call and running == member.call
        back = [] if stays else [grant for token, grant in member.assigned.items() if token != running]
        before = len(member.assigned)
        for grant in back:
            del member.assigned[grant.token]
        self._got_off(member, before)
        member.recalling = bool(member.assigned)
        member.cost_us = BATCH_US if member.assigned else 0.0
        self._slots.put_back(back)
        return back

    def left(self, member: Member, running: int) -> tuple[list[Grant], list[Grant]]:
        """Take back all that a dead worker had.

        Returns:
            The lease that it died of, if it was running one, or those that it ran in one call; and the others, which
            wait again.
        """
        before = len(member.assigned)
        if member.call:  # of which some may have been told to have ended
            ran = list(member.assigned.values()) if running == member.call else []
        else:
            ran = [member.assigned[running]] if running in member.assigned else []
        back = [] if ran and member.call else [grant for grant in member.assigned.values() if grant.token != running]
        member.assigned.clear()
        self._got_off(member, before)
        self._slots.put_back(back)
        self.members.remove(member)
        return ran, back

    def _batch(self, member: Member, share: int) -> list[Grant]:
        slots = self._slots
        batch: list[Grant] = []
        cost_us, bytes_left = member.cost_us, BATCH_BYTES
        room = min(share, BATCH_TASKS - len(member.assigned))
        while len(batch) < room and (head := slots.peek()) is not None:
            if runs_alone(head):
                if not batch and not member.assigned:
                    batch, cost_us = slots.take_run(1, bytes_left), BATCH_US
                break
            pace = slots.pace_of(head.spec.name)
            expected_us = pace.mean_us if pace.samples else BATCH_US
            fit = int((BATCH_US - cost_us) / expected_us)
            if not batch and not member.assigned:
                fit = max(fit, 1)
            elif fit < 1 or argument_bytes(head) > bytes_left:  # below 0 behind one that takes longer
                break
            run = slots.take_run(min(fit, room - len(batch)), bytes_left)
            batch += run
            cost_us += expected_us * len(run)
            bytes_left -= sum([argument_bytes(grant) for grant in run])
        member.cost_us = cost_us
        return batch


def gpus_of(grant: Grant) -> tuple[str, ...]:
    """Return the GPUs that a lease holds."""
    holds = [] if grant.granted is None else grant.granted.holds
    return next((tuple(hold.items) for hold in holds if hold.name == GPU), ())


def _cost(member: Member) -> float:
    return member.cost_us
