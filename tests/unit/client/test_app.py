"""Declaring, submitting, mapping, waiting: the same promises in every face."""

import asyncio
import datetime as dt
import gc
import inspect
import pickle
import threading
from typing import TYPE_CHECKING, cast

import pytest
import trio

from taskd import App, Attempt, Explanation, Retry, RetryAfter, TaskCancelled, TaskFailed, as_completed
from taskd.client.context import TaskContext, current, running
from taskd.client.handle import TaskHandle
from taskd.client.link import Link
from taskd_protocol import task as wire
from taskd_protocol.connection import UnknownMessage
from taskd_protocol.connection_messages import Error, PeerLimits
from taskd_protocol.errors import (
    BadRequest,
    ConfigInvalid,
    ConnectionLost,
    PayloadTooLarge,
    PayloadUnpackable,
    ResultGone,
    SubmitConflict,
    TaskUnknown,
    TimedOut,
)
from taskd_protocol.explanation import Misfit, Reason
from taskd_protocol.ids import TaskId, format_task_id, is_task_id, parse_task_id, task_id_unix_ms
from taskd_protocol.messages import AttemptView, Submit, ToServer, Wait
from taskd_protocol.payload import pack, unpack_arguments
from taskd_protocol.task import Failure, Grant, Outcome, TaskSpec
from unit.client.faces import Face, wait_until
from unit.client.fake_server import SERVER_TIME_MS, FakeServer, Peer

if TYPE_CHECKING:
    from collections.abc import Iterable


def double(number: int) -> int:
    return 2 * number


def never(_spec: TaskSpec) -> Outcome | None:
    return None


def handle_of(value: object) -> TaskHandle[object]:
    assert isinstance(value, TaskHandle)
    return value


def handles_of(value: object) -> list[TaskHandle[object]]:
    assert isinstance(value, list)
    return [handle_of(one) for one in value]


def test_a_task_can_be_called_here_and_now(app: App) -> None:
    """Decorating a function does not change what calling it does."""

    @app.task
    def plain(number: int) -> int:
        """Say what it is for."""
        return number + 1

    @app.task(queue="slow")
    async def later(number: int) -> int:
        return number + 2

    assert plain(1) == 2
    assert asyncio.run(later(1)) == 3
    assert plain.__doc__ == "Say what it is for."
    assert list(inspect.signature(plain).parameters) == ["number"]
    assert inspect.iscoroutinefunction(later.__wrapped__)
    assert (plain.is_async, later.is_async) == (False, True)
    assert app.tasks[plain.name].function(4) == 5


def test_submit_returns_when_the_server_has_it_and_result_gives_what_it_returned(
    server: FakeServer, app: App, face: Face
) -> None:
    task = app.task(double)

    async def scenario() -> None:
        handle = handle_of(await face.call(task, "submit", 21))
        assert [spec.name for spec in server.tasks.values()] == [f"{__name__}.double"]
        assert handle.raw_id in server.tasks
        assert await face.call(handle, "result", timeout=10) == 21

    face.run(scenario())


def test_an_id_is_made_from_the_servers_time(server: FakeServer, app: App) -> None:
    """A client whose clock is years off makes ids that the server finds new."""
    handle = app.task(double).submit(1)
    raw = parse_task_id(handle.id)
    assert is_task_id(raw)
    assert abs(task_id_unix_ms(raw) - SERVER_TIME_MS) < 60_000
    assert format_task_id(raw) == handle.id
    assert list(server.tasks) == [raw]


def test_arguments_travel_as_they_were_given(server: FakeServer, app: App, face: Face) -> None:
    @app.task(name="t")
    def call(first: int, *rest: str, flag: bool = False, **more: float) -> None: ...

    async def scenario() -> None:
        await face.call(call, "submit", 1, "a", "b", flag=True, x=2.5)

    face.run(scenario())
    [spec] = server.tasks.values()
    assert unpack_arguments(spec.payload) == ([1, "a", "b"], {"flag": True, "x": 2.5})


def test_map_submits_one_task_for_each_item_in_order(server: FakeServer, app: App, face: Face) -> None:
    task = app.task(double)

    async def scenario() -> None:
        handles = handles_of(await face.call(task, "map", range(2500)))
        assert [await face.call(handle, "result", timeout=10) for handle in handles] == list(range(2500))
        ids = [handle.raw_id for handle in handles]
        assert ids == sorted(ids)
        assert list(server.tasks) == ids

    face.run(scenario())
    assert len(server.submits()) == 3


def test_map_takes_an_item_of_each_iterable(server: FakeServer, app: App) -> None:
    @app.task(name="add")
    def add(left: int, right: int) -> int:
        return left + right

    add.map([1, 2, 3], iter([10, 20]))
    assert [unpack_arguments(spec.payload)[0] for spec in server.tasks.values()] == [[1, 10], [2, 20]]


def test_map_of_nothing_asks_nothing(server: FakeServer, app: App) -> None:
    assert app.task(double).map([]) == []
    assert server.submits() == []


def test_one_wait_asks_for_all_tasks_of_a_map(server: FakeServer, app: App) -> None:
    """Results of a thousand tasks cost one message, not a thousand."""
    handles = app.task(double).map(range(1000))
    assert [handle.result(timeout=10) for handle in handles] == list(range(1000))
    with server.lock:
        waits = [message for message in server.received if isinstance(message, Wait)]
    assert [len(wait.ids) for wait in waits] == [1000]


def test_large_arguments_are_sent_in_several_messages(server: FakeServer, app: App) -> None:
    @app.task(name="t")
    def length(data: bytes) -> int:
        return len(data)

    handles = length.map([bytes(90_000)] * 7)
    assert [len(submit.tasks) for submit in server.submits()] == [3, 3, 1]
    assert handles[0].result(timeout=10) == bytes(90_000)  # type: ignore[comparison-overlap]  # the fake returns the argument


def test_the_servers_limit_of_tasks_in_a_submit_is_kept(face: Face) -> None:
    server = FakeServer(limits=PeerLimits(submit_tasks_max=10))
    app = App(server.url)
    task = app.task(double)

    async def scenario() -> None:
        assert len(handles_of(await face.call(task, "map", range(25)))) == 25

    face.run(scenario())
    assert [len(submit.tasks) for submit in server.submits()] == [10, 10, 5]
    app.close()
    server.stop()


def test_an_instant_reaches_the_server(server: FakeServer, app: App) -> None:
    """With the delay until then, for who knows no instants; one that is past is no delay."""

    @app.task(name="t", timeout=9)
    def work() -> None: ...

    at = dt.datetime.fromtimestamp(SERVER_TIME_MS / 1000, dt.UTC).replace(microsecond=0) + dt.timedelta(days=1)
    work.options(at=at).submit()
    work.options(at=at - dt.timedelta(days=2)).submit()
    first, second = server.tasks.values()
    assert first.rules == wire.Rules(timeout_ms=9_000, due_ms=round(at.timestamp() * 1000))
    assert first.rules.due_ms - first.delay_ms == task_id_unix_ms(TaskId(first.id))
    assert (second.delay_ms, second.rules) == (0, wire.Rules(timeout_ms=9_000))


def test_options_reach_the_server(server: FakeServer, app: App) -> None:
    @app.task(name="t", queue="images", priority=3, retry=Retry(max_attempts=5, base=0.5, factor=3, max=60, jitter=0))
    def work() -> None: ...

    work.submit()
    work.options(priority=9, delay=1.5, queue="fast", retry=Retry(max_attempts=1)).submit()
    work.options(key="order/42").submit()
    first, second, third = server.tasks.values()
    assert (first.queue, first.priority, first.delay_ms, first.key) == ("images", 3, 0, "")
    assert first.retry == wire.Retry(max_attempts=5, base_ms=500, factor=3.0, max_ms=60_000, jitter=0.0)
    assert (second.queue, second.priority, second.delay_ms) == ("fast", 9, 1500)
    assert second.retry == wire.Retry(max_attempts=1)
    assert (third.queue, third.priority, third.key) == ("images", 3, "order/42")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"priority": 101}, "priority"),
        ({"priority": "high"}, "priority"),
        ({"queue": ""}, "queue"),
        ({"queue": 7}, "queue"),
        ({"delay": -1}, "delay"),
        ({"key": "a\nb"}, "key"),
        ({"retry": Retry(max_attempts=0)}, "max_attempts"),
        ({"retry": Retry(jitter=2)}, "jitter"),
        ({"retry": 3}, "write it as retry=Retry"),
        ({"retry": Retry(crash_limit=0)}, "crash_limit"),
        ({"at_most_once": "yes"}, "at_most_once"),
        ({"delay": float("inf")}, "delay"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": 5, "soft_timeout": 6}, "soft_timeout"),
        ({"deadline": float("nan")}, "deadline"),
        ({"heartbeat": 0.1}, "heartbeat"),
        ({"heartbeat": 0.0001}, "heartbeat"),
        ({"exclusive": "yes"}, "exclusive"),
        ({"unique": "always"}, '"queued", "running" or seconds'),
        ({"unique": 0}, "unique"),
        ({"unique": True}, "unique"),
        ({"unique": "queued", "key": "k"}, "exclude each other"),
        ({"unique_key": "k"}, 'give unique="queued"'),
        ({"replace": True}, 'give unique="queued"'),
        ({"unique": "queued", "unique_key": "a\nb"}, "unique_key"),
    ],
)
def test_an_option_out_of_its_range_is_refused_where_it_is_written(
    app: App, options: dict[str, object], word: str
) -> None:
    task = app.task(double)
    with pytest.raises(BadRequest, match=word):
        task.options(**options)  # type: ignore[arg-type]  # that is the point


def test_no_limit_is_too_short_to_be_one(server: FakeServer, app: App) -> None:
    """Milliseconds travel, of which 0 says that there is none."""
    app.task(double).options(timeout=0.0001, ttl=0).submit(1)
    (spec,) = server.tasks.values()
    assert (spec.rules.timeout_ms, spec.rules.ttl_ms) == (1, 0)


class Odd(Exception):
    pass


def test_exception_types_travel_by_name(server: FakeServer, app: App) -> None:
    """As classes or as names; a name alone is a built-in's."""
    retry = Retry(on=(OSError, "ValueError", "shop.Declined"), not_on=[Odd], crash_limit=5)
    app.task(double).options(retry=retry, at_most_once=True, fair_key="tenant", sticky="m").submit(1)
    (spec,) = server.tasks.values()
    assert spec.retry == wire.Retry(
        on=["builtins.OSError", "builtins.ValueError", "shop.Declined"], not_on=[f"{__name__}.Odd"], crash_limit=5
    )
    assert spec.rules.at_most_once
    assert spec.rules.fair_key == "tenant"
    assert spec.rules.sticky == "m"


@pytest.mark.parametrize("wrong", [ValueError, "OSError", [3], [int]])
def test_what_is_no_exception_type_is_refused_where_it_is_written(wrong: object) -> None:
    with pytest.raises(BadRequest, match="on takes"):
        Retry(on=wrong)  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), 1e12])
def test_a_task_cannot_ask_for_a_retry_at_no_time(seconds: float) -> None:
    with pytest.raises(BadRequest, match=r"RetryAfter\("):
        RetryAfter(seconds)


def test_a_retry_after_says_why_or_when_and_passes_between_processes() -> None:
    again = pickle.loads(pickle.dumps(RetryAfter(2.5, "rate limit")))  # noqa: S301 - its own bytes
    assert (again.seconds, str(again), str(RetryAfter(2.5))) == (2.5, "rate limit", "try again after 2.5 s")


def test_a_handle_tells_how_attempts_ended(server: FakeServer, app: App, face: Face) -> None:
    server.run = never
    task = app.task(double)
    failure = Failure("worker.killed", "SIGSEGV ended the worker process", exit_code=-11)

    async def scenario() -> None:
        handle = handle_of(await face.call(task, "submit", 5))
        assert await face.call(handle, "attempts") == []
        server.attempts[handle.raw_id] = [
            AttemptView(1, "ash", 1_000, 2_500, "crashed", failure),
            AttemptView(2, "elm", 3_000, 3_500, "succeeded"),
        ]
        first, second = cast("list[Attempt]", await face.call(handle, "attempts"))
        assert (first.number, first.agent, first.outcome, first.exit_code) == (1, "ash", "crashed", -11)
        assert (first.code, first.reason) == ("worker.killed", failure.message)
        assert first.ended_at - first.started_at == dt.timedelta(seconds=1.5)
        assert (second.number, second.outcome, second.code) == (2, "succeeded", "")
        assert second.started_at == dt.datetime(1970, 1, 1, 0, 0, 3, tzinfo=dt.UTC)
        with pytest.raises(TaskUnknown):
            await face.call(app.handle("019aa8a9-5c00-7abc-8def-0123456789ab"), "attempts")

    face.run(scenario())


def test_a_handle_explains_why_its_task_waits(server: FakeServer, app: App, face: Face) -> None:
    server.run = never
    server.reason = Reason("agent.resource", "memory", 8 << 30, 2 << 30, 16 << 30)
    task = app.task(double)

    async def scenario() -> None:
        handle = handle_of(await face.call(task, "submit", 5))
        told = await face.call(handle, "explain")
        assert isinstance(told, Explanation)
        assert (told.state, told.code, told.subject) == ("ready", "agent.resource", "memory")
        assert told.text == "memory: needs 8 GiB, 2 GiB free of 16 GiB"
        assert (told.ahead, told.starts_in, told.agents, told.impossible) == (None, None, [], False)
        assert "waits for  memory: needs 8 GiB" in str(told)
        with pytest.raises(TaskUnknown):
            await face.call(app.handle("019aa8a9-5c00-7abc-8def-0123456789ab"), "explain")

    face.run(scenario())


def test_a_handle_tells_what_the_server_warned_of(
    server: FakeServer, app: App, face: Face, caplog: pytest.LogCaptureFixture
) -> None:
    """And it is logged, once."""
    server.warnings = [Misfit(0, Reason("agent.too_small", f"gpu-{face}", 1_000))]
    task = app.task(double)
    text = f"no agent that is connected could ever run {task.name}: it waits for gpu-{face}: needs 1, there is none"

    async def scenario() -> None:
        for _ in range(2):
            handle = handle_of(await face.call(task, "submit", 5))
            assert handle.warnings == [text]
        handles = cast("list[TaskHandle[object]]", await face.call(task, "map", [1, 2]))
        assert handles[1].warnings == [text]
        server.warnings = []
        assert handle_of(await face.call(task, "submit", 6)).warnings == []

    face.run(scenario())
    assert [(record.name, record.getMessage()) for record in caplog.records if record.name == "taskd"] == [
        ("taskd", text)
    ]


def test_a_key_finds_the_first_task_again(app: App, face: Face) -> None:
    task = app.task(double).options(key="once")

    async def scenario() -> None:
        first = handle_of(await face.call(task, "submit", 1))
        second = handle_of(await face.call(task, "submit", 2))
        assert first.id == second.id
        assert await face.call(second, "result", timeout=10) == 1

    face.run(scenario())


def test_a_key_and_map_do_not_go_together(server: FakeServer, app: App) -> None:
    with pytest.raises(BadRequest, match="key"):
        app.task(double).options(key="once").map([1, 2])
    assert server.submits() == []


def test_wrong_arguments_fail_at_the_caller(server: FakeServer, app: App, face: Face) -> None:
    task = app.task(double)

    async def scenario() -> None:
        with pytest.raises(TypeError, match=r"double\(\) missing a required argument: 'number'"):
            await face.call(task, "submit")
        with pytest.raises(TypeError, match="too many positional"):
            await face.call(task, "map", [1], [2])
        with pytest.raises(TypeError, match="unexpected keyword argument 'size'"):
            await face.call(task, "submit", 1, size=2)

    face.run(scenario())
    assert server.received == []


def test_an_argument_that_cannot_travel_is_named_at_the_caller(server: FakeServer, app: App) -> None:
    @app.task(name="t")
    def save(path: str, lock: object = None, *rest: object, **more: object) -> None: ...

    with pytest.raises(PayloadUnpackable, match=r"argument lock of t cannot be packed: _thread\.lock"):
        save.submit("p", threading.Lock())
    with pytest.raises(PayloadUnpackable, match=r"argument rest\[1\]"):
        save.submit("p", 1, 2, threading.Lock())
    with pytest.raises(PayloadUnpackable, match="argument extra"):
        save.submit("p", extra=threading.Lock())
    with pytest.raises(PayloadUnpackable, match="argument path"):
        save.map(["ok", threading.Lock()])
    assert server.submits() == []


def test_arguments_over_the_servers_limit_are_refused_at_the_caller() -> None:
    server = FakeServer(limits=PeerLimits(payload_bytes_max=100))
    app = App(server.url)
    task = app.task(name="t")(len)
    with pytest.raises(PayloadTooLarge, match="the limit is 100"):
        task.submit(bytes(101))
    with pytest.raises(PayloadTooLarge, match="the limit is 100"):
        task.map([b"", bytes(101)])
    assert server.submits() == []
    app.close()
    server.stop()


def test_a_refused_submit_raises_what_the_server_said(server: FakeServer, app: App, face: Face) -> None:
    def refuse(peer: Peer, message: ToServer | UnknownMessage) -> bool:
        if isinstance(message, Submit):
            peer.send(Error(message.request_id, "submit.conflict", "the key has another payload"))
        return isinstance(message, Submit)

    server.intercept = refuse
    task = app.task(double)

    async def scenario() -> None:
        with pytest.raises(SubmitConflict, match="another payload"):
            await face.call(task, "submit", 1)

    face.run(scenario())


def test_a_failed_task_raises_with_its_remote_type_message_and_traceback(
    server: FakeServer, app: App, face: Face
) -> None:
    def fail(spec: TaskSpec) -> Outcome:
        traceback = 'Traceback (most recent call last):\n  File "m.py", line 3, in f\nValueError: bad size\n'
        return Outcome(spec.id, "dead", 3, failure=Failure("task.raised", "bad size", "ValueError", traceback))

    server.run = fail
    task = app.task(double)

    async def scenario() -> TaskFailed:
        handle = handle_of(await face.call(task, "submit", 1))
        with pytest.raises(TaskFailed) as caught:
            await face.call(handle, "result", timeout=10)
        assert caught.value.task_id == handle.id
        return caught.value

    error = face.run(scenario())
    assert (error.type, error.reason, error.attempt, error.code) == ("ValueError", "bad size", 3, "task.raised")
    assert 'File "m.py", line 3' in error.traceback
    assert "failed on attempt 3: ValueError: bad size" in str(error)
    assert 'File "m.py", line 3' in str(error)
    assert "\n" not in error.message
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert (str(again), again.code, again.attempt) == (str(error), error.code, 3)


def test_a_cancelled_task_raises_that(server: FakeServer, app: App, face: Face) -> None:
    server.run = never
    task = app.task(double)

    async def scenario() -> None:
        handle = handle_of(await face.call(task, "submit", 1))
        assert await face.call(handle, "state") == "ready"
        assert await face.call(handle, "cancel") == "cancelled"
        assert await face.call(handle, "state") == "cancelled"
        with pytest.raises(TaskCancelled, match=handle.id):
            await face.call(handle, "result", timeout=10)

    face.run(scenario())


def test_a_retried_task_is_waited_for_again(server: FakeServer, app: App, face: Face) -> None:
    """A handle forgets the end that a retry undid; a task that succeeded keeps its own."""
    server.run = never
    task = app.task(double)

    async def scenario() -> None:
        handle = handle_of(await face.call(task, "submit", 1))
        await face.call(handle, "cancel")
        with pytest.raises(TaskCancelled):
            await face.call(handle, "result", timeout=10)
        assert await face.call(handle, "retry") == "ready"
        server.end(Outcome(handle.raw_id, "succeeded", 2, pack(7)))
        assert await face.call(handle, "result", timeout=10) == 7
        assert await face.call(handle, "retry") == "succeeded"
        assert await face.call(handle, "result", timeout=10) == 7

    face.run(scenario())


def test_a_task_that_is_not_stored_is_said_to_be_unknown(app: App, face: Face) -> None:
    handle = app.handle("0197c1a0-7d3c-7c4e-9f00-0123456789ab")

    async def scenario() -> None:
        for method in ("state", "cancel", "retry", "result"):
            with pytest.raises(TaskUnknown):
                await face.call(handle, method)

    face.run(scenario())


def test_a_result_that_is_kept_no_longer_is_said_to_be_gone(server: FakeServer, app: App) -> None:
    server.run = lambda spec: Outcome(spec.id, "unknown", failure=Failure("result.gone", "removed after 7 days"))
    handle = app.task(double).submit(1)
    with pytest.raises(ResultGone, match="7 days"):
        handle.result(timeout=10)


def test_a_handle_is_found_again_by_its_id(app: App, face: Face) -> None:
    task = app.task(double)

    async def scenario() -> None:
        handle = handle_of(await face.call(task, "submit", 5))
        assert await face.call(app.handle(handle.id), "result", timeout=10) == 5
        assert await face.call(handle, "result", timeout=10) == 5

    face.run(scenario())


def test_what_is_no_task_id_is_refused(app: App) -> None:
    with pytest.raises(BadRequest, match="is not a task id"):
        app.handle("42")


def test_a_result_that_does_not_come_in_time_can_be_asked_for_again(server: FakeServer, app: App, face: Face) -> None:
    server.run = never
    task = app.task(double)

    async def scenario() -> None:
        handle = handle_of(await face.call(task, "submit", 5))
        with pytest.raises(TimedOut, match=rf"the task has not ended within 0\.01 s: `taskd task show {handle.id}`"):
            await face.call(handle, "result", timeout=0.01)
        server.end(Outcome(handle.raw_id, "succeeded", 1, pack(6)))
        assert await face.call(handle, "result", timeout=10) == 6

    face.run(scenario())


def test_results_are_unpacked_afresh(server: FakeServer, app: App) -> None:
    """Who changes a result does not change what the next one sees."""

    @app.task(name="t")
    def names(of: list[str]) -> list[str]:
        return of

    handle = names.submit(["a"])
    handle.result(timeout=10).append("b")
    assert handle.result() == ["a"]
    assert len(server.submits()) == 1


def test_handles_come_back_as_their_tasks_end(server: FakeServer, app: App, face: Face) -> None:
    server.run = never
    task = app.task(double)

    async def scenario() -> None:
        handles = handles_of(await face.call(task, "map", range(4)))
        completions = face.completed(handles, 10)
        for index in (2, 0, 3, 1):
            server.end(Outcome(handles[index].raw_id, "succeeded", 1, pack(index)))
            assert await anext(completions) is handles[index]
        with pytest.raises(StopAsyncIteration):
            await anext(completions)

    face.run(scenario())


def test_as_completed_gives_what_has_ended_before_it_was_asked(app: App, face: Face) -> None:
    task = app.task(double)

    async def scenario() -> None:
        handles = handles_of(await face.call(task, "map", range(3)))
        for handle in handles:
            await face.call(handle, "result", timeout=10)
        assert [handle async for handle in face.completed(handles, 10)] == handles

    face.run(scenario())


def test_a_loop_over_completions_may_be_left_early(server: FakeServer, app: App, face: Face) -> None:
    """Nothing is printed, and nothing is kept of it."""
    server.run = never
    task = app.task(double)

    async def scenario() -> None:
        handles = handles_of(await face.call(task, "map", range(3)))
        server.end(Outcome(handles[1].raw_id, "succeeded", 1, pack(1)))
        async for handle in face.completed(handles, 10):
            assert handle is handles[1]
            break

    face.run(scenario())
    link = app.client.link
    assert isinstance(link, Link)
    pump = link._pump
    assert pump is not None
    gc.collect()
    wait_until(lambda: not pump.ends._watches)


def test_as_completed_stops_waiting_when_its_time_has_passed(server: FakeServer, app: App, face: Face) -> None:
    server.run = never
    task = app.task(double)

    async def scenario() -> None:
        handles = handles_of(await face.call(task, "map", range(3)))
        server.end(Outcome(handles[1].raw_id, "succeeded", 1, pack(1)))
        assert await face.call(handles[1], "result", timeout=10) == 1
        completions = face.completed(handles, 0.5)
        assert await anext(completions) is handles[1]
        with pytest.raises(TimedOut, match=rf"2 of 3 tasks have not .* `taskd task show {handles[0].id}`"):
            await anext(completions)

    face.run(scenario())


def test_as_completed_takes_handles_of_several_apps(server: FakeServer) -> None:
    apps = [App(server.url), App(server.url)]
    handles = [app.task(double).submit(index) for index, app in enumerate(apps)]
    assert {handle.result() for handle in as_completed(handles, timeout=10)} == {0, 1}
    for app in apps:
        app.close()


def test_sync_asyncio_and_trio_share_one_connection(server: FakeServer, app: App) -> None:
    """Whatever waits, there is one connection in a process."""
    task = app.task(double)

    async def scenario() -> int:
        return await (await task.asubmit(3)).aresult(timeout=10)

    assert task.submit(3).result(timeout=10) == 3
    assert asyncio.run(scenario()) == 3
    assert trio.run(scenario) == 3
    assert len(server.peers) == 1


def test_many_threads_and_loops_submit_at_once(server: FakeServer, app: App) -> None:
    task = app.task(double)
    results: dict[int, list[int]] = {}

    def by_thread(number: int) -> None:
        results[number] = [handle.result(timeout=20) for handle in task.map(range(number, number + 300))]

    def by_loop(number: int) -> None:
        async def scenario() -> list[int]:
            handles = await asyncio.gather(*(task.asubmit(number + index) for index in range(50)))
            return await asyncio.gather(*(handle.aresult(timeout=20) for handle in handles))

        results[number] = asyncio.run(scenario())

    threads = [threading.Thread(target=by_thread, args=(1000 * index,)) for index in range(6)]
    threads += [threading.Thread(target=by_loop, args=(1000 * index,)) for index in range(6, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected: dict[int, Iterable[int]] = {1000 * index: range(1000 * index, 1000 * index + 300) for index in range(6)}
    expected |= {1000 * index: range(1000 * index, 1000 * index + 50) for index in range(6, 9)}
    assert results == {number: list(numbers) for number, numbers in expected.items()}
    assert len(server.tasks) == 6 * 300 + 3 * 50


def test_a_cancelled_waiter_leaves_the_client_usable(server: FakeServer, app: App) -> None:
    server.run = never
    task = app.task(double)

    async def on_trio() -> None:
        handle = await task.asubmit(1)
        with trio.move_on_after(0.01) as scope:
            await handle.aresult()
        assert scope.cancelled_caught
        server.end(Outcome(handle.raw_id, "succeeded", 1, pack(1)))
        assert await handle.aresult(timeout=10) == 1

    async def on_asyncio() -> None:
        handle = await task.asubmit(2)
        waiter = asyncio.create_task(handle.aresult())
        await asyncio.sleep(0)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        server.end(Outcome(handle.raw_id, "succeeded", 1, pack(2)))
        assert await handle.aresult(timeout=10) == 2

    trio.run(on_trio)
    asyncio.run(on_asyncio())


def test_two_tasks_of_one_name_are_refused(app: App) -> None:
    app.task(double)
    with pytest.raises(BadRequest, match=r"two tasks are named .*double.*rename one, or give it a name="):
        app.task(name=f"{__name__}.double")(lambda: None)


def test_the_same_definition_run_again_replaces_the_first(app: App) -> None:
    """As a reload of its module does."""
    first, second = app.task(double), app.task(double)
    assert app.tasks[first.name] is second


def test_a_name_may_be_given(app: App) -> None:
    @app.task(name="reports.daily")
    def report() -> None: ...

    assert report.name == "reports.daily"
    with pytest.raises(BadRequest, match="task name"):
        app.task(name="")(double)


def test_a_task_is_pickled_by_name() -> None:
    """Multiprocessing can be handed a task as it can be handed a function."""
    assert pickle.loads(pickle.dumps(MODULE_TASK)) is MODULE_TASK  # noqa: S301 - our own bytes


def test_without_a_server_the_error_says_what_to_start(face: Face) -> None:
    task = App().task(double)

    async def scenario() -> None:
        with pytest.raises(ConfigInvalid, match=r"taskd dev.*taskd server.*TASKD_URL"):
            await face.call(task, "submit", 1)

    face.run(scenario())


def test_a_closed_app_connects_anew_when_used(server: FakeServer, app: App, face: Face) -> None:
    task = app.task(double)

    async def scenario() -> None:
        handle = handle_of(await face.call(task, "submit", 1))
        await face.call(app, "close")
        assert await face.call(handle, "result", timeout=10) == 1

    face.run(scenario())
    wait_until(lambda: len(server.peers) == 1)


def test_closing_wakes_who_waits(server: FakeServer, app: App) -> None:
    server.run = never
    handle = app.task(double).submit(1)
    caught: list[BaseException] = []

    def wait() -> None:
        try:
            handle.result()
        except ConnectionLost as error:
            caught.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    wait_until(lambda: any(isinstance(message, Wait) for message in server.received))
    app.close()
    waiter.join(10)
    assert len(caught) == 1
    assert "closed" in str(caught[0])


def test_each_submit_carries_a_trace_and_a_tasks_own_submits_continue_its_trace(server: FakeServer, app: App) -> None:
    task = app.task(double)
    task.map([1, 2])
    first, second = (spec.traceparent for spec in server.tasks.values())
    assert first != second
    context = TaskContext(Grant(7, 2, TaskSpec(bytes(16), "m.f", queue="q", traceparent=first)))
    token = running.set(context)
    try:
        assert current() is context
        task.submit(3)
    finally:
        running.reset(token)
    third = list(server.tasks.values())[2].traceparent
    assert third[:36] == first[:36]
    assert third != first


@App().task
def MODULE_TASK() -> None:  # noqa: N802 - one name, so that it is found again
    """Exist."""
