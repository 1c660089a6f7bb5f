"""What one attempt spawns: how it is counted, told of, compared with what was before, and waited for."""

import pytest

from taskd import App, AttemptWaiting, Child, PayloadTooLarge, SpawnChanged, TaskCancelled, TaskFailed
from taskd.client import family as room
from taskd.client.context import TaskContext
from taskd.client.family import Found
from taskd_protocol.errors import BadRequest, ServerBusy, TaskCodes
from taskd_protocol.ids import format_task_id
from taskd_protocol.payload import pack, pack_arguments, unpack_arguments
from taskd_protocol.streams import DataLine
from taskd_protocol.task import Failure, Grant, Rules, Spawned, TaskSpec
from taskd_protocol.workflow import NIL, make_workflow_id, member_id, spawn_digest
from taskd_protocol.workflow_messages import Missed

FAMILY = make_workflow_id(1_000, b"12345")
app = App()


@app.task(name="f.add")
def add(one: int, two: int = 0) -> int:
    return one + two


class Told:
    """A port that keeps what it was told."""

    def __init__(self) -> None:
        self.said: list[tuple[int, list[TaskSpec]]] = []
        self.waited = 0
        self.is_full = False

    def is_cancelled(self, token: int) -> bool:
        return token < 0

    def beat(self, token: int, details: bytes) -> None:
        raise AssertionError(token, details)

    def say(self, token: int, stream: int, line: DataLine) -> None:
        raise AssertionError(token, stream, line)

    def spawn(self, token: int, first: int, tasks: list[TaskSpec]) -> None:
        assert token == 9
        self.said.append((first, tasks))

    def wait_for_room(self, token: int) -> None:
        assert token == 9
        self.waited += 1
        if self.is_full:
            raise ServerBusy("it is full", retry_after_ms=1_000)

    def numbers(self) -> list[tuple[int, list[object]]]:
        """The first arguments of what was told, under the number of the first."""
        return [(first, [unpack_arguments(task.payload)[0][0] for task in tasks]) for first, tasks in self.said]


def attempt(
    told: Told, *before: int, found: Found | None = None, rules: Rules | None = None
) -> tuple[TaskContext, TaskSpec]:
    """An attempt of a task, earlier ones of which have spawned ``add`` with these arguments."""
    spec = TaskSpec(member_id(FAMILY, 5), "f.parent", pack_arguments([], {}), given=rules)
    digest = b""
    for number in before:
        digest = spawn_digest(digest, "f.add", pack_arguments([number], {}))
    spawned = Spawned(member_id(FAMILY, 0), len(before), digest) if before else None
    return TaskContext(Grant(9, 2, spec, spawned=spawned), told, found), spec


def ended(context: TaskContext, *, returned: bool = True) -> Failure | None:
    assert context.family is not None
    return context.family.end(returned=returned)


def test_what_is_spawned_is_told_at_the_end_in_order() -> None:
    told = Told()
    context, _ = attempt(told)
    children = [context.spawn(add, number) for number in range(3)]
    assert [child.number for child in children] == [0, 1, 2]
    assert children[0].id is None, "the server gives the ids"
    assert told.said == []
    assert ended(context, returned=False) is None
    assert told.numbers() == [(0, [0, 1, 2])]
    assert told.said[0][1][0].id == b""


def test_many_are_told_of_while_the_attempt_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "TASKS_TOLD", 2)
    told = Told()
    context, _ = attempt(told, 0)
    for number in range(6):
        context.spawn(add, number)
    assert told.numbers() == [(1, [1, 2]), (3, [3, 4])]
    assert ended(context) is None
    assert told.numbers()[2:] == [(5, [5])]


def test_a_child_for_which_there_is_no_room_is_not_taken_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be spawned later, under the same number; what an attempt ends with is told all the same."""
    monkeypatch.setattr(room, "TASKS_TOLD", 2)
    told = Told()
    context, _ = attempt(told)
    for number in range(2):
        context.spawn(add, number)
    assert told.waited == 0
    told.is_full = True
    for _ in range(2):
        with pytest.raises(ServerBusy) as refused:
            context.spawn(add, 2)
        assert refused.value.retryable
    told.is_full = False
    assert context.spawn(add, 2).number == 2
    told.is_full = True
    assert ended(context) is None
    assert told.numbers() == [(0, [0, 1]), (2, [2])]


def test_large_ones_are_told_of_in_smaller_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(pack_arguments([1], {}))
    monkeypatch.setattr(room, "BYTES_TOLD", 2 * size)
    told = Told()
    context, _ = attempt(told)
    for number in range(5):
        context.spawn(add, number)
    ended(context)
    assert told.numbers() == [(0, [0, 1]), (2, [2, 3]), (4, [4])]


def test_options_are_said_as_of_a_submit_and_wrong_ones_are_refused() -> None:
    told = Told()
    context, _ = attempt(told)
    context.spawn(add.options(priority=7, queue="low"), 1, two=2)
    ended(context)
    ((_, [spec]),) = told.said
    assert (spec.name, spec.priority, spec.queue) == ("f.add", 7, "low")
    assert unpack_arguments(spec.payload) == ([1], {"two": 2})
    with pytest.raises(TypeError, match="missing a required argument"):
        context.spawn(add)  # type: ignore[call-arg]
    with pytest.raises(BadRequest, match="key or unique"):
        context.spawn(add.options(key="k"), 1)
    with pytest.raises(BadRequest, match="key or unique"):
        context.spawn(add.options(unique="running"), 1)
    with pytest.raises(BadRequest, match="takes a task"):
        context.spawn(len, "x")  # type: ignore[arg-type]
    with pytest.raises(PayloadTooLarge):
        context.spawn(add, bytes(17 << 20))  # type: ignore[arg-type]
    assert context.spawn(add, 2).number == 1, "what was refused has no number"


def test_waiting_ends_the_first_attempt_and_returns_in_the_next() -> None:
    told = Told()
    context, _ = attempt(told)
    children = [context.spawn(add, number) for number in range(2)]
    with pytest.raises(AttemptWaiting):
        context.wait(children)
    with pytest.raises(AttemptWaiting):
        children[1].result()
    assert context.wait([]) == []
    again, _ = attempt(told, 0, 1, found=Found([pack(10), pack(11)]))
    children = [again.spawn(add, number) for number in range(2)]
    assert again.wait() == [10, 11]
    assert again.wait(reversed(children)) == [11, 10]
    assert children[1].result() == 11
    assert children[1].id == format_task_id(member_id(FAMILY, 0, 1))
    assert str(children[1].id) in repr(children[1])
    assert ended(again) is None
    assert told.said == []
    later = again.spawn(add, 2)
    with pytest.raises(AttemptWaiting):
        again.wait([children[0], later])


def test_what_has_not_ended_is_waited_for_again() -> None:
    missed = [Missed(1, Failure(TaskCodes.PENDING, "it has not ended"))]
    context, _ = attempt(Told(), 0, 1, found=Found([pack(10), NIL], missed))
    children = [context.spawn(add, number) for number in range(2)]
    assert context.wait(children[:1]) == [10]
    with pytest.raises(AttemptWaiting):
        context.wait()


def test_the_first_that_failed_is_raised_or_errors_take_their_places() -> None:
    missed = [
        Missed(2, Failure(TaskCodes.CANCELLED, "it is cancelled")),
        Missed(1, Failure(TaskCodes.RAISED, "no", "builtins.ValueError", "Traceback")),
    ]
    context, _ = attempt(Told(), 0, 1, 2, found=Found([pack(10), NIL, NIL], missed))
    children = [context.spawn(add, number) for number in range(3)]
    with pytest.raises(TaskFailed) as failed:
        context.wait()
    assert (failed.value.code, failed.value.type, failed.value.reason) == ("task.raised", "builtins.ValueError", "no")
    assert failed.value.message == f"task {children[1].id} failed: ValueError: no"
    with pytest.raises(TaskCancelled):
        context.wait([children[2]])
    value, error, cancelled = context.wait(return_errors=True)
    assert value == 10
    assert isinstance(error, TaskFailed)
    assert isinstance(cancelled, TaskCancelled)


@pytest.mark.parametrize("again", [(0, 2), (1, 0)])
def test_what_is_spawned_must_be_what_was(again: tuple[int, int]) -> None:
    """Else an attempt would take another task's result for its own: it has failed for good, whatever it does."""
    context, _ = attempt(Told(), 0, 1)
    context.spawn(add, again[0])
    with pytest.raises(SpawnChanged, match="must follow from its arguments"):
        context.spawn(add, again[1])
    with pytest.raises(SpawnChanged):
        context.spawn(add, 5)
    for returned in (True, False):
        failure = ended(context, returned=returned)
        assert failure is not None
        assert failure.code == TaskCodes.SPAWN_CHANGED


def test_who_returns_before_all_was_compared_has_failed_for_good() -> None:
    """It may have taken a wrong result; who raises is tried again, who spawns nothing has taken nothing."""
    context, _ = attempt(Told(), 0, 1, found=Found([NIL, NIL]))
    context.spawn(add, 7).result()
    assert ended(context, returned=False) is None
    failure = ended(context)
    assert failure is not None
    assert failure.code == TaskCodes.SPAWN_CHANGED
    context, _ = attempt(Told(), 0, 1)
    assert context.wait() == []
    assert ended(context) is None


def test_children_of_others_are_not_waited_for() -> None:
    one, _ = attempt(Told())
    other, _ = attempt(Told())
    child = one.spawn(add, 1)
    with pytest.raises(BadRequest, match="this attempt's spawn"):
        other.wait([child])
    with pytest.raises(BadRequest, match="this attempt's spawn"):
        other.wait(["x"])  # type: ignore[arg-type]
    assert isinstance(child, Child)


def test_at_most_once_spawns_and_does_not_wait() -> None:
    told = Told()
    context, _ = attempt(told, rules=Rules(at_most_once=True))
    child = context.spawn(add, 1)
    with pytest.raises(BadRequest, match="at_most_once cannot wait"):
        child.result()
    assert ended(context) is None
    assert told.numbers() == [(0, [1])]


def test_there_is_a_largest_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "CHILDREN_MAX", 2)
    context, _ = attempt(Told())
    context.spawn(add, 0)
    context.spawn(add, 1)
    with pytest.raises(BadRequest, match="at most 2"):
        context.spawn(add, 2)


def test_who_runs_without_a_worker_spawns_nothing() -> None:
    context = TaskContext(Grant(9, 1, TaskSpec(b"", "f.parent", b"")))
    with pytest.raises(BadRequest, match="nobody is here"):
        context.spawn(add, 1)
