"""Workflows: listed, shown with their graphs, waited for; steered."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Final, Literal

import msgspec
import trio

from taskd.client.client import cut_nodes
from taskd.client.runs import order_of
from taskd.http.errors import FieldRefused
from taskd.http.paging import Cursor, Limit, cursor_text, read_cursor
from taskd.http.resources.tasks import WAIT_SECONDS_MAX
from taskd.http.routes import AnyRoute, Call, Nothing, get, post
from taskd.text.documents import ErrorDocument, error_document
from taskd.text.flowfiles import Problem, read_flow_of
from taskd.text.flows import WorkflowDetail, WorkflowDocument, workflow_detail, workflow_document
from taskd.text.schedules import ScheduleDocument, schedule_document
from taskd.text.values import Value, result_value
from taskd_protocol.connection_messages import Done
from taskd_protocol.errors import BadRequest, ScheduleExists, WorkflowUnknown
from taskd_protocol.ids import format_task_id, parse_task_id
from taskd_protocol.limits import PAGE_ROWS_MAX
from taskd_protocol.messages import Outcomes, Wait
from taskd_protocol.payload import pack
from taskd_protocol.schedule import Schedule
from taskd_protocol.schedule_messages import ScheduleChanges, ScheduleList, SchedulePage, ScheduleSet
from taskd_protocol.workflow import ENTROPY_BYTES, WorkflowSpec, is_workflow_id, make_workflow_id
from taskd_protocol.workflow_messages import (
    ChildrenPage,
    ChildrenQuery,
    NodeView,
    WorkflowAccepted,
    WorkflowList,
    WorkflowNodes,
    WorkflowOrder,
    WorkflowPage,
    WorkflowQuery,
    WorkflowSignal,
    WorkflowSubmit,
    WorkflowView,
)

State = Literal["", "running", "cancelling", "succeeded", "failed", "cancelled", "broken"]

PROBLEMS_TOLD: Final = 5
"""Of a workflow that cannot be."""

CHILD_CHARS_MAX: Final = 4_096
"""Of a child's result in a listing."""


class WorkflowsAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Which workflows."""

    state: State = ""
    name: str = ""
    """``*`` stands for anything."""
    limit: Limit = 100
    cursor: Cursor = ""


class WorkflowAsked(msgspec.Struct, forbid_unknown_fields=True):
    """A workflow."""

    id: str


class WaitAsked(msgspec.Struct, forbid_unknown_fields=True):
    """A workflow, and how long its end is waited for."""

    id: str
    seconds: Annotated[float, msgspec.Meta(ge=0, le=WAIT_SECONDS_MAX)] = 30.0


class NodeAsked(msgspec.Struct, forbid_unknown_fields=True):
    """A node that maps, and which of its children."""

    id: str
    """The node's."""
    first: Annotated[int, msgspec.Meta(ge=0)] = 0
    limit: Limit = 100


class Workflows(msgspec.Struct):
    """A page of workflows, newest first; it may be short, even empty, and have one behind it."""

    workflows: list[WorkflowDocument]
    cursor: str | None
    """For the next page; null: there is none."""


class ChildDocument(msgspec.Struct):
    """A child of a node that maps."""

    id: str
    state: str
    result: Value | None
    error: ErrorDocument | None


class Children(msgspec.Struct):
    """Some of a node's children, in the order of the items."""

    total: int | None
    """Null: that is not known yet."""
    children: list[ChildDocument]


FlowBody = dict[str, object]
"""A workflow file, in JSON."""


class SubmitAsked(msgspec.Struct, forbid_unknown_fields=True):
    """How a workflow is started."""

    now: bool = False
    """Once, also if it has a schedule, which stays as it is."""
    id: str | None = None
    """A UUID of version 8, as workflows have: the same again finds the first one. Null: the server makes one."""


class SubmittedWorkflow(msgspec.Struct):
    """What was made: the one or the other."""

    workflow: WorkflowDocument | None
    schedule: ScheduleDocument | None


class RerunBody(msgspec.Struct, forbid_unknown_fields=True):
    """From where a workflow is run again."""

    node: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class SignalBody(msgspec.Struct, forbid_unknown_fields=True):
    """What nodes wait for."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    value: object = None
    """Their result."""


async def list_workflows(call: Call[WorkflowsAsked, Nothing]) -> Workflows:
    """List workflows, newest first."""
    asked = call.asked
    message = WorkflowList(0, asked.state, asked.name, asked.limit, read_cursor("workflows", asked.cursor))
    page = await call.ask(message, WorkflowPage)
    return Workflows([workflow_document(view) for view in page.views], cursor_text("workflows", page.cursor))


async def show_workflow(call: Call[WorkflowAsked, Nothing]) -> WorkflowDetail:
    """Show a workflow with its graph: how far it is, what failed and why."""
    view, nodes = await _whole(call, _id(call.asked.id))
    return workflow_detail(view, nodes)


async def wait_for_workflow(call: Call[WaitAsked, Nothing]) -> WorkflowDocument:
    """Wait for a workflow's end, but no longer than so many seconds; show it as it is then."""
    raw_id = _id(call.asked.id)
    await call.ask(Wait(0, [raw_id]), Done)
    with trio.move_on_after(call.asked.seconds):
        await call.session.pushed.take(Outcomes)
    return workflow_document((await _page(call, raw_id, 0, 1))[0])


async def show_children(call: Call[NodeAsked, Nothing]) -> Children:
    """Show the children of a node that maps."""
    asked = call.asked
    page = await call.ask(ChildrenQuery(0, parse_task_id(asked.id), asked.first, asked.limit), ChildrenPage)
    told = [
        ChildDocument(
            format_task_id(outcome.id),
            outcome.state,
            result_value(outcome.result, CHILD_CHARS_MAX) if outcome.state == "succeeded" else None,
            None if outcome.failure is None else error_document(outcome.failure),
        )
        for outcome in page.outcomes
    ]
    return Children(None if page.total < 0 else page.total, told)


async def submit_workflow(call: Call[SubmitAsked, FlowBody]) -> SubmittedWorkflow:
    """Start a workflow, as a file of `taskd workflow submit` has it, in JSON; it is on disk when this is answered.

    With a table ``schedule`` that is made, or changed, and starts the workflow in its times.
    """
    if call.files:
        raise FieldRefused("a workflow is sent as JSON, without files", "$")
    flow = await call.offload(partial(read_flow_of, call.body))
    if flow.problems:
        raise FieldRefused("; ".join(_told(problem) for problem in flow.problems[:PROBLEMS_TOLD]), "$")
    if flow.schedule is not None and not call.asked.now:
        return SubmittedWorkflow(None, await _keep(call, flow.schedule))
    if call.asked.id is None:
        raw_id = make_workflow_id(call.wall_ms, call.random_bytes(ENTROPY_BYTES))
    else:
        raw_id = _id(call.asked.id)
    spec, first = WorkflowSpec(raw_id, flow.name, len(flow.nodes), flow.policy, call.traceparent(raw_id)), 0
    for nodes in cut_nodes(flow.nodes):
        await call.ask(WorkflowSubmit(0, spec, first, nodes), WorkflowAccepted)
        first += len(nodes)
    return SubmittedWorkflow(workflow_document((await _page(call, raw_id, 0, 1))[0]), None)


async def cancel_workflow(call: Call[WorkflowAsked, Nothing]) -> WorkflowDocument:
    """Have a workflow end: what runs is cancelled, and what had succeeded is taken back where nodes say how."""
    return await _ordered(call, call.asked.id, "cancel")


async def resume_workflow(call: Call[WorkflowAsked, Nothing]) -> WorkflowDocument:
    """Have a failed workflow go on: failed nodes run again, those skipped since may; what has succeeded is kept."""
    return await _ordered(call, call.asked.id, "resume")


async def rerun_workflow(call: Call[WorkflowAsked, RerunBody]) -> WorkflowDocument:
    """Run a node that has ended again, and all that come after it."""
    return await _ordered(call, call.asked.id, "rerun", call.body.node)


async def signal_workflow(call: Call[WorkflowAsked, SignalBody]) -> WorkflowDocument:
    """Let nodes go on that wait for a signal, now or later."""
    raw_id = _id(call.asked.id)
    await call.ask(WorkflowSignal(0, raw_id, call.body.name, pack(call.body.value)), Done)
    return workflow_document((await _page(call, raw_id, 0, 1))[0])


_AnyCall = (
    Call[WorkflowAsked, Nothing]
    | Call[WorkflowAsked, RerunBody]
    | Call[WorkflowAsked, SignalBody]
    | Call[WaitAsked, Nothing]
    | Call[SubmitAsked, FlowBody]
)


async def _ordered(call: _AnyCall, text: str, action: str, node: str = "") -> WorkflowDocument:
    raw_id = _id(text)
    await call.ask(order_of(raw_id, action, node), Done)
    return workflow_document((await _page(call, raw_id, 0, 1))[0])


async def _page(call: _AnyCall, raw_id: bytes, first: int, limit: int) -> tuple[WorkflowView, list[NodeView]]:
    page = await call.ask(WorkflowQuery(0, raw_id, first, limit), WorkflowNodes)
    if page.view is None:
        raise WorkflowUnknown(f"no workflow {format_task_id(raw_id)} is stored; it was removed, or never submitted")
    return page.view, page.nodes


async def _whole(call: _AnyCall, raw_id: bytes) -> tuple[WorkflowView, list[NodeView]]:
    view, nodes = await _page(call, raw_id, 0, PAGE_ROWS_MAX)
    while len(nodes) < view.nodes:
        more = (await _page(call, raw_id, len(nodes), PAGE_ROWS_MAX))[1]
        if not more:
            break
        nodes += more
    return view, nodes


async def _keep(call: Call[SubmitAsked, FlowBody], schedule: Schedule) -> ScheduleDocument:
    before = (await call.ask(ScheduleList(0, [schedule.name]), SchedulePage)).schedules
    if before and before[0].schedule.workflow is None:
        raise ScheduleExists(f"schedule {schedule.name[:64]!r} submits a task: say another name, or remove it")
    await call.ask(ScheduleSet(0, schedule), ScheduleChanges)
    return schedule_document((await call.ask(ScheduleList(0, [schedule.name]), SchedulePage)).schedules[0])


def _told(problem: Problem) -> str:
    about = f"node {problem.node[:64]!r}: " if problem.node else ""
    return f"{about}{problem.message}"


def _id(text: str) -> bytes:
    raw = parse_task_id(text)
    if not is_workflow_id(raw):
        raise BadRequest(f"{text[:64]!r} is no workflow's id")
    return raw


ROUTES: Final[Sequence[AnyRoute]] = (
    get("/workflows", list_workflows, WorkflowsAsked, Workflows, WorkflowList),
    post(
        "/workflows",
        submit_workflow,
        SubmitAsked,
        FlowBody,
        SubmittedWorkflow,
        WorkflowSubmit,
        WorkflowQuery,
        ScheduleList,
        ScheduleSet,
        status=201,
        takes_payload=True,
    ),
    get("/workflows/{id}", show_workflow, WorkflowAsked, WorkflowDetail, WorkflowQuery),
    get("/workflows/{id}/wait", wait_for_workflow, WaitAsked, WorkflowDocument, Wait, WorkflowQuery),
    get("/nodes/{id}/children", show_children, NodeAsked, Children, ChildrenQuery),
    post(
        "/workflows/{id}/cancel",
        cancel_workflow,
        WorkflowAsked,
        Nothing,
        WorkflowDocument,
        WorkflowOrder,
        WorkflowQuery,
    ),
    post(
        "/workflows/{id}/resume",
        resume_workflow,
        WorkflowAsked,
        Nothing,
        WorkflowDocument,
        WorkflowOrder,
        WorkflowQuery,
    ),
    post(
        "/workflows/{id}/rerun",
        rerun_workflow,
        WorkflowAsked,
        RerunBody,
        WorkflowDocument,
        WorkflowOrder,
        WorkflowQuery,
    ),
    post(
        "/workflows/{id}/signal",
        signal_workflow,
        WorkflowAsked,
        SignalBody,
        WorkflowDocument,
        WorkflowSignal,
        WorkflowQuery,
    ),
)
