"""What a session waits for: the ids, and the credit for their outcomes.

Invariants:
- An id is waited for once, until its outcome comes or the wait for it is refused for good.
- The ids outlive the connection on which the server was told of them.
"""

from collections.abc import Iterable, Iterator, Sequence

from taskd.client.promise import Request
from taskd_protocol import limits
from taskd_protocol.errors import TaskdError
from taskd_protocol.messages import Wait
from taskd_protocol.task import Failure, Outcome


class Waits:
    """Bookkeeping of one session.

    Attributes:
        ids: Waited for, in the order asked.
    """

    def __init__(self) -> None:
        self.ids: dict[bytes, None] = {}
        self._credit_spent = 0

    def add(self, ids: Iterable[bytes]) -> list[bytes]:
        """Take on ids; return those that are new."""
        fresh = [task_id for task_id in ids if task_id not in self.ids]
        self.ids.update(dict.fromkeys(fresh))
        return fresh

    def refused(self, wait: Wait, error: TaskdError) -> list[Outcome]:
        """Give up what a WAIT asked for; return what is to be told of it."""
        failure = Failure(error.code, error.message)
        for task_id in wait.ids:
            self.ids.pop(task_id, None)
        return [Outcome(task_id, "unknown", failure=failure) for task_id in wait.ids]

    def ended(self, outcomes: Sequence[Outcome], credit: int) -> int:
        """Take outcomes that came; return the credit to give back now, in quarters of what the server has."""
        ids = self.ids
        for outcome in outcomes:
            ids.pop(outcome.id, None)
        self._credit_spent += len(outcomes)
        if self._credit_spent < max(1, credit // 4):
            return 0
        spent, self._credit_spent = self._credit_spent, 0
        return spent

    def disconnected(self) -> None:
        """Begin with full credit on the next connection; the ids stay."""
        self._credit_spent = 0

    def clear(self) -> None:
        """Wait for nothing."""
        self.ids.clear()


def wait_requests(ids: Sequence[bytes]) -> Iterator[Request]:
    """Make the WAITs for these ids, each of a size that is allowed."""
    for start in range(0, len(ids), limits.WAIT_IDS_MAX):
        yield Request(Wait(0, list(ids[start : start + limits.WAIT_IDS_MAX])))
