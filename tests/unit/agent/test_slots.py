from taskd.agent.slots import AHEAD_BYTES, Slots
from unit.agent.making import grant, grants


def take_all(slots: Slots) -> list[int]:
    tokens = []
    while (given := slots.take()) is not None:
        tokens.append(given.token)
    return tokens


def test_at_first_as_many_leases_are_asked_for_as_there_are_slots() -> None:
    slots = Slots(4)
    assert slots.take_credit() == 4
    assert slots.take_credit() == 0, "asked once"


def test_credit_and_what_is_held_never_exceed_the_room() -> None:
    slots = Slots(4)
    slots.take_credit()
    slots.receive(grants(range(3)))
    assert slots.take_credit() == 0, "one of the four is still to come"
    slots.take()
    slots.finish(0)
    assert slots.take_credit() == 1, "a task that ended makes room for one"


def test_fast_tasks_are_asked_for_in_large_numbers_but_not_one_by_one() -> None:
    slots = Slots(2)
    slots.pace.add(10, 10_000)
    due = slots.take_credit()
    assert due == 4_002
    slots.receive(grants(range(due)))
    for token in range(100):
        slots.take()
        slots.finish(token)
    assert slots.take_credit() == 0, "a quarter of the room must be free first"
    for token in range(100, 1_100):
        slots.take()
        slots.finish(token)
    assert slots.take_credit() == 1_100


def test_large_arguments_are_fetched_in_small_numbers() -> None:
    slots = Slots(2)
    slots.pace.add(10, 10_000)
    slots.take_credit()
    slots.receive([grant(1, payload=bytes(AHEAD_BYTES // 10))])
    slots.disconnect()
    assert slots.take_credit() <= 2 + 10


def test_a_new_connection_starts_without_credit() -> None:
    slots = Slots(4)
    slots.take_credit()
    slots.receive(grants(range(1)))
    slots.disconnect()
    assert slots.take_credit() == 3


def test_a_closed_pool_asks_for_nothing() -> None:
    slots = Slots(4)
    slots.closed = True
    assert slots.take_credit() == 0


def test_leases_start_in_the_order_of_their_arrival() -> None:
    slots = Slots(2)
    slots.receive(grants(range(3)))
    slots.receive(grants(range(3, 5)))
    assert take_all(slots) == [0, 1, 2, 3, 4]
    assert slots.waiting == 0


def test_a_lease_that_comes_twice_is_held_once() -> None:
    slots = Slots(2)
    slots.receive(grants(range(2)))
    slots.receive(grants(range(1, 3)))
    assert take_all(slots) == [0, 1, 2]


def test_what_was_not_started_waits_again_before_all_others() -> None:
    slots = Slots(2)
    slots.receive(grants(range(4)))
    first, second = slots.take(), slots.take()
    assert first is not None
    assert second is not None
    slots.put_back([first, second])
    assert take_all(slots) == [0, 1, 2, 3]


def test_a_dropped_lease_is_never_taken() -> None:
    slots = Slots(2)
    slots.receive(grants(range(4)))
    slots.drop(0)
    slots.drop(2)
    assert slots.drop(2) is None
    assert slots.waiting == 2
    assert take_all(slots) == [1, 3]
    assert slots.waiting == 0


def test_a_run_is_of_one_name_and_bounded_in_number_and_bytes() -> None:
    slots = Slots(2)
    slots.receive([*grants(range(3), "m.a"), *grants(range(3, 5), "m.b"), grant(5, "m.b", bytes(1_000))])
    slots.drop(1)
    assert [given.token for given in slots.take_run(10, 10_000)] == [0, 2]
    assert [given.token for given in slots.take_run(10, 100)] == [3, 4]
    assert [given.token for given in slots.take_run(10, 100)] == [5], "one that is too large alone goes alone"
    assert slots.take_run(10, 100) == []


def test_what_waits_beyond_what_is_worth_holding_goes_back_when_that_lasts() -> None:
    slots = Slots(2)
    slots.pace.add(25_000, 100)
    slots.receive(grants(range(10)))
    for _ in range(2):
        slots.take()
    assert slots.look() == [], "it may be gone in a moment"
    slots.pace.add(25_000)
    assert [given.token for given in slots.look()] == [6, 7, 8, 9], "four are half of what the pace allows"
    slots.pace.add(25_000)
    assert slots.look() == []
    assert slots.waiting == 4


def test_nothing_is_held_behind_tasks_that_all_run_long_whatever_the_pace_was() -> None:
    slots = Slots(2)
    slots.pace.add(10, 10_000)
    slots.take_credit()
    slots.receive(grants(range(6)))
    slots.take_run(2, 1_000)
    assert slots.look() == [], "they began just now"
    assert [given.token for given in slots.look()] == [2, 3, 4, 5]
    assert slots.withdrawn, "under what credit there was they would come back at once"
    assert slots.take_credit() == 0
    slots.finish(0)
    assert slots.take_credit() == 1, "a slot is free"
    slots.pace.add(10)
    assert slots.take_credit() > 1, "and it goes on"


def test_credit_is_withdrawn_from_behind_long_tasks_though_nothing_waits() -> None:
    slots = Slots(1)
    slots.pace.add(10, 10_000)
    slots.take_credit()
    slots.receive(grants(range(1)))
    slots.take()
    slots.look()
    assert not slots.withdrawn
    assert slots.look() == []
    assert slots.withdrawn


def test_slots_that_are_not_all_taken_are_not_held_up() -> None:
    slots = Slots(2)
    slots.pace.add(10, 10_000)
    slots.take_credit()
    slots.receive(grants(range(1)))
    slots.take()
    slots.look()
    slots.look()
    assert not slots.withdrawn


def test_what_waits_for_a_worker_that_is_being_replaced_stays() -> None:
    slots = Slots(2)
    slots.receive(grants(range(2)))
    slots.look()
    assert slots.look() == []


def test_a_pool_that_nobody_works_for_asks_for_nothing_and_keeps_nothing() -> None:
    slots = Slots(2)
    slots.pace.add(10, 100)
    slots.receive(grants(range(3)))
    slots.vacant = True
    assert slots.take_credit() == 0
    slots.look()
    assert len(slots.look()) == 3
    slots.vacant = False
    assert slots.take_credit() > 0


def test_draining_lets_go_of_all_that_wait_and_of_nothing_that_runs() -> None:
    slots = Slots(2)
    slots.receive(grants(range(5)))
    slots.take()
    slots.drop(3)
    assert [given.token for given in slots.drop_waiting()] == [1, 2, 4]
    assert list(slots.held) == [0]
    assert slots.waiting == 0
