import pytest

from taskd.agent.core import AgentCore, Kill
from taskd.agent.limits import How
from taskd.agent.wire import Raised, Returned
from taskd_protocol.agent_messages import (
    Ack,
    Checkpoints,
    Drain,
    HostStats,
    LeaseCredit,
    Logs,
    Nack,
    Offered,
    Recorded,
    Revoke,
)
from taskd_protocol.errors import TaskCodes, UnexpectedMessage
from taskd_protocol.limits import PAYLOAD_BYTES_MAX, PROTOCOL_VERSION_MAX
from taskd_protocol.resources import Supply
from taskd_protocol.task import Checkpoint, Failure, FailureReport, Held, Pool, Report
from unit.agent.making import grant, grants, lease, mark, task_id, welcome

POOLS = [Pool("process", 2, ["m.f"]), Pool("command", 1, ["taskd.command"])]
SUPPLIES = [Supply("cpu", 2_000), Supply("gpu", 1_000, ["0"])]
BOOM = Failure(TaskCodes.RAISED, "boom")


def connected(version: int = PROTOCOL_VERSION_MAX) -> AgentCore:
    core = AgentCore(POOLS, queues=["q"], labels={"a": "b"}, supplies=SUPPLIES, life_until_ms=9_000)
    core.welcome(welcome(version=version), 0)
    core.receive(Offered())
    return core


def start(core: AgentCore, count: int) -> None:
    """Lease so many, and have workers take them all."""
    core.receive(lease(1, grants(range(1, count + 1))))
    for _ in range(count):
        core.pools[0].take()


def reports(core: AgentCore) -> list[Report | FailureReport]:
    found: list[Report | FailureReport] = []
    for message in core.messages():
        if isinstance(message, Ack):
            found += message.reports
        elif isinstance(message, Nack):
            found += message.failures
    return found


def outcomes(core: AgentCore) -> dict[int, str]:
    return {r.token: r.outcome if isinstance(r, FailureReport) else "acked" for r in reports(core)}


def test_nothing_is_said_before_the_offer_stands() -> None:
    core = AgentCore(POOLS)
    offer = core.welcome(welcome(), 0)
    assert offer.pools == POOLS
    assert core.messages() == []
    core.receive(Offered())
    assert core.messages() == [LeaseCredit(0, 2), LeaseCredit(1, 1)]


def test_the_offer_tells_what_the_agent_is_and_what_it_holds() -> None:
    core = connected()
    start(core, 2)
    core.receive(lease(2, [grant(3)]))
    core.succeeded(0, [Returned(1, b"r", 5, 1.0)])
    offer = core.welcome(welcome(), 0)
    assert (offer.queues, offer.labels, offer.resources) == (["q"], {"a": "b"}, {"gpu": 1.0})
    assert (offer.supplies, offer.life_ms) == (SUPPLIES, 9_000)
    assert core.welcome(welcome(), 0, 2_000).life_ms == 7_000
    assert core.welcome(welcome(), 0, 10_000).life_ms == 1, "over, which is not the same as without an end"
    assert sorted(offer.holding, key=lambda held: held.token) == [Held(t, task_id(t), 1) for t in (1, 2, 3)]


def test_an_attempt_that_returned_is_acked_with_its_result() -> None:
    core = connected()
    start(core, 1)
    core.succeeded(0, [Returned(1, b"result", 77, 12.0)])
    assert reports(core) == [Report(1, task_id(1), 1, b"result", 77)]
    core.receive(Recorded([1], mark=mark(9)))
    assert not core.reports.unrecorded
    assert core.mark == mark(9)


def test_a_report_is_sent_again_until_it_is_recorded() -> None:
    core = connected()
    start(core, 1)
    core.succeeded(0, [Returned(1, b"", 0, 1.0)])
    core.messages()
    core.welcome(welcome(session=b"T" * 16), 0)
    core.receive(Offered())
    assert outcomes(core) == {1: "acked"}
    core.receive(Recorded([], stale=[1]))
    core.welcome(welcome(), 0)
    core.receive(Offered())
    assert outcomes(core) == {}


def test_an_end_of_what_is_not_held_changes_nothing() -> None:
    core = connected()
    core.succeeded(0, [Returned(5, b"", 0, 1.0)])
    core.failed(0, Raised(6, BOOM, 0, 1.0))
    assert reports(core) == []


def test_heartbeats_tell_everything_held_and_the_highest_lease_of_this_connection() -> None:
    core = connected()
    start(core, 2)
    core.receive(lease(7, [grant(9)]))
    core.succeeded(0, [Returned(1, b"", 0, 1.0)])
    beat = core.heartbeat(HostStats())
    assert sorted(beat.held) == [1, 2, 9]
    assert (beat.number, beat.lease_number) == (1, 7)
    core.welcome(welcome(), 0)
    assert core.heartbeat(HostStats()).lease_number == 0, "numbers begin anew with the connection"


def test_a_revoked_lease_that_waits_is_reported_at_once() -> None:
    core = connected()
    core.receive(lease(1, grants(range(1, 3))))
    assert core.receive(Revoke([2, 99])) == [Kill(0, [2], How.CANCEL)]
    core.dropped(0, 2)
    assert outcomes(core) == {2: "cancelled"}
    assert list(core.pools[0].held) == [1]


def test_a_revoked_lease_that_runs_is_reported_when_it_is_dead() -> None:
    core = connected()
    start(core, 1)
    assert core.receive(Revoke([1])) == [Kill(0, [1], How.CANCEL)]
    assert core.is_ordered(1)
    assert outcomes(core) == {}
    core.failed(0, Raised(1, BOOM, 5, 1.0))
    assert outcomes(core) == {1: "cancelled"}
    assert not core.is_ordered(1)


def test_what_returned_before_it_could_be_cancelled_is_acked() -> None:
    core = connected()
    start(core, 1)
    core.receive(Revoke([1]))
    core.succeeded(0, [Returned(1, b"", 0, 1.0)])
    assert outcomes(core) == {1: "acked"}
    assert not core.is_ordered(1)


def test_a_revoked_lease_that_a_worker_gives_back_is_dropped() -> None:
    core = connected()
    start(core, 2)
    core.receive(Revoke([2]))
    back = list(core.pools[0].held.values())
    core.pools[0].put_back(back)
    core.waits_again(0, back)
    assert outcomes(core) == {2: "cancelled"}
    assert core.pools[0].waiting == 1


def test_what_the_server_no_longer_counts_as_ours_is_killed_and_never_reported() -> None:
    core = connected()
    start(core, 3)
    core.succeeded(0, [Returned(1, b"", 0, 1.0)])
    core.welcome(welcome(), 0)
    assert core.receive(Offered([1, 2, 3])) == [Kill(0, [2, 3], How.FORCE)]
    assert core.receive(Revoke([2])) == [Kill(0, [2], How.CANCEL)], "a cancel that comes after does not make it ours"
    core.failed(0, Raised(2, BOOM, 0, 1.0))
    core.succeeded(0, [Returned(3, b"", 0, 1.0)])
    assert reports(core) == []
    assert core.held == 0


def test_draining_asks_for_nothing_and_gives_back_what_waits() -> None:
    core = connected()
    core.messages()
    start(core, 1)
    core.receive(lease(2, grants(range(2, 4))))
    core.drain()
    messages = core.messages()
    assert isinstance(messages[0], Drain)
    assert not any(isinstance(message, LeaseCredit | Drain) for message in messages[1:])
    assert core.held == 1
    core.receive(lease(3, [grant(9)]))
    assert outcomes(core) == {9: "released"}, "what crossed the DRAIN goes back too"
    core.welcome(welcome(), 0)
    core.receive(Offered())
    assert isinstance(core.messages()[0], Drain), "each connection is told"


def test_an_agent_that_is_to_stay_gives_back_what_waits_and_asks_on() -> None:
    core = connected()
    core.messages()
    start(core, 1)
    core.receive(lease(2, grants(range(2, 4))))
    core.yield_waiting()
    messages = core.messages()
    assert not any(isinstance(message, Drain) for message in messages)
    assert any(isinstance(message, LeaseCredit) for message in messages), "the server knows whom it grants to"
    assert core.held == 1


def test_what_a_stopped_agent_killed_costs_the_task_nothing() -> None:
    core = connected()
    start(core, 2)
    core.receive(Revoke([2]))
    for token in (1, 2):
        given = core.pools[0].finish(token)
        assert given is not None
        core.give_back([given])
    assert outcomes(core) == {1: "released", 2: "cancelled"}


def test_no_more_work_is_asked_for_while_too_many_results_are_not_recorded() -> None:
    core = connected()
    core.messages()
    for token in range(1, 6):
        core.receive(lease(token, [grant(token)]))
        core.succeeded(0, [Returned(token, bytes(PAYLOAD_BYTES_MAX), 0, 1e6)])
    said = []
    while messages := core.messages():
        said += messages
    assert not any(isinstance(message, LeaseCredit) for message in said)
    core.receive(Recorded([1, 2]))
    assert LeaseCredit(0, 2) in core.messages()


def test_the_mark_kept_is_the_newest_of_the_store_of_now() -> None:
    core = connected()
    core.receive(Recorded([], mark=mark(9)))
    core.receive(Recorded([], mark=mark(4)))
    assert core.mark == mark(9)
    core.receive(Recorded([], mark=mark(2, b"M" * 16)))
    assert core.mark == mark(2, b"M" * 16)


def test_output_of_an_attempt_goes_before_its_report() -> None:
    core = connected()
    command = grant(1, "taskd.command")
    core.receive(lease(1, [command], pool=1))
    core.said(command, 1, b"hello", 0, 0)
    core.ended_with_output(1, command, b"\x00", 3, 1_000.0)
    kinds = [type(message) for message in core.messages() if not isinstance(message, LeaseCredit)]
    assert kinds == [Logs, Ack]


def test_what_an_attempt_told_last_goes_before_the_report_that_it_was_stopped() -> None:
    """Not only at the next look: the agent may be gone by then."""
    core = connected()
    start(core, 2)
    core.beat(0, 1, b"\x07")
    core.stopped(0, grant(1))
    told = [message for message in core.messages() if not isinstance(message, LeaseCredit)]
    released = FailureReport(1, task_id(1), 1, "released")
    assert told == [Checkpoints([Checkpoint(1, task_id(1), b"\x07")]), Nack([released])]


def test_a_cancelled_command_that_ends_well_is_cancelled_all_the_same() -> None:
    core = connected()
    command = grant(1, "taskd.command")
    core.receive(lease(1, [command], pool=1))
    core.receive(Revoke([1]))
    core.ended_with_output(1, command, b"\x00", 3, 1_000.0)
    assert outcomes(core) == {1: "cancelled"}


def test_a_lease_for_a_pool_that_was_not_offered_ends_the_connection() -> None:
    with pytest.raises(UnexpectedMessage, match="pool 2"):
        connected().receive(lease(1, [grant(1)], pool=2))


def test_the_servers_clock_and_limits_are_taken_from_its_welcome() -> None:
    core = AgentCore(POOLS)
    core.welcome(welcome(server_time_ms=5_000, payload_bytes_max=1_234), 2_000)
    assert (core.clock_ahead_ms, core.result_bytes_max) == (3_000, 1_234)


def test_an_older_server_is_told_nothing_that_it_would_end_the_connection_over() -> None:
    """No details for next attempts, and a crash as the failure that it is there."""
    core = connected(version=1)
    start(core, 2)
    core.beat(0, 1, b"\x01")
    core.look(0)
    core.crashed(0, 2, BOOM)
    messages = [message for message in core.messages() if not isinstance(message, LeaseCredit)]
    assert messages == [Nack([FailureReport(2, task_id(2), 1, "failed", BOOM)])]
    core.welcome(welcome(), 0)
    core.receive(Offered())
    assert core.messages()[-2:] == [
        Checkpoints([Checkpoint(1, task_id(1), b"\x01")]),
        Nack([FailureReport(2, task_id(2), 1, "crashed", BOOM)]),
    ]
