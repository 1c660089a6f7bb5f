"""Placement: which agent gets which ready tasks.

One pass a turn. It looks at lines and pools, never at the tasks behind a line's
head; of lines it looks at those that it grants to, and at those that may have room since the
pass before. Queues take turns by their weights (``shares``); within a queue the lowest rank of all its
lines goes first (``rows``), so that priorities, and the order of submits within one, hold across names. Tasks that
have fair keys (``fair``) are another row of their queue.

Tasks that ask for nothing but a slot are dealt out in numbers (``dealing``); those that ask for something one by
one, where there is room now (``choosing``). Both become leases in ``granting``.
"""

from typing import Final

from taskd.core import choosing, holdups, limiting, preemption, records
from taskd.core.choosing import Choosing
from taskd.core.commands import GoOn, Now
from taskd.core.dealing import Dealing
from taskd.core.effects import Continue, SendLease
from taskd.core.fair import UNIT
from taskd.core.fleet import Agent, PoolState
from taskd.core.granting import Granting
from taskd.core.lifecycle import State
from taskd.core.lines import ORDER_BITS, ORDER_MASK, RANK_BYTES, Entry, Line, Task
from taskd.core.rows import LOOSE, PLAIN, Row, shelf_of
from taskd.core.shares import Share, turn_tasks
from taskd.core.working import NEVER_MS, Working
from taskd_protocol.resources import Granted

_NO_BOUND = 1 << 128
"""Above every rank."""

GRANTED_MAX = 128
"""Tasks that ask for something, granted in one turn: some five milliseconds; the next turn goes on."""

PLACES_ASKED_MAX = 10_000
"""Places looked at in a pass to deal out tasks that ask for nothing: some five milliseconds, as above."""


class _Pass:
    """One pass: what is granted so far."""

    def __init__(self, w: Working, now: Now) -> None:
        self._w: Final = w
        self._now: Final = now
        self._granting: Final = Granting(w, now)
        self._dealing: Final = Dealing(w, self._granting, has_tasks=bool(w.shares.standing.get(PLAIN)))
        self._choosing: Choosing | None = None
        self._lines: dict[bytes, tuple[Line, int]] = {}  # with what they had at first
        self._aside: list[tuple[Agent, PoolState, int]] = []  # kept free, with their credit
        self._limited: Final = bool(w.limits or w.queues)
        self._count = 0  # tasks that were taken out of their lines
        self._granted = 0  # those of them that asked for something
        self._goes_on = True  # there is time
        self._reach = LOOSE  # the most CPUs that an agent has left which has more than before
        self._alone: Final = len(w.shares.queues) == 1
        self._turn_tasks: Final = _NO_BOUND if self._alone else turn_tasks(self._dealing.room_up_to, w.shares.weights)
        self._passed: list[tuple[Share, Line, int]] = []  # what was looked at, with the shelves to which it goes back
        self._served: dict[str, Share] = {}  # queues that have nothing more that fits
        self._refused: dict[str, Share] = {}  # those with a line that no agent has room for

    @property
    def is_cut_short(self) -> bool:
        """There is more that may be granted at once."""
        return not self._goes_on or (self._choosing is not None and self._choosing.released)

    # -- queues -------------------------------------------------------------------------

    def take_turns(self) -> None:
        """Serve the queue that is most behind, again and again, until there is no room or nothing that fits.

        First those for which agents are kept free, so that no other queue's tasks are dealt out to these.
        """
        w, shares = self._w, self._w.shares
        if len(shares.standing) > 1 and shares.may_be_served(_NO_BOUND, plain=False):
            self._choose()  # which tells what of it may be looked at
        if w.rooms.held:
            for queue in dict.fromkeys([w.lines_by_id[line_id].queue for line_id in w.rooms.held]):
                share = shares.queues.get(queue)
                if share is not None and share.turn is not None and self._goes_on:
                    self._take_turn(shares.take_out(share))
        while self._goes_on and shares.may_be_served(self._reach, plain=self._dealing.room > 0):
            share = shares.first(self._reach)
            if share is None:
                break
            self._take_turn(share)

    def _take_turn(self, share: Share) -> None:
        granted = self._serve_queue(share)
        if granted:
            self._w.shares.note(share, granted)
        plain, keyed = share.rows
        if (plain.count and self._first(plain)) or (keyed.count and self._first(keyed)):
            self._w.shares.give_back(share)
        else:
            self._served[share.name] = share

    def _serve_queue(self, share: Share) -> int:
        """Grant a queue's first tasks, of those that have fair keys and of the others, by the queue's time.

        Returns:
            How many were granted.
        """
        plain, keyed = share.rows
        began = self._count
        end = began + self._turn_tasks * share.weight
        if keyed.count:
            fair, queue = self._w.fair, share.name
            while self._count < end and self._goes_on and self._first(plain) and (shelf := self._first(keyed)):
                ahead = (shelf[0][0] >> ORDER_BITS) - fair.plain_at(queue)
                left = end - self._count
                if ahead >= 0:
                    fair.note_plain(queue, self._serve_row(share, plain, min(left, ahead // UNIT + 1)))
                else:
                    self._serve_row(share, keyed, left, before=fair.plain_at(queue) << ORDER_BITS)
        if self._count < end:
            self._serve_row(share, keyed if keyed.count and not self._first(plain) else plain, end - self._count)
        return self._count - began

    def _serve_row(self, share: Share, row: Row, tasks: int, *, before: int = _NO_BOUND) -> int:
        """Grant the first tasks by rank over lines; what has no room is set aside for this pass.

        Args:
            share: Of the queue.
            row: Of its lines.
            tasks: How many at most; beside other queues those that ask for something are granted one a turn.
            before: Only those of a lower rank.

        Returns:
            How many were granted.
        """
        w = self._w
        began, end = self._count, self._count + tasks
        while self._count < end and self._goes_on:
            shelf = self._first(row)
            if shelf is None or shelf[0][0] >= before:
                break
            line = shelf[0][2]
            if line.wants is not None and not self._alone:
                end = self._count + 1
            below = min(before, row.below(shelf, self._reach, plain=self._dealing.room > 0))
            is_served = self._serve(line, max(below, shelf[0][0] + 1), end - self._count)
            if not line.window_count:
                del w.active[line.id]
                w.shares.leave(line)
            elif is_served:
                row.again(shelf, line)
            elif line.wants is None and not self._is_served(line):
                w.shares.park(line)
            else:
                self._refused[share.name] = share
                w.shares.set_aside(share, shelf)
                self._passed.append((share, line, self._shelf_of(line)))
        return self._count - began

    def _first(self, row: Row) -> list[Entry] | None:
        return row.first(self._reach, plain=self._dealing.room > 0)

    def _shelf_of(self, line: Line) -> int:
        """Return where a line stands that was looked at; one that sets an agent aside in each pass is not stuck."""
        if line.wants is None:
            return PLAIN
        is_stuck = line.stuck == self._w.rooms.growth and line.id not in self._w.rooms.held
        return shelf_of(line) if is_stuck else LOOSE

    def _is_served(self, line: Line) -> bool:
        """Tell whether a connected agent has the line's tasks; thousands of queues may wait for agents of their own."""
        having = self._w.having.get(line.name, {}).values()
        return any(not agent.queues or line.queue in agent.queues for agent in having)

    # -- lines --------------------------------------------------------------------------

    def _serve(self, line: Line, below: int, count: int) -> bool:
        """Grant a line's first tasks, so many at most and of a rank under ``below``.

        Returns:
            False: there is no room for the first that is left.
        """
        count = min(count, self._left(line))
        if not count:
            return False
        if line.wants is not None:
            return self._grant_some(line, below, count)
        tasks = self._dealing.take(line, below, count)
        if tasks:
            self._leave(line, tasks)
        self._goes_on = self._dealing.places_asked < PLACES_ASKED_MAX
        return bool(tasks)

    def _left(self, line: Line) -> int:
        """Return how many of the line's tasks may be granted, whatever room there is; none: keep no agent for them."""
        if not self._limited:
            return _NO_BOUND
        left = limiting.left(self._w, line.queue, line.name, self._now)
        if not left and line.id in self._w.rooms.held:
            choosing.release(self._w, line.id)
        return left

    def _leave(self, line: Line, tasks: list[Task]) -> None:
        """Count tasks that were taken out of their line, and delete their entries."""
        w = self._w
        if line.id not in self._lines:
            self._lines[line.id] = line, line.ready + len(tasks)
        if line.holdups is not None:
            holdups.carry_away(line, tasks, self._now)
        self._count += len(tasks)
        if self._limited:
            limiting.take(w, line.queue, line.name, len(tasks))
        if line.fair:
            w.fair.note_granted(line.queue, tasks[-1].rank >> ORDER_BITS, len(tasks))
        kind, line_id = records.READY, line.id
        old, first = tasks, w.entered_from
        if w.entered:  # the entries of this turn's own are not written yet, and never will be
            old = [task for task in tasks if not task.fresh or task.rank & ORDER_MASK < first]
        w.mutations += [(kind, line_id + task.rank.to_bytes(RANK_BYTES, "big"), None) for task in old]

    def _choose(self) -> Choosing:
        if self._choosing is None:
            self._choosing = Choosing(self._w, self._now)
            self._reach = self._choosing.reach
        return self._choosing

    def _grant_some(self, line: Line, below: int, count: int) -> bool:
        """Grant the first tasks, so many at most and of a rank under ``below``, of a line that asks for something.

        Returns:
            False: no agent has room for the first that is left.
        """
        choosing = self._choose()
        if choosing.is_hopeless(line):
            self._keep_free(line)
            return False
        self._dealing.deal_all()  # what was taken so far comes first
        end = min(self._granted + count, GRANTED_MAX)
        granted_before = self._granted
        agent = None
        while line.window_count and line.head_rank() < below:
            agent = choosing.best(line)
            if agent is None:
                choosing.note_stuck(line)
                self._keep_free(line)
                break
            self._grant_one(line, agent, choosing.granted(agent, line))
            choosing.note_served(line, agent)
            if self._granted >= end:
                break
        if self._granted > granted_before:
            self._dealing.recount()
        self._reach = choosing.reach
        self._goes_on = self._granted < GRANTED_MAX and self._dealing.places_asked < PLACES_ASKED_MAX
        return agent is not None

    def serve_reserved(self, line: Line, agent: Agent) -> None:
        """Grant a line's first task on the agent where others were stopped for it."""
        if not self._left(line):
            return
        w = self._w
        self._grant_one(line, agent, None if line.wants is None else self._choose().granted(agent, line))
        w.note_head(line)
        del w.yielding.rooms[line.id]
        choosing.release(w, line.id)
        line.note_served()

    def _grant_one(self, line: Line, agent: Agent, granted: Granted | None) -> None:
        [task] = line.take(1, _NO_BOUND)
        self._leave(line, [task])
        index = agent.pool_of(line.name)
        pool = agent.pools[index]
        task.granted = granted
        self._granting.grant([task], agent, index)
        task.pool = index if pool.has_slots else -1
        if granted is not None:
            self._w.note_leased(agent, task, granted)
        elif pool.has_slots:
            pool.busy += 1
        pool.credit -= 1
        self._dealing.note_used(agent, 1)
        self._granted += 1
        if agent.holder:
            self._set_aside(agent)

    def _keep_free(self, line: Line) -> None:
        """Grant nothing more in this pass on the agent that is kept free for a line, if one is."""
        name = self._w.rooms.held.get(line.id)
        agent = None if name is None else self._w.agents.get(name)
        if agent is not None:
            self._dealing.deal_all()
            self._set_aside(agent)

    def _set_aside(self, agent: Agent) -> None:
        """Grant nothing more on the agent in this pass."""
        for pool in agent.pools:
            if pool.credit:
                self._aside.append((agent, pool, pool.credit))
                credit, pool.credit = pool.credit, 0
                self._dealing.note_used(agent, credit)
        self._dealing.recount()

    # -- the end ------------------------------------------------------------------------

    def finish(self) -> list[SendLease]:
        """Deal out the rest, put everything back in its place; return what is to be sent."""
        self._dealing.deal_all()
        w = self._w
        for agent, pool, credit in self._aside:
            pool.credit = credit
            w.asking[agent.name] = agent  # it may have looked like one that has no credit any more
            w.rooms.freed[agent.name] = None
        for line, ready_before in self._lines.values():
            w.dirty_lines[line.id] = line
            line.note_granted(ready_before - line.ready, self._now.mono_ms)
            w.counters.move(line.queue, State.READY, State.RUNNING, ready_before - line.ready)
        for share, line, shelf in self._passed:
            w.shares.put(share, line, shelf)
        for share in (self._served | self._refused).values():
            w.shares.end(share, is_refused=share.name in self._refused)
        if self._choosing is not None:
            self._choosing.finish(is_complete=self._goes_on)
        return self._granting.finish()


def place(w: Working, now: Now) -> None:
    """Grant what can be granted."""
    w.limits_wake_mono_ms = NEVER_MS
    if not w.active:
        return
    if w.rooms.held:
        choosing.review(w, now)
    w.shares.begin()
    if not w.asking or not w.shares.queues:
        return
    held = list(w.rooms.held)
    reserved = preemption.ready(w, now) if w.yielding.rooms else []
    this = _Pass(w, now)
    for each in reserved:
        this.serve_reserved(*each)
    this.take_turns()
    is_given_up = any(line_id not in w.rooms.held for line_id in held)
    sends = this.finish()
    if this.is_cut_short or is_given_up:  # others may have the agent now, that had their turn before
        w.effects.append(Continue(GoOn()))
    if sends:
        w.effects += sends
        w.counters_dirty = True
