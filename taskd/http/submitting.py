"""What a submit says: the JSON of a task, as the command line's options say it, made into the protocol's own."""

from collections.abc import Callable, Mapping
from typing import Annotated

import msgspec

from taskd.client.labels import read_labels, read_rule
from taskd.client.resources import read_requests
from taskd.http.errors import FieldRefused, placed
from taskd_protocol.ids import parse_task_id
from taskd_protocol.limits import PRIORITY_MAX, PRIORITY_MIN
from taskd_protocol.payload import pack_arguments
from taskd_protocol.resources import MEMORY, Where
from taskd_protocol.task import DEFAULT_QUEUE, NO_RULES, UNIQUE_MODES, Retry, Rules, TaskSpec, Unique, Use, check_name
from taskd_protocol.tracing import NO_TRACEPARENT, is_traceparent

Priority = Annotated[int, msgspec.Meta(ge=PRIORITY_MIN, le=PRIORITY_MAX, description="Higher runs sooner.")]
Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=1 << 48)]
Attempts = Annotated[int, msgspec.Meta(ge=1, le=1 << 31)]
Number = Annotated[float, msgspec.Meta(ge=0)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class RetryBody(msgspec.Struct, forbid_unknown_fields=True):
    """When a failed attempt is tried again."""

    max_attempts: Attempts = Retry().max_attempts
    base_ms: Milliseconds = Retry().base_ms
    factor: Number = Retry().factor
    max_ms: Milliseconds = Retry().max_ms
    jitter: Number = Retry().jitter
    on: list[str] = []
    not_on: list[str] = []
    crash_limit: Attempts = Retry().crash_limit


class UniqueBody(msgspec.Struct, forbid_unknown_fields=True):
    """That there is one task at a time of the same work."""

    mode: str
    """``queued``, ``running`` or ``window``."""
    window_ms: Milliseconds = 0
    key: str = ""
    replace: bool = False


class UseBody(msgspec.Struct, forbid_unknown_fields=True):
    """A place of a limit that the task holds."""

    limit: Name
    key: str = ""
    weight: Attempts = 1


class TaskBody(msgspec.Struct, forbid_unknown_fields=True):
    """A task to be kept and run."""

    name: Name
    args: list[object] = []
    kwargs: dict[str, object] = {}
    queue: Name = DEFAULT_QUEUE
    priority: Priority = 0
    delay_ms: Milliseconds = 0
    id: str | None = None
    """A UUID of version 7: the same again, with the same content, finds the first task. Null: the server makes one."""
    key: str = ""
    """A second submit with the same key finds the first task."""
    traceparent: str = ""
    """W3C trace context; else that of the request, else a new one."""
    retry: RetryBody | None = None
    timeout_ms: Milliseconds = 0
    soft_timeout_ms: Milliseconds = 0
    ttl_ms: Milliseconds = 0
    deadline_ms: Milliseconds = 0
    heartbeat_ms: Milliseconds = 0
    exclusive: bool = False
    at_most_once: bool = False
    preemptible: bool = False
    headers: dict[str, str] | None = None
    unique: UniqueBody | None = None
    limits: list[UseBody] = []
    fair_key: str = ""
    fifo_key: str = ""
    sticky: str = ""
    resources: dict[str, float | str | list[str]] | None = None
    """What it holds while it runs: ``{"cpu": 2, "memory": "1GiB", "gpu": "a100:2"}``."""
    labels: list[str] = []
    """Rules for its agent: ``zone=a``, ``cores>=8``, ``disk in ssd,nvme``, ``spot absent``."""


class BatchBody(msgspec.Struct, forbid_unknown_fields=True):
    """Tasks that are kept all together, or not at all."""

    tasks: Annotated[list[TaskBody], msgspec.Meta(min_length=1)]


class SubmittedDocument(msgspec.Struct):
    """A task that is kept."""

    id: str
    """Of the first task, if it was known before by its id or key."""
    existing: bool
    """It was known before."""


class WarnedDocument(SubmittedDocument):
    """A task that is kept, and what is said of it."""

    warnings: list[str]
    """Why no agent that is connected could run it."""


def read_task(
    body: TaskBody,
    files: Mapping[str, bytes],
    traceparent: Callable[[bytes], str],
    new_id: bytes,
    packed: bytes | None = None,
) -> TaskSpec:
    """Return the task as the protocol has it; what is out of range is refused when it is submitted.

    Args:
        body: What was sent.
        files: Become named arguments, as bytes.
        traceparent: Of the request, given the id of what it makes.
        new_id: For a task that brings none.
        packed: Its arguments, if they were packed before; then the body has none, and there are no files.

    Raises:
        FieldRefused: Something cannot be; ``path`` names it.
        TaskdError: Likewise.
    """
    twice = body.kwargs.keys() & files.keys()
    if twice:
        raise FieldRefused(f"{min(twice)[:64]!r} is an argument and a file; say one", "$.kwargs")
    if body.unique is not None and body.unique.mode not in UNIQUE_MODES:
        raise FieldRefused(f"mode is one of {', '.join(UNIQUE_MODES)}", "$.unique.mode")
    with placed("$.id"):
        task_id = new_id if body.id is None else parse_task_id(body.id)
    if body.traceparent and not is_traceparent(body.traceparent):
        raise FieldRefused(NO_TRACEPARENT, "$.traceparent")
    for name, amount in (body.resources or {}).items():
        with placed(f"$.resources.{name[:64]}"):
            read_requests({MEMORY: "1MiB", name: amount})  # beside another: one of nothing is none alone
    for number, label in enumerate(body.labels):
        with placed(f"$.labels[{number}]"):
            read_rule(label)
    for field, named in (("name", body.name), ("queue", body.queue), ("key", body.key)):
        with placed(f"$.{field}"):
            if named:
                check_name(field, named)
    with placed("$.resources"):
        requests = read_requests(body.resources)
    where = Where(requests=requests, labels=read_labels(body.labels))
    rules = Rules(
        timeout_ms=body.timeout_ms,
        soft_timeout_ms=body.soft_timeout_ms,
        ttl_ms=body.ttl_ms,
        deadline_ms=body.deadline_ms,
        exclusive=body.exclusive,
        heartbeat_ms=body.heartbeat_ms,
        at_most_once=body.at_most_once,
        headers=body.headers,
        unique=None if body.unique is None else Unique(**msgspec.structs.asdict(body.unique)),
        where=None if where == Where() else where,
        limits=[Use(use.limit, use.key, use.weight) for use in body.limits],
        fifo_key=body.fifo_key,
        preemptible=body.preemptible,
        fair_key=body.fair_key,
        sticky=body.sticky,
    )
    return TaskSpec(
        id=task_id,
        name=body.name,
        payload=pack_arguments(body.args, {**body.kwargs, **files}) if packed is None else packed,
        queue=body.queue,
        priority=body.priority,
        delay_ms=body.delay_ms,
        retry=None if body.retry is None else Retry(**msgspec.structs.asdict(body.retry)),
        key=body.key,
        traceparent=body.traceparent or traceparent(task_id),
        given=None if rules == NO_RULES else rules,
    )
