"""How a task is to be run: what its decorator says, and what one submit says instead."""

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict, get_args

import msgspec

from taskd.client.labels import Labels, Prefers, read_labels, read_prefers
from taskd.client.raising import type_names
from taskd.client.resources import Amount, Resources, read_requests
from taskd_protocol import task
from taskd_protocol.errors import BadRequest
from taskd_protocol.limits import DELAY_MS_MAX
from taskd_protocol.resources import ONE, LabelRule, Where
from taskd_protocol.task import DEFAULT_QUEUE, NO_RULES, WINDOW, Rules, TaskSpec, Unique, check_spec

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_SOME_ID = bytes((0,) * 6 + (0x70, 0, 0x80) + (0,) * 7)
"""A well-formed task id, to have everything else of a spec checked."""


if TYPE_CHECKING:
    ExceptionTypes = Sequence[type[BaseException] | str]
    Uses = Sequence["Limit"]
    Wanted = Resources | None
else:
    Uses = list["Limit"]
    ExceptionTypes = tuple[str, ...]  # what __post_init__ makes of it; classes are no data
    Wanted = dict[str, Amount] | list[dict[str, Amount]] | None  # likewise; and what a file has


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """When a failed attempt is tried again: exponential backoff, in seconds."""

    max_attempts: int = 3
    """Failed attempts after which the task is dead, at least 1: no second try."""
    base: float = 1.0
    """Seconds before the second attempt."""
    factor: float = 2.0
    """Each further wait is so many times the one before."""
    max: float = 300.0
    """No wait is longer, jitter aside."""
    jitter: float = 0.25
    """Each wait is moved by up to this share of itself, up or down; 0 to 1."""
    on: ExceptionTypes = ()
    """Exception types, or their names, ``module.Class``, that are worth another attempt, with all that derive from
    them; none: all are."""
    not_on: ExceptionTypes = ()
    """Those that are not, whatever ``on`` says."""
    crash_limit: int = 3
    """Attempts that took down their worker or agent after which the task is dead; never more than ``max_attempts``."""

    def __post_init__(self) -> None:
        """Take exception types by their names.

        Raises:
            BadRequest: One is neither a type nor a name.
        """
        msgspec.structs.force_setattr(self, "on", type_names("on", self.on))
        msgspec.structs.force_setattr(self, "not_on", type_names("not_on", self.not_on))

    def to_wire(self) -> task.Retry:
        """Return it as the server is told, in milliseconds.

        Raises:
            BadRequest: A wait is no finite number of seconds.
        """
        return task.Retry(
            max_attempts=self.max_attempts,
            base_ms=_milliseconds("retry base", self.base),
            factor=float(self.factor),
            max_ms=_milliseconds("retry max", self.max),
            jitter=float(self.jitter),
            on=[str(name) for name in self.on],
            not_on=[str(name) for name in self.not_on],
            crash_limit=self.crash_limit,
        )


UniqueMode: TypeAlias = Literal["", "queued", "running"]
"""When another task of the same work is one too many; seconds are another way to say it."""


class Limit(msgspec.Struct, frozen=True):
    """A limit that a task names: it holds a place of it, of ``key`` by itself, from its turn until its attempt ends.

    How many there are is said here, where the task is declared, or by `taskd limit set NAME --concurrency N`, which
    counts for more; one that nobody has set holds nothing back.
    """

    name: str = ""
    """Empty: that of the task."""
    key: str = ""
    """Of each key it counts by itself. Where a task is declared it may name arguments: ``"customer:{customer_id}"``."""
    weight: int = 1
    """Places that the task takes, and tokens of its rate."""
    concurrency: int = 0
    """So many places there are, of each key; 0: that is not said here."""
    rate: str = ""
    """So many tasks may begin in a time, of each key: ``"10/m"``."""
    burst: int = 0
    """So many may begin at once after a lull; 0: what the rate lets begin in a tenth of a second, and one at least."""


class Placing(TypedDict, total=False):
    """Where a task may run, and what it holds there; see ``docs/placement.md``."""

    resources: Wanted
    """What an attempt needs and holds; None: a slot of an agent, as everything has."""
    labels: Labels
    """Agents that it may run on: ``{"zone": "a"}``, or rules as ``["cores>=8", "spot absent"]``. All must hold."""
    prefers: Prefers
    """Rules by weight, -100 to 100: agents that are better, if there is a choice."""
    version: str
    """Only agents of this version of the code, as their App or ``--code-version`` says; empty: any."""
    exclusive_host: bool
    """Nothing else runs on its agent meanwhile."""
    apart: str
    """No two tasks that say the same here run on one agent."""
    spread: str
    """A label over whose values its tasks are spread evenly, as far as there is a choice."""
    pack: bool
    """Rather the fullest agent that has room than the emptiest."""
    limits: Sequence[Limit]
    """Limits that it holds a place of, at most 4: ``[Limit("stripe", key=customer)]``."""
    fifo_key: str
    """Tasks of one key run one after another, in the order of submits, each when the one before has ended for good."""
    min_life: float
    """Seconds that its agent's machine must have left, as ``--life`` says."""
    sticky: str
    """Among agents that have room, rather the one where the last task of the same word ran."""
    preemptible: bool
    """An attempt may be stopped for a task of a higher priority, uncharged; the next finds its heartbeat's details."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What a submit says of its task beside its arguments."""

    queue: str = DEFAULT_QUEUE
    priority: int = 0
    """-100 to 100, higher runs sooner."""
    delay: float = 0.0
    """Seconds: not before."""
    at: dt.datetime | None = None
    """Not before this instant, which has a zone; in place of ``delay``. One that is past is now."""
    retry: Retry | None = None
    """None: the server's default."""
    key: str = ""
    """Idempotency key: a second submit with it finds the first one's task. Empty: none."""
    timeout: float = 0.0
    """Seconds that one attempt may run before it is killed; 0: any."""
    soft_timeout: float = 0.0
    """Seconds after which an attempt is told to end, see ``current().cancelled``; 0: never."""
    ttl: float = 0.0
    """Seconds within which it must start, or is ``expired``; 0: any."""
    deadline: float = 0.0
    """Seconds within which it must have ended, with all its attempts; 0: any."""
    exclusive: bool = False
    """No two attempts of it run at a time, even when its agent is cut off: that kills it then."""
    heartbeat: float = 0.0
    """Seconds that may pass between two ``current().heartbeat()``, or it has stalled; 0: any."""
    at_most_once: bool = False
    """What may have started is never run again."""
    unique: UniqueMode | float = ""
    """There is one task at a time of the same name and arguments: ``queued``, until its first attempt begins;
    ``running``, until it has ended; or for so many seconds after its submit. Empty: there may be any number."""
    unique_key: str = ""
    """What tells the work apart beside the name; empty: the arguments do."""
    fair_key: str = ""
    """The tasks of a queue that have one share it, key by key, however many each has: a tenant, a user. Empty: none."""
    replace: bool = False
    """A first one that waits is cancelled for the new one; False: the new submit finds the first one's task."""
    resources: Wanted = None
    """This and the following are as in ``Placing``."""
    labels: Labels = []
    prefers: Prefers = []
    version: str = ""
    exclusive_host: bool = False
    apart: str = ""
    spread: str = ""
    pack: bool = False
    min_life: float = 0.0
    limits: Uses = []
    fifo_key: str = ""
    sticky: str = ""
    preemptible: bool = False

    def __post_init__(self) -> None:
        """Take resources, and rules in tuples, as data."""
        for name in ("resources", "labels", "prefers", "limits"):
            value: object = getattr(self, name)
            if isinstance(value, Resources):
                value = [dict(each) for each in value.alternatives]
            elif isinstance(value, Mapping):
                value = dict(value)
            elif isinstance(value, str):
                value = [value]
            elif isinstance(value, Sequence | AbstractSet):
                value = list(value)
            msgspec.structs.force_setattr(self, name, value)

    def with_changes(self, changes: Mapping[str, object]) -> "Options":
        """Return a copy; what is None stays."""
        return msgspec.structs.replace(self, **{name: value for name, value in changes.items() if value is not None})

    def template(self, name: str, *, is_async: bool = False) -> TaskSpec:
        """Return a spec of that task name with these options, whose other fields are to be replaced.

        Args:
            name: Of the task.
            is_async: It is a coroutine function: one that waits takes no CPU, so that none is asked for by default.

        Raises:
            BadRequest: A field is of the wrong type or out of its range; it is named.
        """
        if not isinstance(self.retry, Retry | None):
            raise BadRequest(f"retry of task {name!r} is no Retry: write it as retry=Retry(max_attempts=3)")
        if self.at is not None and not isinstance(self.at, dt.datetime):
            raise BadRequest(f"at of task {name!r} is {self.at!r:.40}, and no datetime")
        if isinstance(self.unique, str) and self.unique not in get_args(UniqueMode):
            raise BadRequest(f'unique of task {name!r} is {self.unique[:40]!r}; it is "queued", "running" or seconds')
        try:
            msgspec.convert(msgspec.to_builtins(self), type=Options)
        except (msgspec.ValidationError, TypeError) as error:  # the second: of a type that is no data at all
            raise BadRequest(f"options of task {name!r}: {str(error).replace('$.', '')}") from None
        self._check_at(name)
        retry = None if self.retry is None else self.retry.to_wire()
        rules = Rules(
            timeout_ms=_milliseconds("timeout", self.timeout),
            soft_timeout_ms=_milliseconds("soft_timeout", self.soft_timeout),
            ttl_ms=_milliseconds("ttl", self.ttl),
            deadline_ms=_milliseconds("deadline", self.deadline),
            exclusive=self.exclusive,
            heartbeat_ms=_milliseconds("heartbeat", self.heartbeat),
            at_most_once=self.at_most_once,
            unique=self._unique(),
            fair_key=self.fair_key,
            where=self.where(is_async=is_async),
            limits=[task.Use(each.name or name, each.key, each.weight) for each in self.limits],
            fifo_key=self.fifo_key,
            preemptible=self.preemptible,
            sticky=self.sticky,
        )
        template = TaskSpec(
            id=_SOME_ID,
            name=name,
            queue=self.queue,
            priority=self.priority,
            delay_ms=_milliseconds("delay", self.delay),
            retry=retry,
            key=self.key,
            given=None if rules == NO_RULES else rules,
        )
        check_spec(template, payload_bytes_max=0)
        return template

    def where(self, *, is_async: bool = False) -> Where | None:
        """Return which agents may run it, and what it holds there, as the server is told; None: nothing is said.

        Raises:
            BadRequest: An amount or a rule is none.
        """
        labels = read_labels(self.labels)
        if self.version:
            labels = sorted([*labels, LabelRule("taskd.version", "=", [self.version])], key=lambda rule: rule.label)
        where = Where(
            requests=read_requests(self.resources, cpu_default=0 if is_async else ONE),
            labels=labels,
            prefers=read_prefers(self.prefers),
            life_ms=_milliseconds("min_life", self.min_life),
            exclusive_host=self.exclusive_host,
            apart=self.apart,
            spread=self.spread,
            pack=self.pack,
        )
        return None if where == Where() else where

    def delay_ms_from(self, now_ms: int, name: str) -> int:
        """Return how long a task of that name waits for ``at``, which is given, if it is submitted at an instant, UTC.

        Raises:
            BadRequest: It is over ten years.
        """
        assert self.at is not None
        delay_ms = max(0, round((self.at - _EPOCH) / dt.timedelta(milliseconds=1)) - now_ms)
        if delay_ms > DELAY_MS_MAX:
            raise BadRequest(f"at of task {name!r} is {self.at.isoformat()}, over ten years from now")
        return delay_ms

    def _check_at(self, name: str) -> None:
        if self.at is None:
            return
        if self.at.utcoffset() is None:
            raise BadRequest(
                f"at of task {name!r} is {self.at.isoformat()}, which has no zone: say whose clock it is by, as in"
                ' datetime(…, tzinfo=ZoneInfo("Europe/Oslo"))'
            )
        if self.delay:
            raise BadRequest(f"at and delay of task {name!r} both say when it may begin: give one of them")

    def _unique(self) -> Unique | None:
        if self.unique == "":
            if self.unique_key or self.replace:
                raise BadRequest('unique_key and replace say how unique is meant: give unique="queued", for one, too')
            return None
        if isinstance(self.unique, str):
            return Unique(self.unique, 0, self.unique_key, self.replace)
        return Unique(WINDOW, _milliseconds("unique", self.unique), self.unique_key, self.replace)


def _milliseconds(what: str, seconds: float) -> int:
    if not math.isfinite(seconds):
        raise BadRequest(f"{what} of {seconds} seconds is out of range; it goes from 0 to ten years")
    return max(1, round(seconds * 1000)) if seconds > 0 else round(seconds * 1000)  # 0 says that there is none
