"""Schedules as a program makes them: declared beside a task, or kept by a call, against the rules of a real server."""

import datetime as dt
from collections.abc import Callable

import pytest

from taskd import App, At, Cron, Every, Schedule, ScheduleHandle, TaskFailed, Workflow, current
from taskd.client.timing import When
from taskd.testing import server
from taskd_protocol.errors import BadRequest, ScheduleUnknown, WorkflowInvalid
from taskd_protocol.payload import unpack_arguments
from taskd_protocol.schedule import NO_TASK, Timing

UTC = dt.UTC


def test_what_is_declared_is_told_as_it_was_said() -> None:
    app = App()
    nightly = Schedule(when=Cron("0 3 * * *", tz="Europe/Oslo"), name="nightly", args=(1,), kwargs={"b": 2}, jitter=1.5)

    @app.task(schedule=[Every(60), nightly], queue="slow", timeout=9)
    def work(a: int = 0, b: int = 0) -> int:
        return a + b

    one, two = app.schedules[work.name]
    assert (one.name, one.timing, one.overlap, one.missed) == (work.name, Timing(every_ms=60_000), "skip", "latest")
    assert (two.name, two.jitter_ms) == ("nightly", 1_500)
    assert unpack_arguments(two.task.payload) == ([1], {"b": 2})
    assert (two.task.queue, two.task.rules.timeout_ms) == ("slow", 9_000)
    assert work(1, 2) == 3, "it is called as before"


@pytest.mark.parametrize(
    ("when", "timing"),
    [
        (Cron("@daily", "0 9 * * *"), Timing(cron=("@daily", "0 9 * * *"))),
        (
            Cron(
                "0 3 * * *",
                tz="Europe/Oslo",
                gap="shift",
                fold="both",
                start=dt.datetime(2026, 7, 1, 12),  # noqa: DTZ001 - by the clock of Oslo
                end=dt.datetime(2026, 8, 1, tzinfo=UTC),
                not_on=["2026-12-24", dt.date(2026, 12, 25)],
                not_cron=["* * * * sun"],
            ),
            Timing(
                ("0 3 * * *",),
                zone="Europe/Oslo",
                gap="shift",
                fold="both",
                start_ms=1_782_900_000_000,
                end_ms=1_785_542_400_000,
                not_dates=("2026-12-24", "2026-12-25"),
                not_cron=("* * * * sun",),
            ),
        ),
        (Every(dt.timedelta(hours=1)), Timing(every_ms=3_600_000)),
        (At(dt.datetime(2026, 7, 1, tzinfo=UTC)), Timing(at_ms=(1_782_864_000_000,))),
    ],
)
def test_times_are_told_in_utc(when: When, timing: Timing) -> None:
    assert when.timing == timing


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Every(0), "interval above zero"),
        (lambda: Every(0.5), "from one second"),
        (lambda: Every(float("nan")), "finite"),
        (Cron, "exactly one of the three"),
        (At, "exactly one of the three"),
        (lambda: Cron("x" * 300), "256"),
        (lambda: Cron("@daily", tz="no/such zone"), "no IANA name"),
        (lambda: Cron("@daily", gap="jump"), "gap 'jump' is unknown"),  # type: ignore[arg-type]
        (lambda: Cron("@daily", not_on=["24.12."]), "write it as 2026-12-24"),
        (lambda: At(dt.datetime(2026, 1, 1), tz="Mars/Olympus"), "give at an offset"),  # noqa: DTZ001
        (
            lambda: Cron("@daily", start=dt.datetime(2026, 2, 1, tzinfo=UTC), end=dt.datetime(2026, 1, 1, tzinfo=UTC)),
            "ends before it starts",
        ),
    ],
)
def test_what_cannot_be_is_refused_where_it_is_written(make: Callable[[], object], says: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        make()
    assert says in refusal.value.message


def test_a_declaration_that_cannot_be_is_refused() -> None:
    app = App()

    def work(a: int = 0) -> None: ...

    with pytest.raises(BadRequest, match="says no time"):
        app.task(schedule="0 3 * * *")(work)  # type: ignore[arg-type]
    with pytest.raises(BadRequest, match="one name"):
        app.task(schedule=[Every(1), Every(2)])(work)
    with pytest.raises(BadRequest, match="overlap= says"):
        app.task(schedule=Every(1), unique="queued")(work)
    with pytest.raises(TypeError, match="too many positional"):
        app.task(schedule=Schedule(when=Every(1), args=(1, 2, 3)))(work)
    app.task(name="first", schedule=Schedule(when=Every(1), name="same"))(work)
    with pytest.raises(BadRequest, match="two schedules are named 'same'"):
        app.task(name="second", schedule=Schedule(when=Every(1), name="same"))(work)


def test_a_schedule_is_kept_and_fires_as_time_passes() -> None:
    """In a test, on a clock that the test moves; the task knows its time."""
    app, seen = App(), list[tuple[str, dt.datetime | None, int]]()

    @app.task
    def note(number: int) -> None:
        seen.append((current().schedule, current().scheduled_for, number))

    with server(app) as local:
        handle = app.schedule("often", Every(60), note, args=(7,))
        assert isinstance(handle, ScheduleHandle)
        first = handle.next()
        local.advance(185)
        assert first is not None
        minute = dt.timedelta(minutes=1)
        assert seen == [("often", first + minute * index, 7) for index in range(3)]
        handle.pause()
        assert handle.state() == "paused"
        local.advance(600)
        assert len(seen) == 3
        triggered = handle.trigger()
        assert triggered.result() is None
        assert seen[-1][0] == "often"
        handle.resume()
        local.run_until_idle()
        assert len(seen) == 5, "the latest of those that it missed"
        again = app.schedule("often", Every(60), note, args=(7,), overlap="allow", missed="skip")
        assert app.schedule_handle("often").state() == "active"
        again.remove()
        with pytest.raises(ScheduleUnknown):
            handle.state()
        with pytest.raises(BadRequest, match="names no day that there is"):
            app.schedule("never", Cron("0 0 30 2 *"), note, args=(1,))
        with pytest.raises(BadRequest, match="schedule name '' is not allowed"):
            app.schedule("", Every(60), note, args=(1,))


async def test_the_same_on_an_event_loop() -> None:
    app = App()

    @app.task
    def work() -> int:
        return 5

    with server(app):
        handle = await app.aschedule("hourly", Every(3600), work, jitter=2.0)
        assert await handle.anext() is not None
        assert await (await handle.atrigger()).aresult() == 5
        await handle.apause()
        await handle.aresume()
        assert await handle.astate() == "active"
        await handle.aremove()


def test_a_workflow_is_scheduled_by_the_function_that_writes_it() -> None:
    """It is called with what each schedule says, and stays what it is."""
    app = App()

    @app.task
    def fetch(place: str) -> str:
        return place

    south = Schedule(when=Cron("0 4 * * *"), name="etl-south", args=("south",), overlap="queue_one", pause_after=3)

    @app.scheduled([Cron("0 3 * * *", tz="Europe/Oslo"), south])
    def etl(place: str = "north") -> Workflow:
        with app.workflow("etl", policy="fail_fast") as wf:
            fetch.node(fetch.node(place), name="last")
        return wf

    [(source, tell)] = app.written
    assert source == __name__
    one, two = tell()
    assert (one.name, one.timing.zone, one.task) == ("etl", "Europe/Oslo", NO_TASK)
    assert (two.name, two.overlap, two.pause_after) == ("etl-south", "queue_one", 3)
    for made, place in ((one, "north"), (two, "south")):
        assert made.workflow is not None
        assert (made.workflow.name, made.workflow.policy) == ("etl", "fail_fast")
        assert [node.name for node in made.workflow.nodes] == ["fetch", "last"]
        assert made.workflow.nodes[0].task is not None
        assert unpack_arguments(made.workflow.nodes[0].task.payload) == ([place], {})
    assert etl("east").name == "etl"


def test_a_scheduled_workflow_that_cannot_be_is_refused() -> None:
    app = App()

    @app.task
    def work() -> None: ...

    @app.scheduled(Every(60))
    def empty() -> Workflow:
        return app.workflow("empty")

    @app.scheduled(Every(60))
    def nothing() -> Workflow:
        with app.workflow("nothing"):
            work.node()
        return None  # type: ignore[return-value]

    @app.scheduled(Schedule(when=Every(60), jitter=3))
    def shaken() -> Workflow:
        with app.workflow("shaken") as wf:
            work.node()
        return wf

    (_, first), (_, second), (_, third) = app.written
    with pytest.raises(WorkflowInvalid, match="has no nodes"):
        first()
    with pytest.raises(BadRequest, match="returns None, and no workflow"):
        second()
    with pytest.raises(BadRequest, match="jitter is for tasks"):
        third()
    with pytest.raises(BadRequest, match="its nodes have theirs"):
        app.schedule("shaken", Every(60), shaken(), args=(1,))


def test_a_scheduled_workflow_runs_as_time_passes_and_its_tasks_know_the_time() -> None:
    app, seen = App(), list[tuple[str, dt.datetime | None, int]]()

    @app.task
    def note(number: int) -> int:
        seen.append((current().schedule, current().scheduled_for, number))
        if number > 90:
            raise ValueError(number)
        return number + 1

    with app.workflow("twice") as wf:
        last = note.node(note.node(1), name="last")

    with server(app) as local:
        handle = app.schedule("often", Every(60), wf, overlap="queue_one")
        first = handle.next()
        local.advance(125)
        assert first is not None
        minute = dt.timedelta(minutes=1)
        assert seen == [("often", first + minute * index, number) for index in range(2) for number in (1, 2)]
        run = handle.trigger_workflow()
        assert run.result("last") == 3
        assert run.state() == "succeeded"
        with pytest.raises(BadRequest, match="submits a workflow: call trigger_workflow"):
            handle.trigger()
        with app.workflow("bad") as bad:
            note.node(99, name="first")
        app.schedule("often", Every(60), bad, pause_after=2)
        local.advance(130)
        assert handle.state() == "paused"
        assert last.name == "last"
        failing = handle.trigger_workflow()
        with pytest.raises(TaskFailed):
            failing.result("first")
        single = app.schedule("task", Every(60), note, args=(1,))
        with pytest.raises(BadRequest, match="submits a task: call trigger"):
            single.trigger_workflow()
