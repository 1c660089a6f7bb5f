"""Workflows as programs write, submit and follow them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from taskd import (
    App,
    CannotConnect,
    NodeRef,
    TaskCancelled,
    TaskFailed,
    TimedOut,
    Workflow,
    WorkflowInvalid,
    WorkflowProgress,
    WorkflowRun,
    WorkflowUnknown,
)
from taskd.client import workflow as room
from taskd_protocol.ids import format_task_id, parse_task_id
from taskd_protocol.payload import Input, pack, unpack, unpack_arguments
from taskd_protocol.task import Failure, Outcome
from taskd_protocol.workflow import Choice, Node, is_workflow_id, member_id
from taskd_protocol.workflow_messages import WorkflowOrder, WorkflowSignal, WorkflowSubmit
from unit.client.faces import Face

if TYPE_CHECKING:
    from taskd_protocol.connection import UnknownMessage
    from taskd_protocol.messages import ToServer

from taskd.client.middleware import Submission
from taskd.client.operations import WORKFLOW_TRIES
from taskd_protocol.errors import BadRequest
from unit.client.fake_server import FakeServer, Peer


class Tasks:
    """A program's tasks."""

    def __init__(self, app: App) -> None:
        @app.task(name="shop.fetch", queue="io", timeout=5)
        def fetch(url: str) -> list[int]:
            return [len(url)]

        @app.task(name="shop.parse")
        def parse(raw: list[int], index: int = 0) -> int:
            return raw[index]

        @app.task(name="shop.merge")
        async def merge(parts: list[int]) -> str:
            return str(parts)

        @app.task(name="shop.named")
        def named(value: object, name: str = "n", **more: object) -> object:
            return value, name, more

        @app.task(name="shop.once", unique="running")
        def once(value: object) -> object:
            return value

        self.fetch, self.parse, self.merge, self.named, self.once = fetch, parse, merge, named, once


@pytest.fixture
def tasks(app: App) -> Tasks:
    return Tasks(app)


@pytest.fixture
def wf(app: App) -> Iterator[Workflow]:
    with app.workflow("report") as made:
        yield made


def arguments(node: Node) -> tuple[list[object], dict[str, object]]:
    assert node.task is not None
    return unpack_arguments(node.task.payload)


# -- writing ----------------------------------------------------------------------------


def test_edges_follow_the_data(tasks: Tasks, wf: Workflow) -> None:
    raw = tasks.fetch.node("u")
    parts = [tasks.parse.node(raw, index) for index in range(3)]
    total = tasks.merge.node(parts, when="one_succeeded")
    assert [node.name for node in wf.nodes] == ["fetch", "parse", "parse-2", "parse-3", "merge"]
    assert (raw.name, raw.position, total.position) == ("fetch", 0, 4)
    assert [node.needs for node in wf.nodes] == [[], [0], [0], [0], [1, 2, 3]]
    assert arguments(wf.nodes[2]) == ([Input(0), 1], {})
    assert arguments(wf.nodes[4]) == ([[Input(0), Input(1), Input(2)]], {})
    assert [node.when for node in wf.nodes] == ["all_succeeded"] * 4 + ["one_succeeded"]
    assert {node.kind for node in wf.nodes} == {"task"}


def test_nodes_are_found_wherever_they_stand_and_each_is_one_input(tasks: Tasks, wf: Workflow) -> None:
    a, b = tasks.fetch.node("a"), tasks.fetch.node("b")
    tasks.named.node({"x": [b, (a, {"y": b})], "plain": 1}, extra={a})
    assert wf.nodes[2].needs == [1, 0]
    assert arguments(wf.nodes[2]) == (
        [{"x": [Input(0), (Input(1), {"y": Input(0)})], "plain": 1}],
        {"extra": {Input(1)}},
    )


def test_options_of_the_task_count_for_its_nodes(tasks: Tasks, wf: Workflow) -> None:
    tasks.fetch.node("u")
    tasks.fetch.options(priority=7, delay=2).node("u")
    first, second = [node.task for node in wf.nodes]
    assert first is not None
    assert second is not None
    assert (first.id, first.queue, first.rules.timeout_ms, first.priority) == (b"", "io", 5_000, 0)
    assert (second.id, second.queue, second.rules.timeout_ms, second.priority, second.delay_ms) == (
        b"",
        "io",
        5_000,
        7,
        2_000,
    )


def test_a_call_is_checked_where_it_is_written(tasks: Tasks, wf: Workflow) -> None:
    with pytest.raises(TypeError, match=r"shop.parse\(\) got an unexpected keyword argument 'indes'"):
        tasks.parse.node([1], indes=1)
    with pytest.raises(TypeError, match=r"shop.merge\(\)"):
        tasks.merge.node.map([[1]], 2)
    with pytest.raises(WorkflowInvalid, match=r"node 'fetch': argument url of shop.fetch cannot be packed"):
        tasks.fetch.node(object())
    assert wf.nodes == []


def test_what_is_said_of_a_node(tasks: Tasks, wf: Workflow) -> None:
    check = tasks.fetch.node("u", name="check")
    other = tasks.fetch.node("v", after=check, may_fail=True)
    left = tasks.merge.node([1], only_if=check.equals([1]), after=[other])
    both = tasks.merge.node(check, only_if=[check.equals([2]), other.equals(None)])
    assert [node.name for node in wf.nodes] == ["check", "fetch", "merge", "merge-2"]
    assert (wf.nodes[1].after, wf.nodes[1].may_fail) == ([0], True)
    assert (wf.nodes[2].needs, wf.nodes[2].after, wf.nodes[2].only_if) == ([], [1, 0], [Choice(0, pack([1]))])
    assert (wf.nodes[3].needs, wf.nodes[3].after) == ([0], [1])
    assert [choice.node for choice in wf.nodes[3].only_if] == [0, 1]
    assert (left.position, both.position) == (2, 3)


def test_an_option_that_the_function_has_too_names_the_way_out(tasks: Tasks, wf: Workflow) -> None:
    with pytest.raises(TypeError, match=r"named\.node\.with_\(name=…\)\(…\).*named\.node\.with_\(\)\(…, name=…\)"):
        tasks.named.node(1, name="whose?")
    with pytest.raises(TypeError, match="parameter 'when' of its own"):
        tasks.named.node(1, when="all_done")
    tasks.named.node.with_(name="mine", when="all_done")(1, name="its", after=3)
    assert (wf.nodes[0].name, wf.nodes[0].when) == ("mine", "all_done")
    assert arguments(wf.nodes[0]) == ([1], {"name": "its", "after": 3})
    tasks.named.node.with_(in_flight=4).map([1, 2], name="its")
    assert (wf.nodes[2].name, wf.nodes[2].in_flight_max) == ("named", 4)


def test_map_over_a_node_and_over_a_list(tasks: Tasks, wf: Workflow) -> None:
    raw = tasks.fetch.node("u")
    tasks.parse.node.map([[1], [2]], 0, in_flight=50)
    index = wf.value(3, name="index")
    mapped = tasks.parse.node.map(raw, index)
    assert [node.name for node in wf.nodes] == ["fetch", "parse-items", "parse", "index", "parse-2"]
    items, first, last = wf.nodes[1], wf.nodes[2], wf.nodes[4]
    assert (items.kind, unpack(items.packed)) == ("value", [[1], [2]])
    assert (first.kind, first.needs, first.over, first.in_flight_max) == ("map", [1], 0, 50)
    assert arguments(first) == ([Input(0), 0], {})
    assert (last.needs, last.over, arguments(last)) == ([0, 3], 0, ([Input(0), Input(1)], {}))
    assert (mapped.is_map, raw.is_map) == (True, False)


def test_what_cannot_be_mapped(tasks: Tasks, wf: Workflow) -> None:
    raw = tasks.fetch.node("u")
    with pytest.raises(WorkflowInvalid, match="node 'named' maps over 'fetch', whose items take its place"):
        tasks.named.node.map(raw, rest=[raw])
    with pytest.raises(WorkflowInvalid, match="node 'parse' maps over a list of nodes"):
        tasks.parse.node.map([raw, raw])
    with pytest.raises(WorkflowInvalid, match="in_flight_max of -1"):
        tasks.parse.node.map(raw, in_flight=-1)
    for over in (5, None, "text", b"bytes", {"a": 1}):
        with pytest.raises(
            WorkflowInvalid, match=r"node 'parse' maps over a list, or a node that returns one: .* is neither"
        ):
            tasks.parse.node.map(over)  # type: ignore[arg-type]  # the mistake
    assert len(wf.nodes) == 1


def test_values_sleeps_and_signals(tasks: Tasks, wf: Workflow) -> None:
    value = wf.value({"a": (1,)})
    pause = wf.sleep(1.5, after=value)
    approve = wf.signal("approve", timeout=3600, after=[pause], may_fail=True)
    again = wf.signal("approve", after=approve, name="again", when="all_done", only_if=value.equals(1))
    tasks.parse.node(approve)
    kinds = [(node.name, node.kind, node.after, node.wait_ms, node.signal) for node in wf.nodes[:4]]
    assert kinds == [
        ("value", "value", [], 0, ""),
        ("sleep", "sleep", [0], 1_500, ""),
        ("approve", "signal", [1], 3_600_000, "approve"),
        ("again", "signal", [2, 0], 0, "approve"),
    ]
    assert unpack(wf.nodes[0].packed) == {"a": (1,)}
    assert wf.nodes[2].may_fail
    assert (wf.nodes[3].when, wf.nodes[4].needs) == ("all_done", [2])
    assert again.name == "again"


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 1e9])
def test_a_wait_out_of_range(wf: Workflow, seconds: float) -> None:
    with pytest.raises(WorkflowInvalid, match=r"node 'sleep': .*out of range"):
        wf.sleep(seconds)
    with pytest.raises(WorkflowInvalid, match="node 'go'"):
        wf.signal("go", timeout=seconds)


def test_a_node_is_taken_back_by_a_task_or_by_what_a_function_writes(tasks: Tasks, wf: Workflow) -> None:
    raw = tasks.fetch.node("u", compensate=tasks.merge)
    tasks.parse.node(raw, compensate=lambda ref: tasks.named.node([ref, raw]))
    names = [(node.name, node.phase, node.compensates, node.needs, node.when) for node in wf.nodes]
    assert names == [
        ("fetch", "", -1, [], "all_succeeded"),
        ("merge", "compensate", 0, [0], "all_done"),
        ("parse", "", -1, [0], "all_succeeded"),
        ("named", "compensate", 2, [2, 0], "all_done"),
    ]


def test_what_cannot_take_a_node_back(tasks: Tasks, wf: Workflow) -> None:
    with pytest.raises(WorkflowInvalid, match="node 'fetch': compensate writes 0 nodes"):
        tasks.fetch.node("u", compensate=lambda ref: ref)
    with pytest.raises(WorkflowInvalid, match=r"node 'merge'.*not taken back itself"):
        tasks.fetch.node("u", compensate=lambda ref: tasks.merge.node(ref, compensate=tasks.merge))
    after = tasks.fetch.node("u")
    assert wf.nodes[after.position].phase == "", "what was refused has left no trace on what follows"


def test_nodes_for_the_end(tasks: Tasks, wf: Workflow) -> None:
    raw = tasks.fetch.node("u")
    told, strict = tasks.merge.node(raw), tasks.merge.node(raw, when="all_succeeded")
    wf.on_failure(told, strict)
    wf.on_success(tasks.merge.node([2]))
    assert [(node.phase, node.when) for node in wf.nodes[1:]] == [
        ("on_failure", "all_done"),
        ("on_failure", "all_succeeded"),
        ("on_success", "all_done"),
    ]
    with pytest.raises(WorkflowInvalid, match="'merge' runs when the workflow has failed already"):
        wf.on_success(told)


@pytest.mark.parametrize("mark", ["on_success", "on_failure", "compensate"])
def test_nothing_waits_for_what_runs_only_later(tasks: Tasks, wf: Workflow, mark: str) -> None:
    raw = tasks.fetch.node("u", compensate=tasks.merge if mark == "compensate" else None)
    late = NodeRef[object](wf, "merge", 1, is_map=False) if mark == "compensate" else tasks.merge.node(raw)
    if mark != "compensate":
        getattr(wf, mark)(late)
    follower = tasks.parse.node(late)
    with pytest.raises(WorkflowInvalid, match=r"node 'parse' comes after 'merge', which runs .*would never run"):
        wf.submit()
    if mark != "compensate":
        getattr(wf, mark)(follower)
        assert wf.submit().id


def test_mistakes_name_the_node(app: App, tasks: Tasks, wf: Workflow) -> None:
    with app.workflow("other"):
        foreign = tasks.fetch.node("u")
    raw = tasks.fetch.node("u", name="raw")
    with pytest.raises(WorkflowInvalid, match="two nodes are named 'raw'"):
        tasks.fetch.node("v", name="raw")
    with pytest.raises(WorkflowInvalid, match="'merge' names node 'fetch', which is of another workflow, 'other'"):
        tasks.merge.node([foreign])
    with pytest.raises(WorkflowInvalid, match="'merge' names node 'fetch', which is of another"):
        tasks.merge.node([1], after=foreign)
    with pytest.raises(WorkflowInvalid, match="node 'merge': 'raw' is no node"):
        tasks.merge.node([1], after=["raw"])  # type: ignore[list-item]  # the mistake
    with pytest.raises(WorkflowInvalid, match="node 'merge': 'raw' is no node"):
        tasks.merge.node([1], after="raw")  # type: ignore[arg-type]  # likewise
    with pytest.raises(WorkflowInvalid, match="node 'merge': trigger rule 'sometimes' is unknown; use one of all_suc"):
        tasks.merge.node(raw, when="sometimes")  # type: ignore[arg-type]  # the mistake
    with pytest.raises(WorkflowInvalid, match="node 'merge': only_if goes with a trigger rule that waits for all"):
        tasks.merge.node(raw, when="one_succeeded", only_if=raw.equals(1))
    with pytest.raises(WorkflowInvalid, match="node 'once': a node's task has neither key nor unique"):
        tasks.once.node(1)
    with pytest.raises(WorkflowInvalid, match=r"node 'value': .*is not plain data"):
        wf.value(object())
    with pytest.raises(WorkflowInvalid, match="node name"):
        tasks.fetch.node("u", name="")
    assert [node.name for node in wf.nodes] == ["raw"]


@pytest.mark.usefixtures("wf")
def test_too_many_nodes(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "NODES_MAX", 1)
    tasks.fetch.node("u")
    with pytest.raises(WorkflowInvalid, match="node 'fetch-2' is one too many"):
        tasks.fetch.node("u")


def test_nodes_are_for_the_block_of_a_workflow(app: App, tasks: Tasks) -> None:
    with pytest.raises(WorkflowInvalid, match=r"shop.fetch.node\(\) is for the block of a workflow"):
        tasks.fetch.node("u")
    with app.workflow("outer") as outer:
        with app.workflow("inner") as inner:
            tasks.fetch.node("u")
        tasks.fetch.node("u")
        tasks.fetch.node("v")
    with pytest.raises(WorkflowInvalid):
        tasks.fetch.node("u")
    assert (len(outer.nodes), len(inner.nodes)) == (2, 1)


def test_a_workflow_out_of_range(app: App) -> None:
    with pytest.raises(BadRequest, match="workflow name"):
        app.workflow("")
    with pytest.raises(BadRequest, match="policy 'give_up' is unknown"):
        app.workflow("w", policy="give_up")  # type: ignore[arg-type]  # the mistake
    with pytest.raises(WorkflowInvalid, match="workflow 'w' has no nodes"):
        app.workflow("w").submit()


def test_headers_of_middleware_go_with_each_node(server: FakeServer) -> None:
    class Names:
        def submitting(self, submission: Submission) -> None:
            submission.headers["of"] = submission.name

    app = App(server.url, middleware=[Names()])
    tasks = Tasks(app)
    with app.workflow("w") as wf:
        tasks.fetch.node("u")
    task = wf.nodes[0].task
    assert task is not None
    assert (task.rules.headers, task.rules.timeout_ms) == ({"of": "shop.fetch"}, 5_000)


# -- submitting -------------------------------------------------------------------------


def test_a_submit_is_one_message_under_an_id_of_the_client(
    app: App, tasks: Tasks, server: FakeServer, face: Face
) -> None:
    async def scenario() -> None:
        with app.workflow("report", policy="fail_fast") as wf:
            tasks.merge.node([tasks.fetch.node("u")])
        run = await face.call(wf, "submit")
        assert isinstance(run, WorkflowRun)
        (submit,) = submits(server)
        assert (submit.workflow.name, submit.workflow.policy, submit.workflow.nodes) == ("report", "fail_fast", 2)
        assert is_workflow_id(submit.workflow.id)
        assert (submit.workflow.id, submit.first, submit.nodes) == (run.raw_id, 0, wf.nodes)
        assert submit.workflow.traceparent.startswith("00-")
        again = await face.call(wf, "submit")
        assert isinstance(again, WorkflowRun)
        assert again.id != run.id

    face.run(scenario())


def submits(server: FakeServer) -> list[WorkflowSubmit]:
    with server.lock:
        return [message for message in server.received if isinstance(message, WorkflowSubmit)]


def test_a_large_workflow_goes_in_parts(app: App, tasks: Tasks, server: FakeServer) -> None:
    with app.workflow("report") as wf:
        for index in range(2_300):
            tasks.parse.node([1], index)
        tasks.fetch.node("u" * 300_000)
        tasks.fetch.node("v")
    run = wf.submit()
    assert [(each.first, len(each.nodes)) for each in submits(server)] == [
        (0, 1_000),
        (1_000, 1_000),
        (2_000, 300),
        (2_300, 1),
        (2_301, 1),
    ]
    assert server.workflows[run.raw_id][1] == wf.nodes


@pytest.mark.parametrize("lost", ["answer", "parts"])
def test_after_a_lost_connection_it_is_whole_all_the_same(
    app: App, tasks: Tasks, server: FakeServer, lost: str
) -> None:
    """A server that has lost the parts before is told all of them again, under the same id."""
    seen = 0

    def lose(peer: Peer, message: "ToServer | UnknownMessage") -> bool:
        nonlocal seen
        if not isinstance(message, WorkflowSubmit):
            return False
        seen += 1
        if seen != 2:
            return False
        if lost == "answer":
            server._workflow(message)
        else:
            server.drafts.clear()
        peer.hang_up()
        return True

    server.intercept = lose
    with app.workflow("report") as wf:
        for index in range(2_100):
            tasks.parse.node([1], index)
    run = wf.submit()
    assert [each.first for each in submits(server)] == [0, 1_000, 1_000, 0, 1_000, 2_000]
    assert len({each.workflow.id for each in submits(server)}) == 1
    assert server.workflows[run.raw_id][1] == wf.nodes


def test_a_refusal_is_not_asked_for_for_ever(app: App, tasks: Tasks, server: FakeServer) -> None:
    def forget(_: Peer, message: "ToServer | UnknownMessage") -> bool:
        if isinstance(message, WorkflowSubmit) and message.first:
            server.drafts.clear()
        return False

    server.intercept = forget
    with app.workflow("report") as wf:
        for index in range(1_100):
            tasks.parse.node([1], index)
    with pytest.raises(BadRequest, match="have not come"):
        wf.submit()
    assert len(submits(server)) == 2 * WORKFLOW_TRIES


def test_a_server_that_is_away_is_told(tasks: Tasks, app: App, server: FakeServer) -> None:
    with app.workflow("report") as wf:
        tasks.fetch.node("u")
    server.stop()
    with pytest.raises(CannotConnect):
        wf.submit()


def test_arguments_over_the_limit_of_the_server(server: FakeServer, app: App, tasks: Tasks) -> None:
    with app.workflow("report") as wf:
        tasks.fetch.node("u" * 100)
    server.limits = type(server.limits)(payload_bytes_max=50)
    with pytest.raises(WorkflowInvalid, match=r"node 'fetch': .*the limit is 50"):
        wf.submit()


# -- following --------------------------------------------------------------------------


def end(server: FakeServer, run: WorkflowRun, node: int, value: object) -> None:
    task_id = member_id(run.raw_id, node)
    server.end(Outcome(task_id, "succeeded", 1, b"" if value is ... else pack(value)))


def test_results_of_nodes(app: App, tasks: Tasks, server: FakeServer, face: Face) -> None:
    async def scenario() -> None:
        with app.workflow("report") as wf:
            raw = tasks.fetch.node("u")
            pause = wf.sleep(1)
            mapped = tasks.parse.node.map(raw)
            total = tasks.merge.node(mapped)
        run = await face.call(wf, "submit")
        assert isinstance(run, WorkflowRun)
        server.page_rows = 2
        ids = [member_id(run.raw_id, mapped.position, child) for child in range(5)]
        server.children[member_id(run.raw_id, mapped.position)] = [
            Outcome(each, "succeeded", 1, pack(value)) for value, each in enumerate(ids)
        ]
        with pytest.raises(TimedOut):
            await face.call(run, "result", total, 0.01)
        end(server, run, 0, [1, 2])
        end(server, run, 1, ...)
        end(server, run, 2, None)
        assert await face.call(run, "result", raw, 10) == [1, 2]
        assert await face.call(run, "result", pause, 10) is None
        assert await face.call(run, "result", mapped, 10) == [0, 1, 2, 3, 4]
        assert await face.call(run, "result", "parse", 10) == [0, 1, 2, 3, 4]
        failure = Failure("workflow.upstream_failed", "skipped: 'parse' failed")
        server.end(Outcome(member_id(run.raw_id, 3), "skipped", 0, failure=failure))
        with pytest.raises(TaskFailed, match="'parse' failed") as failed:
            await face.call(run, "result", total, 10)
        assert failed.value.code == "workflow.upstream_failed"

    face.run(scenario())


async def wait(face: Face, run: WorkflowRun, timeout_s: float) -> object:
    return run.wait(timeout_s) if face.name == "sync" else await run.await_(timeout_s)


def test_the_end_of_a_workflow(app: App, tasks: Tasks, server: FakeServer, face: Face) -> None:
    async def scenario() -> None:
        with app.workflow("report") as wf:
            tasks.fetch.node("u")
        run = await face.call(wf, "submit")
        assert isinstance(run, WorkflowRun)
        with pytest.raises(TimedOut):
            await wait(face, run, 0.01)
        assert await face.call(run, "state") == "running"
        server.end(Outcome(run.raw_id, "failed"))
        assert await wait(face, run, 10) == "failed"
        assert await face.call(run, "state") == "failed"

    face.run(scenario())


def test_a_run_is_found_again_by_its_id(app: App, tasks: Tasks, server: FakeServer, face: Face) -> None:
    async def scenario() -> None:
        with app.workflow("report") as wf:
            for index in range(5):
                tasks.parse.node([1], index)
            tasks.parse.node.map([[1]], name="mapped")
        server.page_rows = 2
        first = wf.submit()
        run = app.workflow_run(first.id)
        status = await face.call(run, "status")
        nodes = status.nodes  # type: ignore[attr-defined]  # a WorkflowStatus
        names = [node.name for node in nodes]
        assert names == ["parse", "parse-2", "parse-3", "parse-4", "parse-5", "mapped-items", "mapped"]
        assert [node.kind for node in nodes[-2:]] == ["value", "map"]
        progress = await face.call(run, "progress")
        assert isinstance(progress, WorkflowProgress)
        assert (progress.state, progress.nodes, progress.ended, progress.share) == ("running", 7, 0, 0.0)
        assert await face.call(run, "critical_path") == []
        end(server, run, 4, "five")
        assert await face.call(run, "result", "parse-5", 10) == "five"
        task_id = member_id(run.raw_id, 6)
        done, gone = Outcome(member_id(run.raw_id, 6, 0), "succeeded", 1, pack(1)), Outcome(task_id, "cancelled")
        server.children[task_id] = [done, Outcome(task_id, "running"), gone]
        items = await face.call(run, "partial", "mapped")
        assert isinstance(items, list)
        assert [(each.index, each.state, each.value) for each in items] == [
            (0, "succeeded", 1),
            (1, "running", None),
            (2, "cancelled", None),
        ]
        assert items[1].error is None
        assert isinstance(items[2].error, TaskCancelled)
        with pytest.raises(WorkflowUnknown, match="has no node 'nope'"):
            await face.call(run, "result", "nope")
        with pytest.raises(BadRequest, match="'parse' maps over nothing"):
            await face.call(run, "partial", "parse")

    face.run(scenario())


def test_orders(app: App, tasks: Tasks, server: FakeServer, face: Face) -> None:
    async def scenario() -> None:
        with app.workflow("report") as wf:
            raw = tasks.fetch.node("u")
        run = await face.call(wf, "submit")
        assert isinstance(run, WorkflowRun)
        await face.call(run, "signal", "approve", {"by": "ann"})
        await face.call(run, "cancel")
        await face.call(run, "resume")
        await face.call(run, "rerun", raw)
        await face.call(run, "rerun", "fetch")
        told = [
            (each.action, each.node) if isinstance(each, WorkflowOrder) else (each.name, unpack(each.packed))
            for each in server.orders
        ]
        assert told == [
            ("approve", {"by": "ann"}),
            ("cancel", ""),
            ("resume", ""),
            ("rerun", "fetch"),
            ("rerun", "fetch"),
        ]
        assert {each.id for each in server.orders} == {run.raw_id}
        assert any(isinstance(each, WorkflowSignal) for each in server.orders)

    face.run(scenario())


def test_what_is_not_there(app: App, tasks: Tasks, face: Face) -> None:
    async def scenario() -> None:
        run = app.workflow_run("019aa8a9-5c00-8f01-bf02-030000000000")
        for method in ("state", "status", "progress", "critical_path", "cancel", "resume"):
            with pytest.raises(WorkflowUnknown):
                await face.call(run, method)
        with pytest.raises(WorkflowUnknown):
            await wait(face, run, 10)
        with app.workflow("one") as one:
            tasks.fetch.node("u")
        with app.workflow("two"):
            foreign = tasks.fetch.node("u")
        with pytest.raises(WorkflowUnknown, match="'fetch' is of another workflow, 'two'"):
            await face.call(one.submit(), "result", foreign)

    face.run(scenario())


def test_ids_of_workflows_are_told_from_others(app: App) -> None:
    with pytest.raises(BadRequest, match="id of a task"):
        app.workflow_run("019aa8a9-5c00-8f01-bf02-030000100000")
    with pytest.raises(BadRequest, match="is not a task id"):
        app.workflow_run("report")
    text = "019aa8a9-5c00-8f01-bf02-030000000000"
    assert app.workflow_run(text).id == format_task_id(parse_task_id(text)) == text
