"""What the server tells, as JSON documents of fixed fields.

They are what scripts and pages rely on: no field is renamed or removed. Instants are ISO 8601 in UTC with
milliseconds, null where there is none yet.
"""

from collections.abc import Sequence

import msgspec

from taskd.client.rates import rate_text
from taskd.text.values import Value, arguments_value, iso, result_json, result_value
from taskd_protocol.access_messages import CertView, TokenView
from taskd_protocol.house_messages import AgentView, MemoryView, QueueView
from taskd_protocol.ids import format_task_id
from taskd_protocol.limit_messages import LimitView
from taskd_protocol.messages import AttemptView, DeadGroupView, JobView, TaskView
from taskd_protocol.task import Failure

VALUE_CHARS_MAX = 64 * 1024
"""Of arguments or a result beside a task; a page of its own shows all."""


class ErrorDocument(msgspec.Struct):
    """Why a task, or an attempt, failed."""

    type: str | None
    """Of the exception; null: none was raised."""
    message: str
    traceback: str | None
    code: str


class TaskDocument(msgspec.Struct):
    """A task."""

    id: str
    name: str
    queue: str
    state: str
    priority: int
    attempt: int
    """Leases granted so far."""
    max_attempts: int
    agent: str | None
    """Who runs it, or ran it last."""
    created_at: str | None
    started_at: str | None
    finished_at: str | None
    result: object
    error: ErrorDocument | None
    trace_id: str | None


class AttemptDocument(msgspec.Struct):
    """An attempt that has ended."""

    attempt: int
    agent: str
    outcome: str
    started_at: str | None
    finished_at: str | None
    error: ErrorDocument | None


class TaskDetail(TaskDocument):
    """A task with all that is known of it."""

    attempts: list[AttemptDocument]
    """The newest that have ended, oldest first."""
    arguments: Value
    result_value: Value | None
    """The result as text; null: there is none."""
    waits_for: str | None
    """Why it does not run, in words."""
    due_at: str | None
    """When a scheduled task may start."""
    failures: int
    """Attempts charged to ``max_attempts``."""
    crashes: int
    """Attempts charged to ``crash_limit``."""
    crash_limit: int
    key: str | None
    traceparent: str | None


class DeadGroupDocument(msgspec.Struct):
    """Dead tasks that died of the same."""

    group: str
    type: str
    place: str | None
    """In the user's code, ``file:function``."""
    message: str
    """Of the first of them."""
    count: int
    first_at: str | None
    last_at: str | None


class DeadGroupDetail(DeadGroupDocument):
    """A group with its newest tasks."""

    tasks: list[TaskDocument]


class JobDocument(msgspec.Struct):
    """What is done, or was, to many tasks at once."""

    id: str
    action: str
    looked_at: int
    """Tasks that it went through."""
    changed: int
    created_at: str | None
    finished_at: str | None
    """Null: it goes on."""


class QueueDocument(msgspec.Struct):
    """A queue."""

    name: str
    ready: int
    scheduled: int
    running: int
    paused: bool
    draining: bool
    weight: int
    fair_weights: dict[str, int] = {}
    """Shares of fair keys within it; of those that are not named, 1."""


class StockDocument(msgspec.Struct):
    """What an agent has of one resource; thousandths, of memory bytes."""

    total: int
    free: int
    items: dict[str, int]


class AgentDocument(msgspec.Struct):
    """An agent."""

    name: str
    boot_id: str
    state: str
    slots: int
    running: int
    cpu_percent: float
    memory_used: int
    memory_total: int
    labels: dict[str, str]
    resources: dict[str, StockDocument]
    pressed: bool
    """Others keep its machine busy: it gets no more tasks that ask for CPUs."""
    task_names: list[str]
    queues: list[str]


class MemoryDocument(msgspec.Struct):
    """How much memory tasks of a name have come to need, in bytes."""

    name: str
    attempts: int
    highest: int
    proposal: int


class LimitDocument(msgspec.Struct):
    """A limit, and how far it is used."""

    name: str
    concurrency: int | None
    running: int
    rate: str | None
    burst: int | None
    left: int | None
    """Tokens; null: it has no rate, or counts by key."""
    source: str
    """The module whose code says it; empty: a person."""


class TokenDocument(msgspec.Struct):
    """What may be known of a token."""

    key_id: str
    role: str
    label: str
    created_at: str | None
    expires_at: str | None
    revoked: bool


class CertificateDocument(msgspec.Struct):
    """The server's certificate."""

    host_names: list[str]
    not_before: str | None
    not_after: str | None
    sha256: str
    ca_sha256: str


def task_document(view: TaskView) -> TaskDocument:
    """Return a task."""
    return TaskDocument(
        id=format_task_id(view.id),
        name=view.name,
        queue=view.queue,
        state=view.state,
        priority=view.priority,
        attempt=view.attempt,
        max_attempts=view.max_attempts,
        agent=view.agent or None,
        created_at=iso(view.created_at_ms),
        started_at=iso(view.started_at_ms),
        finished_at=iso(view.finished_at_ms),
        result=None if view.result is None else result_json(view.result),
        error=None if view.failure is None else error_document(view.failure),
        trace_id=view.traceparent[3:35] or None,
    )


def task_detail(view: TaskView) -> TaskDetail:
    """Return a task with all that is known of it."""
    return TaskDetail(
        **msgspec.structs.asdict(task_document(view)),
        attempts=[attempt_document(attempt) for attempt in view.attempts],
        arguments=arguments_value(view.payload, VALUE_CHARS_MAX),
        result_value=None if view.result is None else result_value(view.result, VALUE_CHARS_MAX),
        waits_for=view.waits_for or None,
        due_at=iso(view.due_at_ms),
        failures=view.failures,
        crashes=view.crashes,
        crash_limit=view.crash_limit,
        key=view.key or None,
        traceparent=view.traceparent or None,
    )


def attempt_document(attempt: AttemptView) -> AttemptDocument:
    """Return how an attempt ended."""
    return AttemptDocument(
        attempt=attempt.attempt,
        agent=attempt.agent,
        outcome=attempt.outcome,
        started_at=iso(attempt.started_at_ms),
        finished_at=iso(attempt.ended_at_ms),
        error=None if attempt.failure is None else error_document(attempt.failure),
    )


def error_text(failure: Failure) -> str:
    """Return why an attempt failed, as one line."""
    said = f"{failure.type}: {failure.message}" if failure.type else failure.message
    return f"{said} ({failure.code})"


def error_document(failure: Failure) -> ErrorDocument:
    """Return why a task failed."""
    return ErrorDocument(
        type=failure.type or None,
        message=failure.message,
        traceback=failure.traceback or None,
        code=failure.code,
    )


def dead_group_document(view: DeadGroupView) -> DeadGroupDocument:
    """Return a group of dead tasks."""
    return DeadGroupDocument(
        group=view.fingerprint.hex(),
        type=view.type,
        place=view.place or None,
        message=view.message,
        count=view.count,
        first_at=iso(view.first_at_ms),
        last_at=iso(view.last_at_ms),
    )


def dead_group_detail(view: DeadGroupView, newest: Sequence[TaskView]) -> DeadGroupDetail:
    """Return a group with its newest tasks."""
    tasks = [task_document(task) for task in newest]
    return DeadGroupDetail(**msgspec.structs.asdict(dead_group_document(view)), tasks=tasks)


def job_document(view: JobView) -> JobDocument:
    """Return a bulk job."""
    return JobDocument(
        id=format_task_id(view.id),
        action=view.action,
        looked_at=view.looked_at,
        changed=view.changed,
        created_at=iso(view.created_at_ms),
        finished_at=iso(view.finished_at_ms),
    )


def queue_document(view: QueueView) -> QueueDocument:
    """Return a queue."""
    return QueueDocument(
        name=view.name,
        ready=view.ready,
        scheduled=view.scheduled,
        running=view.running,
        paused=view.paused,
        draining=view.draining,
        weight=view.weight,
        fair_weights=view.fair_weights,
    )


def agent_document(view: AgentView) -> AgentDocument:
    """Return an agent."""
    return AgentDocument(
        name=view.name,
        boot_id=view.boot_id.hex(),
        state=view.state,
        slots=view.slots,
        running=view.running,
        cpu_percent=round(view.host.cpu_percent, 1),
        memory_used=view.host.memory_used,
        memory_total=view.host.memory_total,
        labels=dict(view.labels),
        resources={stock.name: StockDocument(stock.total, stock.free, dict(stock.items)) for stock in view.stock},
        pressed=view.pressed,
        task_names=list(view.task_names),
        queues=list(view.queues),
    )


def memory_document(view: MemoryView) -> MemoryDocument:
    """Return what was learned of a task name."""
    return MemoryDocument(view.name, view.attempts, view.highest, view.proposal)


def limit_document(view: LimitView) -> LimitDocument:
    """Return a limit."""
    limit = view.limit
    return LimitDocument(
        name=limit.name,
        concurrency=limit.concurrency or None,
        running=view.running,
        rate=rate_text(limit.tokens, limit.period_ms) if limit.tokens else None,
        burst=limit.burst_tokens if limit.tokens else None,
        left=view.left if limit.tokens and not limit.is_by_key else None,
        source=limit.source,
    )


def token_document(view: TokenView) -> TokenDocument:
    """Return what may be known of a token."""
    return TokenDocument(
        key_id=view.key_id,
        role=view.role,
        label=view.label,
        created_at=iso(view.created_at_ms),
        expires_at=iso(view.expires_at_ms),
        revoked=view.revoked,
    )


def certificate_document(view: CertView) -> CertificateDocument:
    """Return the facts of the server's certificate."""
    return CertificateDocument(
        host_names=list(view.host_names),
        not_before=iso(view.not_before_ms),
        not_after=iso(view.not_after_ms),
        sha256=view.sha256.hex(),
        ca_sha256=view.ca_sha256.hex(),
    )
