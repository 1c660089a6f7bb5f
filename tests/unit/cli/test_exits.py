import pytest

from taskd.cli.exits import Exit, exit_code
from taskd.client.outcome import TaskCancelled, TaskFailed
from taskd_protocol.errors import TaskCodes, error_codes, error_from_code
from taskd_protocol.task import Failure

EXPECTED = {
    "agent.duplicate": 5,
    "agent.unknown": 2,
    "auth.invitation": 5,
    "auth.refused": 5,
    "auth.role": 5,
    "config.address_in_use": 2,
    "config.address_insecure": 2,
    "config.invalid": 2,
    "connection.certificate": 3,
    "connection.lost": 3,
    "connection.refused": 3,
    "job.limit": 2,
    "lease.stale": 2,
    "limit.full": 2,
    "limit.unknown": 2,
    "payload.too_large": 65,
    "payload.unpackable": 65,
    "protocol.handshake_timeout": 3,
    "protocol.too_large": 3,
    "protocol.unexpected": 3,
    "protocol.unknown_kind": 3,
    "protocol.version": 3,
    "protocol.violation": 3,
    "queue.draining": 2,
    "request.invalid": 2,
    "result.gone": 2,
    "schedule.exists": 2,
    "schedule.limit": 2,
    "schedule.unknown": 2,
    "server.busy": 3,
    "server.disk_full": 74,
    "server.rolled_back": 65,
    "server.too_old": 2,
    "server.stopping": 3,
    "store.corrupt": 65,
    "store.failed": 74,
    "store.in_use": 73,
    "store.stalled": 74,
    "store.too_new": 65,
    "store.too_old": 65,
    "submit.conflict": 65,
    "submit.too_new": 65,
    "submit.too_old": 65,
    "unique.held": 2,
    "task.unknown": 2,
    "timeout": 4,
    "token.unknown": 2,
    "workflow.ended": 2,
    "workflow.invalid": 2,
    "workflow.unknown": 2,
}


def test_every_error_has_its_exit_code() -> None:
    """Scripts rely on these: a new error is given its exit code on purpose."""
    assert {code: int(exit_code(kind("x"))) for code, kind in error_codes().items()} == EXPECTED


@pytest.mark.parametrize("code", [value for name, value in vars(TaskCodes).items() if name.isupper()])
def test_a_failed_task_is_one(code: str) -> None:
    """However the attempt failed."""
    assert exit_code(TaskFailed("id", 1, Failure(code, "why"))) is Exit.TASK_FAILED


def test_a_cancelled_task_is_one() -> None:
    assert exit_code(TaskCancelled("id")) is Exit.TASK_FAILED


def test_a_code_of_a_newer_server_is_told_by_its_family() -> None:
    assert exit_code(error_from_code("auth.sealed", "x")) is Exit.REFUSED
    assert exit_code(error_from_code("moon.full", "x")) is Exit.USAGE
