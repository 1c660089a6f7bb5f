"""What a client can ask, each once, for every face: generators that yield where they have to wait.

Invariants:
- An operation that ends without its answer, for whatever reason, gives its requests up.
- Time limits are the caller's: when one passes, the error says what stood in the way.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from taskd.client import diary
from taskd.client.ends import Awaited, Watch
from taskd.client.line import Line
from taskd.client.promise import Following, Looking, Request
from taskd.client.waiting import Pause, Steps, deadline
from taskd_protocol.access_messages import CertRenew, Invite, TokenCreate
from taskd_protocol.connection_messages import Welcome
from taskd_protocol.errors import BadRequest, CannotConnect, ConnectionLost, TaskdError, TimedOut, UnexpectedMessage
from taskd_protocol.event_messages import EventPage
from taskd_protocol.ids import format_task_id
from taskd_protocol.messages import Accepted, LogEntry, Submit, ToPeer, ToServer
from taskd_protocol.task import Outcome, TaskSpec
from taskd_protocol.workflow import Node, WorkflowSpec
from taskd_protocol.workflow_messages import WorkflowAccepted, WorkflowSubmit

if TYPE_CHECKING:
    from taskd.client.session import Session

SUBMITS_UNANSWERED_MAX: Final = 8
"""SUBMITs of one bulk submit under way: covers a slow flush of the server's disk, bounds what a resend repeats."""

WORKFLOW_TRIES: Final = 5
"""To submit a workflow in parts: each is begun only because a server has lost those before, by a restart."""

_NOT_REPEATABLE = (TokenCreate, Invite, CertRenew)
"""Asked twice, these do twice."""

ReplyT = TypeVar("ReplyT", bound=ToPeer)

_UnderWay = tuple[Request, float | None]
"""A SUBMIT, and until when its answer is waited for."""


def connect(link: Line, timeout_s: float | None) -> "Steps[Session]":
    """Return once the server has welcomed us, at once if it has before.

    Raises:
        TaskdError: Why that cannot be: nobody there, the wrong CA, a refused token.
    """
    session = link.session
    if session is None or session.clock_offset_ms is None:
        yield from _ask(link, Request(None), Welcome, timeout_s)
        session = link.session
        if session is None:
            raise ConnectionLost("this client was closed while it connected")
    return session


def call(link: Line, message: ToServer, reply: type[ReplyT], timeout_s: float | None) -> Steps[ReplyT]:
    """Ask anything that is answered by one message; the request id is set on the way."""
    request = Request(message, repeatable=not isinstance(message, _NOT_REPEATABLE))
    return (yield from _ask(link, request, reply, timeout_s))


def submit(link: Line, chunks: Iterable[Sequence[TaskSpec]], timeout_s: float | None) -> Steps[list[Accepted]]:
    """Submit chunk after chunk, each made while those before are under way; return when all are durable.

    Args:
        link: To the server.
        chunks: Each is one SUBMIT, accepted or refused as a whole.
        timeout_s: For each chunk.

    Raises:
        TaskdError: A chunk was refused. Those before it are accepted, of those after it some may be.
    """
    accepted: list[Accepted] = []
    unanswered: deque[_UnderWay] = deque()
    try:
        for specs in chunks:
            if len(unanswered) >= SUBMITS_UNANSWERED_MAX:
                accepted.append((yield from _oldest(link, unanswered, timeout_s)))
            request, until_s = Request(Submit(0, list(specs))), deadline(timeout_s)
            unanswered.append((request, until_s))
            if len(specs) == 1:
                link.ask(request)
                continue
            # Who packs without a break keeps the sending thread from the interpreter: 5 ms at each of its calls.
            if not (yield Pause(link.ask_and_flush(request), until_s)):
                accepted.append((yield from _oldest(link, unanswered, timeout_s)))  # raises, with the reason
        while unanswered:
            accepted.append((yield from _oldest(link, unanswered, timeout_s)))
    finally:
        for request, _ in unanswered:
            link.give_up(request)
    return accepted


def _oldest(link: Line, unanswered: deque[_UnderWay], timeout_s: float | None) -> Steps[Accepted]:
    """Wait for the answer of the SUBMIT that was sent first, and take it out; a refused one stays."""
    request, until_s = unanswered[0]
    assert isinstance(request.message, Submit)
    try:
        accepted = yield from _settle(link, request, until_s, Accepted, timeout_s)
    except TaskdError as why:
        diary.refused(request.message.tasks, why)
        raise
    unanswered.popleft()
    diary.submitted(request.message.tasks)
    return accepted


def submit_workflow(
    link: Line, spec: WorkflowSpec, parts: Sequence[Sequence[Node]], timeout_s: float | None
) -> Steps[None]:
    """Submit a workflow part after part; return when it is durable.

    A server keeps the parts of one that is not whole in memory alone: one that lost them is told all of it again, under
    the same id. One that was whole by then is accepted as it is.

    Args:
        link: To the server.
        spec: The workflow, but for its nodes.
        parts: The nodes, in order.
        timeout_s: For each part.

    Raises:
        TaskdError: It was refused, or why there is no answer.
    """
    for tries_left in range(WORKFLOW_TRIES - 1, -1, -1):
        first = 0
        try:
            for part in parts:
                yield from call(link, WorkflowSubmit(0, spec, first, list(part)), WorkflowAccepted, timeout_s)
                first += len(part)
        except BadRequest:
            if not first or not tries_left:
                raise  # the first part depends on nothing before it
        else:
            return


def end_of(link: Line, task: Awaited, siblings: Sequence[Awaited], timeout_s: float | None) -> Steps[Outcome]:
    """Wait until a task has ended.

    Args:
        link: To the server.
        task: Wait for this one.
        siblings: Ask for these too while asking: whoever wants one of a bulk submit will want the others.
        timeout_s: None: as long as it takes.
    """
    watch = Watch()
    link.watch(siblings, (task,), watch)
    try:
        yield from next_end(link, watch, (task,), timeout_s, deadline(timeout_s))
    finally:
        if task.outcome is None:
            link.unwatch((task,), watch)
    assert task.outcome is not None
    return task.outcome


def ends_of(link: Line, tasks: Sequence[Awaited], timeout_s: float | None) -> Steps[None]:
    """Wait until all these tasks have ended."""
    watch, until_s = Watch(), deadline(timeout_s)
    link.watch((), tasks, watch)
    try:
        for _ in tasks:
            yield from next_end(link, watch, tasks, timeout_s, until_s)
    finally:
        link.unwatch([task for task in tasks if task.outcome is None], watch)


def next_end(
    link: Line, watch: Watch, tasks: Sequence[Awaited], timeout_s: float | None, until_s: float | None
) -> Steps[Awaited]:
    """Take the next task that has ended out of a watch.

    Args:
        link: To the server, for what to say when it takes too long.
        watch: Set up with ``link.watch``.
        tasks: All that it is for, for the same.
        timeout_s: What ``until_s`` was made from, for the same.
        until_s: A time of ``mono_s``; None: no limit.
    """
    while not watch.arrived:
        watch.signal.rearm()
        if watch.arrived:
            break
        if watch.error is not None:
            raise again(watch.error)
        if not (yield Pause(watch.signal, until_s)) and not watch.arrived:
            raise _too_late(link, tasks, timeout_s)
    return watch.arrived.popleft()


def next_page(link: Line, following: Following, timeout_s: float | None) -> Steps[list[LogEntry] | None]:
    """Take the next page of a task's output, and ask for the one after it; None: that was all."""
    until_s = deadline(timeout_s)
    while not following.pages:
        following.signal.rearm()
        if following.pages:
            break
        if following.error is not None:
            raise following.error
        if following.ended:
            return None
        if not (yield Pause(following.signal, until_s)) and not following.pages:
            raise _too_late(link, following, timeout_s)
    page = following.pages.popleft()
    if not following.ended:
        link.take_more(following)
    return page


def next_events(link: Line, looking: Looking, timeout_s: float | None) -> Steps[EventPage]:
    """Take the next page of events, and ask for the one after it."""
    until_s = deadline(timeout_s)
    while not looking.pages:
        looking.signal.rearm()
        if looking.pages:
            break
        if looking.error is not None:
            raise looking.error
        if not (yield Pause(looking.signal, until_s)) and not looking.pages:
            raise _too_late(link, looking, timeout_s)
    page = looking.pages.popleft()
    link.take_more(looking)
    return page


def again(error: TaskdError) -> TaskdError:
    """Make an error that says the same: one exception raised in many places collects all their tracebacks."""
    twin = type(error)(error.message, retry_after_ms=error.retry_after_ms)
    twin.code, twin.retryable = error.code, error.retryable
    return twin


def _ask(link: Line, request: Request, reply: type[ReplyT], timeout_s: float | None) -> Steps[ReplyT]:
    until_s = deadline(timeout_s)
    link.ask(request)
    try:
        return (yield from _settle(link, request, until_s, reply, timeout_s))
    finally:
        if not request.signal.fired:
            link.give_up(request)


def _settle(
    link: Line, request: Request, until_s: float | None, reply: type[ReplyT], timeout_s: float | None
) -> Steps[ReplyT]:
    """Wait for the answer of a request that was asked."""
    if not request.signal.fired and not (yield Pause(request.signal, until_s)):
        raise _too_late(link, request, timeout_s)
    if request.error is not None:
        raise request.error
    if not isinstance(request.reply, reply):
        raise UnexpectedMessage(f"{reply.__name__} was due, {type(request.reply).__name__} came: upgrade taskd here")
    return request.reply


def _too_late(link: Line, request: Request | Sequence[Awaited], timeout_s: float | None) -> TaskdError:
    """Say what a caller waited for in vain, and what stood in the way."""
    session, address, limit = link.session, link.profile.address, f"{timeout_s:g} s"
    if session is not None and session.trouble is not None:
        return CannotConnect(f"no connection to {address} within {limit}: {session.trouble.message}")
    if not isinstance(request, Request):
        return TimedOut(_not_ended(request, limit))
    if request.refusal is not None:
        return TimedOut(f"{address} put the request off for {limit}: {request.refusal.message}")
    return TimedOut(f"{address} has not answered within {limit}; what was asked may still take effect")


def _not_ended(tasks: Sequence[Awaited], limit: str) -> str:
    left = [task for task in tasks if task.outcome is None] or tasks  # the last outcome may come in right now
    task_id = format_task_id(left[0].raw_id)
    what = "the task has" if len(tasks) == 1 else f"{len(left):,} of {len(tasks):,} tasks have"
    return f"{what} not ended within {limit}: `taskd task show {task_id}` tells why"
