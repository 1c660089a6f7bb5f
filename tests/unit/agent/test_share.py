"""Leases that hold CPUs leave fewer slots to those that hold nothing; nobody waits for ever."""

from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from taskd.agent.crew import Crew, Member
from taskd.agent.share import Share
from taskd.agent.slots import Slots, runs_alone
from taskd_protocol.command import pack_command
from taskd_protocol.task import Grant
from unit.agent.making import grant, grants, holding
from unit.agent.stage import SYNC, Stage, playing

PROCESS, COMMAND = 0, 1
COMMAND_PAYLOAD = pack_command(["true"])


def pool(count: int, cpus: int) -> tuple[Share, Slots]:
    share = Share(cpus)
    return share, Slots(count, share)


def take_all(slots: Slots, running: int = 0) -> list[int]:
    tokens: list[int] = []
    while (taken := slots.take(running + sum(token < 100 for token in tokens))) is not None:
        tokens.append(taken.token)
    return tokens


def test_while_nothing_is_held_every_slot_is_open() -> None:
    assert Share(4_000).open_slots(4, weighs=True) == 4
    assert Share(4_000).open_slots(40, weighs=True) == 40
    assert Share().open_slots(4, weighs=True) == 4


def test_what_is_held_closes_slots_and_opens_them_again() -> None:
    share, slots = pool(4, 4_000)
    for cpu, left in ((0, 4), (500, 3), (1_000, 3), (2_500, 1), (4_000, 0), (9_000, 0)):
        lease = holding(1, cpu)
        share.hold(lease)
        assert slots.open_slots == left
        share.let_go(lease)
    assert (slots.open_slots, share.news) == (4, True)
    share.hold(holding(1, 4_000))
    assert Slots(4, share, weighs=False).open_slots == 4, "coroutines wait most of their time"


def test_who_holds_something_starts_before_all_others_and_alone() -> None:
    _, slots = pool(2, 2_000)
    slots.receive([*grants(range(1, 4)), holding(101, 1_000)])
    assert slots.waiting == 4
    assert take_all(slots) == [101, 1]
    slots.finish(101)
    assert take_all(slots, running=1) == [2]
    assert runs_alone(holding(1))


def test_what_ends_or_is_dropped_or_given_back_is_held_no_more() -> None:
    _, slots = pool(2, 2_000)
    slots.receive([holding(token, 1_000) for token in (101, 102, 103)])
    assert slots.open_slots == 0
    slots.drop(102)
    assert slots.drop(102) is None
    assert [lease.token for lease in slots.drop_waiting(keep=1)] == [103]
    assert (slots.open_slots, slots.waiting) == (1, 1)
    assert slots.take() is not None
    slots.finish(101)
    assert (slots.open_slots, slots.waiting, slots.handed) == (2, 0, 0)


def test_what_was_not_started_waits_again_before_all_others_of_its_kind() -> None:
    _, slots = pool(4, 4_000)
    slots.receive([holding(101, 500), holding(102, 500), *grants(range(1, 3))])
    first = slots.take()
    assert first is not None
    slots.put_back([first])
    assert slots.take_back(first) is first
    slots.put_back([first])
    assert take_all(slots) == [101, 102, 1, 2]


def test_plain_leases_behind_what_others_hold_go_back_to_the_server() -> None:
    """They would wait for as long as it runs, and could run elsewhere."""
    _, slots = pool(2, 2_000)
    slots.receive([holding(101, 2_000), *grants(range(1, 3))])
    assert take_all(slots) == [101]
    assert [lease.token for lease in slots.look()] == [1, 2]
    assert list(slots.held) == [101]


def test_one_that_is_to_be_alone_waits_for_the_others_and_they_for_it() -> None:
    share, slots = pool(2, 2_000)
    others = Slots(10, share, weighs=False)
    others.receive([grant(50)])
    assert others.take() is not None
    slots.receive([holding(101, alone=True), holding(102, 10), grant(1)])
    assert take_all(slots) == [], "a coroutine runs"
    others.finish(50)
    assert take_all(slots) == [101]
    others.receive([grant(51), holding(103)])
    assert take_all(others) == []
    slots.finish(101)
    assert take_all(slots) == [102, 1]
    assert take_all(others) == [103, 51]


def test_a_worker_with_a_lease_that_holds_something_gets_nothing_beside() -> None:
    share = Share(2_000)
    slots = Slots(2, share)
    crew = Crew(slots)
    crew.members.extend(Member() for _ in range(2))
    slots.pace_of("m.f").add(10.0, 100)
    slots.receive([*grants(range(1, 50)), holding(101, 1_000)])
    dealt = {member: [lease.token for lease in batch] for member, batch in crew.deal()}
    assert sorted(dealt.values()) == [[*range(1, 50)], [101]]
    slots.receive([holding(102, 1_000)])
    assert crew.deal() == [], "both are busy"
    plain = next(member for member, tokens in dealt.items() if tokens != [101])
    crew.ended(plain, [*range(1, 50)])
    for token in range(1, 50):
        slots.finish(token)
    assert [[lease.token for lease in batch] for _, batch in crew.deal()] == [[102]]


class World:
    """An agent's pools of workers and commands under any order of events; the rules are checked at each start."""

    def __init__(self, cpus: int, slots: int) -> None:
        self.cpus = cpus
        self.share = Share(cpus)
        self.pools = [Slots(slots, self.share), Slots(slots, self.share)]
        self.crew = Crew(self.pools[PROCESS])
        self.crew.members.extend(Member() for _ in range(slots))
        self.commands: dict[int, Grant] = {}
        self.leases = 0

    def arrive(self, index: int, cpu: int, *, alone: bool) -> None:
        self.leases += 1
        lease = holding(self.leases, cpu, alone=alone) if cpu or alone else grant(self.leases)
        self.pools[index].receive([lease])
        self.start()

    def start(self) -> None:
        for member, batch in self.crew.deal():
            self.check(batch[0], [m.assigned for m in self.crew.members if m is not member], PROCESS)
        while len(self.commands) < self.pools[COMMAND].count:
            taken = self.pools[COMMAND].take(sum(lease.granted is None for lease in self.commands.values()))
            if taken is None:
                break
            self.check(taken, [{token: lease} for token, lease in self.commands.items()], COMMAND)
            self.commands[taken.token] = taken

    def check(self, lease: Grant, beside: list[dict[int, Grant]], index: int) -> None:
        """What starts now fits beside what runs in its pool, and is alone if it is to be."""
        running = [other for assigned in beside for other in assigned.values()]
        elsewhere = (
            [*self.commands.values()]
            if index == PROCESS
            else [other for member in self.crew.members for other in member.assigned.values()]
        )
        lone = [other for other in [*running, *elsewhere] if other.granted is not None and other.granted.exclusive_host]
        assert not lone
        if lease.granted is not None:
            assert not lease.granted.exclusive_host or not [*running, *elsewhere]
            return
        held = sum(
            hold.amount
            for slots in self.pools
            for other in slots.held.values()
            if other.granted is not None
            for hold in other.granted.holds
        )
        workers = sum(any(other.granted is None for other in assigned.values()) for assigned in beside)
        assert not held or held + (workers + 1) * self.cpus / self.pools[index].count <= self.cpus

    def end(self, number: int) -> None:
        """End one of those that run."""
        busy = [member for member in self.crew.members if member.assigned]
        ends = len(busy) + len(self.commands)
        if not ends:
            return
        if number % ends < len(busy):
            member = busy[number % ends]
            token = next(iter(member.assigned))
            self.pools[PROCESS].finish(token)
            self.crew.ended(member, [token])
        else:
            token = [*self.commands][number % ends - len(busy)]
            del self.commands[token]
            self.pools[COMMAND].finish(token)
        self.start()


@given(
    st.integers(1, 4),
    st.sampled_from([1_000, 1_500, 4_000]),
    st.lists(
        st.tuples(
            st.integers(0, 3), st.integers(0, 1), st.sampled_from([0, 0, 1, 500, 1_000, 4_000]), st.integers(0, 9)
        ),
        max_size=40,
    ),
)
def test_nothing_is_over_what_there_is_and_all_that_waits_runs(
    slots: int, cpus: int, steps: list[tuple[int, int, int, int]]
) -> None:
    world = World(cpus, slots)
    for kind, index, cpu, number in steps:
        if kind:
            world.arrive(index, cpu, alone=number == 9)
        else:
            world.end(number)
    for _ in range(world.leases):
        world.end(0)
    assert [len(pool.held) for pool in world.pools] == [0, 0]
    assert world.pools[PROCESS].open_slots == slots


async def test_what_one_pool_lets_go_of_is_what_another_waits_for(autojump_clock: MockClock) -> None:
    """A command that waits for a task's CPUs starts when the task has ended, with no word from the server."""
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent()):
        peer = await stage.greeted()
        await peer.lease(holding(1, 2_000), pool=0)
        worker = await stage.who_has(1)
        await peer.lease(grant(2, name="taskd.command", payload=COMMAND_PAYLOAD), pool=1)
        assert stage.commands == []
        worker.returns(1)
        await stage.until(lambda: len(stage.commands) == 1)
        stage.commands[0].exit(0)
        assert {report.token for report in await peer.reports(2)} == {1, 2}
