"""Any order of events: every lease is reported once, or forgotten, and no worker runs what was taken from it."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from taskd.agent.core import AgentCore
from taskd.agent.crew import Crew, Member
from taskd.agent.wire import Returned
from taskd_protocol.agent_messages import Ack, LeaseCredit, Nack, Offered, Recorded, Revoke
from taskd_protocol.connection_messages import Done
from taskd_protocol.errors import TaskCodes
from taskd_protocol.resources import Supply
from taskd_protocol.task import Failure, Grant, Pool
from taskd_protocol.workflow_messages import Spawn
from unit.agent.making import grant, holding, lease, welcome

Step = Callable[[], object]

CRASH = Failure(TaskCodes.WORKER_KILLED, "SIGKILL")


def a_lease(token: int) -> Grant:
    """Some hold something, and one of these is to be alone."""
    return grant(token) if token % 3 else holding(token, 500 * (token % 4), alone=token % 9 == 0)


class Machine:
    """A pool of workers whose steps are chosen by the test; the server is played too."""

    def __init__(self) -> None:
        self.core = AgentCore([Pool("process", 3, ["m.f"])], supplies=[Supply("cpu", 3_000)])
        self.crew = Crew(self.core.pools[0])
        self.crew.members.extend(Member() for _ in range(3))
        self.credit = 0
        self.next_token = 1
        self.leases = 0
        self.open: set[int] = set()  # leased and neither reported nor stale
        self.stale: set[int] = set()
        self.reported: dict[int, int] = {}
        self.ran: dict[int, int] = {}
        self.spawned: dict[int, int] = {}  # parts that were told and not answered, by token
        self.asked: dict[int, int] = {}  # whose parts are under way, by request
        self.reconnect()

    def reconnect(self, stale: int = 0) -> None:
        offer = self.core.welcome(welcome(), 0)
        tokens = [held.token for held in offer.holding]
        assert len(tokens) == len(set(tokens))
        assert set(tokens) >= self.open, "whatever is not reported is still held"
        gone = sorted(self.open)[:stale]
        self.open.difference_update(gone)
        self.stale.update(gone)
        self.credit = 0
        self.asked.clear()
        self.kill(Offered(gone))

    def kill(self, message: Offered | Revoke) -> None:
        for pool, ordered, _, _ in self.core.receive(message):
            for token in ordered:
                member = next((m for m in self.crew.members if token in m.assigned), None)
                if member is None:
                    self.core.dropped(pool, token)
                else:
                    running = next(iter(member.assigned))
                    self.core.waits_again(0, self.crew.recalled(member, running))
                    if running == token:
                        self.die(member)

    def send(self) -> None:
        for message in self.core.messages():
            match message:
                case LeaseCredit(_, count):
                    self.credit += count
                case Ack(reports) | Nack(reports):
                    for report in reports:
                        assert report.token not in self.stale, "what is stale is never reported"
                        assert not self.spawned.get(report.token), "nothing is before what it has spawned"
                        self.reported[report.token] = self.reported.get(report.token, 0) + 1
                        self.open.discard(report.token)
                case Spawn(number, token, left):
                    assert token not in self.asked.values(), "one at a time"
                    assert left == self.spawned[token], "in their order"
                    self.asked[number] = token
                case _:
                    pass

    def spawn(self, member: Member, count: int) -> None:
        for token in [token for token in member.assigned if token not in self.spawned][:1]:
            self.spawned[token] = count
            for left in range(count, 0, -1):
                self.core.spawned(0, token, left, [])

    def answer(self) -> None:
        for number, token in list(self.asked.items()):
            del self.asked[number]
            self.spawned[token] -= 1
            self.core.receive(Done(number))

    def grant(self, count: int) -> None:
        count = min(count, self.credit)
        if count:
            tokens = range(self.next_token, self.next_token + count)
            self.next_token += count
            self.credit -= count
            self.leases += 1
            self.open.update(tokens)
            self.core.receive(lease(self.leases, [a_lease(token) for token in tokens]))

    def deal(self) -> None:
        for member, batch in self.crew.deal():
            assert member.assigned.keys() >= {given.token for given in batch}

    def finish(self, member: Member, count: int) -> None:
        tokens = list(member.assigned)[:count]
        for token in tokens:
            self.ran[token] = self.ran.get(token, 0) + 1
        self.core.succeeded(0, [Returned(token, b"", 0, 10.0) for token in tokens])
        self.crew.ended(member, tokens)

    def recall(self, member: Member) -> None:
        if member.assigned:
            member.recalling = True
            self.core.waits_again(0, self.crew.recalled(member, next(iter(member.assigned))))

    def die(self, member: Member) -> None:
        running = next(iter(member.assigned), 0)
        ran, back = self.crew.left(member, running)
        self.core.waits_again(0, back)
        if ran:
            self.ran[running] = self.ran.get(running, 0) + 1
            self.core.crashed(0, running, CRASH)
        self.crew.members.append(Member())

    def check(self) -> None:
        assigned = [token for member in self.crew.members for token in member.assigned]
        assert len(assigned) == len(set(assigned)), "one worker at most has a lease"
        held = self.core.pools[0].held
        assert set(assigned) <= held.keys()
        assert self.core.pools[0].waiting == len(held) - len(assigned)
        holds = [each.granted for each in held.values() if each.granted is not None]
        cpus = sum(hold.amount for granted in holds for hold in granted.holds)
        is_open = not any(granted.exclusive_host for granted in holds)
        assert self.core.pools[0].open_slots == (max(0, 3_000 - cpus) // 1_000 if is_open else 0)
        assert all(count == 1 for count in self.ran.values()), "nothing runs twice on one lease"

    def step(self, name: str, number: int) -> None:
        member = self.crew.members[number % 3]
        some = sorted(self.open)[number % 7 : number % 7 + 2]
        told = sorted(self.core.reports.unrecorded.keys() & self.reported.keys())
        steps: dict[str, Step] = {
            "grant": lambda: self.grant(number),
            "deal": self.deal,
            "finish": lambda: self.finish(member, number),
            "recall": lambda: self.recall(member),
            "die": lambda: self.die(member),
            "revoke": lambda: self.kill(Revoke(some)),
            "send": self.send,
            "record": lambda: self.core.receive(Recorded(told[:number])),
            "reconnect": self.reconnect,
            "spawn": lambda: self.spawn(member, 1 + number % 2),
            "answer": self.answer,
            "stale": lambda: self.reconnect(number % 3),
        }
        steps[name]()
        self.check()


NAMES = [
    "grant",
    "deal",
    "finish",
    "recall",
    "die",
    "revoke",
    "send",
    "record",
    "reconnect",
    "stale",
    "spawn",
    "answer",
]


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 40)), max_size=80))
def test_every_lease_is_reported_or_forgotten(steps: list[tuple[str, int]]) -> None:
    machine = Machine()
    machine.send()
    machine.grant(40)
    machine.deal()
    for name, number in steps:
        machine.step(name, number)
    machine.reconnect()
    machine.send()
    while machine.asked:
        machine.answer()
        machine.send()
    while machine.core.held or machine.open:
        before = (machine.core.held, len(machine.open))
        machine.deal()
        for member in list(machine.crew.members):
            machine.finish(member, 1_000)
        machine.send()
        machine.check()
        assert (machine.core.held, len(machine.open)) < before, "work goes on until all is reported"
    machine.core.receive(Recorded(list(machine.core.reports.unrecorded)))
    assert machine.core.reports.unrecorded_bytes == 0
