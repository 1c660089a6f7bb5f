"""Tasks: listed, shown, explained and waited for; submitted, cancelled, given another chance, and run now."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Final

import msgspec
import trio
from starlette.responses import Response

from taskd.client.misfits import texts_of
from taskd.client.outcome import error_of
from taskd.http.converting import APART_BYTES, VALUES, value_apart
from taskd.http.errors import JSON, FieldRefused, NotFound, placed
from taskd.http.paging import Cursor, FilterWords, Limit, cursor_text, read_cursor, wanted_tasks
from taskd.http.routes import AnyRoute, Call, Nothing, get, post
from taskd.http.submitting import BatchBody, SubmittedDocument, TaskBody, WarnedDocument, read_task
from taskd.text.documents import VALUE_CHARS_MAX, TaskDetail, TaskDocument, task_detail, task_document
from taskd.text.explained import ExplanationDocument, explanation_document
from taskd.text.values import Value, result_json
from taskd_protocol.connection_messages import Done
from taskd_protocol.errors import TaskUnknown
from taskd_protocol.ids import format_task_id, parse_task_id
from taskd_protocol.limits import WAIT_IDS_MAX
from taskd_protocol.messages import (
    Accepted,
    Cancel,
    Cancelled,
    Outcomes,
    Submit,
    TaskExplain,
    TaskExplained,
    TaskHasten,
    TaskHastened,
    TaskList,
    TaskPage,
    TaskQuery,
    TaskRetried,
    TaskRetry,
    TaskView,
    TaskViews,
    Wait,
)
from taskd_protocol.task import TaskSpec, check_specs

HERE_BYTES: Final = 64 * 1024
"""A value that is larger is made into text away from the loop."""

WAIT_SECONDS_MAX: Final = 50.0
"""Proxies give up after a minute."""


class TasksAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Which tasks."""

    filter: FilterWords = ""
    limit: Limit = 100
    cursor: Cursor = ""


class TaskAsked(msgspec.Struct, forbid_unknown_fields=True):
    """A task."""

    id: str


class WaitAsked(msgspec.Struct, forbid_unknown_fields=True):
    """A task, and how long its end is waited for."""

    id: str
    seconds: Annotated[float, msgspec.Meta(ge=0, le=WAIT_SECONDS_MAX)] = 30.0


AboutTask = Call[TaskAsked, Nothing] | Call[WaitAsked, Nothing]


class Tasks(msgspec.Struct):
    """A page of tasks, newest first; it may be short, even empty, and have one behind it."""

    tasks: list[TaskDocument]
    cursor: str | None
    """For the next page; null: there is none."""


class Batch(msgspec.Struct):
    """Tasks that are kept, in the order in which they were sent."""

    tasks: list[SubmittedDocument]
    warnings: list[str]


class CancelBody(msgspec.Struct, forbid_unknown_fields=True):
    """How a task is cancelled."""

    force: bool = False
    """Also where its agent is away: you know that it is gone for good."""


class NamedBody(msgspec.Struct, forbid_unknown_fields=True):
    """Tasks, by their ids."""

    ids: Annotated[list[str], msgspec.Meta(min_length=1, max_length=WAIT_IDS_MAX)]
    force: bool = False
    """Of a cancel: as of one."""


class StateDocument(msgspec.Struct):
    """A task, and its state now."""

    id: str
    state: str


class States(msgspec.Struct):
    """Tasks, and their states now, in the order in which they were sent; ``unknown``: it is not stored."""

    tasks: list[StateDocument]


async def list_tasks(call: Call[TasksAsked, Nothing]) -> Tasks:
    """List tasks, newest first."""
    asked = call.asked
    wanted = wanted_tasks(asked.filter, call.wall_ms)
    page = await call.ask(
        TaskList(0, limit=asked.limit, cursor=read_cursor("tasks", asked.cursor), filter=wanted), TaskPage
    )
    return Tasks([task_document(view) for view in page.views], cursor_text("tasks", page.cursor))


async def show_task(call: Call[TaskAsked, Nothing]) -> TaskDetail:
    """Show a task: where it stands, why it waits or failed, its arguments and its result."""
    return await _detail(call, await _view(call, parse_task_id(call.asked.id)))


async def wait_for_task(call: Call[WaitAsked, Nothing]) -> TaskDetail:
    """Wait for a task's end, but no longer than so many seconds; show it as it is then."""
    task_id = parse_task_id(call.asked.id)
    await call.ask(Wait(0, [task_id]), Done)
    with trio.move_on_after(call.asked.seconds):
        outcome = (await call.session.pushed.take(Outcomes)).outcomes[0]
        if outcome.state == "unknown":
            raise error_of(outcome)
    return await _detail(call, await _view(call, task_id))


async def show_arguments(call: Call[TaskAsked, Nothing]) -> Response:
    """Show all of a task's arguments as JSON: an object of ``args`` and ``kwargs``, whole numbers with all digits.

    Bytes are in base64; dates, and what only the task's own modules know, are text.
    """
    view = await _view(call, parse_task_id(call.asked.id))
    return await _as_text(call, "arguments", view.payload)


async def show_result(call: Call[TaskAsked, Nothing]) -> Response:
    """Show all of a task's result as JSON: as its arguments."""
    view = await _view(call, parse_task_id(call.asked.id))
    if view.result is None:
        raise NotFound(f"the task has no result; it is {view.state}")
    return await _as_text(call, "result", view.result)


async def explain_task(call: Call[TaskAsked, Nothing]) -> ExplanationDocument:
    """Tell what a task, or a node of a workflow, waits for, and what rules out each agent."""
    told = await call.ask(TaskExplain(0, parse_task_id(call.asked.id)), TaskExplained)
    if told.explanation is None:
        raise TaskUnknown(f"no task or node {call.asked.id} is stored")
    return explanation_document(told.explanation)


async def submit_task(call: Call[Nothing, TaskBody]) -> WarnedDocument:
    """Submit a task; it is on disk when this is answered.

    As a form with files: the field ``task`` is this JSON, and each file becomes a named argument, as bytes.
    """
    [[spec], accepted] = await _submit(call, [call.body], call.files)
    existing = [task_id for _, task_id in accepted.existing]
    task_id = existing[0] if existing else spec.id
    return WarnedDocument(format_task_id(task_id), bool(existing), texts_of(accepted.warnings, [spec.name]))


async def submit_tasks(call: Call[Nothing, BatchBody]) -> Batch:
    """Submit tasks, all of them or, refused, none."""
    if call.files:
        raise FieldRefused("files go with one task", "$")
    specs, accepted = await _submit(call, call.body.tasks, {})
    known = dict(accepted.existing)
    told = [SubmittedDocument(format_task_id(known.get(i, spec.id)), i in known) for i, spec in enumerate(specs)]
    return Batch(told, texts_of(accepted.warnings, [spec.name for spec in specs]))


async def cancel_task(call: Call[TaskAsked, CancelBody]) -> StateDocument:
    """Cancel a task: one that waits at once, one that runs by ending its process."""
    task_id = parse_task_id(call.asked.id)
    answer = await call.ask(Cancel(0, [task_id], call.body.force), Cancelled)
    return _known_state(task_id, answer.states[0])


async def retry_task(call: Call[TaskAsked, Nothing]) -> StateDocument:
    """Give a task another chance that died or was cancelled."""
    task_id = parse_task_id(call.asked.id)
    return _known_state(task_id, (await call.ask(TaskRetry(0, [task_id]), TaskRetried)).states[0])


async def run_task_now(call: Call[TaskAsked, Nothing]) -> StateDocument:
    """Have a task run now that waits for a time: its delay, or before another attempt."""
    task_id = parse_task_id(call.asked.id)
    return _known_state(task_id, (await call.ask(TaskHasten(0, [task_id]), TaskHastened)).states[0])


async def cancel_tasks(call: Call[Nothing, NamedBody]) -> States:
    """Cancel tasks, by their ids."""
    ids: list[bytes] = [parse_task_id(text) for text in call.body.ids]
    return _states(ids, (await call.ask(Cancel(0, ids, call.body.force), Cancelled)).states)


async def retry_tasks(call: Call[Nothing, NamedBody]) -> States:
    """Give tasks another chance, by their ids."""
    ids: list[bytes] = [parse_task_id(text) for text in call.body.ids]
    return _states(ids, (await call.ask(TaskRetry(0, ids), TaskRetried)).states)


async def _view(call: AboutTask, task_id: bytes) -> TaskView:
    view = (await call.ask(TaskQuery(0, [task_id]), TaskViews)).views[0]
    if view is None:
        raise TaskUnknown(f"no task {format_task_id(task_id)} is stored; it was removed, or never submitted")
    return view


async def _detail(call: AboutTask, view: TaskView) -> TaskDetail:
    """Return all that is known of a task; a result that is shown on a page of its own is left out here."""
    size = len(view.payload) + len(view.result or b"")
    if size <= HERE_BYTES:
        return task_detail(view)
    if size <= APART_BYTES:
        detail = await call.offload(partial(task_detail, view))
    else:
        detail = task_detail(msgspec.structs.replace(view, payload=b"", result=None))
        detail.arguments = await _value(call, "arguments", view.payload, VALUE_CHARS_MAX)
        if view.result is not None:
            detail.result_value = await _value(call, "result", view.result, VALUE_CHARS_MAX)
            detail.result = await call.offload(partial(result_json, view.result)) if detail.result_value.whole else None
    if detail.result_value is not None and not detail.result_value.whole:
        detail.result = None
    return detail


async def _value(call: AboutTask, what: str, packed: bytes, chars_max: int | None = None) -> Value:
    """Return a packed value as text, made where that holds up nobody."""
    if len(packed) > APART_BYTES:
        return await value_apart(what, packed, chars_max, call.apart)
    make = partial(VALUES[what], packed, chars_max)
    return await call.offload(make) if len(packed) > HERE_BYTES else make()


async def _as_text(call: Call[TaskAsked, Nothing], what: str, packed: bytes) -> Response:
    value = await _value(call, what, packed)
    if value.text is None:
        raise NotFound("it is of a type that only the task's own modules know, or too large to be shown")
    return Response(value.text, media_type=JSON)


async def _submit(
    call: Call[Nothing, TaskBody] | Call[Nothing, BatchBody], bodies: Sequence[TaskBody], files: Mapping[str, bytes]
) -> tuple[list[TaskSpec], Accepted]:
    made = call.make_ids(len(bodies))
    places = (
        ["$"] if len(bodies) == 1 and isinstance(call.body, TaskBody) else [f"$.tasks[{n}]" for n in range(len(bodies))]
    )
    packed: Sequence[bytes | None] = call.packed or [None] * len(bodies)
    specs = []
    for place, body, new, payload in zip(places, bodies, made, packed, strict=True):
        with placed(place):
            spec = read_task(body, files, call.traceparent, new, payload)
            check_specs([spec], call.payload_bytes_max)
        specs.append(spec)
    return specs, await call.ask(Submit(0, specs), Accepted)


def _known_state(task_id: bytes, state: str) -> StateDocument:
    if state == "unknown":
        raise TaskUnknown(f"no task {format_task_id(task_id)} is stored; it was removed, or never submitted")
    return StateDocument(format_task_id(task_id), state)


def _states(ids: Sequence[bytes], states: Sequence[str]) -> States:
    return States([StateDocument(format_task_id(i), state) for i, state in zip(ids, states, strict=True)])


ROUTES: Final[Sequence[AnyRoute]] = (
    get("/tasks", list_tasks, TasksAsked, Tasks, TaskList),
    get("/tasks/{id}", show_task, TaskAsked, TaskDetail, TaskQuery),
    get("/tasks/{id}/wait", wait_for_task, WaitAsked, TaskDetail, Wait, TaskQuery),
    get("/tasks/{id}/arguments", show_arguments, TaskAsked, object, TaskQuery),
    get("/tasks/{id}/result", show_result, TaskAsked, object, TaskQuery),
    get("/tasks/{id}/explain", explain_task, TaskAsked, ExplanationDocument, TaskExplain),
    post("/tasks", submit_task, Nothing, TaskBody, WarnedDocument, Submit, status=201, takes_payload=True),
    post("/tasks/batch", submit_tasks, Nothing, BatchBody, Batch, Submit, status=201, takes_payload=True),
    post("/tasks/cancel", cancel_tasks, Nothing, NamedBody, States, Cancel),
    post("/tasks/retry", retry_tasks, Nothing, NamedBody, States, TaskRetry),
    post("/tasks/{id}/cancel", cancel_task, TaskAsked, CancelBody, StateDocument, Cancel),
    post("/tasks/{id}/run", run_task_now, TaskAsked, Nothing, StateDocument, TaskHasten),
    post("/tasks/{id}/retry", retry_task, TaskAsked, Nothing, StateDocument, TaskRetry),
)
