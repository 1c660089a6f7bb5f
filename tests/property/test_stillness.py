"""Whoever could run does: no place of a limit by key is held by what nobody runs."""

from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.agent import FakeAgent
from harness.core import Shell
from harness.fsck import check_beside, check_disk
from harness.placed import check_passed
from harness.world import shrink
from taskd.core import records, stillness
from taskd.core.commands import OrderQueue, SetLimit
from taskd.core.coordinator import Turn
from taskd_protocol.limiting import Limit
from taskd_protocol.resources import Need, Request, Supply, Where
from taskd_protocol.task import Rules, Use

NAMES = ("m.f", "m.lonely")
QUEUES = ("default", "paused")
BIG = Where(requests=[Request([Need("cpu", 64_000)])])


class Wish(NamedTuple):
    """A task to be submitted."""

    name: str
    queue: str
    uses: tuple[tuple[str, str], ...]
    fifo_key: str
    big: bool
    priority: int

    @property
    def can_run(self) -> bool:
        return self.name == NAMES[0] and self.queue == QUEUES[0] and not self.big


wishes = st.builds(
    Wish,
    st.sampled_from(NAMES),
    st.sampled_from(QUEUES),
    st.lists(st.tuples(st.sampled_from(["one", "two"]), st.sampled_from(["", "a"])), unique=True, max_size=3).map(
        tuple
    ),
    st.sampled_from(["", "", "x"]),
    st.booleans(),
    st.sampled_from([0, 0, 5]),
)


def play(tasks: list[list[Wish]], places: int, *, crash: bool) -> None:
    shell = Shell()

    def look(turn: Turn) -> None:
        check_passed(shell.disk, shell.working, turn.mutations)

    turn_as_ever = shell.turn
    shell.turn = lambda _look=look: turn_as_ever(look)  # type: ignore[method-assign, assignment]
    shell.do(SetLimit(Limit("one", places)))
    shell.do(SetLimit(Limit("two", 1)))
    shell.do(OrderQueue("paused", drain=False, pause=True))
    agent = FakeAgent(shell, "a1", NAMES[:1]).join(credit=9)
    expected: dict[bytes, Wish] = {}
    for batch in tasks:
        specs = []
        for wish in batch:
            rules = Rules(
                limits=[Use(*use) for use in wish.uses], fifo_key=wish.fifo_key, where=BIG if wish.big else None
            )
            spec = msgspec.structs.replace(shell.spec(wish.name, queue=wish.queue, priority=wish.priority), given=rules)
            specs.append(spec)
            expected[spec.id] = wish
        shell.submit(*specs)
        shell.pass_ms(2_000)
        shell.do(agent.beat())
    if crash:
        shell.crash()
        agent = FakeAgent(shell, "a1", NAMES[:1], boot_id=b"boot-2").join(credit=9)
    held_up = {wish.fifo_key for wish in expected.values() if not wish.can_run and wish.fifo_key}
    must = {i for i, wish in expected.items() if wish.can_run and wish.fifo_key not in held_up}
    # One after another, each line that cannot move may hold the place until it is seen to stand still.
    still = {(wish.name, wish.queue, wish.uses, wish.big) for wish in expected.values() if not wish.can_run}
    ran = run(shell, [agent], 10 + len(still) * (stillness.STILL_MS + 2 * stillness.LOOK_MS) // 1_000)
    assert must <= ran
    check_disk(shell.disk)
    check_beside(shell)
    shell.do(OrderQueue("paused", drain=False))
    other = FakeAgent(shell, "a2", NAMES, supplies=[Supply("cpu", 64_000)]).join(credit=9)
    ran |= run(shell, [agent, other], 20 + 2 * len(expected))
    assert ran == expected.keys()
    assert shell.disk.scan(records.HELD) == shell.disk.scan(records.PARKED) == []
    check_disk(shell.disk)


def run(shell: Shell, agents: list[FakeAgent], seconds: int) -> set[bytes]:
    """Have agents run what they get, for so long."""
    ran: set[bytes] = set()
    for _ in range(2 * seconds):
        for agent in agents:
            while grants := agent.receive():
                ran |= {grant.spec.id for grant in grants}
                shell.do(agent.ack(*grants))
                shell.do(agent.credit(len(grants)))
            shell.do(agent.beat())
        shell.pass_ms(stillness.LOOK_MS)
    return ran


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(wishes, min_size=1, max_size=5), min_size=1, max_size=4), st.integers(1, 3), st.booleans())
def test_nobody_who_could_run_waits_for_who_cannot(tasks: list[list[Wish]], places: int, crash: bool) -> None:  # noqa: FBT001
    """Whatever is in line, at what gates, in what order; and once all can run, all do."""
    play(tasks, places, crash=crash)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.lists(wishes, min_size=1, max_size=6), min_size=1, max_size=4), st.integers(1, 3), st.booleans())
def test_with_small_bounds(tasks: list[list[Wish]], places: int, crash: bool) -> None:  # noqa: FBT001
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        play(tasks, places, crash=crash)
