"""A server within a test: the rules of the real one, on a clock that stands still until it is moved."""

import asyncio
import datetime as dt
import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from taskd import (
    Every,
    Retry,
    RetryAfter,
    TaskCancelled,
    TaskExpired,
    TaskFailed,
    TaskUnknown,
    TimedOut,
    as_completed,
    current,
)
from taskd.client.promise import Signal
from taskd.client.session import Session
from taskd.testing import LocalServer, inline, recording, server
from taskd_protocol.errors import BadRequest, ConnectionLost, PayloadUnpackable, SubmitConflict, WorkflowInvalid
from taskd_protocol.ids import format_task_id, parse_task_id, task_id_unix_ms
from taskd_protocol.payload import pack_arguments
from taskd_protocol.task import TaskSpec
from unit.client.faces import wait_until
from unit.testing.shop import USER, Shop

if TYPE_CHECKING:
    from taskd.testing.pump import LoopPump


def test_a_result_comes_as_from_any_server(shop: Shop) -> None:
    """Waiting for a result lets the task run; plain and async functions alike."""
    with server(shop.app):
        handle = shop.add.submit(2, 3)
        assert handle.state() == "ready"
        assert handle.result() == 5
        assert handle.state() == "succeeded"
        assert shop.double.submit(4).result() == 8
        assert [one.result() for one in as_completed(shop.add.map([1, 2, 3], [1, 1, 1]))] == [2, 3, 4]


def test_nothing_runs_between_the_lines_of_a_test(shop: Shop) -> None:
    """A task waits, whatever is submitted, asked and cancelled, until the test has it run."""
    with server(shop.app) as local:
        first, second = shop.note.map(["a", "b"])
        assert (first.state(), second.cancel(), shop.calls) == ("ready", "cancelled", [])
        local.run_until_idle()
        assert (first.state(), shop.calls) == ("succeeded", ["a"])
        with pytest.raises(TaskCancelled):
            second.result()


def test_there_is_one_task_at_a_time_of_the_same_work(shop: Shop) -> None:
    """Of each item of a map its own; the handles of the others are the first one's."""
    with server(shop.app) as local:
        once = shop.note.options(unique="running")
        first, second, other = once.map(["a", "a", "b"])
        assert (first.id == second.id, first.id == other.id) == (True, False)
        assert [handle.result() for handle in (first, second, other)] == ["a", "a", "b"]
        assert shop.calls == ["a", "b"]
        assert once.submit("a").id != first.id
        for_a_minute = shop.note.options(unique=60, unique_key="u", delay=1)
        shown = for_a_minute.submit("c")
        local.advance(59)
        assert for_a_minute.submit("d").result() == shown.result() == "c"
        local.advance(1)
        old = for_a_minute.submit("e")
        new = for_a_minute.options(replace=True).submit("f")
        assert (old.state(), new.result()) == ("cancelled", "f")


def test_a_delay_ends_when_the_clock_is_moved(shop: Shop) -> None:
    """Not a second before; a month takes no time."""
    with server(shop.app) as local:
        handle = shop.note.options(delay=30 * 86_400).submit("later")
        local.run_until_idle()
        local.advance(30 * 86_400 - 1)
        assert (handle.state(), shop.calls) == ("scheduled", [])
        local.advance(1)
        assert (handle.state(), shop.calls) == ("succeeded", ["later"])


def test_a_task_begins_at_its_instant(shop: Shop) -> None:
    """By the server's clock; one that is past is now, and another delay takes its place."""
    oslo = ZoneInfo("Europe/Oslo")
    with server(shop.app) as local:
        now = dt.datetime.fromtimestamp(task_id_unix_ms(parse_task_id(shop.note.submit("now").id)) / 1000, oslo)
        at = shop.note.options(delay=5).options(at=now + dt.timedelta(days=1))
        later, other = at.map(["later", "other"])
        at.options(delay=60).submit("soon")
        shop.note.options(at=now - dt.timedelta(days=1)).submit("past")
        local.run_until_idle()
        assert shop.calls == ["now", "past"]
        local.advance(86_390)
        assert shop.calls == ["now", "past", "soon"]
        local.advance(10)
        assert (later.state(), other.state()) == ("succeeded", "succeeded")


def test_an_instant_that_cannot_be_is_refused(shop: Shop) -> None:
    at = dt.datetime(2026, 12, 24, 18, tzinfo=dt.UTC)
    with pytest.raises(BadRequest, match=r"2026-12-24T18:00:00, which has no zone: say whose clock it is by"):
        shop.note.options(at=dt.datetime(2026, 12, 24, 18))  # noqa: DTZ001 - that is what is refused
    with pytest.raises(BadRequest, match="both say when it may begin"):
        shop.note.options(at=at, delay=3)
    with pytest.raises(BadRequest, match="and no datetime"):
        shop.note.options(at="2026-12-24T18:00Z")  # type: ignore[arg-type]
    with server(shop.app):
        with pytest.raises(BadRequest, match="over ten years from now"):
            shop.note.options(at=at.replace(year=2300)).submit("a")
        with pytest.raises(BadRequest, match="a schedule says its own times"):
            shop.app.schedule("s", Every(60), shop.note.options(at=at), args=("a",))
        with shop.app.workflow("w"), pytest.raises(WorkflowInvalid, match="take delay="):
            shop.note.options(at=at).node("a")


def test_waiting_for_a_result_moves_the_clock(shop: Shop) -> None:
    """What is due first happens first, however far away it is."""
    with server(shop.app):
        late = shop.note.options(delay=86_400).submit("late")
        soon = shop.note.options(delay=3_600).submit("soon")
        assert late.result() == "late"
        assert shop.calls == ["soon", "late"]
        assert soon.result() == "soon"


def test_retries_wait_for_their_backoff(shop: Shop) -> None:
    """Each attempt comes at its time by the server's clock: 10 s after the first, 20 s after the second."""
    with server(shop.app) as local:
        handle = shop.fail.submit(2)
        local.run_until_idle()
        assert (handle.state(), shop.calls) == ("scheduled", ["attempt 1"])
        local.advance(9.5)
        assert shop.calls == ["attempt 1"]
        local.advance(0.5)
        assert shop.calls == ["attempt 1", "attempt 2"]
        local.advance(20)
        assert handle.state() == "succeeded"
        assert handle.result() == 3


def test_a_task_says_when_to_try_it_again(shop: Shop) -> None:
    """Not before, however little its policy would wait."""

    @shop.app.task(name="shop.limited", retry=Retry(base=0))
    def limited() -> int:
        if current().attempt == 1:
            raise RetryAfter(60)
        return current().attempt

    with server(shop.app) as local:
        handle = limited.submit()
        local.run_until_idle()
        local.advance(59)
        assert (handle.state(), [ended.outcome for ended in handle.attempts()]) == ("scheduled", ["failed"])
        local.advance(1)
        assert (handle.state(), handle.result()) == ("succeeded", 2)
        assert [ended.outcome for ended in handle.attempts()] == ["failed", "succeeded"]


def test_a_task_whose_attempts_are_spent_is_dead(shop: Shop) -> None:
    """Its error tells the remote type, message and place, as from any agent."""
    with server(shop.app):
        handle = shop.fail.submit(3)
        with pytest.raises(TaskFailed, match="not yet, 3") as caught:
            handle.result()
        assert (handle.state(), caught.value.type, caught.value.attempt) == ("dead", "builtins.LookupError", 3)
        assert caught.value.traceback.count("File ") == 1
        assert handle.retry() == "ready"
        assert handle.result() == 4


def test_time_limits_pass_by_the_servers_clock(shop: Shop) -> None:
    """Before the start, of one attempt, and of the whole task."""
    with server(shop.app, event_loop="trio") as local:
        expired = shop.note.options(ttl=60, delay=59).submit("a")
        local.advance(0)
        assert shop.sleep.options(timeout=30, retry=Retry(max_attempts=1)).submit(29).result() == 29
        timed_out = shop.sleep.options(timeout=30, retry=Retry(max_attempts=1)).submit(31)
        late = shop.sleep.options(timeout=30, deadline=20).submit(25)
        with pytest.raises(TaskFailed, match="longer than 30 s"):
            timed_out.result()
        with pytest.raises(TaskExpired):
            late.result()
        assert expired.result() == "a"
        with pytest.raises(TaskFailed, match="deadline"):
            shop.sleep.options(deadline=20).submit(25).result()


def test_an_attempt_that_gives_no_heartbeat_has_stalled(shop: Shop) -> None:
    """Counted from the last one, whenever that came; who beats in time goes on."""

    @shop.app.task(name="shop.beating", heartbeat=30, retry=Retry(max_attempts=1))
    async def beating(pauses: list[float]) -> str:
        for pause in pauses:
            await trio.sleep(pause)
            current().heartbeat()
        return "done"

    with server(shop.app, event_loop="trio"):
        assert beating.submit([20, 29, 5, 29]).result() == "done"
        with pytest.raises(TaskFailed, match="no heartbeat for longer than 30 s") as caught:
            beating.submit([20, 20, 31]).result()
        assert caught.value.code == "task.stalled"


def test_a_soft_timeout_tells_before_the_hard_one_ends(shop: Shop) -> None:
    """A coroutine is told by its cancel; a plain function looks, on real time."""
    once = Retry(max_attempts=1)
    with server(shop.app, event_loop="trio"):
        assert shop.sleep.options(soft_timeout=30, timeout=60).submit(29).result() == 29
        with pytest.raises(TaskFailed, match="soft timeout of 30 s") as caught:
            shop.sleep.options(soft_timeout=30, timeout=60, retry=once).submit(31).result()
        assert caught.value.code == "task.timed_out"
    with server(shop.app, real_time=True):
        assert shop.polite.options(soft_timeout=0.5, timeout=60, retry=once).submit().result() is None
    assert shop.calls == ["told"]


def test_a_task_that_nobody_starts_in_time_expires(shop: Shop) -> None:
    """Its place is taken by another one that sleeps for longer than it can wait."""
    with server(shop.app, event_loop="trio"):
        shop.sleep.options(priority=1).submit(100)
        waiting = shop.note.options(ttl=60).submit("a")
        with pytest.raises(TaskExpired):
            waiting.result()


def test_priorities_order_what_waits(shop: Shop) -> None:
    """With one at a time the order is the server's, each time the same."""
    with server(shop.app) as local:
        for word, priority in (("low", -5), ("first", 0), ("second", 0), ("high", 9)):
            shop.note.options(priority=priority).submit(word)
        local.run_until_idle()
    assert shop.calls == ["high", "first", "second", "low"]


def test_keys_find_the_first_task(shop: Shop) -> None:
    """The same key and arguments: one task; other arguments: a conflict."""
    with server(shop.app) as local:
        keyed = shop.note.options(key="order/1")
        assert keyed.submit("a").id == keyed.submit("a").id
        with pytest.raises(SubmitConflict):
            keyed.submit("b")
        local.run_until_idle()
    assert shop.calls == ["a"]


def test_packing_is_in_earnest(shop: Shop) -> None:
    """What cannot travel is refused at the submit, or fails the attempt that returned it."""
    with server(shop.app):
        with pytest.raises(PayloadUnpackable, match="argument word"):
            shop.note.submit(object())  # type: ignore[arg-type]
        with pytest.raises(TaskFailed, match="cannot be packed"):
            shop.unpackable.submit().result()


def test_middleware_works_as_in_a_worker(shop: Shop) -> None:
    """A carried variable is set in the task, and in what that submits, and nothing else is."""
    with server(shop.app):
        before = USER.set("u-1")
        try:
            mine, parent = shop.whose.submit(), shop.parent.submit()
        finally:
            USER.reset(before)
        child = shop.app.handle(parent.result())
        assert (mine.result(), child.result(), shop.whose.submit().result()) == ("u-1", "u-1", "nobody")


def test_a_running_function_can_be_cancelled(shop: Shop) -> None:
    """The task is cancelled, and its thread's end is nobody's any more; the next task runs."""
    with server(shop.app) as local:
        handle = shop.wait.submit()
        driving = threading.Thread(target=local.run_until_idle)
        driving.start()
        assert shop.waiting.wait(30)
        assert handle.state() == "running"
        assert handle.cancel() == "cancelling"
        driving.join(30)
        assert handle.state() == "cancelled"
        assert shop.add.submit(1, 1).result() == 2
        shop.gate.set()


def test_a_function_that_is_left_behind_may_look_whether_it_is_to_end(shop: Shop) -> None:
    with server(shop.app) as local:
        handle = shop.polite.submit()
        driving = threading.Thread(target=local.run_until_idle)
        driving.start()
        assert shop.waiting.wait(30)
        assert handle.cancel() == "cancelling"
        driving.join(30)
        assert handle.state() == "cancelled"
        assert shop.gate.wait(30)
        assert shop.calls == ["told"]


def test_an_attempt_goes_on_where_the_one_before_was(shop: Shop) -> None:
    with server(shop.app):
        assert shop.steps.submit(3).result() == [1, 2, 3]
        assert shop.steps.submit(1).result() == [1]


def test_a_task_may_wait_for_another_one(shop: Shop) -> None:
    """The clock goes on while a function does nothing but wait for another task's time."""
    with server(shop.app, concurrency=2):
        assert shop.ask.submit(3_600).result() == "asked"


def test_a_task_that_waits_for_its_own_place_is_told(shop: Shop) -> None:
    """With one place, what it waits for can never run: it fails with that reason, and does not hang."""
    with server(shop.app), pytest.raises(TimedOut, match="nothing is left to happen"):
        shop.ask.submit(0).result()


def test_coroutines_on_trio_sleep_on_the_servers_clock(shop: Shop) -> None:
    """``trio.sleep`` ends when the clock is moved, to the instant."""
    with server(shop.app, event_loop="trio", concurrency=2) as local:
        handle, other = shop.sleep.submit(60), shop.sleep.submit(7_200)
        local.run_until_idle()
        assert (handle.state(), other.state()) == ("running", "running")
        local.advance(59)
        assert handle.state() == "running"
        local.advance(1)
        assert handle.state() == "succeeded"
        assert (handle.result(), other.result()) == (60, 7_200)
        cancelled = shop.sleep.submit(1)
        local.run_until_idle()
        assert cancelled.cancel() == "cancelling"
        local.run_until_idle()
        assert cancelled.state() == "cancelled"


def test_what_can_never_end_is_told(shop: Shop) -> None:
    """Waiting for a task that nobody can run ends with the reason, in place of a test that hangs."""
    with server(shop.app) as local:
        (task_id,) = shop.app.client.make_ids(1)
        shop.app.client.submit([TaskSpec(task_id, "shop.unknown")])
        handle = shop.app.handle(format_task_id(task_id))
        local.advance(60)
        assert handle.state() == "ready"
        with pytest.raises(TimedOut, match=r"shop\.unknown.*ready"):
            handle.result()


def test_what_is_asked_while_the_server_ends_is_too_late_and_no_error(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is begun any more, and whoever waits is told."""
    main = LocalServer._main
    pumps: list[LoopPump] = []
    driven = Signal()

    async def end_slowly(local: LocalServer) -> None:
        await main(local)
        local._tell_soon(local._posts)
        local._begin_drive(1, driven)
        session = Session(token="", name="late", boot_id=bytes(16), chance=lambda: 0.0)
        pumps.append(local.start_pump(session))
        await wait_all_tasks_blocked()

    monkeypatch.setattr(LocalServer, "_main", end_slowly)
    with server(shop.app):
        pass
    assert [pump.ended for pump in pumps] == [True]
    assert driven.fired


def test_a_task_that_is_not_stored_is_unknown(shop: Shop) -> None:
    with server(shop.app), pytest.raises(TaskUnknown):
        shop.app.handle("01a214c0-b4fa-715f-ba87-dd57e1a83d1c").result()


def test_tasks_declared_later_are_known(shop: Shop) -> None:
    """An agent would have to be restarted for that; a test declares tasks where it needs them."""
    with server(shop.app):

        @shop.app.task(name="shop.later")
        def later() -> int:
            return 7

        assert later.submit().result() == 7


def test_on_real_time_tasks_run_as_they_come(shop: Shop) -> None:
    """No one has to wait for them, and the clock is nobody's to move."""
    with server(shop.app, real_time=True, concurrency=2) as local:
        waiting = shop.wait.submit()
        assert shop.waiting.wait(30)
        shop.note.submit("beside it")
        wait_until(lambda: shop.calls == ["beside it"])
        shop.gate.set()
        assert waiting.result(30) is None

        @shop.app.task(name="shop.later")
        def later() -> int:
            return 7

        assert later.submit().result(30) == 7
        with pytest.raises(BadRequest, match="real time"):
            local.advance(1)


async def in_a_loop(shop: Shop, local: LocalServer) -> None:
    """Use every name with an a."""
    handle = await shop.add.asubmit(1, 2)
    assert await handle.aresult() == 3
    later = await shop.note.options(delay=60).asubmit("x")
    await local.arun_until_idle()
    assert await later.astate() == "scheduled"
    await local.aadvance(60)
    assert await later.astate() == "succeeded"


def on_asyncio(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await work()

    asyncio.run(main())


@pytest.mark.parametrize("run", [on_asyncio, trio.run])
def test_async_tests_have_the_same(shop: Shop, run: Callable[[Callable[[], Awaitable[None]]], None]) -> None:
    """On asyncio and on trio."""
    with server(shop.app) as local:
        run(lambda: in_a_loop(shop, local))


def test_the_app_is_put_back(shop: Shop) -> None:
    """However they are nested, each ends with what was before it; handles stay with their own server."""
    with server(shop.app):
        outer = shop.add.submit(1, 1)
        with recording(shop.app) as recorded:
            shop.add.submit(2, 2)
            with inline(shop.app):
                assert shop.add.submit(3, 3).result() == 6
            shop.add.submit(4, 4)
        assert [one.args for one in recorded.submitted] == [(2, 2), (4, 4)]
        assert outer.result() == 2
        left = shop.add.submit(5, 5)
    with pytest.raises(ConnectionLost, match="ended"):
        left.result()
    assert "_client" not in vars(shop.app)


def test_two_servers_know_nothing_of_each_other() -> None:
    """Each App has its own."""
    one, two = Shop(), Shop()
    with server(one.app), server(two.app):
        handle = one.note.submit("one")
        two.note.submit("two").result()
        assert (one.calls, two.calls) == ([], ["two"])
        assert handle.result() == "one"


@pytest.mark.parametrize("wrong", [{"concurrency": 0}, {"event_loop": "gevent"}])
def test_arguments_out_of_range(shop: Shop, wrong: dict[str, int]) -> None:
    """The error names them."""
    with pytest.raises(BadRequest, match="is"), server(shop.app, **wrong):  # type: ignore[arg-type]
        pass


@pytest.mark.parametrize("seconds", [-1.0, float("inf"), float("nan")])
def test_time_passes_forward_and_so_far(shop: Shop, seconds: float) -> None:
    with server(shop.app) as local, pytest.raises(BadRequest, match="seconds"):
        local.advance(seconds)


def test_what_tasks_say_is_read_as_from_any_server(shop: Shop) -> None:
    """Values, records and progress that go by ``current()``; from a cursor, and by who comes late."""

    @shop.app.task(name="shop.says")
    def says(count: int) -> int:
        for number in range(count):
            current().emit({"part": number})
            current().log(f"part {number}", level="warning", of=count)
        current().progress(1, "done")
        return count

    with server(shop.app):
        handle = says.submit(3)
        assert [emitted.value for emitted in handle.stream()] == [{"part": number} for number in range(3)]
        lines = list(handle.logs())
        assert [(line.level, line.text, line.fields) for line in lines] == [
            ("WARNING", f"part {number}", {"of": "3"}) for number in range(3)
        ]
        assert list(handle.logs(since=lines[0].cursor)) == lines[1:]
        assert list(handle.logs(since=dt.timedelta(minutes=1))) == lines
        assert handle.result() == 3


def test_who_follows_a_task_that_can_never_run_is_told(shop: Shop) -> None:
    with server(shop.app):
        client = shop.app.client
        spec = TaskSpec(client.make_ids(1)[0], "shop.nowhere", pack_arguments([], {}))
        handle = shop.app.handle(format_task_id(client.submit([spec])[0]))
        assert list(handle.logs()) == []
        with pytest.raises(TimedOut, match="nothing is left to happen"):
            list(handle.stream())
