from taskd.agent.crew import BATCH_BYTES, BATCH_TASKS, Crew, Member
from taskd.agent.slots import Slots
from unit.agent.making import grant, grants


def crew_of(workers: int, waiting: int, *, run_us: float | None) -> tuple[Crew, Slots]:
    """A crew with so many leases waiting, whose tasks are known to take so long."""
    slots = Slots(workers)
    if run_us is not None:
        slots.pace_of("m.f").add(run_us, 100)
    slots.receive(grants(range(1, waiting + 1)))
    crew = Crew(slots)
    crew.members.extend(Member() for _ in range(workers))
    return crew, slots


def dealt(crew: Crew) -> list[list[int]]:
    return [[given.token for given in batch] for _, batch in crew.deal()]


def test_tasks_of_unknown_length_go_one_to_each_worker() -> None:
    crew, slots = crew_of(2, 5, run_us=None)
    assert dealt(crew) == [[1], [2]]
    assert slots.waiting == 3
    assert dealt(crew) == []


def test_long_tasks_go_one_to_each_worker() -> None:
    crew, _ = crew_of(2, 5, run_us=3e6)
    assert dealt(crew) == [[1], [2]]


def test_short_tasks_go_in_batches_and_every_worker_gets_its_share() -> None:
    crew, _ = crew_of(2, 10, run_us=1_000)
    assert dealt(crew) == [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]]


def test_a_batch_is_bounded_in_time_number_and_bytes() -> None:
    crew, _ = crew_of(1, 100, run_us=1_000)
    assert len(dealt(crew)[0]) == 10
    crew, _ = crew_of(1, 5_000, run_us=1)
    assert len(dealt(crew)[0]) == BATCH_TASKS
    crew, slots = crew_of(1, 0, run_us=1)
    slots.receive([grant(token, payload=bytes(BATCH_BYTES // 2)) for token in range(1, 10)])
    assert len(dealt(crew)[0]) == 2


def test_nothing_is_dealt_behind_a_task_that_takes_longer_than_a_batch_may() -> None:
    """Whatever its name: a short task waits for another worker, and the agent goes on."""
    crew, slots = crew_of(1, 0, run_us=42e6)
    slots.pace_of("m.short").add(500, 100)
    slots.receive([grant(1), grant(2, name="m.short"), grant(3, name="m.short")])
    assert dealt(crew) == [[1]]
    assert slots.waiting == 2


def test_a_worker_gets_more_before_it_runs_dry() -> None:
    crew, _ = crew_of(1, 100, run_us=1_000)
    ((member, batch),) = crew.deal()
    crew.ended(member, [given.token for given in batch[:4]])
    assert dealt(crew) == []
    crew.ended(member, [given.token for given in batch[4:6]])
    assert dealt(crew) == [[11, 12, 13, 14, 15, 16]]
    assert member.batch == 2


def test_what_waits_behind_a_task_that_takes_long_is_taken_back_and_dealt_to_others() -> None:
    crew, slots = crew_of(2, 20, run_us=1_000)
    (stuck, first), (other, second) = crew.deal()
    assert crew.held_up() == [], "nobody has been looked at before"
    crew.ended(other, [given.token for given in second])
    assert crew.held_up() == [stuck]
    stuck.recalling = True
    back = crew.recalled(stuck, first[0].token)
    assert [given.token for given in back] == [given.token for given in first[1:]]
    assert list(stuck.assigned) == [first[0].token]
    ((whom, batch),) = crew.deal()
    assert whom is other, "who is held up is dealt nothing"
    assert [given.token for given in batch] == [given.token for given in first[1:]]
    crew.ended(stuck, [first[0].token])
    slots.receive(grants(range(100, 104)))
    assert stuck in [member for member, _ in crew.deal()], "until its task has ended"


def test_a_worker_that_had_not_begun_gives_everything_back() -> None:
    crew, slots = crew_of(1, 3, run_us=10)
    ((member, _),) = crew.deal()
    member.recalling = True
    crew.recalled(member, 0)
    assert not member.recalling
    assert slots.waiting == 3
    assert dealt(crew) == [[1, 2, 3]]


def test_of_a_dead_worker_only_what_it_ran_is_blamed() -> None:
    crew, slots = crew_of(1, 3, run_us=10)
    ((member, _),) = crew.deal()
    crew.ended(member, [1])
    ran, back = crew.left(member, 2)
    assert [given.token for given in ran] == [2]
    assert [given.token for given in back] == [3]
    assert slots.waiting == 1
    assert crew.members == []


def test_a_worker_that_dies_between_two_tasks_blames_nobody() -> None:
    """The page still names a task whose result has come."""
    crew, slots = crew_of(1, 2, run_us=10)
    ((member, _),) = crew.deal()
    crew.ended(member, [1])
    assert crew.left(member, 1)[0] == []
    assert slots.waiting == 1


def test_who_is_leaving_is_dealt_nothing() -> None:
    crew, _ = crew_of(1, 2, run_us=10)
    crew.members[0].leaving = True
    assert dealt(crew) == []
