"""What an agent's log says of attempts that failed: enough to notice it and to look it up, never a flood."""

from collections.abc import Sequence
from typing import Final

import structlog

from taskd_protocol.ids import format_task_id
from taskd_protocol.task import FailureReport

log = structlog.get_logger("taskd.agent")

SAY_S: Final = 1.0
"""Between two lines: who runs one task sees each failure, a thousand a second are as many lines as one."""

ERROR_CHARACTERS: Final = 200


class Failures:
    """Counts failed attempts, and tells of the newest."""

    def __init__(self) -> None:
        self._untold = 0
        self._said_s = float("-inf")

    def see(self, reports: Sequence[FailureReport], now_s: float) -> None:
        """Take note of attempts that have ended without success.

        Args:
            reports: Those that were cancelled or given back are no failures.
            now_s: On any clock that does not go back.
        """
        failed = [report for report in reports if report.outcome in {"failed", "crashed"}]
        self._untold += len(failed)
        if not failed or now_s - self._said_s < SAY_S:
            return
        last = failed[-1]
        error = "" if last.failure is None else last.failure.message
        if last.failure is not None and last.failure.type:
            error = f"{last.failure.type.removeprefix('builtins.')}: {error}"
        log.warning(
            "attempt_failed",
            task=format_task_id(last.id),
            attempt=last.attempt,
            error=error[:ERROR_CHARACTERS],
            others=self._untold - 1,
        )
        self._untold, self._said_s = 0, now_s
