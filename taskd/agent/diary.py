"""The diary: what an agent's log says of attempts, each with the trace id that all of its task's story has.

Failures are told always: enough to notice them and to look them up, never a flood. Where all is wanted, every attempt
is told of as it comes and as its report goes.
"""

from collections.abc import Callable, Sequence
from typing import Final

import structlog

from taskd.agent.core import FromServer, ToSend
from taskd.agent.reports import Ended, Reports
from taskd_protocol.agent_messages import Ack, Lease, Nack
from taskd_protocol.ids import format_task_id
from taskd_protocol.task import FailureReport

log = structlog.get_logger("taskd.agent")

SAY_S: Final = 1.0
"""Between two lines: who runs one task sees each failure, a thousand a second are as many lines as one."""

ERROR_CHARACTERS: Final = 200


class Diary:
    """Sees what comes and goes."""

    def __init__(self, reports: Reports) -> None:
        """Prepare.

        Args:
            reports: Know the traces of what has ended, and whether all is to be told.
        """
        self._reports = reports
        self._untold = 0
        self._said_s = float("-inf")

    def received(self, message: FromServer) -> None:
        """Tell of attempts that have come, if all is wanted."""
        if self._reports.traces_all and type(message) is Lease:
            for grant in message.grants:
                spec, task = grant.spec, format_task_id(grant.spec.id)
                log.debug("attempt_leased", task=task, attempt=grant.attempt, trace_id=spec.trace_id, name=spec.name)

    def sent(self, message: ToSend, clock: Callable[[], float]) -> None:
        """Tell of attempts that have ended.

        Args:
            message: That tells the server.
            clock: Tells the time in seconds, by anything that does not go back.
        """
        if type(message) is Nack:
            self._failed(message.failures, clock())
        elif type(message) is Ack and self._reports.traces_all:
            for report in message.reports:
                log.debug("attempt_succeeded", **self._ids(report))

    def _failed(self, reports: Sequence[FailureReport], now_s: float) -> None:
        """Tell of attempts that have ended without success; those that were cancelled or given back are no failures."""
        failed = [report for report in reports if report.outcome in {"failed", "crashed"}]
        if self._reports.traces_all:
            for report in reports:
                if report in failed:
                    self._tell(report)
                else:
                    log.debug("attempt_given_back", outcome=report.outcome, **self._ids(report))
            return
        self._untold += len(failed)
        if failed and now_s - self._said_s >= SAY_S:
            self._tell(failed[-1], others=self._untold - 1)
            self._untold, self._said_s = 0, now_s

    def _tell(self, report: FailureReport, **more: int) -> None:
        error = "" if report.failure is None else report.failure.message
        if report.failure is not None and report.failure.type:
            error = f"{report.failure.type.removeprefix('builtins.')}: {error}"
        log.warning("attempt_failed", **self._ids(report), error=error[:ERROR_CHARACTERS], **more)

    def _ids(self, report: Ended) -> dict[str, str | int]:
        ids: dict[str, str | int] = {"task": format_task_id(report.id), "attempt": report.attempt}
        trace_id = self._reports.traces.get(report.token)
        return {**ids, "trace_id": trace_id} if trace_id else ids
