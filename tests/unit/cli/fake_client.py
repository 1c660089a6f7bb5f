"""A client that answers by a script, and how a command ended."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from taskd.client.profile import Profile
from taskd_protocol.errors import CannotConnect, TaskdError, TimedOut
from taskd_protocol.ids import TaskId, make_task_ids
from taskd_protocol.messages import Follow, LogEntry, ToPeer, ToServer
from taskd_protocol.task import Outcome, TaskSpec
from taskd_protocol.workflow import Node, make_workflow_id

ReplyT = TypeVar("ReplyT", bound=ToPeer)

TOKEN = "taskd_admin_abcdefghijkl_secret_0badcafe"


@dataclass
class FakeClient:
    """Answers requests with what the test put in, and keeps what was asked."""

    profile: Profile | None = None
    replies: list[ToPeer | TaskdError] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    entries: list[LogEntry | BaseException] = field(default_factory=list)
    asked: list[ToServer] = field(default_factory=list)
    submitted: list[TaskSpec] = field(default_factory=list)
    workflows: list[tuple[str, str, list[Node]]] = field(default_factory=list)
    wanted: list[Follow] = field(default_factory=list)
    timeouts: list[float | None] = field(default_factory=list)
    late: int = 0
    """So many waits time out."""
    unreachable: int = 0
    """So many tries to connect fail."""
    warnings: list[str] = field(default_factory=list)
    known_as: bytes | None = None
    """The id that a submit finds instead of its own."""
    closed: bool = False

    def call(self, message: ToServer, reply: type[ReplyT]) -> ReplyT:
        self.asked.append(message)
        answer = self.replies.pop(0)
        if isinstance(answer, TaskdError):
            raise answer
        assert isinstance(answer, reply)
        return answer

    def make_ids(self, count: int, timeout: float | None = None) -> list[TaskId]:
        del timeout
        if self.unreachable:
            self.unreachable -= 1
            raise CannotConnect("nobody answers")
        return make_task_ids(count, 1_800_000_000_000, bytes(range(10)) * count)

    def submit(self, specs: Sequence[TaskSpec]) -> list[bytes]:
        self.submitted += specs
        return [self.known_as or spec.id for spec in specs]

    def submit_workflow(self, name: str, nodes: Sequence[Node], policy: str) -> bytes:
        self.workflows.append((name, policy, list(nodes)))
        return make_workflow_id(1_800_000_000_000, bytes(5))

    def wait(self, ids: Sequence[bytes], timeout: float | None = None) -> list[Outcome]:
        self.timeouts.append(timeout)
        if self.late:
            self.late -= 1
            raise TimedOut("the task has not ended")
        return [self.outcomes.pop(0) for _ in ids]

    def server_ms(self) -> int:
        return 1_800_000_000_000

    def read(self, wanted: Follow, timeout: float | None = None) -> Iterator[LogEntry]:
        self.wanted.append(wanted)
        self.timeouts.append(timeout)
        if self.late:
            self.late -= 1
            raise TimedOut("no output")
        while self.entries:
            entry = self.entries.pop(0)
            if isinstance(entry, BaseException):
                raise entry
            if entry.sequence >= wanted.sequence and entry.stream in (wanted.streams or {entry.stream}):
                yield entry

    def close(self) -> None:
        self.closed = True


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one line on standard error."""
        assert self.err.count("\n") == 1
        return self.err.rstrip("\n")


class Taskd(Protocol):
    """Runs `taskd WORDS…` in this process."""

    def __call__(self, *words: str) -> Ended: ...
