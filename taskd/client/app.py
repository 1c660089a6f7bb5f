"""The App: where a program declares its tasks, and through which it submits them."""

import inspect
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, ParamSpec, TypeVar, Unpack, cast, overload

from taskd.client.batch_task import AsyncBatchTask, BatchDecorator, BatchTask
from taskd.client.batching import WAIT_S, Batching, check_takes_list, read_batching
from taskd.client.client import TIMEOUT_S, Client
from taskd.client.handle import Batch, TaskHandle
from taskd.client.happening import Event, events_of, wanted_events
from taskd.client.limits import UNBOUND, Bound, check_agreed, limits_said
from taskd.client.middleware import Chain, Middleware
from taskd.client.naming import task_name
from taskd.client.options import Options, Placing, Retry, UniqueMode
from taskd.client.schedule import Declared, Schedule, ScheduleHandle, ScheduleRules, declared, keep, written
from taskd.client.task import AnyTask, AsyncTask, Submitter, SyncTask, Task
from taskd.client.timing import When
from taskd.client.waiting import arun, run
from taskd.client.workflow import Policy, Workflow
from taskd_protocol.errors import BadRequest
from taskd_protocol.ids import parse_task_id
from taskd_protocol.task import DEFAULT_QUEUE, check_name

if TYPE_CHECKING:
    from taskd.client.runs import WorkflowRun
    from taskd_protocol.limiting import Limit as WireLimit
    from taskd_protocol.schedule import Schedule as WireSchedule

P = ParamSpec("P")
R = TypeVar("R")


class App:
    """A program's tasks, and its way to the server.

    Making one, and declaring tasks, touches neither network nor configuration: an agent's workers import
    the same module. The first submit finds the server and connects.

    Attributes:
        tasks: The declared ones by name.
        version: Of the program; empty: none was said.
        schedules: What each of them says of schedules, by the task's name.
        limits: The same of limits.
        written: The same of workflows: the module of the function that writes one, and what tells its schedules.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        name: str = "",
        version: str = "",
        submit_timeout: float = TIMEOUT_S,
        middleware: Iterable[Middleware] = (),
    ) -> None:
        """Make an App.

        Args:
            url: ``taskd://TOKEN@HOST:PORT?ca=FILE``; None: ``TASKD_URL``, or the profile that
                `taskd server` or `taskd dev` wrote.
            name: A label for people who look at the server.
            version: Of the program, which agents that load it have as label ``taskd.version``; a task with that
                ``version=`` runs on no other.
            submit_timeout: Seconds that a submit may take, with all reconnecting.
            middleware: What to do around every submit and every attempt; see ``App.middleware``.
        """
        self.tasks: dict[str, AnyTask] = {}
        self.schedules: dict[str, list[WireSchedule]] = {}
        self.limits: dict[str, list[WireLimit]] = {}
        self.written: list[tuple[str, Callable[[], list[WireSchedule]]]] = []
        self.version = version
        self._url = url
        self._name = name
        self._submit_timeout_s = submit_timeout
        self._middleware = Chain()
        self.middleware(*middleware)

    @property
    def client(self) -> Client:
        """The client that all tasks of this App share; made by the first who asks.

        Raises:
            ConfigInvalid: No server is known here.
        """
        made = self.__dict__.get("_client")
        if made is None:
            from taskd.client.profile import resolve  # noqa: PLC0415 - a worker that submits nothing does without

            # of two threads that get here one wins; what the other made has neither thread nor connection
            made = self.__dict__.setdefault("_client", Client(resolve(self._url), name=self._name))
        assert isinstance(made, Client)
        return made

    @overload
    def task(self, function: Callable[P, Coroutine[object, object, R]], /) -> AsyncTask[P, R]: ...  # type: ignore[overload-overlap]  # a coroutine is what the second would return
    @overload
    def task(self, function: Callable[P, R], /) -> SyncTask[P, R]: ...
    @overload
    def task(
        self,
        function: None = None,
        /,
        *,
        name: str | None = None,
        queue: str = DEFAULT_QUEUE,
        priority: int = 0,
        delay: float = 0.0,
        retry: Retry | None = None,
        timeout: float = 0.0,
        soft_timeout: float = 0.0,
        ttl: float = 0.0,
        deadline: float = 0.0,
        exclusive: bool = False,
        heartbeat: float = 0.0,
        at_most_once: bool = False,
        fair_key: str = "",
        unique: UniqueMode | float = "",
        unique_key: str = "",
        replace: bool = False,
        schedule: Declared = None,
        concurrency: int = 0,
        rate: str = "",
        burst: int = 0,
        **placing: Unpack[Placing],
    ) -> "TaskDecorator": ...
    @overload
    def task(
        self,
        function: None = None,
        /,
        *,
        batch: int,
        wait: float = WAIT_S,
        name: str | None = None,
        queue: str = DEFAULT_QUEUE,
        priority: int = 0,
        delay: float = 0.0,
        retry: Retry | None = None,
        timeout: float = 0.0,
        soft_timeout: float = 0.0,
        ttl: float = 0.0,
        deadline: float = 0.0,
        heartbeat: float = 0.0,
        unique: UniqueMode | float = "",
        unique_key: str = "",
        replace: bool = False,
        schedule: Declared = None,
        concurrency: int = 0,
        rate: str = "",
        burst: int = 0,
        **placing: Unpack[Placing],
    ) -> BatchDecorator: ...
    def task(
        self,
        function: Callable[P, object] | None = None,
        /,
        *,
        name: str | None = None,
        queue: str = DEFAULT_QUEUE,
        priority: int = 0,
        delay: float = 0.0,
        retry: Retry | None = None,
        timeout: float = 0.0,
        soft_timeout: float = 0.0,
        ttl: float = 0.0,
        deadline: float = 0.0,
        exclusive: bool = False,
        heartbeat: float = 0.0,
        at_most_once: bool = False,
        fair_key: str = "",
        unique: UniqueMode | float = "",
        unique_key: str = "",
        replace: bool = False,
        schedule: Declared = None,
        concurrency: int = 0,
        rate: str = "",
        burst: int = 0,
        batch: int = 0,
        wait: float | None = None,
        **placing: Unpack[Placing],
    ) -> object:
        """Declare a function as a task, with ``@app.task`` or ``@app.task(queue="images")``.

        Args:
            function: To be called by agents; they import its module.
            name: Of the task; None: ``module.function``.
            queue: Where its calls wait.
            priority: -100 to 100, higher runs sooner.
            delay: Seconds: not before.
            retry: When a failed attempt is tried again; None: the server's default.
            timeout: Seconds that one attempt may run before it is killed, and counts as failed; 0: any.
            soft_timeout: Seconds after which an attempt is told to end, see ``current().cancelled``; 0: never.
            ttl: Seconds within which it must start, or is expired; 0: any.
            deadline: Seconds within which it must have ended, with all its attempts; 0: any.
            exclusive: An agent that is cut off from the server kills it before another could get it.
            heartbeat: Seconds that may pass between two ``current().heartbeat()``; 0: any.
            at_most_once: What may have started is never run again, whatever ``retry`` says: a crash, a loss or a
                failure ends the task, with the code ``task.maybe_ran``.
            fair_key: Tasks of a queue that have one share it, key by key; mostly said of a submit.
            unique: One task at a time of the same arguments: ``"queued"``, ``"running"``, or for so many seconds.
            unique_key: What tells the work apart in place of the arguments.
            replace: A first one that waits is cancelled for the new one.
            schedule: When the server is to submit it by itself: ``Cron("0 3 * * *", tz="Europe/Oslo")``,
                ``Every(60)``, a ``Schedule`` with arguments and rules, or several. It is kept by the server when an
                agent, or `taskd schedule sync`, has loaded the module.
            concurrency: So many attempts of it may run at a time, on all agents; 0: any number. As the limit
                ``task:NAME``, which agents and `taskd limit sync` make known; what a person says of it counts for more.
            rate: So many may begin in a time: ``"100/s"``, ``"10/m"``; empty: any number.
            burst: So many may begin at once after a lull; 0: what the rate lets begin in a tenth of a second.
            batch: Up to so many, 1 to 500, are given to the function in one call: it takes a list of what was
                submitted, and returns a list of as many results. An exception in it fails that task alone; one that is
                raised, all. 0: each in a call of its own.
            wait: Seconds that the first of a batch waits for others; None: 0.05. There is none without a batch.
            placing: Where it may run, and what it holds there: ``resources=Resources(cpu=2, memory="1GiB")``,
                ``labels={"zone": "a"}``, and more; see ``Placing``.

        Raises:
            BadRequest: Another task has that name, an option is out of its range, or the function is
                defined in a ``__main__`` that no agent can import.
        """
        options = Options(
            queue=queue,
            priority=priority,
            delay=delay,
            retry=retry,
            timeout=timeout,
            soft_timeout=soft_timeout,
            ttl=ttl,
            deadline=deadline,
            exclusive=exclusive,
            heartbeat=heartbeat,
            at_most_once=at_most_once,
            fair_key=fair_key,
            unique=unique,
            unique_key=unique_key,
            replace=replace,
            **placing,
        )
        batching = read_batching(name or "", batch, wait, options)
        bound = Bound(concurrency, rate, burst)
        if batching is not None:
            return BatchDecorator(self, name, options, schedule, batching, bound=bound)
        decorator = TaskDecorator(self, name, options, schedule, bound)
        return decorator if function is None else decorator(function)

    def declare(
        self,
        function: Callable[P, object],
        name: str | None,
        options: Options,
        schedules: Declared = None,
        batching: Batching | None = None,
        *,
        bound: Bound = UNBOUND,
    ) -> Task[P, object]:
        """Enter a function as a task; what ``task`` stands on."""
        chosen = task_name(function) if name is None else name
        check_name("task name", chosen)
        known = self.tasks.get(chosen)
        if known is not None and _place(known.function) != _place(function):
            raise BadRequest(
                f"two tasks are named {chosen!r}, at {_place(known.function)} and {_place(function)}:"
                " rename one, or give it a name="
            )
        if batching is not None:
            check_takes_list(chosen, function)
        kind = cast("type[Task[P, object]]", _KINDS[batching is not None, inspect.iscoroutinefunction(function)])
        task = kind(
            function,
            name=chosen,
            options=options,
            client=lambda: self.client,
            timeout_s=self._submit_timeout_s,
            middleware=self._middleware,
            batching=batching,
        )
        made = declared(schedules, task)
        others = {each.name for known, several in self.schedules.items() if known != chosen for each in several}
        twice = next((each.name for each in made if each.name in others), None)
        if twice is not None:
            raise BadRequest(f"two schedules are named {twice!r}: give one a name= of its own")
        limits = limits_said(chosen, options, bound)
        check_agreed(limits, [each for known, several in self.limits.items() if known != chosen for each in several])
        self.limits[chosen] = limits
        self.schedules[chosen] = made
        self.tasks[chosen] = task
        return task

    def scheduled(self, schedule: Declared) -> Callable[[Callable[P, Workflow]], Callable[P, Workflow]]:
        """Have the server start the workflow that a function writes, again and again.

        The function stays as it is: ``nightly().submit()`` starts one by hand. Agents, and `taskd schedule sync`, call
        it when they have loaded its module, and have the server keep what it returns.

        Args:
            schedule: ``Cron("0 3 * * *", tz="Europe/Oslo")``, ``Every(60)``, a ``Schedule`` with rules, whose
                arguments are the function's, or several. The name is the workflow's unless it says another.
        """

        def remember(write: Callable[P, Workflow]) -> Callable[P, Workflow]:
            self.written.append((write.__module__, partial(written, schedule, write)))
            return write

        return remember

    def schedule(
        self,
        name: str,
        when: When,
        task: Submitter[P, R] | Workflow,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] = MappingProxyType({}),
        **rules: Unpack[ScheduleRules],
    ) -> ScheduleHandle:
        """Have the server submit a task, or start a workflow, again and again; return once that is durable.

        Called again under the same name it changes the schedule; one that is the same stays as it is.

        Args:
            name: Of the schedule.
            when: ``Cron``, ``Every`` or ``At``.
            task: A declared task, or one with other ``options``; or a workflow, as it is written now.
            args: What the task is called with.
            kwargs: The same, by name.
            rules: What it does about overlap, missed times and failures; see ``Schedule``.

        Raises:
            BadRequest: A field is out of its range, or the server cannot read a cron line or knows no such zone.
            ScheduleExists: The name is that of a schedule that is defined in code.
            TaskdError: The server cannot be reached, or refuses.
        """
        check_name("schedule name", name)
        made = Schedule(when=when, name=name, args=args, kwargs=kwargs, **rules).to_wire(task)
        return run(keep(self.client, made, self._submit_timeout_s))

    async def aschedule(
        self,
        name: str,
        when: When,
        task: Submitter[P, R] | Workflow,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] = MappingProxyType({}),
        **rules: Unpack[ScheduleRules],
    ) -> ScheduleHandle:
        """Have the server submit a task again and again, on asyncio or trio; see ``schedule``."""
        check_name("schedule name", name)
        made = Schedule(when=when, name=name, args=args, kwargs=kwargs, **rules).to_wire(task)
        return await arun(keep(self.client, made, self._submit_timeout_s))

    def schedule_handle(self, name: str) -> ScheduleHandle:
        """Return a handle to a schedule, by whomever it was made."""
        return ScheduleHandle(self.client, name, self._submit_timeout_s)

    def middleware(self, *middleware: Middleware) -> None:
        """Do this around every submit and every attempt of this App's tasks, inside what was given before.

        Give it where the tasks are declared, so that agents know it too: workers ask when they have imported the
        module.

        Args:
            middleware: Objects with ``submitting(submission)``, which may add headers to what is submitted;
                with ``attempting(context)``, a generator that yields once, where the task runs; or with both.

        Raises:
            BadRequest: One has neither.
        """
        for one in middleware:
            self._middleware.add(one)

    def handle(self, task_id: str) -> TaskHandle[object]:
        """Return a handle to a task that was submitted before, by whomever.

        Raises:
            BadRequest: That is no task id.
        """
        return TaskHandle(parse_task_id(task_id), Batch(self.client.link))

    def events(
        self,
        topics: Iterable[str] = (),
        *,
        queue: str = "",
        name: str = "",
        tasks: Iterable[str] = (),
        workflow: str = "",
        after: int | None = None,
    ) -> Iterator[Event]:
        """Read what happens as it happens, over lost connections and restarts of the server; it does not end by itself.

        Args:
            topics: How the words of wanted events begin: ``"task.dead"``, ``"agent."``; empty: all.
            queue: Those of this queue.
            name: Those of tasks of this name, or, with ``*`` at its end, of all that begin so.
            tasks: Ids: those of these tasks.
            workflow: An id: those of this workflow and its tasks.
            after: ``number`` of the last event that was seen; 0: from the oldest that is kept; None: from now on.

        Raises:
            TaskdError: It is refused, or the server is not there at the first connection.
        """
        wanted = wanted_events(topics=topics, queue=queue, name=name, tasks=tasks, workflow=workflow, after=after)
        for page in self.client.events(wanted):
            yield from events_of(page)

    async def aevents(
        self,
        topics: Iterable[str] = (),
        *,
        queue: str = "",
        name: str = "",
        tasks: Iterable[str] = (),
        workflow: str = "",
        after: int | None = None,
    ) -> AsyncGenerator[Event]:
        """Read what happens; see ``events``."""
        wanted = wanted_events(topics=topics, queue=queue, name=name, tasks=tasks, workflow=workflow, after=after)
        async with aclosing(self.client.aevents(wanted)) as pages:
            async for page in pages:
                for event in events_of(page):
                    yield event

    def workflow(self, name: str, *, policy: Policy = "finish_what_you_can") -> Workflow:
        """Begin a workflow: within its ``with`` block, ``task.node(…)`` writes nodes; then ``submit`` it.

        Args:
            name: For people; several may have the same.
            policy: What a failed node does to those that do not wait for it: nothing, or ``fail_fast``, which ends all.

        Raises:
            BadRequest: The name or the policy is none.
        """
        check_name("workflow name", name)
        return Workflow(name, policy=policy, client=lambda: self.client, timeout_s=self._submit_timeout_s)

    def workflow_run(self, workflow_id: str) -> "WorkflowRun":
        """Return a workflow that was submitted before, by whomever.

        Raises:
            BadRequest: That is no workflow's id.
        """
        from taskd.client.runs import WorkflowRun, parse_workflow_id  # noqa: PLC0415 - not for workers that ask none

        return WorkflowRun(parse_workflow_id(workflow_id), self.client.link)

    @contextmanager
    def submitting_to(self, client: Client) -> Iterator[None]:
        """Submit to another client meanwhile; handles from then stay with it."""
        before = self.__dict__.pop("_client", None)
        self.__dict__["_client"] = client
        try:
            yield
        finally:
            del self.__dict__["_client"]
            if before is not None:
                self.__dict__["_client"] = before

    def close(self) -> None:
        """Hang up. Handles stay good: the next use connects anew."""
        made = self.__dict__.get("_client")
        if made is not None:
            made.close()

    async def aclose(self) -> None:
        """Hang up; see ``close``."""
        self.close()


_KINDS: Mapping[tuple[bool, bool], type] = {
    (False, False): SyncTask,
    (False, True): AsyncTask,
    (True, False): BatchTask,
    (True, True): AsyncBatchTask,
}
"""By whether many are given to a function in one call, and whether it is an ``async def``."""


class TaskDecorator:
    """Declares the function that it is put before; made by ``App.task`` with options."""

    def __init__(
        self, app: App, name: str | None, options: Options, schedules: Declared = None, bound: Bound = UNBOUND
    ) -> None:
        self._bound = bound
        self._app = app
        self._name = name
        self._options = options
        self._schedules = schedules

    @overload
    def __call__(self, function: Callable[P, Coroutine[object, object, R]], /) -> AsyncTask[P, R]: ...  # type: ignore[overload-overlap]  # see App.task
    @overload
    def __call__(self, function: Callable[P, R], /) -> SyncTask[P, R]: ...
    def __call__(self, function: Callable[P, object], /) -> object:
        """Declare the function."""
        return self._app.declare(function, self._name, self._options, self._schedules, bound=self._bound)


def _place(function: Callable[P, object]) -> str:
    """Tell where a function is written: the same definition may be run again, by a reload."""
    code = getattr(function, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else repr(function)
