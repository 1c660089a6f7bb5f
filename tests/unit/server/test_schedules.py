"""Schedules over the wire: what is asked is answered from what is durable, and fires within its second."""

import pytest
import trio
from msgspec.structs import replace

from harness.server import WALL_MS, Server
from taskd_protocol import messages as m
from taskd_protocol import schedule_messages as sm
from taskd_protocol.connection_messages import Done, Error
from taskd_protocol.ids import make_task_ids
from taskd_protocol.schedule import NO_TASK_ID, Schedule, Timing
from taskd_protocol.task import TaskSpec

MINUTE_MS = 60_000
WORK = TaskSpec(NO_TASK_ID, "m.f", b"\x90")
TICK = Schedule("tick", Timing(cron=("* * * * *",), zone="Europe/Oslo"), WORK, overlap="allow")
[AN_ID] = make_task_ids(1, WALL_MS, bytes(10))


async def test_a_schedule_fires_within_its_second_and_is_shown(server: Server) -> None:
    peer = await server.client()
    changes = await peer.ask(sm.ScheduleSet(5, TICK), sm.ScheduleChanges)
    assert changes.added == ["tick"]
    await trio.sleep(3 * 60 + 1)
    page = await peer.ask(sm.ScheduleList(6), sm.SchedulePage)
    [view] = page.schedules
    assert (view.schedule.name, view.state, view.next_at_ms) == ("tick", "active", WALL_MS + 4 * MINUTE_MS)
    history = await peer.ask(sm.ScheduleHistory(7, "tick", limit=2), sm.FiringPage)
    assert [(f.sequence, f.at_ms, f.outcome, f.task_state) for f in history.firings] == [
        (2, WALL_MS + 3 * MINUTE_MS, "fired", "ready"),
        (1, WALL_MS + 2 * MINUTE_MS, "fired", "ready"),
    ]
    assert history.more
    assert all(0 <= firing.decided_at_ms - firing.at_ms < 1_000 for firing in history.firings)
    rest = await peer.ask(sm.ScheduleHistory(8, "tick", before=1), sm.FiringPage)
    assert [firing.sequence for firing in rest.firings] == [0]
    assert not rest.more
    assert view.last is not None
    assert view.last.sequence == 2
    assert await server.state(peer, history.firings[0].task_id) == "ready"


async def test_orders_are_answered_when_they_are_durable(server: Server) -> None:
    peer = await server.client()
    await peer.ask(sm.ScheduleSet(5, TICK), sm.ScheduleChanges)
    with server.disk.held():
        await peer.send(sm.ScheduleOrder(6, "tick", "pause"))
        await peer.settle()
        assert not peer.told(Done)
    await peer.take(Done)
    await trio.sleep(300)
    [paused] = (await peer.ask(sm.ScheduleList(7, ["tick", "other"]), sm.SchedulePage)).schedules
    assert (paused.state, paused.reason, paused.last) == ("paused", "by hand", None)
    await peer.ask(sm.ScheduleOrder(8, "tick", "resume"), Done)
    outcomes = [f.outcome for f in (await peer.ask(sm.ScheduleHistory(9, "tick"), sm.FiringPage)).firings]
    assert outcomes == ["fired", "coalesced"]
    await peer.ask(sm.ScheduleOrder(10, "tick", "remove"), Done)
    for request in (
        sm.ScheduleHistory(11, "tick"),
        sm.SchedulePreview(12, "tick"),
        sm.ScheduleTrigger(13, "tick", AN_ID),
    ):
        assert (await peer.ask(request, Error)).code == "schedule.unknown"


async def test_a_trigger_and_a_backfill_are_sent_again_and_done_once(server: Server) -> None:
    peer = await server.client()
    await peer.ask(sm.ScheduleSet(5, TICK), sm.ScheduleChanges)
    for request_id in (6, 7):
        triggered = await peer.ask(sm.ScheduleTrigger(request_id, "tick", AN_ID), sm.ScheduleTriggered)
        assert triggered.id == AN_ID
    day = (WALL_MS - 10 * MINUTE_MS + 1, WALL_MS)
    dry = await peer.ask(sm.ScheduleBackfill(8, "tick", AN_ID, *day, dry_run=True), sm.ScheduleBackfilled)
    assert len(dry.at_ms) == 10
    for dry_run in (True, False):
        backwards = sm.ScheduleBackfill(20 + dry_run, "tick", AN_ID, day[1], day[0], dry_run=dry_run)
        assert "begins before it ends" in (await peer.ask(backwards, Error)).message
    [other] = make_task_ids(1, WALL_MS, b"\x01" * 10)
    for request_id in (9, 10):
        filled = await peer.ask(sm.ScheduleBackfill(request_id, "tick", other, *day), sm.ScheduleBackfilled)
        assert (filled.at_ms, filled.until_ms) == (dry.at_ms, WALL_MS)
    page = await peer.ask(m.TaskCount(11), m.TaskCounted)
    assert page.count == 11


async def test_nothing_is_submitted_while_the_disk_is_nearly_full(server: Server) -> None:
    """As for clients; what passed meanwhile was missed."""
    full = True
    server.loop.is_disk_full = lambda: full
    peer = await server.client()
    await peer.ask(sm.ScheduleSet(5, TICK), sm.ScheduleChanges)
    await trio.sleep(5 * 60)
    assert (await peer.ask(sm.ScheduleHistory(6, "tick"), sm.FiringPage)).firings == []
    full = False
    await trio.sleep(20)
    outcomes = [(f.outcome, f.count) for f in (await peer.ask(sm.ScheduleHistory(7, "tick"), sm.FiringPage)).firings]
    assert outcomes in ([("fired", 1), ("coalesced", 4)], [("fired", 1), ("coalesced", 3)])


async def test_a_preview_tells_a_timing_or_a_schedule(server: Server) -> None:
    peer = await server.client()
    await peer.ask(sm.ScheduleSet(5, TICK), sm.ScheduleChanges)
    told = await peer.ask(sm.SchedulePreview(6, "tick", count=2), sm.PreviewPage)
    assert ([firing.at_ms for firing in told.firings], told.zone) == ([WALL_MS, WALL_MS + MINUTE_MS], "Europe/Oslo")
    gap = Timing(cron=("30 2 * * *",), zone="Europe/Oslo")
    told = await peer.ask(sm.SchedulePreview(7, "", gap, 1_774_746_000_000, 1), sm.PreviewPage)
    assert told.firings == [
        sm.PreviewFiring(1_774_746_000_000, "02:30 does not exist: at the first instant after the gap")
    ]
    skipping = replace(gap, gap="skip")
    told = await peer.ask(sm.SchedulePreview(8, "", skipping, 1_774_746_000_000, 1), sm.PreviewPage)
    assert told.skipped == [sm.PreviewFiring(1_774_746_000_000, "02:30 does not exist: it does not fire")]
    assert (await peer.ask(sm.SchedulePreview(9), Error)).code == "request.invalid"


async def test_pages_go_on_behind_the_last_name(server: Server) -> None:
    peer = await server.client()
    schedules = [Schedule(f"s{number:02}", Timing(every_ms=3_600_000), WORK) for number in range(25)]
    await peer.ask(sm.ScheduleSync(5, "shop", schedules), sm.ScheduleChanges)
    names: list[str] = []
    more, request_id = True, 6
    while more:
        after = names[-1] if names else ""
        page = await peer.ask(sm.ScheduleList(request_id, after=after, limit=10), sm.SchedulePage)
        names += [view.schedule.name for view in page.schedules]
        more, request_id = page.more, request_id + 1
    assert names == [schedule.name for schedule in schedules]
    assert request_id == 9


@pytest.mark.parametrize(
    ("timing", "says"),
    [
        (Timing(cron=("0 0 1--100000000 * *",)), "cannot be read"),
        (Timing(cron=("0 0 30 2 *",)), "no day that there is"),
        (Timing(cron=("x" * 10_000,)), "at most 256"),
        (Timing(every_ms=0), "interval above zero"),
        (Timing(cron=("@daily",), zone="Mars/Olympus"), "is unknown"),
    ],
)
async def test_hostile_timings_are_refused_with_a_reason(server: Server, timing: Timing, says: str) -> None:
    peer = await server.client()
    for request in (sm.ScheduleSet(5, Schedule("x", timing, WORK)), sm.SchedulePreview(6, "", timing)):
        refused = await peer.ask(request, Error)
        assert refused.code == "request.invalid"
        assert says in refused.message
    assert (await peer.ask(sm.ScheduleList(7), sm.SchedulePage)).schedules == []
