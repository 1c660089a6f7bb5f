"""What a task costs, counted rather than timed: calls of functions, writes to the store, frames, bytes, objects kept.

Times are noisy; counts of the same play are the same on each machine. ``work.json`` has what was counted when it was
last written: this fails when something went up, and with ``TASKD_WORK=write`` takes everything as it is now. Write it
also when a count has fallen for good, so that the next change is held against it.
"""

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from unittest import mock

from simulation.clients import ClientMachine
from simulation.disk import Disk
from simulation.net import Net, Pipe
from simulation.quiet import Onlooker, play, run_tasks
from simulation.server import ServerMachine
from simulation.tap import Conversation
from taskd.store.interface import Write
from taskd_protocol.messages import Message

RECORDED = Path(__file__).with_name("work.json")
PLAYS = {"in bulk": (4_000, 0), "one by one": (1_000, 1)}
"""How many tasks, and how many ms each takes: those of none go through every stage in batches, others by twos."""
WARM_UP = 200
"""Tasks before, so that workers are there, caches are warm and agents know a pace."""
MORE = 1.03
"""Times what is recorded: versions of Python call a little more or less, and a new field of a record has its bytes."""
ROOMS = {
    "core": "/taskd/core/",
    "server": "/taskd/server/",
    "store": "/taskd/store/",
    "protocol": "/taskd_protocol/",
    "agent": "/taskd/agent/",
    "client": "/taskd/client/",
}


def test_a_task_costs_no_more_work_than_recorded() -> None:
    """The same no-op tasks by the same agents do not take more of anything."""
    counted = {name: count(*PLAYS[name]) for name in PLAYS}
    if os.environ.get("TASKD_WORK") == "write":
        RECORDED.write_text(json.dumps(counted, indent=2, sort_keys=True) + "\n")
    recorded = json.loads(RECORDED.read_text())
    assert {name: sorted(play) for name, play in counted.items()} == {
        name: sorted(play) for name, play in recorded.items()
    }
    more = {
        f"{what}, {name}": (recorded[name][what], now)
        for name, counts in counted.items()
        for what, now in counts.items()
        if now > recorded[name][what] * MORE
    }
    assert not more, f"a task costs more than it did (recorded, now): {more}"


def test_the_same_play_counts_the_same() -> None:
    """What is counted is the work, and no chance: two plays differ by less than the bound is wide."""
    first, second = count(*PLAYS["in bulk"]), count(*PLAYS["in bulk"])
    assert all(abs(first[what] - second[what]) <= (MORE - 1) / 2 * first[what] for what in first), (first, second)


def count(tasks: int, run_ms: int) -> dict[str, float]:
    """Play so many tasks of this length, and return each count for one of them."""
    counts: Counter[str] = Counter()

    async def program(machine: ClientMachine, _net: Net, _server: ServerMachine) -> None:
        await run_tasks(machine, [run_ms] * WARM_UP)
        onlooker.counts = counts
        before = sys.getallocatedblocks()
        with _counted(counts):
            await run_tasks(machine, [run_ms] * tasks)
        counts["objects kept"] = sys.getallocatedblocks() - before

    onlooker = _Frames()
    play(7, {"one": 2, "two": 2}, program, onlooker)
    return {what: round(total / tasks, 4) for what, total in counts.items()}


class _Frames(Onlooker):
    """Counts messages."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def heard(self, _conversation: Conversation, _message: Message) -> None:
        self.counts["frames to the server"] += 1

    def said(self, _conversation: Conversation, _message: Message) -> None:
        self.counts["frames from the server"] += 1


@contextmanager
def _counted(counts: Counter[str]) -> Iterator[None]:
    """Count what is written to sockets and to the store, and which functions are called."""
    push, stage, flush = Pipe.push, Disk.stage, Disk.flush

    def counted_push(pipe: Pipe, data: bytes) -> None:
        counts["writes to sockets"] += 1
        counts["bytes on the wire"] += len(data)
        push(pipe, data)

    def counted_stage(disk: Disk, writes: Sequence[Write]) -> int:
        counts["batches to the store"] += 1
        for key, value in writes:
            counts["records written" if value is not None else "records deleted"] += 1
            counts["bytes to the store"] += len(key) + len(value or b"")
        return stage(disk, writes)

    async def counted_flush(disk: Disk) -> int:
        counts["flushes"] += 1
        return await flush(disk)

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(Pipe, "push", counted_push))
        stack.enter_context(mock.patch.object(Disk, "stage", counted_stage))
        stack.enter_context(mock.patch.object(Disk, "flush", counted_flush))
        stack.enter_context(_called(counts, ROOMS))
        yield


@contextmanager
def _called(counts: Counter[str], rooms: Mapping[str, str]) -> Iterator[None]:
    """Count calls of functions of ours, by room."""
    known: dict[str, str] = {}

    def profile(frame: FrameType, event: str, _arg: object) -> None:
        if event == "call":
            path = frame.f_code.co_filename
            name = known.get(path)
            if name is None:
                name = known[path] = next((f"calls in {room}" for room, part in rooms.items() if part in path), "")
            if name:
                counts[name] += 1

    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(None)
