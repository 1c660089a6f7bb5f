"""Recording: nothing runs, and what was submitted is listed as it would have been sent."""

import pytest

from taskd import TaskCancelled, TimedOut
from taskd.testing import Recorded, recording
from taskd_protocol.errors import PayloadUnpackable
from unit.testing.shop import USER, Shop


def test_submits_are_listed_and_nothing_runs(shop: Shop) -> None:
    """In order, with arguments as the task would get them."""
    with recording(shop.app) as recorded:
        shop.note.submit("a")
        shop.add.map([1, 2], [3, 4])
    assert [(one.task, one.args, one.kwargs) for one in recorded.submitted] == [
        ("shop.note", ("a",), {}),
        ("shop.add", (1, 3), {}),
        ("shop.add", (2, 4), {}),
    ]
    assert recorded.of(shop.note) == recorded.of("shop.note") == recorded.submitted[:1]
    assert recorded.submitted[0] == Recorded("shop.note", ("a",), {}, recorded.submitted[1].spec)
    assert shop.calls == []
    recorded.clear()
    assert recorded.submitted == []


def test_options_and_headers_are_in_the_spec(shop: Shop) -> None:
    """All that a server would be told."""
    before = USER.set("u-1")
    with recording(shop.app) as recorded:
        shop.note.options(priority=9, delay=60, queue="words", key="k").submit("a")
    USER.reset(before)
    spec = recorded.submitted[0].spec
    assert (spec.priority, spec.delay_ms, spec.queue, spec.key) == (9, 60_000, "words", "k")
    assert spec.rules.headers == {"user": "u-1"}


def test_work_that_is_to_be_done_once_is_listed_once(shop: Shop) -> None:
    """Nothing runs, so the first one waits, and may be replaced."""
    with recording(shop.app) as recorded:
        once = shop.note.options(unique="running")
        first, second, other = once.map(["a", "a", "b"])
        assert (first.id == second.id, first.id == other.id) == (True, False)
        assert once.options(replace=True).submit("a").id != first.id
        assert first.state() == "cancelled"
    assert [one.args for one in recorded.submitted] == [("a",), ("b",), ("a",)]


def test_handles_say_that_nothing_runs(shop: Shop) -> None:
    """A result is not waited for; a cancel is believed."""
    with recording(shop.app):
        handle = shop.note.submit("a")
        assert handle.state() == "ready"
        with pytest.raises(TimedOut, match="nothing runs"):
            handle.result()
        assert handle.cancel() == "cancelled"
        with pytest.raises(TaskCancelled):
            handle.result()


def test_calls_are_checked(shop: Shop) -> None:
    """A submit that would be refused is refused here."""
    with recording(shop.app) as recorded:
        with pytest.raises(TypeError, match="word"):
            shop.note.submit()  # type: ignore[call-arg]
        with pytest.raises(PayloadUnpackable):
            shop.note.submit(object())  # type: ignore[arg-type]
    assert recorded.submitted == []
