"""Tasks, attempts and how they ended: one definition for wire, disk and HTTP.

A task's spec is immutable from the client's first try on. Fields are only ever
appended, each with a default; what a field's absence means is its default.
"""

from collections.abc import Mapping, Sequence

import msgspec

from taskd_protocol import limits
from taskd_protocol.errors import BadRequest, PayloadTooLarge
from taskd_protocol.ids import is_task_id
from taskd_protocol.resources import Granted, Where, check_where
from taskd_protocol.tracing import NO_TRACEPARENT, are_traceparents, is_traceparent

DEFAULT_QUEUE = "default"
COMMAND_NAME = "taskd.command"
"""The name under which every agent offers to run commands (argv lists)."""


class Retry(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """When a failed attempt is tried again: exponential backoff with full range told in milliseconds."""

    max_attempts: int = 3
    """Failed attempts after which the task is dead, at least 1."""
    base_ms: int = 1_000
    """Wait before the second attempt."""
    factor: float = 2.0
    """Each further wait is so many times the one before, at least 1."""
    max_ms: int = 300_000
    """No wait is longer, jitter aside."""
    jitter: float = 0.25
    """Each wait is moved by up to this share of itself, up or down; 0 to 1."""
    on: list[str] = []
    """Exception types, ``module.Class``, that are worth another attempt, with all that derive from them; empty: all."""
    not_on: list[str] = []
    """Those that are not, whatever ``on`` says."""
    crash_limit: int = 3
    """Attempts that took down their worker, or were lost with their agent, after which the task is dead, at least 1;
    never more than ``max_attempts``."""


DEFAULT_RETRY = Retry()


QUEUED = "queued"
RUNNING = "running"
WINDOW = "window"
UNIQUE_MODES = (QUEUED, RUNNING, WINDOW)


class Unique(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """That there is one task at a time of the same work: of the same name, with the same arguments or ``key``."""

    mode: str
    """``queued``: until its first attempt is leased; ``running``: until it has ended; ``window``: for ``window_ms``."""
    window_ms: int = 0
    """Of the mode ``window``: so long after the submit, whatever becomes of the task; else 0."""
    key: str = ""
    """What tells the work apart beside the name; empty: the arguments do."""
    replace: bool = False
    """If the first one waits, it is cancelled and this one takes its place; False: the first one stays."""


class Given(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An input of a workflow's task: what takes its place among the arguments."""

    packed: bytes = b""
    """The value, packed, if it travels with the task."""
    id: bytes = b""
    """Else: whose result it is; its agent asks for it with INPUT_QUERY."""
    count: int = -1
    """Of a node that maps: how many results, in the order of the items, are to be a list; -1: it is one result."""
    version: int = 0
    """Of what is referred to: another one under the same id may be another value, as when a node was run again."""
    maker: int = 0
    """Fencing token of the attempt that made it, if it is large: its agent may have kept it. 0: that is not known."""


class Member(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """That a task is of a workflow. Which, and which node of it, shows in its id."""

    inputs: list[Given] = []
    """By their numbers; see section 12 of the protocol's document."""


class Use(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """That a task holds a place of a limit, from when it comes into its line until its lease ends."""

    limit: str
    """Its name; one that is not set holds nothing back."""
    key: str = ""
    """Of each key the limit counts by itself; empty: of all uses without one."""
    weight: int = 1
    """Places that it takes, and tokens of its rate; no more than the limit has."""


class Rules(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a submit can ask beside a task's place in line; all that most tasks do without."""

    timeout_ms: int = 0
    """Of one attempt, from its start: then it is killed, and counts as failed. 0: none."""
    soft_timeout_ms: int = 0
    """Of one attempt, from its start: then it is told to end, and its stacks are kept. 0: none."""
    ttl_ms: int = 0
    """Its first attempt must be leased within so long of its acceptance, else it is ``expired``. 0: none."""
    deadline_ms: int = 0
    """It must have ended within so long of its acceptance, with all its attempts. 0: none."""
    exclusive: bool = False
    """No two attempts of it may run at a time: an agent out of touch kills it before it could be given away."""
    heartbeat_ms: int = 0
    """An attempt that is silent for longer has stalled, is killed, and counts as failed. 0: none."""
    at_most_once: bool = False
    """What may have started is never run again: any end of it but a success, or a release, is the task's."""
    headers: dict[str, str] | None = None
    """What the submitter's program tells the worker's beside the arguments; opaque to the server. None: nothing."""
    unique: Unique | None = None
    """None: it may be there any number of times."""
    member: Member | None = None
    """Said by the server alone, of the tasks that it makes for a workflow. None: it is a task by itself."""
    where: Where | None = None
    """None: any agent that has its name, in one slot."""
    due_ms: int = 0
    """UTC: its delay is over by then, however late it is accepted: a submit may be sent again for hours. 0: none."""
    limits: list[Use] = []
    """Limits that hold for it beside those of its queue and its name, at most ``TASK_LIMITS_MAX``."""
    fifo_key: str = ""
    """Tasks of the same key run one after another, in the order of their submits, each after the end of the one before,
    whatever their priority; empty: it has none."""
    preemptible: bool = False
    """An attempt may be stopped for a task of a higher priority, uncharged, and goes back in line."""
    fair_key: str = ""
    """The tasks of a queue that have one share it, key by key. Empty: it has none."""
    sticky: str = ""
    """Among agents that have room, rather the one where the last task of the same word ran; empty: none."""


NO_RULES = Rules()


class TaskSpec(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One task as its client asked for it.

    Each field here costs every task, so what only some tasks say is appended to ``Rules``.
    """

    id: bytes
    """16 bytes, UUIDv7, by the client before the first try; the same on every resend."""
    name: str
    """Which function: ``module.function``; agents offer the names they have."""
    payload: bytes = b""
    """Packed arguments; opaque to the server."""
    queue: str = DEFAULT_QUEUE
    priority: int = 0
    """Higher runs sooner, within its queue; -100 to 100."""
    delay_ms: int = 0
    """Not before so long after the server accepted it."""
    retry: Retry | None = None
    """None: the default policy."""
    key: str = ""
    """Idempotency key; empty: none. A second submit with the key finds the first task."""
    traceparent: str = ""
    """W3C trace context of the submit, version 00; empty: none."""
    given: Rules | None = None
    """None: no rule is given, all are at their defaults."""

    @property
    def rules(self) -> Rules:
        """Those that were given, or the defaults."""
        return NO_RULES if self.given is None else self.given

    @property
    def trace_id(self) -> str:
        """Of its trace context, 32 hexadecimal digits: what all that is told of the task has in common."""
        return self.traceparent[3:35]


class Failure(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Why an attempt did not succeed."""

    code: str
    """A stable word: one of the task codes, such as ``task.raised``."""
    message: str
    """One line for people."""
    type: str = ""
    """Remote exception type, ``module.Class``; empty when nothing was raised."""
    traceback: str = ""
    """Remote traceback as text; empty when nothing was raised."""
    exit_code: int | None = None
    """Of the worker or command; negative: the signal that ended it; None: none ended."""


class Outcome(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """How a task ended."""

    id: bytes
    state: str
    """A terminal state; ``unknown`` with ``failure.code`` ``task.unknown`` or ``result.gone`` when it is not stored."""
    attempt: int = 0
    result: bytes = b""
    """Packed result of a task that succeeded."""
    failure: Failure | None = None
    """Of a task that did not."""


class Pool(msgspec.Struct, array_like=True, frozen=True):
    """One kind of room on an agent: leases are granted to a pool, under its credit."""

    kind: str
    """``process``, ``async`` or ``command``."""
    slots: int
    """Attempts that it runs at the same time."""
    names: list[str]
    """Task names it can run."""


class Held(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A lease that an agent holds: waiting, running, or finished and not yet recorded."""

    token: int
    id: bytes
    attempt: int


class Spawned(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What earlier attempts of a task have spawned: the same again, in the same order, finds the same tasks."""

    node: bytes
    """Of whose children they are: the n-th spawned is its n-th child."""
    count: int
    digest: bytes
    """16 bytes over names and arguments, see section 12 of the protocol's document."""


class Grant(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The right of this agent session to run one attempt."""

    token: int
    """Fencing token: rises with every lease of the store."""
    attempt: int
    """From 1."""
    spec: TaskSpec
    deadline_in_ms: int = 0
    """What was left until its deadline when it was granted, at least 1; 0: none."""
    details: bytes = b""
    """What an attempt before told last of how far it had come, packed; empty: nothing."""
    mark_start: bool = False
    """The attempt before was lost: run this one alone, and start it only after STARTED was answered."""
    spawned: Spawned | None = None
    """None: nothing yet."""
    granted: Granted | None = None
    """None: a slot, and nothing else."""


class Report(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An attempt succeeded."""

    token: int
    id: bytes
    attempt: int
    result: bytes
    started_at_ms: int = 0
    """By the agent's clock, corrected to the server's."""
    peak_bytes: int = 0
    """The most memory that the attempt held; 0: not known."""


class FailureReport(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An attempt did not succeed."""

    token: int
    id: bytes
    attempt: int
    outcome: str
    """``failed``: charged to the task; ``crashed``: it took its worker down, charged to another budget; ``cancelled``:
    its processes are proven dead; ``released``: it never started, or was stopped for what is not its doing, and costs
    nothing; ``lost``: its worker died of it or of another; ``waiting``: it ended to wait for what it has spawned, and
    costs nothing."""
    failure: Failure | None = None
    """Of ``failed``, ``crashed`` and ``lost``."""
    started_at_ms: int = 0
    final: bool = False
    """No further attempt, whatever is left of the budget."""
    retry_after_ms: int | None = None
    """Wait so long before the next attempt; None: as the policy says."""
    unstarted: bool = False
    """Of ``released``: it is certain that it never started."""
    peak_bytes: int = 0
    """As in ``Report``."""


class LogPiece(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Output of a running attempt."""

    token: int
    id: bytes
    stream: int
    """See ``taskd_protocol.streams``."""
    at_ms: int
    data: bytes
    number: int = 0
    """Among the attempt's pieces, from 1: one that is sent again is kept once; 0: it has none."""


class Checkpoint(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """How far a running attempt has come, in its own words."""

    token: int
    id: bytes
    details: bytes
    """Packed; given to the next attempt, unless a later one comes."""


def check_spec(spec: TaskSpec, payload_bytes_max: int) -> None:
    """Refuse a spec that is out of range.

    Raises:
        BadRequest: A field is out of its range; it is named.
        PayloadTooLarge: The packed arguments exceed ``payload_bytes_max``.
    """
    check_specs([spec], payload_bytes_max)


def check_template(spec: TaskSpec, payload_bytes_max: int, known: set[str] | None = None) -> None:
    """Refuse what a node is to submit, if it is out of range. Its id is given when it is submitted.

    Args:
        spec: What it is to submit.
        payload_bytes_max: Of arguments.
        known: Names that were found allowed, of tasks and queues, which most nodes share; this one's are added.

    Raises:
        BadRequest: A field is out of its range; it is named.
        PayloadTooLarge: The packed arguments exceed ``payload_bytes_max``.
    """
    known = set() if known is None else known
    if spec.name not in known:
        check_name("task name", spec.name)
        known.add(spec.name)
    if spec.queue not in known:
        check_name("queue", spec.queue)
        known.add(spec.queue)
    if spec.id:
        raise BadRequest("the task of a node has no id: it gets one by its place in the workflow")
    if spec.key or (spec.given is not None and spec.given.unique is not None):
        raise BadRequest("a node's task has neither key nor unique: it is there once, with its workflow")
    if spec.traceparent and not is_traceparent(spec.traceparent):
        raise BadRequest(NO_TRACEPARENT)
    _check_fields(spec, payload_bytes_max)


def check_specs(specs: Sequence[TaskSpec], payload_bytes_max: int) -> None:
    """Refuse specs if one is out of range; in half the time of a call for each, as most share their names.

    Raises:
        BadRequest: A field is out of its range; it is named.
        PayloadTooLarge: The packed arguments of one exceed ``payload_bytes_max``.
    """
    for name in dict.fromkeys([spec.name for spec in specs]):
        check_name("task name", name)
    for queue in dict.fromkeys([spec.queue for spec in specs]):
        check_name("queue", queue)
    for spec in specs:
        if not is_task_id(spec.id):
            raise BadRequest("task id must be 16 bytes, a UUID of version 7")
        _check_fields(spec, payload_bytes_max)
    if not are_traceparents([spec.traceparent for spec in specs if spec.traceparent]):
        raise BadRequest(NO_TRACEPARENT)


def _check_fields(spec: TaskSpec, payload_bytes_max: int) -> None:
    if len(spec.payload) > payload_bytes_max:
        raise PayloadTooLarge(
            f"arguments of {spec.name[:64]!r} are {len(spec.payload)} bytes; the limit is {payload_bytes_max}:"
            " store them elsewhere and pass a reference"
        )
    if spec.key:
        check_name("key", spec.key)
    if spec.priority and not limits.PRIORITY_MIN <= spec.priority <= limits.PRIORITY_MAX:
        raise BadRequest(f"priority {spec.priority} is out of range; it goes from -100 to 100")
    if spec.delay_ms and not 0 <= spec.delay_ms <= limits.DELAY_MS_MAX:
        raise BadRequest(f"delay of {spec.delay_ms} ms is out of range; it goes from 0 to ten years")
    if spec.retry is not None:
        _check_retry(spec.retry)
    if spec.given is not None:
        _check_rules(spec, spec.given)


def check_headers(headers: Mapping[str, str]) -> None:
    """Refuse headers that are too many, too long, or of names that are not allowed.

    Raises:
        BadRequest: Says which.
    """
    if len(headers) > limits.HEADERS_MAX:
        raise BadRequest(f"a task of {len(headers)} headers; it carries at most {limits.HEADERS_MAX}")
    chars = 0
    for name, value in headers.items():
        check_name("header name", name)
        chars += len(name) + len(value)
    if chars > limits.HEADERS_CHARS_MAX:
        raise BadRequest(
            f"headers of {chars} characters, the limit is {limits.HEADERS_CHARS_MAX}: pass large data as an argument"
        )


def check_name(what: str, name: str) -> None:
    """Refuse a name that is empty, too long, or holds unprintable characters.

    Raises:
        BadRequest: ``what`` is named in the message.
    """
    if not name or len(name) > limits.NAME_CHARS_MAX or not name.isprintable():
        raise BadRequest(f"{what} {name[:64]!r} is not allowed; use 1 to {limits.NAME_CHARS_MAX} printable characters")


def are_all_names(names: Sequence[str]) -> bool:
    """Tell whether ``check_name`` refuses none of these: many together, in a tenth of the time of a call for each."""
    lengths = [len(name) for name in names]
    return (
        min(lengths, default=1) > 0
        and max(lengths, default=1) <= limits.NAME_CHARS_MAX
        and "".join(names).isprintable()
    )


def _check_rules(spec: TaskSpec, rules: Rules) -> None:
    limited = {
        "timeout": rules.timeout_ms,
        "soft_timeout": rules.soft_timeout_ms,
        "ttl": rules.ttl_ms,
        "deadline": rules.deadline_ms,
        "heartbeat": rules.heartbeat_ms,
    }
    for name, limit_ms in limited.items():
        if not 0 <= limit_ms <= limits.DELAY_MS_MAX:
            raise BadRequest(f"{name} of {limit_ms} ms is out of range; it goes from 0, for none, to ten years")
    if rules.timeout_ms and rules.soft_timeout_ms >= rules.timeout_ms:
        raise BadRequest(f"soft_timeout of {rules.soft_timeout_ms} ms is no less than timeout of {rules.timeout_ms} ms")
    for name in ("ttl", "deadline"):
        if 0 < limited[name] <= spec.delay_ms:
            raise BadRequest(f"{name} of {limited[name]} ms passes before the delay of {spec.delay_ms} ms does")
    if rules.due_ms < 0:
        raise BadRequest(f"due_ms is {rules.due_ms}; it is an instant in UTC milliseconds, or 0 for none")
    if rules.sticky:
        check_name("sticky", rules.sticky)
    if rules.preemptible and rules.at_most_once:
        raise BadRequest("what may run at most once cannot be preemptible: it could not go on")
    if 0 < rules.heartbeat_ms < limits.TASK_HEARTBEAT_MS_MIN:
        raise BadRequest(f"heartbeat of {rules.heartbeat_ms} ms is too short; it goes from half a second")
    _check_parts(spec, rules)


def _check_parts(spec: TaskSpec, rules: Rules) -> None:
    if rules.headers is not None:
        check_headers(rules.headers)
    if rules.unique is not None:
        _check_unique(rules.unique, spec.key)
    if rules.where is not None:
        check_where(rules.where)
    if rules.limits:
        _check_uses(rules.limits)
    if rules.fifo_key:
        check_name("fifo_key", rules.fifo_key)
        if spec.delay_ms:
            raise BadRequest("a delay breaks the order that fifo_key asks for; leave one of them out")
    if rules.fair_key:
        check_name("fair_key", rules.fair_key)
    if rules.member is not None:
        raise BadRequest("a task becomes member of a workflow by that alone: submit the workflow")


def _check_uses(uses: Sequence[Use]) -> None:
    if len(uses) > limits.TASK_LIMITS_MAX:
        raise BadRequest(f"a task uses {len(uses)} limits; it can use {limits.TASK_LIMITS_MAX}")
    if len({(use.limit, use.key) for use in uses}) < len(uses):
        raise BadRequest("a task uses a limit twice under one key; give one use more weight instead")
    for use in uses:
        check_name("limit", use.limit)
        if use.limit.startswith(("queue:", "task:")):
            raise BadRequest(f"limit {use.limit[:64]!r} holds by itself for what it names; a task does not name it")
        if use.key:
            check_name("key of a limit", use.key)
        if not 1 <= use.weight <= limits.LIMIT_AMOUNT_MAX:
            raise BadRequest(f"weight {use.weight} is out of range for a limit; it goes from 1 to 1,000,000")


def _check_unique(unique: Unique, key: str) -> None:
    if key:
        raise BadRequest("key and unique exclude each other: a key counts for a day, unique for as long as it says")
    if unique.mode not in UNIQUE_MODES:
        raise BadRequest(f"unique {unique.mode[:32]!r} is unknown; use queued, running or a time")
    if unique.mode == WINDOW and not 0 < unique.window_ms <= limits.DELAY_MS_MAX:
        raise BadRequest(f"unique for {unique.window_ms} ms is out of range; it goes from 1 ms to ten years")
    if unique.mode != WINDOW and unique.window_ms:
        raise BadRequest(f"unique {unique.mode} ends with the task; only the mode {WINDOW} has a time")
    if unique.key:
        check_name("unique_key", unique.key)


def _check_retry(retry: Retry) -> None:
    if not 1 <= retry.max_attempts <= limits.MAX_ATTEMPTS_MAX:
        raise BadRequest(f"max_attempts {retry.max_attempts} is out of range; it goes from 1 to 1,000,000")
    if not (0 <= retry.base_ms <= limits.DELAY_MS_MAX and 0 <= retry.max_ms <= limits.DELAY_MS_MAX):
        raise BadRequest("retry base and max must lie between 0 and ten years")
    if not 1.0 <= retry.factor <= 1000.0:  # noqa: PLR2004 - the message says what they are
        raise BadRequest(f"retry factor {retry.factor} is out of range; it goes from 1 to 1000")
    if not 0.0 <= retry.jitter <= 1.0:
        raise BadRequest(f"retry jitter {retry.jitter} is out of range; it goes from 0 to 1")
    if not 1 <= retry.crash_limit <= limits.MAX_ATTEMPTS_MAX:
        raise BadRequest(f"crash_limit {retry.crash_limit} is out of range; it goes from 1 to 1,000,000")
    names = [*retry.on, *retry.not_on]
    for name in names:
        check_name("exception type", name)
    if sum(map(len, names)) > limits.RETRY_CHARS_MAX:
        raise BadRequest(f"retry on and not_on have more than {limits.RETRY_CHARS_MAX} characters; name a base class")
