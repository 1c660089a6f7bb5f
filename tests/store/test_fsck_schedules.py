"""Fsck of schedules: nothing is found in what the core writes, and every kind of disagreement that is put there."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import trio
from msgspec.structs import replace

from harness.clockwork import MINUTE_MS, a_schedule, put
from harness.core import Shell
from harness.workflows import Graph
from store.houses import RocksHouse
from taskd.core import leftovers, records
from taskd.core.commands import CancelTasks
from taskd.core.records import Mutation
from taskd.core.schedule_commands import OrderSchedule, SyncSchedules
from taskd.core.schedule_looks import HISTORY_KEPT, firing_id
from taskd.core.schedule_records import FiringRecord, ScheduleRecord, StandingRecord
from taskd.store.codec import encode
from taskd.store.fsck import fsck
from taskd_protocol.schedule import Timing
from taskd_protocol.workflow import make_workflow_id


class Sample(NamedTuple):
    """The schedule ``tick``, as stored."""

    schedule: ScheduleRecord
    standing: StandingRecord
    firing: FiringRecord
    """The last but one."""


TICK = b"tick"


def build(shell: Shell) -> Sample:
    """Have schedules fire, wait, miss times and be changed."""
    put(shell, a_schedule(overlap="queue_one"))
    put(shell, a_schedule("often", Timing(every_ms=1_000)))
    put(shell, a_schedule("other", overlap="skip", pause_after=2))
    shell.pass_ms(4 * MINUTE_MS)
    put(shell, a_schedule("other", Timing(every_ms=30_000), overlap="skip"))
    put(shell, a_schedule("graph", overlap="skip", nodes=Graph().add("first").add("second", "first").nodes))
    shell.pass_ms((HISTORY_KEPT - 200) * 1_000)
    first = shell.working.schedules.of["tick"].running[0]
    shell.do(CancelTasks([first]))
    shell.pass_ms(3 * MINUTE_MS)
    shell.do(OrderSchedule("often", "pause"))
    disk = shell.disk
    assert disk.get(records.STANDING, b"graph", StandingRecord).running
    standing = disk.get(records.STANDING, TICK, StandingRecord)
    assert standing.waiting is not None
    assert standing.running
    firing = disk.get(records.FIRING, firing_id("tick", standing.sequence - 2), FiringRecord)
    return Sample(disk.get(records.SCHEDULE, TICK, ScheduleRecord), standing, firing)


def check(path: Path, shell: Shell, *damage: Mutation) -> list[str]:
    """Write a disk to a store, with a damage; return the rules that fsck finds broken, and its words."""

    async def write() -> None:
        store = RocksHouse(path).open()
        store.stage(encode([(kind, record_id, value) for (kind, record_id), value in shell.disk.values.items()]))
        store.stage(encode(damage))
        await store.close()

    trio.run(write)
    report = fsck(RocksHouse(path).path)
    assert report.findings_count == len(report.findings)
    return [f"{finding.rule}: {finding.text}" for finding in report.findings]


def test_what_the_core_writes_is_clean(tmp_path: Path) -> None:
    shell = Shell()
    build(shell)
    assert check(tmp_path, shell) == []


def test_decisions_on_another_timing_are_clean_under_a_clock_that_was_put_back(tmp_path: Path) -> None:
    """Some of them lie later than all that is decided on the timing of now."""
    shell = Shell()
    put(shell, a_schedule(timing=Timing(every_ms=1_000)))
    shell.pass_ms(30_000)
    shell.wall_ms -= 20_000
    put(shell, a_schedule(timing=Timing(every_ms=3_000)))
    assert check(tmp_path / "changed", shell) == []
    shell.pass_ms(10_000)
    assert check(tmp_path / "gone on", shell) == []


def test_what_is_left_of_those_that_were_removed_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes in the turns to come; what nobody will take away is found."""
    monkeypatch.setattr(leftovers, "STEP_DECISIONS", 25)
    shell = Shell()
    each_second = Timing(cron=("* * * * * *",))
    shell.do(SyncSchedules("m", "m", [a_schedule(f"s{number}", each_second) for number in range(2)]))
    shell.pass_ms(20_000)
    shell.ask(SyncSchedules("m", "m", [], prune=True))
    shell.turn()
    [left] = shell.disk.scan(records.REMOVED)
    assert check(tmp_path / "left", shell) == []
    findings = check(tmp_path / "lost", shell, (records.REMOVED, left, None))
    assert all("of no schedule" in finding for finding in findings)
    assert findings


DAMAGES: dict[str, tuple[str, Callable[[Sample], Mutation]]] = {
    "standing lost": ("not known where", lambda _: (records.STANDING, TICK, None)),
    "schedule lost": ("no schedule of that name", lambda _: (records.SCHEDULE, TICK, None)),
    "schedule misnamed": ("foreign name", lambda s: (records.SCHEDULE, b"tack", s.schedule)),
    "source differs": ("says otherwise", lambda s: (records.STANDING, TICK, replace(s.standing, source="shop"))),
    "waits for nobody": (
        "does not go on",
        lambda s: (records.STANDING, TICK, replace(s.standing, running=[bytes(16)])),
    ),
    "waits for no workflow": (
        "does not go on",
        lambda s: (records.STANDING, TICK, replace(s.standing, running=[make_workflow_id(1, bytes(5))])),
    ),
    "decision lost": ("are there", lambda s: (records.FIRING, firing_id("tick", s.standing.sequence - 2), None)),
    "decision too many": ("none of those", lambda s: (records.FIRING, firing_id("tick", 999), s.firing)),
    "decision of nobody": ("of no schedule", lambda s: (records.FIRING, bytes(24), s.firing)),
    "last one is another": (
        "another than the schedule's last",
        lambda s: (records.FIRING, firing_id("tick", s.standing.sequence - 1), replace(s.firing, reason="other")),
    ),
    "decided twice": (
        "was decided on before",
        lambda s: (
            records.FIRING,
            firing_id("tick", s.standing.sequence - 2),
            replace(s.firing, at_ms=s.standing.begun_ms + 1, until_ms=s.standing.begun_ms + 1),
        ),
    ),
    "decided too early": (
        "not yet decided",
        lambda s: (
            records.FIRING,
            firing_id("tick", s.standing.sequence - 2),
            replace(s.firing, until_ms=s.standing.decided_to_ms + 1),
        ),
    ),
    "one that waits is forgotten": (
        "does not know it",
        lambda s: (records.STANDING, TICK, replace(s.standing, waiting=None, waiting_sequence=0)),
    ),
    "undecodable": ("does not decode", lambda _: (records.STANDING, TICK, b"\xc1")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_disagreement_is_found_and_named(tmp_path: Path, damage: str) -> None:
    shell = Shell()
    says, mutate = DAMAGES[damage]
    findings = check(tmp_path, shell, mutate(build(shell)))
    assert any(says in finding for finding in findings), findings
