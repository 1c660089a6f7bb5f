"""Slots: one pool's room, the leases in it, and the credit that asks for more.

Invariants:
- What the server may still send plus what is held never exceeds the slots and what is worth holding ahead,
  as both were when the credit was given; but for a LEASE that crosses a withdrawal of the credit.
- A lease is held once, from its arrival until it is finished or dropped; those that wait start in order of arrival,
  or, where inputs of theirs had to be fetched, of these; but those that hold something before those that do not.

Pure: knows neither workers nor connections.
"""

from collections import deque
from collections.abc import Iterable, Sequence

from taskd.agent.gathering import Gathering
from taskd.agent.pace import Pace
from taskd.agent.share import Share
from taskd.agent.wire import found_of
from taskd_protocol.task import Failure, Grant


def argument_bytes(grant: Grant) -> int:
    """Return how large a task's arguments are, with its inputs and the results of what it has spawned."""
    spec = grant.spec
    size = len(spec.payload)
    if spec.given is not None and spec.given.member is not None:
        size += sum([len(given.packed) for given in spec.given.member.inputs])
    return size if grant.spawned is None else size + found_bytes(grant)


def found_bytes(grant: Grant) -> int:
    """Return how large what came with a lease is of what its task has spawned."""
    found = found_of(grant)
    if found is None:
        return 0
    return sum([len(part) for part in found.parts]) + sum([failure_bytes(each.failure) for each in found.missed])


def failure_bytes(failure: Failure) -> int:
    """Return roughly what a failure takes in a message."""
    return len(failure.message) + len(failure.traceback) + len(failure.type)


def runs_alone(grant: Grant) -> bool:
    """Tell whether a worker must have nothing else with this: its start, or its crash or end, must be its own."""
    rules = grant.spec.given
    return (
        grant.mark_start or grant.granted is not None or (rules is not None and (rules.at_most_once or rules.exclusive))
    )


_CREDIT_STEP = 4
"""More is asked for when a quarter of the room is free: not one message for each task that ends."""

AHEAD_BYTES = 32 * 1024 * 1024
"""Of arguments that wait in one pool: tasks with large ones are fetched in smaller numbers."""


class Slots:
    """One pool of an agent.

    Attributes:
        count: Attempts that run at the same time.
        weighs: A slot stands for its share of the agent's CPUs, and is not open while that is held.
        holding: So many of the leases held hold something.
        held: Leases by fencing token: waiting or handed to a worker.
        gathering: Those that wait for others, to be run in one call.
        pace: Of everything that the pool runs.
        closed: Nothing more is asked for, because the agent is going.
        vacant: Nobody is there to run anything: nothing is asked for until somebody is.
        withdrawn: All credit was taken back, and the server is to be told so before it gets more.
    """

    def __init__(self, count: int, share: Share | None = None, *, weighs: bool = True) -> None:
        """Prepare.

        Args:
            count: Attempts that run at the same time.
            share: Among this agent's pools; None: there is no other.
            weighs: See the class.
        """
        self.count = count
        self._share = share or Share()
        self._share.pools.append(self)
        self.weighs = weighs
        self.holding = 0
        self._first: dict[int, Grant] = {}  # those of them that wait
        self.held: dict[int, Grant] = {}
        self.gathering = Gathering()
        self.pace = Pace()
        self.closed = False
        self.vacant = False
        self.withdrawn = False
        self._overfull = False
        self._stuck = False
        self._samples = 0  # of the pace, at the last look
        self._waiting: deque[Grant] = deque()
        self._incomplete: dict[int, None] = {}  # leases held, whose inputs are being fetched
        self._dropped = 0
        self._credit = 0
        self._payload_bytes = 0.0
        self._paces: dict[str, Pace] = {}

    def pace_of(self, name: str) -> Pace:
        """Return the pace of one task name."""
        pace = self._paces.get(name)
        if pace is None:
            pace = self._paces[name] = Pace()
        return pace

    def receive(self, grants: Sequence[Grant], incomplete: Sequence[int] = ()) -> None:
        """Hold leases that came under credit.

        Args:
            grants: Those.
            incomplete: Tokens of those that wait for ``complete`` before they wait for a worker.
        """
        self._credit = max(0, self._credit - len(grants))
        held, fresh = self.held, list[Grant]()
        holding = size = 0
        for grant in grants:
            spec = grant.spec
            plain = spec.given is None and grant.spawned is None
            size += len(spec.payload) if plain else argument_bytes(grant)
            if grant.token in held:
                continue
            held[grant.token] = grant
            fresh.append(grant)
            if grant.granted is not None:
                self._share.hold(grant)
                holding += 1
        self.holding += holding
        if incomplete:
            self._incomplete.update([(grant.token, None) for grant in fresh if grant.token in incomplete])
            fresh = [grant for grant in fresh if grant.token not in incomplete]
        if holding or self.gathering.rules:
            self._line_up(fresh)
        else:
            self._waiting.extend(fresh)
        if grants:
            mean = size / len(grants)
            self._payload_bytes = max(mean, (self._payload_bytes + mean) / 2)

    def complete(self, grant: Grant) -> None:
        """Let a lease wait for a worker whose inputs have come; they are in this grant."""
        if grant.token in self._incomplete:
            del self._incomplete[grant.token]
            self.held[grant.token] = grant
            self._line_up([grant])
            self._payload_bytes = max(self._payload_bytes, argument_bytes(grant))

    def _line_up(self, grants: Iterable[Grant]) -> None:
        for grant in grants:
            if grant.granted is not None:
                self._first[grant.token] = grant
            elif self._gathers(grant):
                self.gathering.add(grant)
            else:
                self._waiting.append(grant)

    def _gathers(self, grant: Grant) -> bool:
        rules = self.gathering.rules
        return bool(rules) and grant.spec.name in rules and not runs_alone(grant)

    def disconnect(self) -> None:
        """Forget the credit: on a new connection the server starts from none."""
        self._credit = 0
        self.withdrawn = False

    def take_credit(self) -> int:
        """Return how many more leases to ask for now, and count them as asked for."""
        due = self.credit_due()
        self._credit += due
        return due

    def credit_due(self) -> int:
        """Return how many more leases are to be asked for now."""
        if self.closed or self.vacant:
            return 0
        ahead = self._ahead() if self.pace.samples or self.gathering.rules else 0
        due = self.count + ahead - len(self.held) + self.gathering.riding - self._credit
        if due <= 0 or (due * _CREDIT_STEP < ahead and self.waiting and not self.gathering.count):
            return 0
        return due

    def look(self, *, may_withdraw: bool = True) -> list[Grant]:
        """Let go of what waits here and could run elsewhere, return it; call about once a second.

        Tasks turned out longer than was thought, which shows at once when all slots run and none has ended anything
        since the last look; or nobody runs them. The credit is withdrawn, else they would come back under it.

        Args:
            may_withdraw: The server knows what that is.
        """
        waiting, running = self.waiting + len(self._incomplete), self.handed - self.gathering.riding
        room = min(self.count, self.holding + self.open_slots)
        self._stuck = running >= room and self.pace.samples == self._samples
        self._samples = self.pace.samples
        worth = 0 if self.vacant else max(0, room + self._ahead() - running)
        was, self._overfull = self._overfull, waiting > worth
        excess = self.drop_waiting(keep=worth) if self._overfull and (was or self._stuck) else []
        if may_withdraw and self._credit and (excess or self._stuck):
            self._credit = 0
            self.withdrawn = True
        return excess

    def _ahead(self) -> int:
        if self._stuck and self.pace.samples == self._samples:
            return 0  # whatever the pace was: a task held here would wait for one of those that run now
        ahead = self.pace.ahead(self.count)
        if self.gathering.rules:
            ahead = max(ahead, self.gathering.ahead())
        return min(ahead, int(AHEAD_BYTES / (self._payload_bytes + 1)))

    @property
    def waiting(self) -> int:
        """Leases that no worker has yet."""
        return len(self._waiting) - self._dropped + len(self._first) + self.gathering.count

    @property
    def waiting_alone(self) -> int:
        """Of them those that wait for no others of their name."""
        return len(self._waiting) - self._dropped + len(self._first)

    @property
    def handed(self) -> int:
        """Leases that a worker has."""
        return len(self.held) - self.waiting - len(self._incomplete)

    @property
    def open_slots(self) -> int:
        """Attempts that hold nothing, of which so many may run now."""
        return self._share.open_slots(self.count, weighs=self.weighs)

    @property
    def holding_waits(self) -> bool:
        """Some that hold something wait: no other is to go before them."""
        return bool(self._first)

    def take_holding(self) -> Grant | None:
        """Take the lease, of those that hold something and may start, that has waited longest; it stays held."""
        for token in self._first:
            if self._share.may_start(token):
                return self._first.pop(token)
        return None

    def peek(self) -> Grant | None:
        """Return the lease that has waited longest of those that hold nothing, and leave it."""
        waiting, held = self._waiting, self.held
        while waiting:
            grant = waiting[0]
            if grant.token in held:
                return grant
            waiting.popleft()
            self._dropped -= 1
        return None

    def take(self, running: int = 0) -> Grant | None:
        """Take the lease that is to start next, if one may start; it stays held.

        Args:
            running: Attempts of this pool that hold nothing, and run or are about to.
        """
        grant = self.take_holding()
        if grant is None and running < self.open_slots and (grant := self.peek()) is not None:
            self._waiting.popleft()
        return grant

    def take_back(self, grant: Grant) -> Grant | None:
        """Take a lease that was put back before all others; None: it is not held any more."""
        if grant.granted is not None:
            return self._first.pop(grant.token, None)
        if self.gathering.drop(grant.token):
            return grant
        if self.peek() is grant:
            return self._waiting.popleft()
        return None

    def take_run(self, count: int, bytes_max: int) -> list[Grant]:
        """Take leases that hold nothing, in their order, as long as they are of one task name.

        Args:
            count: At most so many, at least one if any waits; and none that runs alone but as the first.
            bytes_max: Their arguments together, unless the first alone has more.
        """
        run: list[Grant] = []
        first = self.peek()
        if first is None:
            return run
        name = first.spec.name
        waiting, held = self._waiting, self.held
        size = 0
        while waiting and len(run) < count:
            grant = waiting[0]
            spec = grant.spec
            plain = spec.given is None and grant.spawned is None
            size += len(spec.payload) if plain else argument_bytes(grant)
            if spec.name != name or (run and (size > bytes_max or runs_alone(grant))):
                break
            waiting.popleft()
            if grant.token in held:
                run.append(grant)
            else:
                self._dropped -= 1
        return run

    def put_back(self, grants: Iterable[Grant]) -> None:
        """Let leases that were taken and not started wait again, before all others, in their order."""
        back = [grant for grant in grants if grant.token in self.held]
        self.gathering.put_back([grant for grant in back if self._gathers(grant)])
        self._waiting.extendleft([g for g in back if g.granted is None and not self._gathers(g)][::-1])
        self._first = {**{grant.token: grant for grant in back if grant.granted is not None}, **self._first}

    def finish(self, token: int) -> Grant | None:
        """Let go of a lease that a worker had; None when it was dropped meanwhile."""
        self._incomplete.pop(token, None)
        grant = self.held.pop(token, None)
        if grant is not None:
            self.let_go(grant)
        return grant

    def let_go(self, grant: Grant) -> None:
        """Take note that a lease is held no longer."""
        if grant.granted is not None:
            self._first.pop(grant.token, None)
            self.holding -= 1
            self._share.let_go(grant)

    def drop(self, token: int) -> Grant | None:
        """Let go of a lease that waits; None when it is not held."""
        grant = self.held.pop(token, None)
        if token in self._incomplete:
            del self._incomplete[token]
        elif grant is not None and grant.granted is None and not self.gathering.drop(token):
            self._dropped += 1
        if grant is not None:
            self.let_go(grant)
        return grant

    def drop_waiting(self, keep: int = 0) -> list[Grant]:
        """Let go of all that wait but the ``keep`` that have waited longest; return them in order."""
        live = [*self._first.values(), *(grant for grant in self._waiting if grant.token in self.held)]
        live += self.gathering.waiting()
        self._dropped = 0
        self.gathering.keep({grant.token for grant in live[:keep]})
        self._waiting = deque([g for g in live[:keep] if g.granted is None and not self._gathers(g)])
        let_go = live[keep:] + [self.held[token] for token in list(self._incomplete)[max(0, keep - len(live)) :]]
        for grant in let_go:
            del self.held[grant.token]
            self._incomplete.pop(grant.token, None)
            self.let_go(grant)
        return let_go
