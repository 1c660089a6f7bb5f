"""A line to a server that is not there: whatever is asked is answered before the call returns.

Knows what was submitted in its own life; what comes of a task is decided by who makes the line.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from taskd.client.clock import mono_s
from taskd.client.ends import Awaited, Watch
from taskd.client.profile import Profile
from taskd.client.promise import Following, Looking, Request, Signal
from taskd.client.session import Session
from taskd.core.claims import claim_id
from taskd_protocol.errors import BadRequest, SubmitConflict, TaskdError, TaskUnknown, TimedOut
from taskd_protocol.handshake import BOOT_ID_BYTES
from taskd_protocol.mark import Mark
from taskd_protocol.messages import (
    Accepted,
    Cancel,
    Cancelled,
    Submit,
    TaskQuery,
    TaskView,
    TaskViews,
    ToPeer,
    ToServer,
)
from taskd_protocol.task import DEFAULT_RETRY, WINDOW, Failure, Outcome, TaskSpec
from taskd_protocol.workflow import Node, WorkflowSpec, workflow_of
from taskd_protocol.workflow_messages import WorkflowAccepted, WorkflowSubmit

_MARK: Final = Mark(bytes(16), 0, bytes(32))


class InstantLine:
    """Answers submits, waits, and questions for states.

    Attributes:
        specs: Of the tasks submitted, by id.
        outcomes: Of those that have ended.
    """

    def __init__(
        self,
        name: str,
        wall_ms: Callable[[], int],
        take: Callable[[TaskSpec], Outcome | None],
        take_workflow: Callable[[WorkflowSpec, list[Node]], None] | None = None,
    ) -> None:
        """Make a line.

        Args:
            name: Of what stands in for the server, for messages.
            wall_ms: The time of now.
            take: Called with each new task; returns its end, None: it has none yet.
            take_workflow: Called with each workflow, which does not end; None: they are refused.
        """
        self.profile = Profile(name=name, address=f"{name}:0", token="", tls=False)
        self.specs: dict[bytes, TaskSpec] = {}
        self.outcomes: dict[bytes, Outcome] = {}
        self._wall_ms = wall_ms
        self._take = take
        self._take_workflow = take_workflow
        self._drafts: dict[bytes, list[Node]] = {}
        self._workflows: set[bytes] = set()
        self._keys: dict[str, TaskSpec] = {}
        self._claims: dict[bytes, bytes] = {}
        self._session = Session(token="", name=name, boot_id=bytes(BOOT_ID_BYTES), chance=lambda: 0.0)
        self._session.clock_offset_ms = wall_ms() - mono_s() * 1000

    @property
    def session(self) -> Session:
        """See ``Line``: it counts as connected."""
        return self._session

    def ask(self, request: Request) -> None:
        """See ``Line``."""
        try:
            request.reply = self._answer(request.message)
        except TaskdError as refusal:
            request.error = refusal
        request.signal.fire()

    def ask_and_flush(self, request: Request) -> Signal:
        """See ``Line``."""
        self.ask(request)
        return request.signal

    def give_up(self, request: Request) -> None:
        """See ``Line``: nothing is unanswered."""

    def take_more(self, following: Following | Looking) -> None:
        """See ``Line``: nobody follows."""

    def watch(self, wanted: Sequence[Awaited], targets: Sequence[Awaited], watch: Watch) -> None:
        """See ``Line``."""
        del wanted
        for target in targets:
            if target.outcome is None:
                target.outcome = self._end_of(target.raw_id)
            if target.outcome is not None:
                watch.arrived.append(target)
            else:
                spec = self.specs.get(target.raw_id)
                what = "the workflow, or a node of it," if spec is None else spec.name
                watch.error = TimedOut(f"{what} has no result: nothing runs under {self.profile.name}()")
        watch.signal.fire()

    def unwatch(self, targets: Iterable[Awaited], watch: Watch) -> None:
        """See ``Line``: what can be told was told."""

    def close(self) -> None:
        """See ``Line``."""

    def _answer(self, message: ToServer | None) -> ToPeer:
        match message:
            case Submit():
                return self._submit(message)
            case WorkflowSubmit() if self._take_workflow is not None:
                return self._submit_workflow(message, self._take_workflow)
            case Cancel():
                return Cancelled(message.request_id, [self._cancel(task_id) for task_id in message.ids])
            case TaskQuery():
                return TaskViews(message.request_id, [self._view(task_id) for task_id in message.ids])
            case _:
                raise BadRequest(
                    f"{self.profile.name}() answers no {type(message).__name__}: use taskd.testing.server() for that"
                )

    def _submit(self, submit: Submit) -> Accepted:
        existing: list[tuple[int, bytes]] = []
        for index, spec in enumerate(submit.tasks):
            first = self._keys.setdefault(spec.key, spec) if spec.key else spec
            if first is not spec:
                if (first.name, first.queue, first.payload) != (spec.name, spec.queue, spec.payload):
                    raise SubmitConflict(
                        f"key {spec.key[:64]!r} belongs to another task; the same key means the same work"
                    )
                existing.append((index, first.id))
                continue
            holder = self._holder_of(spec)
            if holder is not None:
                existing.append((index, holder))
                continue
            self.specs[spec.id] = spec
            outcome = self._take(spec)
            if outcome is not None:
                self.outcomes[spec.id] = outcome
        return Accepted(submit.request_id, _MARK, existing)

    def _submit_workflow(
        self, submit: WorkflowSubmit, take: Callable[[WorkflowSpec, list[Node]], None]
    ) -> WorkflowAccepted:
        spec = submit.workflow
        nodes = self._drafts.setdefault(spec.id, [])
        nodes += submit.nodes
        if len(nodes) == spec.nodes:
            self._workflows.add(spec.id)
            take(spec, self._drafts.pop(spec.id))
        return WorkflowAccepted(submit.request_id, _MARK, len(nodes))

    def _holder_of(self, spec: TaskSpec) -> bytes | None:
        """Return whose claim stands in the way of a task that is to be the only one; else it has the claim now.

        A task that waits is replaced where that is asked; a time is as long as the context.
        """
        unique = spec.rules.unique
        if unique is None:
            return None
        claim = claim_id(spec, unique)
        first = self._claims.get(claim)
        if first is not None:
            waits = first not in self.outcomes
            if unique.replace and waits:
                self._cancel(first)
            elif waits or unique.mode == WINDOW:
                return first
        self._claims[claim] = spec.id
        return None

    def _end_of(self, task_id: bytes) -> Outcome | None:
        if task_id in self.specs or workflow_of(task_id) in self._workflows:
            return self.outcomes.get(task_id)
        unknown = Failure(TaskUnknown.code, "that task was not submitted here")
        return Outcome(task_id, "unknown", failure=unknown)

    def _cancel(self, task_id: bytes) -> str:
        if task_id not in self.specs:
            return "unknown"
        return self.outcomes.setdefault(task_id, Outcome(task_id, "cancelled")).state

    def _view(self, task_id: bytes) -> TaskView | None:
        spec, outcome = self.specs.get(task_id), self.outcomes.get(task_id)
        if spec is None:
            return None
        now_ms = self._wall_ms()
        attempt = 0 if outcome is None else outcome.attempt
        return TaskView(
            id=task_id,
            name=spec.name,
            queue=spec.queue,
            state="ready" if outcome is None else outcome.state,
            priority=spec.priority,
            attempt=attempt,
            failures=attempt if outcome is not None and outcome.failure is not None else 0,
            max_attempts=(spec.retry or DEFAULT_RETRY).max_attempts,
            agent=self.profile.name,
            created_at_ms=now_ms,
            due_at_ms=None,
            started_at_ms=None,
            finished_at_ms=None if outcome is None else now_ms,
            payload=spec.payload,
            result=None if outcome is None else outcome.result,
            failure=None if outcome is None else outcome.failure,
            key=spec.key,
            traceparent=spec.traceparent,
            waits_for="" if outcome is not None else f"nothing runs under {self.profile.name}()",
        )
