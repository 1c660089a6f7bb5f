"""Tasks that make tasks, on a server within a test and inline: by the same rules, and with the same ends."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from taskd import App, Retry, SpawnChanged, TaskFailed, current
from taskd.client.middleware import Around
from taskd.server import workflow_role
from taskd.testing import inline, server
from taskd_protocol.errors import TaskCodes

Place = Callable[[App], AbstractContextManager[object]]
ONCE = Retry(max_attempts=1)


@pytest.fixture(params=[inline, server])
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.param
    return found


class Family:
    """A program's tasks, and what they did."""

    def __init__(self) -> None:  # noqa: C901 - tasks one after the other
        self.app = app = App()
        self.did: list[object] = []
        self.seen: list[str] = []
        self.turn = 0

        @app.task(name="f.leaf")
        def leaf(number: int) -> int:
            self.did.append(number)
            return number

        @app.task(name="f.bad", retry=ONCE)
        def bad(words: str) -> None:
            raise LookupError(words)

        @app.task(name="f.middle")
        async def middle(number: int) -> int:
            me = current()
            return sum(me.wait([me.spawn(leaf, number * 2), me.spawn(leaf, number * 2 + 1)]))

        @app.task(name="f.top")
        def top(count: int) -> int:
            me = current()
            return sum(me.wait([me.spawn(middle, number) for number in range(count)]))

        @app.task(name="f.stages")
        def stages(count: int) -> list[int]:
            """What a stage spawns follows from the results of the one before."""
            me = current()
            results: list[int] = []
            for stage in range(count):
                results.append(sum(me.wait([me.spawn(leaf, stage + sum(results)), me.spawn(leaf, 1)])))
            return results

        @app.task(name="f.mends")
        def mends() -> list[str]:
            me = current()
            children = [me.spawn(bad, "one"), me.spawn(bad, "two")]
            return [str(getattr(error, "reason", "")) for error in me.wait(children, return_errors=True)]

        @app.task(name="f.breaks", retry=ONCE)
        def breaks() -> None:
            current().spawn(bad, "mine").result()

        @app.task(name="f.forgets")
        def forgets() -> str:
            current().spawn(leaf, 77)
            return "gone on"

        @app.task(name="f.fickle")
        def fickle() -> int:
            self.turn += 1
            try:
                return current().spawn(leaf, self.turn).result()
            except SpawnChanged:
                return 0

        self.leaf, self.bad, self.top, self.stages = leaf, bad, top, stages
        self.mends, self.breaks, self.forgets, self.fickle = mends, breaks, forgets, fickle


@pytest.fixture
def family() -> Family:
    return Family()


def test_three_generations(family: Family, place: Place) -> None:
    with place(family.app):
        assert family.top.submit(10).result() == sum(range(20))
    assert sorted(map(str, family.did)) == sorted(map(str, range(20))), "each ran once"


def test_stages_follow_from_results(family: Family, place: Place) -> None:
    with place(family.app):
        assert family.stages.submit(4).result() == [1, 3, 7, 15]
    assert len(family.did) == 8


def test_failures_come_as_errors_or_are_raised(family: Family, place: Place) -> None:
    with place(family.app):
        assert family.mends.submit().result() == ["one", "two"]
        with pytest.raises(TaskFailed) as failed:
            family.breaks.submit().result()
    assert failed.value.type == "taskd.client.outcome.TaskFailed"
    assert "LookupError: mine" in failed.value.reason


def test_what_nobody_waits_for_runs_too(family: Family) -> None:
    with inline(family.app):
        assert family.forgets.submit().result() == "gone on"
        assert family.did == [77]
    with server(family.app) as local:
        assert family.forgets.submit().result() == "gone on"
        local.run_until_idle()
    assert family.did == [77, 77]


def test_who_spawns_something_else_has_failed_whatever_it_returns(family: Family, place: Place) -> None:
    with place(family.app), pytest.raises(TaskFailed) as failed:
        family.fickle.submit().result()
    assert failed.value.code == TaskCodes.SPAWN_CHANGED
    assert family.did == [1]
    assert family.turn == 2, "no third attempt"


def test_middleware_sees_no_error_that_is_an_exception(family: Family, place: Place) -> None:
    seen = family.seen

    class Watch:
        def attempting(self, _: object, /) -> Around:
            try:
                result = yield
                seen.append(f"returned {result}")
            except Exception:  # noqa: BLE001 - the point: none comes
                seen.append("failed")

    family.app.middleware(Watch())
    with place(family.app):
        assert family.top.submit(0).result() == 0
        assert family.stages.submit(1).result() == [1]
    assert seen == ["returned 0", "returned 0", "returned 1", "returned [1]"]


def test_why_children_failed_comes_in_pages_of_bounded_size(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow_role, "PAGE_BYTES", 2_000)
    pages: list[int] = []
    read = workflow_role.read_input

    async def counted(*words: object) -> object:
        page = await read(*words)  # type: ignore[arg-type]
        pages.append(len(page.missed))
        return page

    monkeypatch.setattr("taskd.testing.house.read_input", counted)
    app, bad = family.app, family.bad

    @app.task(name="f.many")
    def many(count: int) -> int:
        me = current()
        return len(me.wait([me.spawn(bad, "x" * 900) for _ in range(count)], return_errors=True))

    with server(app):
        assert many.submit(10).result() == 10
    assert sum(pages) == 10
    assert max(pages) < 4
