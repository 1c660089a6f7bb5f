"""Workflows on a server within a test: the client, the rules and an agent, together."""

from collections.abc import Iterator

import pytest

from taskd import (
    App,
    Retry,
    TaskFailed,
    TimedOut,
    WorkflowEnded,
    WorkflowInvalid,
    WorkflowUnknown,
)
from taskd.testing import LocalServer, inline, recording, server
from taskd_protocol.errors import BadRequest


class Works:
    """A program's tasks, and what they did."""

    def __init__(self) -> None:
        self.app = app = App()
        self.did: list[str] = []
        self.broken: set[str] = set()

        @app.task(name="w.step", retry=Retry(max_attempts=1))
        def step(what: str, value: object = None) -> object:
            self.did.append(what)
            if what in self.broken:
                raise LookupError(what)
            return value

        @app.task(name="w.double")
        def double(number: int, by: int = 2) -> int:
            return number * by

        @app.task(name="w.total")
        async def total(numbers: list[int]) -> int:
            return sum(numbers)

        @app.task(name="w.large")
        def large(size: int) -> bytes:
            return bytes(size)

        @app.task(name="w.measure")
        def measure(data: bytes, *more: bytes) -> int:
            return len(data) + sum(map(len, more))

        self.step, self.double, self.total, self.large, self.measure = step, double, total, large, measure


@pytest.fixture
def works() -> Works:
    return Works()


@pytest.fixture
def local(works: Works) -> Iterator[LocalServer]:
    with server(works.app, concurrency=4) as started:
        yield started


@pytest.mark.usefixtures("local")
def test_results_flow_along_the_edges(works: Works) -> None:
    with works.app.workflow("report") as wf:
        parts = [works.double.node(number) for number in range(5)]
        total = works.total.node(parts)
        last = works.step.node("last", {"total": total, "first": (parts[0],)})
    run = wf.submit()
    assert run.result(total) == 20
    assert run.result(last) == {"total": 20, "first": (0,)}
    assert run.wait() == run.state() == "succeeded"
    status = run.status()
    assert [node.state for node in status.nodes] == ["succeeded"] * 7
    assert status.counts == {"succeeded": 7}
    found = works.app.workflow_run(run.id)
    assert found.result("total") == 20


@pytest.mark.usefixtures("local")
def test_a_map_over_what_a_node_found(works: Works) -> None:
    with works.app.workflow("report") as wf:
        found = works.step.node("find", list(range(300)))
        doubled = works.double.node.map(found, by=3, in_flight=7)
        total = works.total.node(doubled)
    run = wf.submit()
    assert run.result(total) == 3 * sum(range(300))
    assert run.result(doubled) == [3 * number for number in range(300)]
    items = run.partial(doubled)
    assert [(item.index, item.state, item.value) for item in items[:2]] == [(0, "succeeded", 0), (1, "succeeded", 3)]
    assert len(items) == 300


def test_how_far_it_is_and_what_took_longest(works: Works, local: LocalServer) -> None:
    with works.app.workflow("report") as wf:
        slow = wf.sleep(3600, name="slow")
        wf.sleep(60, name="quick")
        approved = wf.signal("approve", after=slow)
        works.double.node.map([1, 2, 3], after=approved, name="mapped")
    run = wf.submit()
    local.advance(61)
    progress = run.progress()
    assert (progress.nodes, progress.ended, progress.share) == (5, 2, 2 / 5)  # the items of the map are a node
    assert [node.name for node in run.critical_path()] == ["quick"]
    local.advance(3600)
    run.signal("approve")
    assert run.wait() == "succeeded"
    progress = run.progress()
    assert (progress.state, progress.share, progress.children, progress.children_ended) == ("succeeded", 1.0, 3, 3)
    first, *_ = run.critical_path()
    assert first.name == "slow"
    assert first.ran is not None
    assert 3600 <= first.ran.total_seconds() < 3700


@pytest.mark.usefixtures("local")
def test_what_is_no_list_is_told_by_the_node_that_gave_it(works: Works) -> None:
    with works.app.workflow("report") as wf:
        found = works.step.node("find", 5, name="find")
        doubled = works.double.node.map(found)
    with pytest.raises(TaskFailed, match="what node 'find' gave to map over is no list"):
        wf.submit().result(doubled)


@pytest.mark.usefixtures("local")
def test_large_results_are_fetched_for_who_wants_them(works: Works) -> None:
    with works.app.workflow("report") as wf:
        blob = works.large.node(3_000_000)
        small = works.large.node(10)
        sizes = [works.measure.node(blob, small, blob) for _ in range(3)]
        mapped = works.large.node.map([2_000_000, 3_000_000])
        both = works.step.node("both", mapped)
    run = wf.submit()
    assert [run.result(size) for size in sizes] == [6_000_010] * 3
    assert run.result(both) == [bytes(2_000_000), bytes(3_000_000)]


@pytest.mark.usefixtures("local")
def test_branches(works: Works) -> None:
    with works.app.workflow("report") as wf:
        check = works.step.node("check", "left")
        left = works.step.node("left", check, only_if=check.equals("left"))
        right = works.step.node("right", check, only_if=check.equals("right"))
        join = works.step.node("join", [left, right], when="none_failed")
    run = wf.submit()
    assert run.result(join) == ["left", None]
    assert works.did == ["check", "left", "join"]
    with pytest.raises(TaskFailed) as skipped:
        run.result(right)
    assert skipped.value.code == "workflow.ruled_out"
    assert run.wait() == "succeeded"


@pytest.mark.usefixtures("local")
def test_a_failure_is_resumed_from(works: Works) -> None:
    works.broken = {"b"}
    with works.app.workflow("report") as wf:
        a = works.step.node("a", 1, name="a")
        b = works.step.node("b", a, name="b")
        c = works.step.node("c", b, name="c")
        told = works.step.node("told", b)
        wf.on_failure(told)
    run = wf.submit()
    assert run.wait() == "failed"
    assert works.did == ["a", "b", "told"]
    status = run.status()
    assert (status.failed_node, status.state) == ("b", "failed")
    assert [node.state for node in status.nodes[:3]] == ["succeeded", "dead", "skipped"]
    assert status.nodes[1].reason == "b"
    with pytest.raises(TaskFailed) as failed:
        run.result(c)
    assert failed.value.code == "workflow.upstream_failed"
    works.broken = set()
    run.resume()
    assert run.wait() == "succeeded"
    assert run.result(c) == 1
    assert works.did == ["a", "b", "told", "b", "c"]
    with pytest.raises(WorkflowEnded):
        run.resume()
    run.rerun(b)
    assert run.wait() == "succeeded"
    assert works.did[5:] == ["b", "c"]
    with pytest.raises(WorkflowUnknown):
        run.rerun("nope")


@pytest.mark.usefixtures("local")
def test_a_rerun_shows_new_results_however_large(works: Works) -> None:
    """What was fetched before is not taken for what is there now."""
    sizes = iter([2_000_000, 2_000_001])

    @works.app.task(name="w.grow")
    def grow() -> bytes:
        return bytes(next(sizes))

    with works.app.workflow("report") as wf:
        grown = grow.node()
        size = works.measure.node(grown)
    run = wf.submit()
    assert run.wait() == "succeeded"
    assert run.result(size) == 2_000_000
    run.rerun(grown)
    assert run.wait() == "succeeded"
    assert run.result(size) == 2_000_001


@pytest.mark.usefixtures("local")
def test_what_was_done_is_taken_back(works: Works) -> None:
    works.broken = {"ship"}
    with works.app.workflow("order") as wf:
        pay = works.step.node("pay", 7, compensate=lambda ref: works.step.node("refund", ref))
        book = works.step.node("book", pay, compensate=works.step)
        works.step.node("ship", book)
    run = wf.submit()
    assert run.wait() == "failed"
    assert works.did == ["pay", "book", "ship", 7, "refund"], "the last one first"
    with pytest.raises(WorkflowEnded):
        run.resume()


def test_time_and_signals(works: Works, local: LocalServer) -> None:
    with works.app.workflow("report") as wf:
        night = wf.sleep(8 * 3600)
        approve = wf.signal("approve", timeout=3600, after=night)
        publish = works.step.node("publish", approve)
    run = wf.submit()
    local.advance(8 * 3600)
    assert [node.state for node in run.status().nodes] == ["succeeded", "waiting", "blocked"]
    assert works.did == []
    run.signal("approve", {"by": "ann"})
    assert run.result(publish) == {"by": "ann"}
    late = wf.submit()
    local.advance(9 * 3600)
    assert late.wait() == "failed"
    assert late.status().nodes[1].code == "workflow.signal_late"
    with pytest.raises(WorkflowUnknown):
        wf.submit().signal("aprove")


def test_cancel(works: Works, local: LocalServer) -> None:
    with works.app.workflow("report") as wf:
        works.step.node("late", after=wf.sleep(100))
    run = wf.submit()
    local.run_until_idle()
    run.cancel()
    assert run.wait() == "cancelled"
    assert works.did == []
    with pytest.raises(WorkflowEnded):
        run.cancel()


@pytest.mark.usefixtures("local")
def test_what_the_server_refuses_names_the_node(works: Works) -> None:
    with works.app.workflow("report") as wf:
        for index in range(10_001):
            works.step.node("x", index)
    with pytest.raises(WorkflowInvalid, match="10001 nodes; it has 1 to 10000"):
        wf.submit()


@pytest.mark.usefixtures("local")
def test_thousands_of_nodes(works: Works) -> None:
    with works.app.workflow("report") as wf:
        total = works.total.node([works.double.node(number) for number in range(2_500)])
    assert wf.submit().result(total) == 2 * sum(range(2_500))


def test_a_recording_lists_workflows(works: Works) -> None:
    with recording(works.app) as recorded:
        with works.app.workflow("report", policy="fail_fast") as wf:
            total = works.total.node([works.double.node(number) for number in range(1_500)])
        run = wf.submit()
        for wait in (run.wait, lambda: run.result(total)):
            with pytest.raises(TimedOut, match=r"nothing runs under recording\(\)"):
                wait()
    (one,) = recorded.workflows
    assert (one.name, one.policy, len(one.nodes), one.names()[-1]) == ("report", "fail_fast", 1_501, "total")
    assert (recorded.submitted, works.did) == ([], [])
    recorded.clear()
    assert recorded.workflows == []


def test_inline_refuses_workflows_and_names_the_way(works: Works) -> None:
    with works.app.workflow("report") as wf:
        works.double.node(1)
    with inline(works.app), pytest.raises(BadRequest, match=r"use taskd\.testing\.server\(\)"):
        wf.submit()
