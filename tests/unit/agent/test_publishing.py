"""Publishing: schedules of the code reach the server with a client's token, or it is told why not."""

import structlog.testing

from taskd.agent.publishing import ADVICE, LIMITS_ADVICE, publish
from taskd.client.profile import resolve
from taskd_protocol.connection import UnknownMessage
from taskd_protocol.connection_messages import Error
from taskd_protocol.limit_messages import LimitChanges, LimitSync
from taskd_protocol.limiting import Limit
from taskd_protocol.messages import ToPeer, ToServer
from taskd_protocol.schedule import NO_TASK_ID, Schedule, Timing
from taskd_protocol.schedule_messages import ScheduleChanges, ScheduleSync
from taskd_protocol.task import TaskSpec
from unit.client.fake_server import FakeServer, Peer

FEW = Limit("task:m.f", 2)
TICK = Schedule("tick", Timing(every_ms=1_000), TaskSpec(NO_TASK_ID, "m.f"))


class Keeper(FakeServer):
    """Keeps schedules, but none of a module named ``bad``."""

    def __init__(self) -> None:
        super().__init__()
        self.synced: list[ScheduleSync] = []
        self.said: list[LimitSync] = []

    def take(self, peer: Peer, message: ToServer | UnknownMessage) -> None:
        if isinstance(message, LimitSync):
            self.said.append(message)
            refused: ToPeer = Error(message.request_id, "request.invalid", "a limit limits nothing")
            kept = LimitChanges(message.request_id, [], ["gone"], ["task:m.f"])
            peer.send(refused if message.source == "bad" else kept)
            peer.flush()
            return
        if not isinstance(message, ScheduleSync):
            super().take(peer, message)
            return
        self.synced.append(message)
        answer: ToPeer = ScheduleChanges(message.request_id, ["tick"], [], [], [])
        if message.source == "bad":
            answer = Error(message.request_id, "request.invalid", "the 30th of February is none")
        peer.send(answer)
        peer.flush()


async def test_each_module_is_told_whole_and_a_refusal_stops_no_other() -> None:
    keeper = Keeper()
    try:
        with structlog.testing.capture_logs() as lines:
            await publish(resolve(keeper.url), {"bad": [TICK], "none": [], "good": [TICK]}, {})
    finally:
        keeper.stop()
    assert [(sync.source, sync.schedules) for sync in keeper.synced] == [
        ("bad", [TICK]),
        ("none", []),
        ("good", [TICK]),
    ]
    assert [line["event"] for line in lines] == ["schedules refused", "schedules", "schedules"]
    assert lines[0]["reason"] == "the 30th of February is none"


async def test_without_a_clients_token_it_is_told_what_to_do() -> None:
    with structlog.testing.capture_logs() as lines:
        await publish(None, {"shop": []}, {"shop": []})
        assert lines == []
        await publish(None, {"shop": [TICK]}, {"shop": [FEW]})
    assert [line["advice"] for line in lines] == [ADVICE, LIMITS_ADVICE]


async def test_limits_are_told_by_module_and_what_others_said_is_logged() -> None:
    keeper = Keeper()
    try:
        with structlog.testing.capture_logs() as lines:
            await publish(resolve(keeper.url), {}, {"bad": [FEW], "good": [FEW]})
    finally:
        keeper.stop()
    assert [(sync.source, sync.limits) for sync in keeper.said] == [("bad", [FEW]), ("good", [FEW])]
    assert [line["event"] for line in lines] == ["limits refused", "limits", "limits that others said stay"]
    assert lines[2]["names"] == ["task:m.f"]
