"""Inline: the function runs in the submit, with the packing and the errors of a real attempt."""

import asyncio
import threading

import pytest

from taskd import App, NonRetryable, Retry, TaskFailed, TaskUnknown, as_completed, current
from taskd.testing import inline
from taskd_protocol.errors import BadRequest, PayloadUnpackable, SubmitConflict
from unit.testing.shop import USER, Shop


def test_the_task_has_run_when_its_submit_returns(shop: Shop) -> None:
    """Its handle knows the end at once, in every way to ask."""
    with inline(shop.app):
        handle = shop.note.submit("a")
        assert shop.calls == ["a"]
        assert (handle.state(), handle.result(), handle.cancel()) == ("succeeded", "a", "succeeded")
        assert [one.result() for one in as_completed(shop.add.map([1, 2], [3, 4]))] == [4, 6]


def test_it_runs_in_the_thread_that_submits(shop: Shop) -> None:
    """So that what a test keeps by thread, such as an open transaction, is seen by the task."""
    threads: list[threading.Thread] = []

    @shop.app.task(name="shop.here")
    def here() -> None:
        threads.append(threading.current_thread())

    with inline(shop.app):
        here.submit()
    assert threads == [threading.current_thread()]


def test_coroutines_run_whether_or_not_a_loop_runs_here(shop: Shop) -> None:
    """An ``async def`` submitted from plain code, and from a coroutine."""

    async def main() -> int:
        return await (await shop.double.asubmit(4)).aresult()

    with inline(shop.app):
        assert shop.double.submit(3).result() == 6
        assert asyncio.run(main()) == 8


def test_attempts_follow_each_other_at_once(shop: Shop) -> None:
    """As many as the retry policy has; the last one's error is the task's."""
    with inline(shop.app):
        assert shop.fail.submit(2).result() == 3
        handle = shop.fail.submit(3)
        with pytest.raises(TaskFailed, match="not yet, 3") as caught:
            handle.result()
        assert (handle.state(), caught.value.attempt) == ("dead", 3)
        assert shop.fail.options(retry=Retry(max_attempts=1)).submit(1).state() == "dead"


def test_what_runs_at_most_once_has_one_attempt(shop: Shop) -> None:
    """Its first failure is the task's."""
    with inline(shop.app):
        handle = shop.fail.options(at_most_once=True).submit(1)
        with pytest.raises(TaskFailed) as caught:
            handle.result()
    assert (caught.value.code, caught.value.attempt) == ("task.maybe_ran", 1)
    assert shop.calls == ["attempt 1"]


def test_a_failure_that_is_final_is_the_last(shop: Shop) -> None:
    """What the code or the policy says of it holds here, too."""
    ran: list[int] = []

    @shop.app.task(name="shop.declined")
    def declined() -> None:
        ran.append(current().attempt)
        raise NonRetryable("no use")

    with inline(shop.app):
        assert declined.submit().state() == "dead"
        assert shop.fail.options(retry=Retry(not_on=(LookupError,))).submit(2).state() == "dead"
    assert ran == [1]


def test_an_attempt_goes_on_where_the_one_before_was(shop: Shop) -> None:
    with inline(shop.app):
        assert shop.steps.submit(3).result() == [1, 2, 3]


def test_arguments_and_results_are_packed(shop: Shop) -> None:
    """What would not travel does not travel here; the task gets copies."""
    with inline(shop.app):
        with pytest.raises(PayloadUnpackable, match="argument word"):
            shop.note.submit(object())  # type: ignore[arg-type]
        with pytest.raises(TaskFailed, match="cannot be packed"):
            shop.unpackable.submit().result()


def test_the_context_is_the_tasks_own(shop: Shop) -> None:
    """Only what middleware carries gets to the task, and nothing comes back."""
    before = USER.set("u-1")

    @shop.app.task(name="shop.attempt")
    def attempt() -> int:
        USER.set("u-2")
        return current().attempt

    with inline(shop.app):
        assert (shop.whose.submit().result(), attempt.submit().result()) == ("u-1", 1)
    assert USER.get() == "u-1"
    with inline(bare := App()):
        assert bare.task(name="shop.bare")(lambda: USER.get("nobody")).submit().result() == "nobody"
    USER.reset(before)


def test_keys_mean_the_first_task(shop: Shop) -> None:
    """As on a server."""
    with inline(shop.app):
        keyed = shop.note.options(key="order/1")
        assert keyed.submit("a").id == keyed.submit("a").id
        with pytest.raises(SubmitConflict):
            keyed.submit("b")
    assert shop.calls == ["a"]


def test_what_it_cannot_answer_is_told(shop: Shop) -> None:
    """Unknown tasks are unknown; for anything else than tasks a server is named."""
    with inline(shop.app):
        with pytest.raises(TaskUnknown):
            shop.app.handle("01a214c0-b4fa-715f-ba87-dd57e1a83d1c").result()
        with pytest.raises(BadRequest, match=r"taskd\.testing\.server"):
            list(shop.app.client.follow(bytes(16)))
