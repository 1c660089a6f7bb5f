"""`taskd schedule`: what is asked of the server, and how its answers are told to people and to scripts."""

import json

from msgspec.structs import replace

from taskd_protocol.connection_messages import Done
from taskd_protocol.ids import format_task_id, make_task_ids
from taskd_protocol.payload import pack_arguments
from taskd_protocol.schedule import NO_TASK, NO_TASK_ID, Schedule, ScheduledWorkflow, Timing
from taskd_protocol.schedule_messages import (
    FiringPage,
    FiringView,
    PreviewFiring,
    PreviewPage,
    ScheduleBackfill,
    ScheduleBackfilled,
    ScheduleChanges,
    ScheduleHistory,
    ScheduleOrder,
    SchedulePage,
    ScheduleSet,
    ScheduleTriggered,
    ScheduleView,
)
from taskd_protocol.task import Retry, Rules, TaskSpec
from taskd_protocol.workflow import Node, make_workflow_id
from unit.cli.fake_client import FakeClient, Taskd

[TASK] = make_task_ids(1, 1_800_000_000_000, bytes(range(10)))
RUN = make_workflow_id(1_800_000_000_000, bytes(5))
AT_MS = 1_795_291_200_000
LAST = FiringView(8, AT_MS - 60_000, AT_MS, 2, "skipped", "the task before has not ended", b"", AT_MS + 5)
VIEW = ScheduleView(
    Schedule(
        "nightly",
        Timing(("0 3 * * *",), zone="Europe/Oslo", not_dates=("2026-12-24",)),
        TaskSpec(NO_TASK_ID, "app.report", pack_arguments([1], {"b": 2}), "slow"),
        30_000,
        "queue_one",
        "all",
        5,
        3,
        "shop",
    ),
    "paused",
    "3 tasks in a row have failed",
    "key1",
    AT_MS - 1000,
    AT_MS + 1000,
    AT_MS,
    3,
    [TASK],
    AT_MS,
    LAST,
)
PLAIN = ScheduleView(
    Schedule("often", Timing(every_ms=90_000), TaskSpec(NO_TASK_ID, "app.f")),
    "active",
    "",
    "key1",
    1,
    2,
    1,
    0,
    [],
    None,
    None,
)


def test_ls_shows_where_each_stands(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [SchedulePage(1, [VIEW], more=True), SchedulePage(2, [PLAIN], more=False)]
    header, first, second = taskd("schedule", "ls").out.splitlines()
    assert header.split() == ["NAME", "STATE", "WHEN", "NEXT", "(UTC)", "LAST", "WORK", "SOURCE"]
    assert "0 3 * * * Europe/Oslo  2026-11-21T20:00:01.000Z  skipped 2026-11-21T20:00:00.000Z" in first
    assert first.endswith("defined in code: shop")
    assert second.split() == ["often", "active", "every", "90s", "1970-01-01T00:00:00.002Z", "-", "app.f", "-"]


def test_a_schedule_has_one_document(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [SchedulePage(1, [VIEW], more=False)]
    [document] = json.loads(taskd("schedule", "ls", "--json").out)
    assert document == {
        "name": "nightly",
        "state": "paused",
        "reason": "3 tasks in a row have failed",
        "source": "shop",
        "orphaned": False,
        "task": "app.report",
        "queue": "slow",
        "priority": 0,
        "workflow": None,
        "node_count": None,
        "timing": {
            "cron": ["0 3 * * *"],
            "every_s": None,
            "at": [],
            "tz": "Europe/Oslo",
            "gap": "next",
            "fold": "auto",
            "start": None,
            "end": None,
            "not_on": ["2026-12-24"],
            "not_cron": [],
        },
        "jitter_s": 30.0,
        "overlap": "queue_one",
        "missed": "all",
        "missed_max": 5,
        "pause_after": 3,
        "created_at": "2026-11-21T19:59:59.000Z",
        "next_at": "2026-11-21T20:00:01.000Z",
        "failures": 3,
        "running": [format_task_id(TASK)],
        "waiting": "2026-11-21T20:00:00.000Z",
        "last": {
            "at": "2026-11-21T19:59:00.000Z",
            "until": "2026-11-21T20:00:00.000Z",
            "count": 2,
            "outcome": "skipped",
            "reason": "the task before has not ended",
            "task": None,
            "task_state": None,
            "workflow": None,
            "workflow_state": None,
            "decided_at": "2026-11-21T20:00:00.005Z",
        },
    }


def test_show_tells_people_all_of_it(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [SchedulePage(1, [VIEW], more=False), PreviewPage(2, [PreviewFiring(AT_MS, "odd")], "Europe/Oslo")]
    told = taskd("schedule", "show", "nightly").out
    for line in (
        "state     paused: 3 tasks in a row have failed",
        "source    defined in code: shop",
        "task      app.report(1, b=2) in queue slow",
        "jitter    30s",
        "missed    all, at most 5",
        "pause     after 3 failures, 3 so far",
        "not on    2026-12-24",
    ):
        assert line in told.splitlines()
    assert told.splitlines()[-1] == "2026-11-21T20:00:00.000Z  Sat 2026-11-21 21:00:00 +0100  odd"


def test_add_asks_for_what_was_said(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [ScheduleChanges(1, ["n"], [], [], []), SchedulePage(2, [PLAIN], more=False)]
    words = "--every 90s --overlap allow --missed all --missed-max 4 --jitter 3s --pause-after 2 --queue q --priority 3"
    ended = taskd(
        "schedule", "add", "n", "app.f", '{"a": 1}', *words.split(), "--max-attempts", "1", "--time-limit", "9s"
    )
    assert ended.out == "schedule n is made; it fires next at 1970-01-01T00:00:00.002Z\n"
    task = TaskSpec(
        NO_TASK_ID, "app.f", pack_arguments([], {"a": 1}), "q", 3, retry=Retry(1), given=Rules(timeout_ms=9_000)
    )
    asked = client.asked[0]
    assert asked == ScheduleSet(
        0, Schedule("n", Timing(every_ms=90_000), task, 3_000, "allow", "all", 4, 2), only_new=True
    )


def test_orders_are_told_with_what_comes_next(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [Done(1), SchedulePage(2, [VIEW], more=False)]
    assert "taskd schedule resume nightly has it fire again" in taskd("schedule", "pause", "nightly").out
    assert client.asked[0] == ScheduleOrder(0, "nightly", "pause")
    client.replies = [SchedulePage(2, [VIEW], more=False), Done(1)]
    removed = taskd("schedule", "rm", "nightly")
    assert removed.out == "schedule nightly is removed\n"
    assert "comes back with the next agent or sync" in removed.err
    client.replies = [SchedulePage(2, [], more=False)]
    missing = taskd("schedule", "rm", "nowhere")
    assert (missing.code, missing.out) == (2, "")
    client.replies = [ScheduleTriggered(1, TASK)]
    assert taskd("schedule", "trigger", "nightly").out == format_task_id(TASK) + "\n"


def test_a_backfill_goes_on_behind_what_is_done(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [
        SchedulePage(1, [VIEW], more=False),
        ScheduleBackfilled(2, [1, 2], AT_MS - 5_000),
        ScheduleBackfilled(3, [3], AT_MS),
    ]
    ended = taskd("schedule", "backfill", "nightly", "--from", "2026-11-01", "--to", "2026-11-21T21:00")
    assert ended.out == "submitted 3 tasks\n"
    first, second = (asked for asked in client.asked if isinstance(asked, ScheduleBackfill))
    assert (first.from_ms, first.until_ms) == (1_793_487_600_000, AT_MS), "by the schedule's own clock"
    assert second.from_ms == AT_MS - 4_999


def test_history_reads_on_as_far_as_asked(taskd: Taskd, client: FakeClient) -> None:
    fired = FiringView(7, AT_MS, AT_MS, 1, "fired", "", TASK, AT_MS, "succeeded")
    client.replies = [FiringPage(1, [LAST], more=True), FiringPage(2, [fired], more=False)]
    header, first, second = taskd("schedule", "history", "nightly").out.splitlines()
    assert header.split() == ["TIME", "(UTC)", "TIMES", "OUTCOME", "WORK", "STATE", "REASON"]
    assert first.startswith("2026-11-21T19:59:00.000Z to 2026-11-21T20:00:00.000Z  2      skipped")
    assert second.split() == ["2026-11-21T20:00:00.000Z", "1", "fired", format_task_id(TASK), "succeeded"]
    assert client.asked[1] == ScheduleHistory(0, "nightly", 8, 19)


def test_one_that_its_code_defines_no_longer_is_told_with_what_to_do(taskd: Taskd, client: FakeClient) -> None:
    page = SchedulePage(1, [replace(VIEW, orphaned=True)], more=False)
    client.replies = [page, page, page, PreviewPage(2, [], "UTC")]
    assert taskd("schedule", "ls").out.splitlines()[1].endswith("no longer defined in code: shop")
    assert json.loads(taskd("schedule", "ls", "--json").out)[0]["orphaned"] is True
    shown = taskd("schedule", "show", "nightly").out.splitlines()
    assert "source    no longer defined in code: shop" in shown
    advice = "taskd schedule rm nightly removes it; taskd schedule resume nightly has it fire all the same"
    assert f"next      {advice}" in shown


def test_a_schedule_of_a_workflow_is_told_as_one(taskd: Taskd, client: FakeClient) -> None:
    workflow = ScheduledWorkflow("etl", [Node("a", task=TaskSpec(b"", "m.f")), Node("b", "value", packed=b"\xc0")])
    fired = FiringView(7, AT_MS, AT_MS, 1, "fired", "", RUN, AT_MS, "succeeded")
    made = Schedule("nightly", Timing(("@daily",)), NO_TASK, workflow=workflow)
    view = replace(PLAIN, schedule=made, running=[RUN], last=fired)
    text = format_task_id(RUN)
    page = SchedulePage(1, [view], more=False)
    client.replies = [page, page, page, PreviewPage(2, [], "UTC"), ScheduleTriggered(3, RUN), ScheduleTriggered(4, RUN)]
    assert taskd("schedule", "ls").out.splitlines()[1].split()[-3:] == ["workflow", "etl", "-"]
    [document] = json.loads(taskd("schedule", "ls", "--json").out)
    asked = ("task", "queue", "priority", "workflow", "node_count")
    assert [document[key] for key in asked] == [None, None, None, "etl", 2]
    last = ("task", "task_state", "workflow", "workflow_state")
    assert [document["last"][key] for key in last] == [None, None, text, "succeeded"]
    assert "workflow  etl, 2 nodes, finish_what_you_can" in taskd("schedule", "show", "nightly").out.splitlines()
    assert taskd("schedule", "trigger", "nightly").out == f"{text}\n"
    told = json.loads(taskd("schedule", "trigger", "nightly", "--json").out)
    assert told == {"name": "nightly", "task": None, "workflow": text}


def test_a_state_that_needs_a_reason_has_one(taskd: Taskd, client: FakeClient) -> None:
    broken = replace(VIEW, state="broken", reason="time zone 'Old/Zone' is unknown", next_at_ms=None)
    client.replies = [SchedulePage(1, [broken], more=False)]
    told = taskd("schedule", "show", "nightly").out.splitlines()
    assert "state     broken: time zone 'Old/Zone' is unknown" in told
    done = replace(VIEW, state="done", next_at_ms=None)
    client.replies = [SchedulePage(1, [done], more=False), PreviewPage(2, [], "UTC")]
    assert taskd("schedule", "show", "nightly").out.splitlines()[-1] == "nothing fires any more"
