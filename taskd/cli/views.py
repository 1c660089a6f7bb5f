"""What the server tells, as JSON documents of fixed fields and as rows for people.

The fields of tasks, queues, agents and tokens are what scripts rely on: none is renamed or removed.
Instants are ISO 8601 in UTC with milliseconds, null where there is none yet.
"""

import base64
import datetime as dt
import json
import math
from collections.abc import Sequence
from typing import Final, TypeAlias

from taskd.cli.output import Json
from taskd_protocol.access_messages import CertView, TokenView
from taskd_protocol.errors import PayloadUnpackable
from taskd_protocol.house_messages import AgentView, QueueView
from taskd_protocol.ids import format_task_id
from taskd_protocol.messages import DeadGroupView, JobView, TaskView
from taskd_protocol.payload import Input, unpack, unpack_arguments
from taskd_protocol.task import Failure
from taskd_protocol.workflow import MAP
from taskd_protocol.workflow_messages import NodeView, WorkflowView

Document: TypeAlias = dict[str, Json]

_MIB: Final = 1024 * 1024
_TEXT_CHARS_MAX: Final = 2_000
"""What a person is shown of one value; `--json` shows all of it."""
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def iso(unix_ms: int | None) -> str | None:
    """Return the instant as ``2026-11-21T23:59:59.123Z``; None stays None."""
    if unix_ms is None:
        return None
    text = (_EPOCH + dt.timedelta(milliseconds=unix_ms)).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def task_document(view: TaskView) -> Document:
    """Return a task as scripts see it."""
    return {
        "id": format_task_id(view.id),
        "name": view.name,
        "queue": view.queue,
        "state": view.state,
        "priority": view.priority,
        "attempt": view.attempt,
        "max_attempts": view.max_attempts,
        "agent": view.agent or None,
        "created_at": iso(view.created_at_ms),
        "started_at": iso(view.started_at_ms),
        "finished_at": iso(view.finished_at_ms),
        "result": None if view.result is None else result_json(view.result),
        "error": None if view.failure is None else error_document(view.failure),
        "trace_id": view.traceparent[3:35] or None,
    }


def attempts_document(view: TaskView) -> list[Json]:
    """Return how a task's attempts ended, as scripts see it."""
    return [
        {
            "attempt": attempt.attempt,
            "agent": attempt.agent,
            "outcome": attempt.outcome,
            "started_at": iso(attempt.started_at_ms),
            "finished_at": iso(attempt.ended_at_ms),
            "error": None if attempt.failure is None else error_document(attempt.failure),
        }
        for attempt in view.attempts
    ]


def error_text(failure: Failure) -> str:
    """Return why an attempt failed, as one line."""
    said = f"{failure.type}: {failure.message}" if failure.type else failure.message
    return f"{said} ({failure.code})"


def error_document(failure: Failure) -> Document:
    """Return why a task failed, as scripts see it."""
    return {
        "type": failure.type or None,
        "message": failure.message,
        "traceback": failure.traceback or None,
        "code": failure.code,
    }


def dead_group_document(view: DeadGroupView) -> Document:
    """Return a group of dead tasks as scripts see it."""
    return {
        "group": view.fingerprint.hex(),
        "type": view.type,
        "place": view.place or None,
        "message": view.message,
        "count": view.count,
        "first_at": iso(view.first_at_ms),
        "last_at": iso(view.last_at_ms),
    }


def job_document(view: JobView) -> Document:
    """Return a bulk job as scripts see it."""
    return {
        "id": format_task_id(view.id),
        "action": view.action,
        "looked_at": view.looked_at,
        "changed": view.changed,
        "created_at": iso(view.created_at_ms),
        "finished_at": iso(view.finished_at_ms),
    }


def workflow_document(view: WorkflowView) -> Document:
    """Return a workflow as scripts see it."""
    return {
        "id": format_task_id(view.id),
        "name": view.name,
        "state": view.state,
        "policy": view.policy,
        "node_count": view.nodes,
        "counts": dict(view.counts),
        "failed_node": view.failed_node or None,
        "reason": view.reason or None,
        "created_at": iso(view.created_at_ms),
        "finished_at": iso(view.finished_at_ms),
        "trace_id": view.traceparent[3:35] or None,
        "schedule": view.schedule or None,
        "scheduled_for": iso(view.scheduled_for_ms),
    }


def node_document(view: NodeView, names: Sequence[str], task_id: bytes) -> Document:
    """Return a node as scripts see it.

    Args:
        view: The node.
        names: Of all nodes of its workflow, in order.
        task_id: Its own.
    """
    return {
        "id": format_task_id(task_id),
        "name": view.name,
        "kind": view.kind,
        "state": view.state,
        "task": view.task or None,
        "needs": [names[position] for position in view.needs],
        "after": [names[position] for position in view.after],
        "when": view.when,
        "phase": view.phase or None,
        "attempt": view.attempt,
        "agent": view.agent or None,
        "started_at": iso(view.started_at_ms),
        "finished_at": iso(view.finished_at_ms),
        "error": None if view.failure is None else error_document(view.failure),
        "children": None
        if view.kind != MAP
        else {"total": view.children, "succeeded": view.succeeded, "failed": view.failed},
        "signal": view.signal or None,
    }


def queue_document(view: QueueView) -> Document:
    """Return a queue as scripts see it."""
    return {
        "name": view.name,
        "ready": view.ready,
        "scheduled": view.scheduled,
        "running": view.running,
        "paused": view.paused,
        "draining": view.draining,
        "weight": view.weight,
    }


def agent_document(view: AgentView) -> Document:
    """Return an agent as scripts see it."""
    return {
        "name": view.name,
        "boot_id": view.boot_id.hex(),
        "state": view.state,
        "slots": view.slots,
        "running": view.running,
        "cpu_percent": round(view.host.cpu_percent, 1),
        "memory_used": view.host.memory_used,
        "memory_total": view.host.memory_total,
        "labels": dict(view.labels),
        "resources": {
            stock.name: {"total": stock.total, "free": stock.free, "items": dict(stock.items)} for stock in view.stock
        },
        "pressed": view.pressed,
        "task_names": list(view.task_names),
        "queues": list(view.queues),
    }


def token_document(view: TokenView) -> Document:
    """Return what may be known of a token."""
    return {
        "key_id": view.key_id,
        "role": view.role,
        "label": view.label,
        "created_at": iso(view.created_at_ms),
        "expires_at": iso(view.expires_at_ms),
        "revoked": view.revoked,
    }


def certificate_document(view: CertView) -> Document:
    """Return the facts of the server's certificate."""
    return {
        "host_names": list(view.host_names),
        "not_before": iso(view.not_before_ms),
        "not_after": iso(view.not_after_ms),
        "sha256": view.sha256.hex(),
        "ca_sha256": view.ca_sha256.hex(),
    }


def result_json(packed: bytes) -> Json:
    """Return a packed result as JSON carries it: see ``plain``.

    A value of a type that only the tasks' own modules know is told as ``{"packed": BASE64}``.
    """
    try:
        value = unpack(packed)
    except PayloadUnpackable:
        return {"packed": base64.b64encode(packed).decode()}
    return plain(value)


def plain(value: object) -> Json:
    """Return the value as JSON carries it.

    Bytes become base64; tuples and sets lists; keys, dates and all else that JSON has no word for become text, also the
    places that another task's result will take.
    """
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, Input):
        return f"<input {value.number}>"
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.isoformat() if isinstance(value, dt.date | dt.time) else str(value)


def result_text(packed: bytes) -> str:
    """Return a packed result as one line of JSON, cut when it is long."""
    return _cut(json.dumps(result_json(packed), ensure_ascii=False))


def arguments_text(payload: bytes) -> str:
    """Return packed arguments as people write a call's, cut when they are long."""
    try:
        positional, named = unpack_arguments(payload)
    except PayloadUnpackable as error:
        return f"{len(payload)} bytes that cannot be read here: {error.message}"
    told = [json.dumps(plain(value), ensure_ascii=False) for value in positional]
    told += [f"{name}={json.dumps(plain(value), ensure_ascii=False)}" for name, value in named.items()]
    return _cut(", ".join(told))


def bytes_text(count: int) -> str:
    """Return a number of bytes as people read it."""
    return f"{count / _MIB:,.0f} MiB" if count >= _MIB else f"{count / 1024:,.0f} KiB"


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT_CHARS_MAX else f"{text[:_TEXT_CHARS_MAX]}… ({len(text):,} characters)"
