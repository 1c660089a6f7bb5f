"""What a session waits for: the ids, the WAITs that told the server of them, and the credit for their outcomes.

Invariants:
- An id is waited for once, until its outcome comes or the wait for it is refused for good.
- WAITs belong to a connection; the ids outlive it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

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
        self._unanswered: dict[int, Request] = {}
        self._credit_spent = 0

    def add(self, ids: Iterable[bytes]) -> list[bytes]:
        """Take on ids; return those that are new."""
        fresh = [task_id for task_id in ids if task_id not in self.ids]
        self.ids.update(dict.fromkeys(fresh))
        return fresh

    def requests(self, ids: Sequence[bytes], number: Callable[[], int]) -> Iterator[Request]:
        """Make the WAITs for these ids, each of a size that is allowed."""
        for start in range(0, len(ids), limits.WAIT_IDS_MAX):
            made = number()
            request = Request(Wait(made, list(ids[start : start + limits.WAIT_IDS_MAX])))
            request.number = made
            self._unanswered[made] = request
            yield request

    def find(self, number: int) -> Request | None:
        """Return the WAIT of that number, if it is not answered."""
        return self._unanswered.get(number)

    def answered(self, number: int) -> None:
        """Forget a WAIT that the server took."""
        self._unanswered.pop(number, None)

    def refused(self, request: Request, error: TaskdError) -> list[Outcome]:
        """Give up what a WAIT asked for; return what is to be told of it."""
        assert isinstance(request.message, Wait)
        self._unanswered.pop(request.number, None)
        failure = Failure(error.code, error.message)
        for task_id in request.message.ids:
            self.ids.pop(task_id, None)
        return [Outcome(task_id, "unknown", failure=failure) for task_id in request.message.ids]

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
        """Forget what a connection was told; the ids stay."""
        self._unanswered.clear()
        self._credit_spent = 0

    def clear(self) -> None:
        """Wait for nothing."""
        self.disconnected()
        self.ids.clear()
