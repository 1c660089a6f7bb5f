"""Spawns: tasks that attempts have spawned, until the server has made them.

Invariants:
- Of one attempt one SPAWN is under way, in the order of what it has spawned; unanswered it is sent again on the next
  connection.
- An attempt is not reported before the server has answered for all that it has spawned.
- Beyond ``TASKS_MAX`` or ``BYTES_MAX`` only parts come in that were on their way, and the last part of an attempt that
  ends: workers are told by ``is_full``, which attempts find when they are about to tell of another part.

Pure: knows neither workers nor connections.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from taskd.agent.reports import Ended
from taskd_protocol.connection_messages import Done, Error
from taskd_protocol.errors import LeaseStale, UnexpectedMessage
from taskd_protocol.task import Failure, FailureReport, Report, TaskSpec
from taskd_protocol.workflow_messages import Spawn

TASKS_MAX: Final = 50_000
BYTES_MAX: Final = 64 * 1024 * 1024
"""Spawned by all attempts, and not made: while a server is away. A part holds up to 500 tasks, or 1 MiB."""

SHARE_LEFT: Final = 2
"""Full once, it is so until no more than one part in so many is left: attempts are not woken for each part."""

TASK_BYTES: Final = 300
"""What a task weighs in memory beside its arguments, roughly."""

_TURNED = ("failed", "waiting")
"""Outcomes that are others when what was spawned is refused; else the attempt's processes are what is told of."""


class _Children:
    """Those of one attempt.

    Attributes:
        unanswered: In order, by the number of their first.
        refusal: Why the server does not make them.
    """

    __slots__ = ("refusal", "token", "unanswered")

    def __init__(self, token: int) -> None:
        self.token = token
        self.unanswered: deque[tuple[int, list[TaskSpec]]] = deque()
        self.refusal: Failure | None = None


class Spawns:
    """What all attempts of the agent have spawned."""

    def __init__(self, is_ours: Callable[[int], bool], numbers: Iterator[int]) -> None:
        """Begin with nothing.

        Args:
            is_ours: Tells attempts by their tokens that run, or whose reports are not recorded: others are forgotten.
            numbers: For requests.
        """
        self._is_ours = is_ours
        self._numbers = numbers
        self._children: dict[int, _Children] = {}
        self._unsent: dict[int, None] = {}
        self._asked: dict[int, _Children] = {}
        self._settled: list[int] = []
        self._count = self._bytes = 0
        self._full = False

    @property
    def is_full(self) -> bool:
        """It holds as much as it may: attempts are to spawn no more."""
        share = SHARE_LEFT if self._full else 1
        self._full = self._count * share > TASKS_MAX or self._bytes * share > BYTES_MAX
        return self._full

    def tell(self, token: int, first: int, tasks: list[TaskSpec]) -> None:
        """Take on what an attempt has spawned, so many having been before."""
        children = self._children.get(token)
        if children is None:
            children = self._children[token] = _Children(token)
        if children.refusal is None:
            children.unanswered.append((first, tasks))
            self._weigh(tasks, 1)
            if len(children.unanswered) == 1:
                self._unsent[token] = None

    def holds_up(self, token: int) -> bool:
        """Tell whether an attempt's report has to wait."""
        children = self._children.get(token)
        return children is not None and bool(children.unanswered)

    def turn(self, report: Ended) -> Ended:
        """Return what is to be reported of an attempt whose spawning was answered: for good a failure, if refused."""
        children = self._children.pop(report.token, None)
        if children is None or children.refusal is None:
            return report
        if not isinstance(report, Report) and report.outcome not in _TURNED:
            return report
        return FailureReport(
            report.token, report.id, report.attempt, "failed", children.refusal, report.started_at_ms, final=True
        )

    def __contains__(self, token: object) -> bool:
        """Tell whether an attempt has spawned anything, and is not reported yet."""
        return token in self._children

    def __len__(self) -> int:
        """Return of how many attempts."""
        return len(self._children)

    def asked(self, request_id: int) -> bool:
        """Tell whether that is a request from here."""
        return request_id in self._asked

    def receive(self, answer: Done | Error) -> None:
        """Take in what the server answered.

        Raises:
            UnexpectedMessage: It was not asked that; close the connection.
        """
        children = self._asked.pop(answer.request_id, None)
        if children is None:
            raise UnexpectedMessage(f"an answer to {answer.request_id}, which nobody asked")
        if isinstance(answer, Done):
            if children.unanswered:
                self._weigh(children.unanswered.popleft()[1], -1)
            self._go_on(children)
        elif answer.code == LeaseStale.code:
            self._drop(children)  # so is the report, and nobody else knows these
            self._go_on(children)
        elif not answer.retryable:  # else `look` asks again
            self._refuse(children, Failure(answer.code, f"what it has spawned was refused: {answer.message}"))

    def refuse_all(self, failure: Failure) -> None:
        """Count all as refused that is not answered."""
        for children in list(self._children.values()):
            if children.unanswered:
                self._refuse(children, failure)

    def take_settled(self) -> list[int]:
        """Take the tokens of attempts of which nothing is unanswered any more."""
        settled, self._settled = self._settled, []
        return settled

    @property
    def has_news(self) -> bool:
        """There is something to send."""
        return bool(self._unsent)

    def messages(self) -> list[Spawn]:
        """Take what is to be sent now."""
        messages: list[Spawn] = []
        unsent, self._unsent = self._unsent, {}
        for token in unsent:
            children = self._children.get(token)
            if children is None or not children.unanswered:
                continue
            if not self._is_ours(token):
                self._drop(self._children.pop(token))
                continue
            first, tasks = children.unanswered[0]
            number = next(self._numbers)
            self._asked[number] = children
            messages.append(Spawn(number, token, first, tasks))
        return messages

    def connect(self) -> None:
        """Send again what was not answered: a new connection is about to be used."""
        self._asked.clear()
        self._unsent = dict.fromkeys([token for token, each in self._children.items() if each.unanswered])

    def look(self) -> None:
        """Forget attempts that are ours no longer; send again what a busy server put off. Call about once a second."""
        if self._children:
            for token in [token for token in self._children if not self._is_ours(token)]:
                self._drop(self._children.pop(token))
            asked = {children.token for children in self._asked.values()}
            waiting = [token for token, each in self._children.items() if each.unanswered and token not in asked]
            self._unsent.update(dict.fromkeys(waiting))

    # -- the inside -----------------------------------------------------------------------

    def _weigh(self, tasks: list[TaskSpec], sign: int) -> None:
        self._count += sign * len(tasks)
        self._bytes += sign * sum([TASK_BYTES + len(task.payload) for task in tasks])

    def _drop(self, children: _Children) -> None:
        for _, tasks in children.unanswered:
            self._weigh(tasks, -1)
        children.unanswered.clear()

    def _refuse(self, children: _Children, failure: Failure) -> None:
        children.refusal = failure
        self._drop(children)
        self._go_on(children)

    def _go_on(self, children: _Children) -> None:
        if children.unanswered:
            self._unsent[children.token] = None
        else:
            self._unsent.pop(children.token, None)
            self._settled.append(children.token)
