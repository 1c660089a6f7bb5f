"""`taskd workflow`, `taskd plan` and `taskd lint`, over a client that answers by a script."""

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from taskd_protocol.connection_messages import Done
from taskd_protocol.errors import TimedOut, WorkflowEnded
from taskd_protocol.ids import format_task_id
from taskd_protocol.payload import unpack
from taskd_protocol.schedule import NO_TASK, Schedule, Timing
from taskd_protocol.schedule_messages import ScheduleChanges, SchedulePage, ScheduleSet, ScheduleView
from taskd_protocol.task import Failure, Outcome
from taskd_protocol.workflow import ORDER_ID_BYTES, make_workflow_id, member_id
from taskd_protocol.workflow_messages import (
    NodeView,
    WorkflowList,
    WorkflowNodes,
    WorkflowOrder,
    WorkflowPage,
    WorkflowQuery,
    WorkflowSignal,
    WorkflowView,
)
from unit.cli.fake_client import FakeClient, Taskd

RAW = make_workflow_id(1_800_000_000_000, bytes(5))
ID = format_task_id(RAW)
T0 = 1_795_305_600_000

NODES = [
    NodeView("fetch", "task", "succeeded", "etl.fetch", [], [], "all_succeeded", "", 2, "ash", T0, T0 + 1_200),
    NodeView("parse", "map", "running", "etl.parse", [0], [], "all_succeeded", "", children=10, succeeded=3, failed=1),
    NodeView(
        "check",
        "task",
        "dead",
        "etl.check",
        [0],
        [],
        "all_succeeded",
        "",
        3,
        "elm",
        T0 + 1_200,
        T0 + 95_200,
        Failure("task.raised", "no such\npage", "builtins.LookupError"),
    ),
    NodeView("approve", "signal", "waiting", "", [], [0], "all_succeeded", signal="go"),
    NodeView("tell", "task", "blocked", "etl.tell", [], [2, 3], "all_done", "on_failure"),
]
VIEW = WorkflowView(
    id=RAW,
    name="nightly",
    state="running",
    nodes=5,
    counts={"succeeded": 1, "running": 1, "dead": 1, "waiting": 1, "blocked": 1},
    created_at_ms=T0,
    finished_at_ms=None,
    policy="finish_what_you_can",
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    failed_node="check",
)


def test_ls(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [WorkflowPage(0, [VIEW], b"more"), WorkflowPage(0, [VIEW], b"")]
    ended = taskd("workflow", "ls", "--state", "running", "--name", "night*")
    assert ended.code == 0
    header, first, second = ended.out.splitlines()
    assert header.split() == ["ID", "NAME", "STATE", "NODES", "DONE", "FAILED", "AT", "CREATED"]
    assert first == second
    assert first.split() == [ID, "nightly", "running", "5", "2", "check", "2026-11-22", "00:00:00"]
    assert client.asked == [
        WorkflowList(0, "running", "night*", 100),
        WorkflowList(0, "running", "night*", 99, b"more"),
    ]


def test_ls_as_json(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [WorkflowPage(0, [VIEW], b"")]
    assert json.loads(taskd("workflow", "ls", "--json").out) == [
        {
            "id": ID,
            "name": "nightly",
            "state": "running",
            "policy": "finish_what_you_can",
            "node_count": 5,
            "counts": VIEW.counts,
            "failed_node": "check",
            "reason": None,
            "created_at": "2026-11-22T00:00:00.000Z",
            "finished_at": None,
            "trace_id": "0af7651916cd43dd8448eb211c80319c",
            "schedule": None,
            "scheduled_for": None,
        }
    ]


def test_show_draws_the_graph_and_tells_what_to_do(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [WorkflowNodes(0, VIEW, NODES[:3]), WorkflowNodes(0, VIEW, NODES[3:])]
    ended = taskd("workflow", "show", ID)
    assert ended.code == 0
    assert client.asked == [WorkflowQuery(0, RAW, 0, 1_000), WorkflowQuery(0, RAW, 3, 1_000)]
    assert ended.out.splitlines() == [
        f"workflow   nightly, {ID}",
        "state      running",
        "nodes      2 of 5 have ended: 1 succeeded, 1 running, 1 dead, 1 waiting, 1 blocked",
        "policy     finish_what_you_can",
        "trace      0af7651916cd43dd8448eb211c80319c",
        "created    2026-11-22T00:00:00.000Z",
        "",
        "  1  ✓ fetch    succeeded      1.2 s  attempt 2",
        "  2  ▶ parse    running               ← fetch  3 of 10 done, 1 failed",
        "     ✗ check    dead       1 min 34 s  ← fetch  attempt 3",
        "     ◷ approve  waiting               ← fetch  waits for signal go",
        "  3  · tell     blocked               ← check, approve  if it fails",
        "",
        "longest    fetch 1.2 s → check 1 min 34 s: 1 min 35 s together",
        "failed     check: builtins.LookupError: no such page (task.raised)",
        f"           taskd task show {format_task_id(member_id(RAW, 2))}",
        f"next       taskd workflow signal {ID} go",
        f"next       taskd workflow wait {ID}",
    ]


def test_show_of_one_that_failed_names_the_way_on(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [WorkflowNodes(0, replace(VIEW, state="failed", finished_at_ms=T0 + 1), NODES)]
    assert f"next       taskd workflow resume {ID}" in taskd("workflow", "show", ID).out.splitlines()


def test_a_node_that_was_cancelled_is_told_where_it_made_the_workflow_fail(taskd: Taskd, client: FakeClient) -> None:
    nodes = [replace(NODES[0], state="cancelled")]
    for state, told in (("failed", True), ("cancelled", False)):
        client.replies = [WorkflowNodes(0, replace(VIEW, state=state, nodes=1), nodes)]
        assert ("failed     fetch: cancelled" in taskd("workflow", "show", ID).out.splitlines()) is told


def test_show_as_json(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [WorkflowNodes(0, VIEW, NODES)]
    shown = json.loads(taskd("workflow", "show", ID, "--json").out)
    assert (shown["id"], shown["node_count"], len(shown["nodes"])) == (ID, 5, 5)
    assert shown["nodes"][1] == {
        "id": format_task_id(member_id(RAW, 1)),
        "name": "parse",
        "kind": "map",
        "state": "running",
        "task": "etl.parse",
        "needs": ["fetch"],
        "after": [],
        "when": "all_succeeded",
        "phase": None,
        "attempt": 0,
        "agent": None,
        "started_at": None,
        "finished_at": None,
        "error": None,
        "children": {"total": 10, "succeeded": 3, "failed": 1},
        "signal": None,
    }
    assert shown["nodes"][2]["error"]["code"] == "task.raised"
    assert shown["nodes"][4]["after"] == ["check", "approve"]


def test_what_is_not_stored(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [WorkflowNodes(0, None, [])]
    ended = taskd("workflow", "show", ID)
    assert (ended.code, ended.out) == (2, "")
    assert ended.complaint == f"taskd: no workflow {ID} is stored; `taskd workflow ls` lists those that are"
    ended = taskd("workflow", "show", format_task_id(member_id(RAW, 2)))
    assert (ended.code, "is no workflow's id" in ended.complaint) == (2, True)


@pytest.mark.parametrize(
    ("words", "asked", "said"),
    [
        (["cancel", ID], WorkflowOrder(0, RAW, "cancel"), "is being cancelled"),
        (["resume", ID], WorkflowOrder(0, RAW, "resume"), "goes on"),
        (["rerun", ID, "check"], WorkflowOrder(0, RAW, "rerun", "check"), "runs again from node check"),
        (["signal", ID, "go"], WorkflowSignal(0, RAW, "go"), "has signal go"),
    ],
)
def test_orders(
    taskd: Taskd, client: FakeClient, words: list[str], asked: WorkflowOrder | WorkflowSignal, said: str
) -> None:
    client.replies = [Done(0)]
    ended = taskd("workflow", *words)
    assert (ended.code, said in ended.out) == (0, True)
    [sent] = client.asked
    if isinstance(sent, WorkflowOrder):
        assert len(sent.order_id) == ORDER_ID_BYTES
        sent = replace(sent, order_id=b"")
    assert sent == asked
    client.replies = [WorkflowEnded("it has ended")]
    ended = taskd("workflow", *words)
    assert (ended.code, ended.out, ended.complaint) == (2, "", "taskd: it has ended")


def test_a_signal_carries_a_value(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [Done(0)]
    taskd("workflow", "signal", ID, "go", '{"by": "ann"}')
    (asked,) = client.asked
    assert isinstance(asked, WorkflowSignal)
    assert unpack(asked.packed) == {"by": "ann"}
    ended = taskd("workflow", "signal", ID, "go", "{by")
    assert (ended.code, "no JSON" in ended.complaint) == (2, True)


@pytest.mark.parametrize(("state", "code"), [("succeeded", 0), ("failed", 1), ("cancelled", 1)])
def test_wait(taskd: Taskd, client: FakeClient, state: str, code: int) -> None:
    client.outcomes = [Outcome(RAW, state)]
    client.replies = [WorkflowNodes(0, replace(VIEW, state=state, failed_node="check" if code else ""), [])]
    ended = taskd("workflow", "wait", ID, "--timeout", "5s")
    assert (ended.code, ended.out) == (code, f"{state}\n")
    assert client.timeouts == [5.0]
    assert ("node check failed" in ended.err) == bool(code)


def test_a_wait_that_is_too_short(taskd: Taskd, client: FakeClient) -> None:
    client.late = 1
    assert taskd("workflow", "wait", ID, "--timeout", "1").code == 4
    assert TimedOut.code == "timeout"


FLOW = """
name = "nightly"
policy = "fail_fast"

[nodes.merge]
task = "etl.merge"
args = [{node = "parse"}]

[nodes.parse]
task = "etl.parse"
over = "fetch"
in_flight = 5

[nodes.fetch]
task = "etl.fetch"
args = ["u"]
queue = "io"
"""


@pytest.fixture
def flow(tmp_path: Path) -> str:
    file = tmp_path / "flow.toml"
    file.write_text(FLOW)
    return str(file)


SCHEDULED = (
    FLOW
    + """
[schedule]
cron = "0 3 * * *"
tz = "Europe/Oslo"
"""
)


def schedule_view(schedule: Schedule) -> ScheduleView:
    return ScheduleView(schedule, "active", "", "key1", T0, T0 + 5_000, T0, 0, [], None, None)


def test_submit_of_a_file_with_a_schedule_makes_that(taskd: Taskd, client: FakeClient, tmp_path: Path) -> None:
    file = tmp_path / "flow.toml"
    file.write_text(SCHEDULED)
    made = Schedule("nightly", Timing(("0 3 * * *",), zone="Europe/Oslo"), NO_TASK)
    view = SchedulePage(1, [schedule_view(made)], more=False)
    changes = ScheduleChanges(1, ["nightly"], [], [], [])
    client.replies = [SchedulePage(1, [], more=False), changes, view]
    ended = taskd("workflow", "submit", str(file))
    assert (ended.code, client.workflows) == (0, [])
    assert ended.out == "schedule nightly is made; it fires next at 2026-11-22T00:00:05.000Z\n"
    assert ended.err == "taskd schedule trigger nightly starts one now\n"
    asked = client.asked[1]
    assert isinstance(asked, ScheduleSet)
    assert (asked.schedule.timing, asked.only_new) == (made.timing, False)
    assert asked.schedule.workflow is not None
    assert [node.name for node in asked.schedule.workflow.nodes] == ["fetch", "parse", "merge"]
    assert asked.schedule.workflow.policy == "fail_fast"

    client.replies = [view]
    refused = taskd("workflow", "submit", str(file))
    assert (refused.code, refused.out) == (2, "")
    assert "schedule 'nightly' submits a task: say another name in [schedule]" in refused.err
    assert taskd("workflow", "submit", str(file), "--wait").code == 2
    assert taskd("workflow", "submit", str(file), "--now").out == f"{ID}\n"
    assert len(client.workflows) == 1


def test_lint_and_plan_tell_the_schedule(taskd: Taskd, tmp_path: Path) -> None:
    file = tmp_path / "flow.toml"
    file.write_text(SCHEDULED)
    assert taskd("lint", str(file)).out == f"{file}: 3 nodes, scheduled 0 3 * * * Europe/Oslo, nothing is wrong\n"
    planned = taskd("plan", str(file)).out.splitlines()
    assert planned[1] == "schedule nightly: 0 3 * * * Europe/Oslo, overlap skip, missed latest"
    document = json.loads(taskd("plan", str(file), "--json").out)["schedule"]
    assert (document["timing"]["cron"], document["workflow"]) == (["0 3 * * *"], "nightly")


def test_submit_prints_the_id_alone(taskd: Taskd, client: FakeClient, flow: str) -> None:
    ended = taskd("workflow", "submit", flow)
    assert (ended.code, ended.out, ended.err) == (0, f"{ID}\n", "")
    ((name, policy, nodes),) = client.workflows
    assert (name, policy, [node.name for node in nodes]) == ("nightly", "fail_fast", ["fetch", "parse", "merge"])


def test_submit_and_wait(taskd: Taskd, client: FakeClient, flow: str) -> None:
    client.outcomes = [Outcome(RAW, "succeeded")]
    client.replies = [WorkflowNodes(0, replace(VIEW, state="succeeded", failed_node=""), [])]
    ended = taskd("workflow", "submit", flow, "--wait", "--json")
    assert (ended.code, json.loads(ended.out)["state"]) == (0, "succeeded")


def test_a_file_with_mistakes_is_not_submitted(taskd: Taskd, client: FakeClient, tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(FLOW.replace('over = "fetch"', 'over = "fetsch"').replace("queue", "quue"))
    ended = taskd("workflow", "submit", str(file))
    assert (ended.code, ended.out, client.workflows) == (2, "", [])
    first, second = ended.err.splitlines()
    assert first == f"{file}:11: node 'parse': there is no node 'fetsch'; did you mean 'fetch'?"
    assert second == f"taskd: {file}:17: node 'fetch': 'quue' is unknown; did you mean 'queue'?"


def test_lint_tells_everything(taskd: Taskd, flow: str, tmp_path: Path) -> None:
    ended = taskd("lint", flow)
    assert (ended.code, ended.out) == (0, f"{flow}: 3 nodes, nothing is wrong\n")
    assert (taskd("lint", flow, "--json").out) == "[]\n"
    file = tmp_path / "bad.toml"
    file.write_text(FLOW.replace('over = "fetch"', 'over = "fetsch"').replace("queue", "quue"))
    ended = taskd("lint", str(file))
    assert (ended.code, ended.err, len(ended.out.splitlines())) == (2, "", 2)
    shown = taskd("lint", str(file), "--json")
    assert shown.code == 2
    assert json.loads(shown.out)[1] == {
        "node": "fetch",
        "line": 17,
        "message": "'quue' is unknown; did you mean 'queue'?",
    }


def test_plan_tells_what_would_run(taskd: Taskd, flow: str) -> None:
    """By layers, without a server."""
    ended = taskd("plan", flow)
    assert (ended.code, ended.out.splitlines()) == (
        0,
        [
            "workflow nightly: 3 nodes in 3 layers, fail_fast",
            '  1  · fetch  etl.fetch("u")',
            '  2  · parse  ← fetch  etl.parse("<item of fetch>") for each item, 5 at a time',
            '  3  · merge  ← parse  etl.merge("<parse>")',
        ],
    )
    shown = json.loads(taskd("plan", flow, "--json").out)
    assert [[node["name"] for node in layer] for layer in shown["layers"]] == [["fetch"], ["parse"], ["merge"]]


def test_plan_tells_every_kind(taskd: Taskd, tmp_path: Path) -> None:
    file = tmp_path / "flow.json"
    nodes = {
        "v": {"value": [1, 2]},
        "s": {"sleep": "2m", "after": ["v"]},
        "go": {"signal": "go", "timeout": 30, "after": ["s"]},
        "c": {"command": ["cp", {"node": "v"}, "a b"]},
        "undo": {"task": "m.undo", "compensates": "c", "kwargs": {"r": {"node": "c"}}},
    }
    file.write_text(json.dumps({"name": "n", "nodes": nodes}))
    assert taskd("plan", str(file)).out.splitlines()[1:] == [
        "  1  · v     [1, 2]",
        "  2  · s     ← v  sleeps 120 s",
        "     · c     ← v  $ cp '<v>' 'a b'",
        "  3  · go    ← s  waits for signal go, 30 s at most",
        '  4  · undo  ← c  m.undo(r="<c>"); to take back',
    ]


def test_graph_of_a_file_and_of_a_workflow(taskd: Taskd, client: FakeClient, flow: str) -> None:
    assert "n1 --> n2" in taskd("workflow", "graph", flow).out
    client.replies = [WorkflowNodes(0, VIEW, NODES)]
    shown = taskd("workflow", "graph", ID, "--format", "dot").out
    assert shown.startswith('digraph "nightly" {\n')
    assert 'n2 [label="✗ check", fillcolor="#f8d0d0"];' in shown
