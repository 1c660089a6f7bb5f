"""What attempts spawn is with the server before their ends are, whatever happens between."""

import pytest

from taskd.agent import spawns
from taskd.agent.core import AgentCore
from taskd.agent.wire import Raised, Returned
from taskd_protocol.agent_messages import Ack, Nack, Offered, Recorded, Revoke
from taskd_protocol.connection_messages import Done, Error
from taskd_protocol.errors import TaskCodes, UnexpectedMessage
from taskd_protocol.task import Failure, FailureReport, Pool, Report, TaskSpec
from taskd_protocol.workflow_messages import Spawn
from unit.agent.making import grant, lease, task_id, welcome

WAITS = Failure(TaskCodes.PENDING, "it waits")


def connected(version: int | None = None) -> AgentCore:
    core = AgentCore([Pool("process", 4, ["m.f"])])
    core.welcome(welcome() if version is None else welcome(version=version), 0)
    core.receive(Offered())
    core.receive(lease(1, [grant(token) for token in (1, 2)]))
    core.messages()
    return core


def tasks(*names: str) -> list[TaskSpec]:
    return [TaskSpec(b"", name, b"") for name in names]


def said(core: AgentCore) -> list[Spawn | Report | FailureReport]:
    """What it says now of spawned tasks and ends."""
    found: list[Spawn | Report | FailureReport] = []
    while messages := core.messages():
        for message in messages:
            if isinstance(message, Spawn):
                found.append(message)
            elif isinstance(message, Ack):
                found += message.reports
            elif isinstance(message, Nack):
                found += message.failures
    return found


def returns(core: AgentCore, token: int) -> None:
    core.succeeded(0, [Returned(token, b"r", 5, 100.0)])


def waits(core: AgentCore, token: int) -> None:
    core.failed(0, Raised(token, WAITS, 5, 100.0, waits=True))


def waiting(token: int) -> FailureReport:
    return FailureReport(token, task_id(token), 1, "waiting", None, 5)


def test_a_report_comes_after_what_was_spawned_one_part_after_the_other() -> None:
    core = connected()
    core.spawned(0, 1, 0, tasks("a", "b"))
    core.spawned(0, 1, 2, tasks("c"))
    assert core.has_news
    assert said(core) == [Spawn(1, 1, 0, tasks("a", "b"))]
    returns(core, 1)
    returns(core, 2)
    assert said(core) == [Report(2, task_id(2), 1, b"r", 5)], "another's is not held up"
    core.receive(Done(1))
    assert said(core) == [Spawn(2, 1, 2, tasks("c"))]
    core.receive(Done(2))
    assert core.has_news
    assert said(core) == [Report(1, task_id(1), 1, b"r", 5)]
    core.receive(Recorded([1, 2]))
    assert not core.reports.unrecorded
    assert core.reports.unrecorded_bytes == 0
    assert len(core.spawns) == 0


def test_who_waits_is_reported_as_waiting_and_costs_nothing() -> None:
    core = connected()
    core.spawned(0, 1, 0, tasks("a"))
    said(core)
    core.receive(Done(1))
    waits(core, 1)
    waits(core, 2)
    assert said(core) == [waiting(1), waiting(2)]


def test_who_is_cancelled_meanwhile_is_reported_as_cancelled() -> None:
    core = connected()
    core.receive(Revoke([1]))
    waits(core, 1)
    (report,) = said(core)
    assert isinstance(report, FailureReport)
    assert (report.outcome, report.failure) == ("cancelled", None)


def test_a_report_that_is_held_up_is_held_and_survives_a_reconnect() -> None:
    core = connected()
    core.spawned(0, 1, 0, tasks("a"))
    said(core)
    waits(core, 1)
    offer = core.welcome(welcome(), 0)
    assert [held.token for held in offer.holding] == [2, 1]
    core.receive(Offered())
    assert said(core) == [Spawn(2, 1, 0, tasks("a"))]
    core.receive(Done(2))
    assert said(core) == [waiting(1)]
    core.welcome(welcome(), 0)
    core.receive(Offered())
    assert said(core) == [waiting(1)], "from here on as any other"


def test_what_a_crashed_attempt_had_told_of_is_sent() -> None:
    core = connected()
    core.spawned(0, 1, 0, tasks("a"))
    core.crashed(0, 1, Failure("worker.killed", "it died"))
    assert said(core) == [Spawn(1, 1, 0, tasks("a"))]
    core.receive(Done(1))
    (report,) = said(core)
    assert isinstance(report, FailureReport)
    assert report.outcome == "crashed"


def test_output_goes_before_a_report_that_was_held_up() -> None:
    core = connected()
    core.said(core.pools[0].held[1], 1, b"hello", 0, 0)
    core.spawned(0, 1, 0, tasks("a"))
    returns(core, 1)
    core.messages()
    core.receive(Done(1))
    assert [type(report) for report in said(core)] == [Report]


@pytest.mark.parametrize("ends_first", [True, False])
def test_a_refusal_fails_the_attempt_for_good(ends_first: bool) -> None:  # noqa: FBT001 - pytest gives it by name
    core = connected()
    core.spawned(0, 1, 0, tasks("a"))
    core.spawned(0, 1, 1, tasks("b"))
    said(core)
    if ends_first:
        waits(core, 1)
    core.receive(Error(1, "payload.too_large", "too large"))
    core.spawned(0, 1, 2, tasks("c"))
    if not ends_first:
        returns(core, 1)
    (report,) = said(core)
    failure = Failure("payload.too_large", "what it has spawned was refused: too large")
    assert report == FailureReport(1, task_id(1), 1, "failed", failure, 5, final=True)


def test_an_attempt_that_was_ended_stays_so_whatever_was_refused() -> None:
    core = connected()
    core.spawned(0, 1, 0, tasks("a"))
    said(core)
    core.receive(Revoke([1]))
    core.crashed(0, 1, Failure("worker.killed", "it died"))
    core.receive(Error(1, "request.invalid", "no"))
    (report,) = said(core)
    assert isinstance(report, FailureReport)
    assert (report.outcome, report.final) == ("cancelled", False)


def test_a_busy_server_is_told_again_later() -> None:
    core = connected()
    core.spawned(0, 1, 0, tasks("a"))
    said(core)
    waits(core, 1)
    core.receive(Error(1, "server.busy", "busy", retryable=True))
    assert said(core) == []
    core.shed()
    assert said(core) == [Spawn(2, 1, 0, tasks("a"))]
    core.shed()
    assert said(core) == [], "it is on its way"


def test_what_is_not_ours_any_more_is_dropped() -> None:
    core = connected()
    core.spawned(0, 1, 0, tasks("a"))
    core.spawned(0, 1, 1, tasks("b"))
    core.spawned(0, 2, 0, tasks("c"))
    assert len(said(core)) == 2
    returns(core, 1)
    core.receive(Error(1, "lease.stale", "not yours"))
    assert said(core) == [Report(1, task_id(1), 1, b"r", 5)], "the server calls it stale"
    core.receive(Recorded([], [1]))
    core.welcome(welcome(), 0)
    core.receive(Offered([2]))
    core.failed(0, Raised(2, WAITS, 5, 1.0))
    core.shed()
    assert said(core) == []
    assert len(core.spawns) == 0
    core.spawned(0, 7, 0, tasks("nobody's"))
    assert said(core) == []


def test_a_server_of_before_refuses_it_without_being_asked() -> None:
    core = connected(version=1)
    core.spawned(0, 1, 0, tasks("a"))
    waits(core, 1)
    (report,) = said(core)
    assert isinstance(report, FailureReport)
    assert (report.outcome, report.final) == ("failed", True)
    assert report.failure is not None
    assert "upgrade it" in report.failure.message


def test_answers_that_nobody_waits_for_are_an_error() -> None:
    core = connected()
    with pytest.raises(UnexpectedMessage):
        core.receive(Done(77))


def is_full(core: AgentCore) -> bool:
    return core.spawns.is_full


@pytest.mark.parametrize("answer", ["made", "refused", "stale", "forgotten"])
def test_what_is_held_is_bounded(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    """Full once, it is so until half of it is with the server; whatever became of the rest is not counted any more."""
    monkeypatch.setattr(spawns, "TASKS_MAX", 4)
    core = connected()
    held = core.spawns
    for first in range(0, 4, 2):
        core.spawned(0, 1, first, tasks("m.a", "m.b"))
    assert not is_full(core)
    core.spawned(0, 2, 0, tasks("m.c"))
    assert is_full(core)
    core.welcome(welcome(), 0)
    core.receive(Offered())
    if answer == "forgotten":
        returns(core, 1)
        returns(core, 2)
        monkeypatch.setattr(held, "_is_ours", lambda _: False)
        held.look()
    while answer != "forgotten" and (asked := [m for m in core.messages() if isinstance(m, Spawn)]):
        for spawn in asked:
            if answer == "made":
                core.receive(Done(spawn.request_id))
            else:
                code = "lease.stale" if answer == "stale" else "request.invalid"
                core.receive(Error(spawn.request_id, code, "no"))
            if answer == "made":
                assert is_full(core) == (held._count > 2)
    assert not is_full(core)
    assert (held._count, held._bytes) == (0, 0)


def test_what_is_held_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spawns, "BYTES_MAX", 10_000)
    core = connected()
    core.spawned(0, 1, 0, [TaskSpec(b"", "m.f", bytes(9_000))])
    assert not is_full(core)
    core.spawned(0, 1, 1, [TaskSpec(b"", "m.f", bytes(1_000))])
    assert is_full(core)
