"""Tasks: a user's function, and the ways to have it called by an agent."""

import datetime as dt
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, Generic, ParamSpec, Protocol, TypeAlias, TypeVar, Unpack, cast

from msgspec import structs

from taskd.client import operations
from taskd.client.batching import Batching, refuse_alone
from taskd.client.binding import Binder
from taskd.client.client import CHUNK_BYTES, CHUNK_TASKS, Client
from taskd.client.handle import Batch, TaskHandle
from taskd.client.limits import Keys, keys_of, refuse_declaring
from taskd.client.middleware import Chain, Headers, Submission, TaskFunction
from taskd.client.misfits import log_once, texts_of
from taskd.client.nodes import Nodes
from taskd.client.options import Options, Placing, Retry, UniqueMode
from taskd.client.trace import make_traceparents
from taskd.client.waiting import Steps, arun, run
from taskd_protocol.errors import BadRequest
from taskd_protocol.ids import TaskId, task_id_unix_ms
from taskd_protocol.messages import Accepted
from taskd_protocol.task import NO_RULES, TaskSpec, Use

P = ParamSpec("P")
R = TypeVar("R")

_Packed: TypeAlias = tuple[list[bytes], list[Headers], list[list[Use]]]
"""Payloads, and for each its headers, and what it uses of limits; none at all where no middleware, no key, is."""


class Submitter(Generic[P, R]):
    """Submits calls of one function under certain options.

    Attributes:
        name: Of the task, as agents know it.
        binder: Of its function.
        is_async: That is an ``async def``.
        keys: Limits whose keys are made of a call's arguments; None: there are none.
        batching: How many the function is given in one call; None: one.
    """

    def __init__(
        self,
        *,
        name: str,
        binder: Binder,
        options: Options,
        client: Callable[[], Client],
        timeout_s: float,
        middleware: Chain,
        is_async: bool,
        keys: Keys | None = None,
        batching: Batching | None = None,
    ) -> None:
        """Prepare to submit.

        Args:
            name: Of the task.
            binder: Of its function.
            options: For each submit.
            client: Gives the client of now; connecting waits for the first submit.
            timeout_s: How long a submit may take.
            middleware: Of the App.
            is_async: The function is an ``async def``.
            keys: Limits whose keys are made of a call's arguments; None: there are none.
            batching: How many the function is given in one call; None: one.

        Raises:
            BadRequest: An option is out of its range.
        """
        self.keys = keys
        self.batching = batching
        self.name = name
        self.binder = binder
        self._options = options
        self._client = client
        self._timeout_s = timeout_s
        self._middleware = middleware
        self.is_async = is_async
        self._template = options.template(name, is_async=is_async)

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> TaskHandle[R]:
        """Have an agent call the function; return once that is durable on the server.

        A call whose answer was lost with the connection is sent again under the same id: it makes no second task.

        Raises:
            TypeError: The function does not take these arguments.
            PayloadUnpackable: An argument is no data that can travel; it is named.
            PayloadTooLarge: All arguments together are over the server's limit.
            TaskdError: The server cannot be reached, or refuses.
        """
        return run(self._submit(args, kwargs))

    async def asubmit(self, *args: P.args, **kwargs: P.kwargs) -> TaskHandle[R]:
        """Have an agent call the function, on asyncio or trio; see ``submit``."""
        return await arun(self._submit(args, kwargs))

    def map(self, first: Iterable[object], *more: Iterable[object]) -> list[TaskHandle[R]]:
        """Have the function called once for each item; return once all calls are durable on the server.

        Like the built-in ``map``: with several iterables the function gets one item of each, and the shortest ends
        it. It is sent in pieces, each accepted or refused as a whole: after an error those before it are accepted.

        Raises:
            TypeError: The function does not take so many arguments.
            TaskdError: As of ``submit``.
        """
        return run(self._map((first, *more)))

    async def amap(self, first: Iterable[object], *more: Iterable[object]) -> list[TaskHandle[R]]:
        """Have the function called once for each item, on asyncio or trio; see ``map``."""
        return await arun(self._map((first, *more)))

    @property
    def node(self) -> Nodes[R]:
        """Writes calls into the workflow whose block this is: ``task.node(1, other_node)``, ``task.node.map(items)``.

        Options that were said of the task count for its nodes; ``key`` and ``unique`` cannot.
        """
        return Nodes(self)

    def options(
        self,
        *,
        priority: int | None = None,
        queue: str | None = None,
        key: str | None = None,
        delay: float | None = None,
        at: dt.datetime | None = None,
        retry: Retry | None = None,
        timeout: float | None = None,
        soft_timeout: float | None = None,
        ttl: float | None = None,
        deadline: float | None = None,
        exclusive: bool | None = None,
        heartbeat: float | None = None,
        at_most_once: bool | None = None,
        fair_key: str | None = None,
        unique: UniqueMode | float | None = None,
        unique_key: str | None = None,
        replace: bool | None = None,
        **placing: Unpack[Placing],
    ) -> "Submitter[P, R]":
        """Return the same with other options; what is not given stays.

        Args:
            priority: -100 to 100, higher runs sooner.
            queue: Where it waits; agents may be bound to queues.
            key: Idempotency key: a second submit with it finds the first one's task.
            delay: Seconds: not before.
            at: Not before this instant, a datetime with a zone, in place of ``delay``; one that is past is now. It is
                for a submit, or a ``map``: not for nodes of workflows, what is spawned, or schedules.
            retry: When a failed attempt is tried again.
            timeout: Seconds that one attempt may run before it is killed, and counts as failed; 0: any.
            soft_timeout: Seconds after which an attempt is told to end; 0: never.
            ttl: Seconds within which it must start, or is expired; 0: any.
            deadline: Seconds within which it must have ended, with all its attempts; 0: any.
            exclusive: An agent that is cut off kills it before another could get it.
            heartbeat: Seconds that may pass between two ``current().heartbeat()``; 0: any.
            at_most_once: What may have started is never run again.
            fair_key: Tasks of a queue that have one share it, key by key, however many each has: a tenant, a user.
            unique: One task at a time of the same arguments: ``"queued"`` until its first attempt begins,
                ``"running"`` until it has ended, or for so many seconds after its submit. A second submit
                finds the first one's task, unless it replaces it. ``""``: any number.
            unique_key: What tells the work apart in place of the arguments.
            replace: A first one that waits is cancelled for the new one; one that runs stays.
            placing: Where it may run, and what it holds there: ``resources``, ``labels``, and more; see ``Placing``.

        Raises:
            BadRequest: An option is out of its range; it is named.
        """
        changed = self._options.with_changes(
            {
                "queue": queue,
                "priority": priority,
                "delay": 0.0 if at is not None and delay is None else delay,
                "at": at,
                "retry": retry,
                "key": key,
                "timeout": timeout,
                "soft_timeout": soft_timeout,
                "ttl": ttl,
                "deadline": deadline,
                "exclusive": exclusive,
                "heartbeat": heartbeat,
                "at_most_once": at_most_once,
                "fair_key": fair_key,
                "unique": unique,
                "unique_key": unique_key,
                "replace": replace,
                **placing,
            }
        )
        limits = placing.get("limits")
        if limits is not None:
            refuse_declaring(limits, self.name)
        if self.batching is not None:
            refuse_alone(f" of task {self.name!r}", changed)
        if delay is not None and at is None:
            changed = structs.replace(changed, at=None)
        return Submitter(
            name=self.name,
            binder=self.binder,
            options=changed,
            client=self._client,
            timeout_s=self._timeout_s,
            middleware=self._middleware,
            is_async=self.is_async,
            keys=self.keys if limits is None else None,
            batching=self.batching,
        )

    def node_task(self, args: tuple[object, ...], kwargs: dict[str, object]) -> TaskSpec:
        """Return what a node is to submit for a call; see ``taskd.client.nodes``."""
        self._refuse_at("a node of a workflow, and what a task spawns, take delay=")
        payload, headers = self.binder.pack(args, kwargs), self._headers(args, kwargs)
        spec = self._keyed(structs.replace(self._template, id=b"", payload=payload), args, kwargs)
        return spec if headers is None else structs.replace(spec, given=structs.replace(spec.rules, headers=headers))

    def work(self, args: Sequence[object], kwargs: Mapping[str, object]) -> TaskSpec:
        """Return what a schedule is to submit: a call of the function under these options; it has no id of its own.

        Raises:
            TypeError: The function does not take these arguments.
            PayloadUnpackable: An argument is no data that can travel; it is named.
            BadRequest: The options say at which instant.
        """
        self._refuse_at("a schedule says its own times")
        self.binder.check(args, kwargs)
        return self._keyed(structs.replace(self._template, payload=self.binder.pack(args, kwargs)), args, kwargs)

    def _submit(self, args: tuple[object, ...], kwargs: dict[str, object]) -> Steps[TaskHandle[R]]:
        self.binder.check(args, kwargs)
        payload = self.binder.pack(args, kwargs)
        headers = self._headers(args, kwargs)
        client = self._client()
        session = yield from operations.connect(client.link, self._timeout_s)
        self.binder.check_size(payload, session.limits.payload_bytes_max)
        ids, _ = client.make_ids_nowait(1, 0)
        specs = self._specs(ids, [payload], [headers])
        if self.keys is not None:
            specs = [self._keyed(specs[0], args, kwargs)]
        accepted = yield from operations.submit(client.link, [specs], self._timeout_s)
        existing = accepted[0].existing
        batch = Batch(client.link)
        self._warn(batch, accepted)
        return TaskHandle(existing[0][1], batch) if existing else TaskHandle(ids[0], batch, specs[0].traceparent)

    def _warn(self, batch: Batch, accepted: Sequence[Accepted]) -> None:
        """Keep, and log, what the server said of what no agent could ever run."""
        misfits = [misfit for each in accepted for misfit in each.warnings]
        if misfits:
            batch.warnings += dict.fromkeys(texts_of(misfits, [self.name]))
            log_once(batch.warnings)

    def _map(self, columns: tuple[Iterable[object], ...]) -> Steps[list[TaskHandle[R]]]:
        if self._options.key:
            raise BadRequest("a key names one task: call options(key=…).submit() for each instead of map()")
        if self._options.unique_key:
            raise BadRequest("a unique_key is the same for all items: call options(unique_key=…).submit() for each")
        self.binder.check(columns, {})
        client = self._client()
        session = yield from operations.connect(client.link, self._timeout_s)
        handles: list[TaskHandle[R]] = []
        batch = Batch(client.link, handles)
        tasks_max = min(CHUNK_TASKS, session.limits.submit_tasks_max)
        packed = self._pack_in_chunks(columns, tasks_max, session.limits.payload_bytes_max)
        starts: list[int] = []
        chunks = self._chunks(packed, client, batch, handles, starts)
        accepted = yield from operations.submit(client.link, chunks, self._timeout_s)
        for start, each in zip(starts, accepted, strict=True):
            for index, task_id in each.existing:
                handles[start + index] = TaskHandle(task_id, batch)
        self._warn(batch, accepted)
        return handles

    def _pack_in_chunks(
        self, columns: tuple[Iterable[object], ...], tasks_max: int, bytes_max: int
    ) -> Iterator[_Packed]:
        payloads: list[bytes] = []
        headers: list[Headers] = []
        uses: list[list[Use]] = []
        size = 0
        pack, no_names = self.binder.pack, dict[str, object]()
        with_headers = bool(self._middleware.submit)
        for args in zip(*columns, strict=False):
            payload = pack(args, no_names)
            payloads.append(payload)
            if with_headers:
                headers.append(self._headers(args, no_names))
            if self.keys is not None:
                uses.append(self.keys.uses(args, no_names))
            size += len(payload)
            if len(payloads) >= tasks_max or size >= CHUNK_BYTES:
                self.binder.check_size(max(payloads, key=len), bytes_max)
                yield payloads, headers, uses
                payloads, headers, uses, size = [], [], [], 0
        if payloads:
            self.binder.check_size(max(payloads, key=len), bytes_max)
            yield payloads, headers, uses

    def _chunks(
        self,
        packed: Iterable[_Packed],
        client: Client,
        batch: Batch,
        handles: list[TaskHandle[R]],
        starts: list[int],
    ) -> Iterator[list[TaskSpec]]:
        last_ms = 0
        for payloads, headers, uses in packed:
            # the order of the ids is the order of the calls, so each chunk is of a later millisecond
            ids, last_ms = client.make_ids_nowait(len(payloads), last_ms + 1)
            starts.append(len(handles))
            specs = self._specs(ids, payloads, headers)
            handles.extend([TaskHandle(spec.id, batch, spec.traceparent) for spec in specs])
            yield (
                [
                    structs.replace(spec, given=structs.replace(spec.rules, limits=each))
                    for spec, each in zip(specs, uses, strict=True)
                ]
                if uses
                else specs
            )

    def _refuse_at(self, instead: str) -> None:
        if self._options.at is not None:
            raise BadRequest(f"at of task {self.name!r} is for a submit: {instead}")

    def _keyed(self, spec: TaskSpec, args: Sequence[object], kwargs: Mapping[str, object]) -> TaskSpec:
        """Return a spec with the keys of its limits that are made of the call's arguments."""
        if self.keys is None:
            return spec
        return structs.replace(spec, given=structs.replace(spec.rules, limits=self.keys.uses(args, kwargs)))

    def _headers(self, args: tuple[object, ...], kwargs: dict[str, object]) -> Headers:
        """Ask the App's middleware what is to travel with a call."""
        if not self._middleware.submit:
            return None
        return self._middleware.headers(Submission(name=self.name, args=args, kwargs=kwargs, options=self._options))

    def _specs(self, ids: list[TaskId], payloads: list[bytes], headers: list[Headers]) -> list[TaskSpec]:
        t = self._template
        name, queue, priority, delay_ms, retry, key = t.name, t.queue, t.priority, t.delay_ms, t.retry, t.key
        given = t.given
        if self._options.at is not None and ids:
            now_ms = task_id_unix_ms(ids[0])  # made from the server's time
            delay_ms = self._options.delay_ms_from(now_ms, name)
            if delay_ms:
                given = structs.replace(given or NO_RULES, due_ms=now_ms + delay_ms)
        specs = [
            TaskSpec(task_id, name, payload, queue, priority, delay_ms, retry, key, trace, given)
            for task_id, payload, trace in zip(ids, payloads, make_traceparents(ids), strict=True)
        ]
        if any(headers):
            specs = [
                spec if each is None else structs.replace(spec, given=structs.replace(spec.rules, headers=each))
                for spec, each in zip(specs, headers, strict=True)
            ]
        return specs


class AnyTask(Protocol):
    """A declared task, as those see it who do not know its function's types."""

    name: str
    is_async: bool
    function: TaskFunction
    batching: Batching | None

    def for_worker(self) -> TaskFunction:
        """Return what a worker calls: the function, with the App's middleware around it."""
        ...


class Task(Submitter[P, R]):
    """A function that was declared as a task. Calling it is a plain call, here and now.

    Attributes:
        function: The user's own, for workers.
    """

    IS_ASYNC: ClassVar[bool] = False

    def __init__(
        self,
        function: Callable[P, object],
        *,
        name: str,
        options: Options,
        client: Callable[[], Client],
        timeout_s: float,
        middleware: Chain,
        batching: Batching | None = None,
    ) -> None:
        binder = Binder(function, name)
        super().__init__(
            name=name,
            binder=binder,
            options=options,
            client=client,
            timeout_s=timeout_s,
            middleware=middleware,
            is_async=self.IS_ASYNC,
            keys=keys_of(options, binder, name),
            batching=batching,
        )
        self.function = cast("TaskFunction", function)
        self.__module__ = function.__module__
        self.__name__ = getattr(function, "__name__", name)
        self.__qualname__ = getattr(function, "__qualname__", self.__name__)
        self.__doc__ = function.__doc__
        self.__wrapped__ = function  # inspect.signature and documentation tools follow it

    def for_worker(self) -> TaskFunction:
        """Return what a worker calls: the function, with the App's middleware around it."""
        if self.batching is not None:
            return self._middleware.around_batch(self.function, is_async=self.is_async)
        return self._middleware.around(self.function, is_async=self.is_async)

    def __reduce__(self) -> str:
        """Be pickled as functions are, by name: a task is its module's, and not copied."""
        return self.__qualname__

    def __repr__(self) -> str:
        """Show the name."""
        return f"<{type(self).__name__} {self.name}>"


class SyncTask(Task[P, R]):
    """A task that is a plain function."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function, here and now."""
        return cast("R", self.function(*args, **kwargs))


class AsyncTask(Task[P, R]):
    """A task that is an ``async def``."""

    IS_ASYNC = True

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function, here and now; await what it returns."""
        return await cast("Coroutine[object, object, R]", self.function(*args, **kwargs))
