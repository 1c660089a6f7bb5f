"""What clients ask of workflows, and how they are shown them."""

from fnmatch import fnmatchcase
from functools import partial
from typing import Final, Literal

import msgspec
from msgspec.structs import replace

from taskd.core import families, records
from taskd.core.commands import Answer
from taskd.core.flows import nodes_id, stem_of
from taskd.core.graph import FAILED, STOPPED, SUCCEEDED
from taskd.core.lifecycle import TERMINAL, State
from taskd.core.lines import Task
from taskd.core.records import Damaged, Key, SpecRecord, StateRecord, Value
from taskd.core.settling import SKIPS
from taskd.core.stages import why_failed
from taskd.core.workflow_commands import NodesTaken, OrderWorkflow, SignalWorkflow, SubmitWorkflow
from taskd.core.workflow_records import NodeRecord, NodesRecord, WorkflowRecord
from taskd.server.flow_loading import load_large, read_results
from taskd.server.loading import Found
from taskd.server.services import Services
from taskd.server.session import Talk, error_message
from taskd.server.views import in_short
from taskd_protocol import limits
from taskd_protocol import workflow_messages as wm
from taskd_protocol.connection_messages import Done
from taskd_protocol.errors import BadRequest, LeaseStale, ResultGone, StoreCorrupt, TaskCodes, TaskdError
from taskd_protocol.ids import TASK_ID_BYTES, is_made_id
from taskd_protocol.task import Failure, Given, Outcome
from taskd_protocol.workflow import MAP, NIL, Node, is_workflow_id, member_id, place_of, workflow_of

SCANNED_MAX: Final = 5_000
"""Workflows looked at for one page."""

PAGE_BYTES: Final = 4 * 1024 * 1024
"""Results in one page of children, unless one alone is larger."""

BROKEN: Final = "broken"
"""State of what cannot be read."""

_decode = msgspec.msgpack.Decoder(Node).decode


class WorkflowRole:
    """The part of a client's session that deals with workflows."""

    def __init__(self, session: Talk) -> None:
        self._session = session
        self._services = session.services

    def submit(self, message: wm.WorkflowSubmit) -> None:
        """Answer WORKFLOW_SUBMIT."""
        full = self._services.room_on_disk()
        if full is not None:
            raise full
        command = SubmitWorkflow(self._session.key_id, message.workflow, message.first, message.nodes)
        self._services.loop.ask(command, partial(self._submitted, message.request_id))

    def _submitted(self, request_id: int, answer: Answer | TaskdError) -> None:
        if isinstance(answer, NodesTaken):
            self._session.send(wm.WorkflowAccepted(request_id, self._services.mark(), answer.nodes))
        elif isinstance(answer, TaskdError):
            self._session.send(error_message(request_id, answer))

    def order(self, message: wm.WorkflowOrder) -> None:
        """Answer WORKFLOW_ORDER."""
        check_id(message.id)
        command = OrderWorkflow(message.id, message.action, message.node, message.order_id)
        self._services.loop.ask(command, partial(self._done, message.request_id))

    def signal(self, message: wm.WorkflowSignal) -> None:
        """Answer WORKFLOW_SIGNAL."""
        check_id(message.id)
        command = SignalWorkflow(message.id, message.name, message.packed)
        self._services.loop.ask(command, partial(self._done, message.request_id))

    def _done(self, request_id: int, answer: Answer | TaskdError) -> None:
        if isinstance(answer, TaskdError):
            self._session.send(error_message(request_id, answer))
        else:
            self._session.send(Done(request_id))


def check_id(workflow: bytes) -> None:
    """Refuse what is no workflow's id.

    Raises:
        BadRequest: It is not.
    """
    if not is_workflow_id(workflow):
        raise BadRequest("a workflow's id is 16 bytes, a UUID of version 8 that ends in five zero bytes")


async def list_workflows(services: Services, message: wm.WorkflowList) -> wm.WorkflowPage:
    """Answer WORKFLOW_LIST."""
    limit = min(max(message.limit, 1), limits.PAGE_ROWS_MAX)
    views: list[wm.WorkflowView] = []
    cursor, budget = message.cursor, SCANNED_MAX
    while budget > 0:
        step = min(limits.PAGE_ROWS_MAX, budget)
        page = await services.store.scan(records.WORKFLOW, after=cursor, limit=step, reverse=True)
        for workflow, value in page:
            cursor = workflow
            view = workflow_view(services, workflow, services.reader.decode(records.WORKFLOW, workflow, value))
            if (message.state or view.state) == view.state and fnmatchcase(view.name, message.name or "*"):
                views.append(view)
            if len(views) == limit:
                return wm.WorkflowPage(message.request_id, views, cursor)
        if len(page) < step:
            return wm.WorkflowPage(message.request_id, views, b"")
        budget -= len(page)
    return wm.WorkflowPage(message.request_id, views, cursor)


def workflow_view(services: Services, workflow: bytes, stored: Value) -> wm.WorkflowView:
    """Return a workflow as it stands: by memory, if it has not ended."""
    if not isinstance(stored, WorkflowRecord):
        why = stored.why if isinstance(stored, Damaged) else services.working.lost_flows[workflow]
        made_at_ms = int.from_bytes(workflow[:6], "big")
        return wm.WorkflowView(workflow, "", BROKEN, 0, {}, made_at_ms, None, "", "", reason=why)
    flow = services.working.flows.get(stem_of(workflow))
    record = stored if flow is None else flow.record
    counts = record.counts if flow is None else flow.standing
    blocked = record.spec.nodes - sum(counts.values())
    broken = "" if flow is None else flow.broken
    return wm.WorkflowView(
        record.spec.id,
        record.spec.name,
        BROKEN if broken else record.state,
        record.spec.nodes,
        {**counts, "blocked": blocked} if blocked else dict(counts),
        record.created_at_ms,
        record.finished_at_ms or None,
        record.spec.policy,
        record.spec.traceparent,
        record.failed_name,
        record.schedule,
        record.scheduled_for_ms or None,
        broken,
    )


async def show_workflow(services: Services, message: wm.WorkflowQuery) -> wm.WorkflowNodes:
    """Answer WORKFLOW_QUERY."""
    check_id(message.id)
    key: Key = (records.WORKFLOW, message.id)
    record = (await services.reader.read_now([key]))[key]
    if record is None and message.id not in services.working.lost_flows:
        return wm.WorkflowNodes(message.request_id, None, [])
    view = workflow_view(services, message.id, record)
    if not isinstance(record, WorkflowRecord):
        return wm.WorkflowNodes(message.request_id, view, [])
    first = min(max(message.first, 0), record.spec.nodes)
    end = min(first + min(max(message.limit, 1), limits.PAGE_ROWS_MAX), record.spec.nodes)
    try:
        nodes = await read_nodes(services, record, first, end)
    except StoreCorrupt as error:
        return wm.WorkflowNodes(message.request_id, replace(view, state=BROKEN, reason=error.message), [])
    ids = [member_id(message.id, position) for position in range(first, first + len(nodes))]
    kinds = (records.SPEC, records.STATE, records.NODE)
    found = await services.reader.read_now([(kind, i) for i in ids for kind in kinds])
    views = [_node_view(services, node, i, found) for node, i in zip(nodes, ids, strict=True)]
    return wm.WorkflowNodes(message.request_id, workflow_view(services, message.id, record), views)


async def read_nodes(services: Services, record: WorkflowRecord, first: int, end: int) -> list[Node]:
    """Read the nodes from one position to another.

    Raises:
        StoreCorrupt: They cannot be read, or are not there.
    """
    parts = [
        (start, stop)
        for start, stop in zip(record.parts, [*record.parts[1:], record.spec.nodes], strict=True)
        if start < end and stop > first
    ]
    keys: list[Key] = [(records.NODES, nodes_id(record.spec.id, start)) for start, _ in parts]
    found = await services.reader.read(keys)
    nodes: list[Node] = []
    for (start, _), key in zip(parts, keys, strict=True):
        part = found[key]
        if not isinstance(part, NodesRecord):
            raise StoreCorrupt(
                part.why if isinstance(part, Damaged) else f"its nodes from number {start} on are not there"
            )
        try:
            nodes += [_decode(packed) for packed in part.nodes[max(first - start, 0) : end - start]]
        except msgspec.MsgspecError as error:
            raise StoreCorrupt(f"a node of it does not decode: {error}; run `taskd fsck`") from None
    return nodes


def _node_view(services: Services, node: Node, node_id: bytes, found: Found) -> wm.NodeView:
    w = services.working
    spec, state, record = (found[kind, node_id] for kind in (records.SPEC, records.STATE, records.NODE))
    flow = w.flows.get(stem_of(node_id))
    task = w.tasks.get(node_id)
    view = wm.NodeView(
        node.name,
        node.kind,
        "blocked",
        node.task.name if node.task is not None else "",
        node.needs,
        node.after,
        node.when,
        node.phase,
        signal=node.signal,
    )
    if isinstance(record, Damaged):
        return replace(view, state=BROKEN, failure=Failure(StoreCorrupt.code, record.why))
    if isinstance(record, NodeRecord) and record.state != "blocked":
        fan = flow.fans.get(place_of(node_id)[0]) if flow is not None else None
        succeeded = fan.statuses.count(SUCCEEDED) if fan is not None else 0
        failed = fan.statuses.count(FAILED) if fan is not None else 0
        total = len(fan.statuses) if fan is not None else max(record.total, 0)
        if node.kind == MAP and fan is None and record.finished_at_ms:
            succeeded, failed = (total, 0) if record.state == "succeeded" else (0, 0)
        return replace(
            view,
            state=record.state,
            started_at_ms=record.started_at_ms or None,
            finished_at_ms=record.finished_at_ms or None,
            failure=in_short(record.failure),
            children=total,
            succeeded=succeeded,
            failed=failed,
        )
    if not isinstance(spec, SpecRecord) or isinstance(record, NodeRecord):
        return view
    if task is not None and task.token:
        leased = State.CANCELLING if task.cancelling else State.RUNNING
        return replace(
            view, state=str(leased), attempt=task.attempt, agent=task.agent, started_at_ms=task.granted_at_ms
        )
    if not isinstance(state, StateRecord):
        return replace(view, state=str(State.READY))
    return replace(
        view,
        state=state.state,
        attempt=state.attempt,
        agent=state.agent,
        started_at_ms=state.started_at_ms or None,
        finished_at_ms=state.finished_at_ms or None,
        failure=in_short(state.failure),
    )


async def show_children(services: Services, message: wm.ChildrenQuery) -> wm.ChildrenPage:
    """Answer CHILDREN_QUERY."""
    if len(message.id) != TASK_ID_BYTES or not is_made_id(message.id):
        raise BadRequest("the id of a node that maps is 16 bytes, a UUID of version 8")
    key: Key = (records.NODE, message.id)
    record = (await services.reader.read_now([key]))[key]
    if isinstance(record, Damaged):
        raise StoreCorrupt(record.why)
    if not isinstance(record, NodeRecord) or record.total < 0:
        return wm.ChildrenPage(message.request_id, -1, [])
    first = min(max(message.first, 0), record.total)
    end = min(first + min(max(message.limit, 1), limits.PAGE_ROWS_MAX), record.total)
    workflow, (node, _) = workflow_of(message.id), place_of(message.id)
    outcomes: list[Outcome] = []
    page_bytes = 0
    while (start := first + len(outcomes)) < end:
        ids = [member_id(workflow, node, child) for child in range(start, min(start + 100, end))]
        for outcome in await read_outcomes(services, ids, "some"):
            page_bytes += len(outcome.result)
            if outcomes and page_bytes > PAGE_BYTES:
                return wm.ChildrenPage(message.request_id, record.total, outcomes)
            outcomes.append(outcome)
    return wm.ChildrenPage(message.request_id, record.total, outcomes)


async def read_outcomes(
    services: Services, ids: list[bytes], large: Literal["all", "some", "none"] = "all"
) -> list[Outcome]:
    """Read how members of workflows, or workflows, stand; of what has not ended, the state alone.

    ``unknown``: no such workflow, or it has no such node.

    Args:
        services: As of the session.
        ids: Of which.
        large: Of results that stand apart, ``some``: where all would be much, outcomes of the first ones alone, of at
            least one; ``none``: they are left out.
    """
    workflows: list[Key] = [(records.WORKFLOW, i) for i in dict.fromkeys(map(workflow_of, ids))]
    kinds = (records.STATE, records.NODE)
    found = dict(await services.reader.read_now([*workflows, *((kind, i) for i in ids for kind in kinds)]))
    apart = [i for i in ids if isinstance(s := found[records.STATE, i], StateRecord) and s.result_apart]
    if large == "none":
        found.update({(records.RESULT, i): b"" for i in apart})
    elif large == "some":
        loaded = await load_large(services.store, apart)
        found.update({(records.RESULT, i): value for i, value in zip(apart, loaded, strict=False)})
        if len(loaded) < len(apart):
            ids = ids[: ids.index(apart[len(loaded)])]
    else:
        found.update(await services.reader.read([(records.RESULT, i) for i in apart]))
    return [_outcome(services, i, found) for i in ids]


def _outcome(services: Services, member: bytes, found: Found) -> Outcome:  # noqa: PLR0911 - one case a standing
    workflow = found[records.WORKFLOW, workflow_of(member)]
    position, child = place_of(member)
    state, node = found[records.STATE, member], found[records.NODE, member]
    why = _why_unread(services, workflow, node, member)
    if why and not isinstance(state, StateRecord):
        return Outcome(member, "unknown", failure=Failure(StoreCorrupt.code, why))
    if not isinstance(workflow, WorkflowRecord) or position >= workflow.spec.nodes:
        return Outcome(member, "unknown")
    if position < 0:
        if not workflow.finished_at_ms:
            return Outcome(member, "running")
        return Outcome(member, workflow.state, failure=why_failed(workflow.failed_name))
    if isinstance(node, NodeRecord):
        if node.state == "blocked":
            return Outcome(member, "blocked")
        ended = bool(node.finished_at_ms)
        return Outcome(member, node.state, 0, node.packed if ended else b"", node.failure if ended else None)
    if isinstance(state, StateRecord) and state.state in TERMINAL and member not in services.working.tasks:
        result = found.get((records.RESULT, member)) if state.result_apart else state.result
        if state.result_apart and not isinstance(result, bytes):
            return Outcome(member, "unknown")  # it was taken away between the two reads
        packed = result if isinstance(result, bytes) else b""
        return Outcome(member, state.state, state.attempt, packed, state.failure)
    if workflow.finished_at_ms:
        return Outcome(member, "unknown") if child < 0 else Outcome(member, "skipped", failure=SKIPS[STOPPED])
    return Outcome(member, "running" if member in services.working.tasks else "blocked")


def _why_unread(services: Services, workflow: Value, node: Value, member: bytes) -> str:
    """Return why it cannot be told how a workflow or a node of it stands; empty: it can."""
    damaged = next((each.why for each in (workflow, node) if isinstance(each, Damaged)), "")
    flow = services.working.flows.get(stem_of(member))
    return damaged or services.working.lost_flows.get(workflow_of(member), "" if flow is None else flow.broken)


async def read_input(services: Services, agent: str, message: wm.InputQuery) -> wm.InputPage:
    """Answer INPUT_QUERY of an agent.

    Raises:
        LeaseStale: It holds no such lease.
        ResultGone: What is referred to is not stored any more.
    """
    holder = services.working.agents.get(agent)
    task = holder.leases.get(message.token) if holder is not None else None
    given = _given(services, task, message.input) if task is not None else None
    if given is None:
        raise LeaseStale("the agent holds no lease of that token with such an input")
    if given.count < 0:
        (result,) = await read_results(services.store, [given.id])
        if result is None:
            raise ResultGone("the result that it needs was removed; keep large results elsewhere")
        return wm.InputPage(message.request_id, [result])
    parts: list[bytes] = []
    missed: list[wm.Missed] = []
    page_bytes = 0
    workflow, (node, _) = workflow_of(given.id), place_of(given.id)
    after = max(message.after, 0)
    while after + len(parts) < given.count and page_bytes < PAGE_BYTES:
        start = after + len(parts)
        ids = [member_id(workflow, node, child) for child in range(start, min(start + 100, given.count))]
        for outcome in await read_outcomes(services, ids, "some"):
            succeeded = outcome.state == State.SUCCEEDED
            if message.input < 0 and not succeeded:
                why = _why(outcome)
                missed.append(wm.Missed(after + len(parts), why))
                page_bytes += len(why.message) + len(why.traceback)
            parts.append(outcome.result if succeeded else NIL)
            page_bytes += len(parts[-1])
            if page_bytes >= PAGE_BYTES:
                break
    return wm.InputPage(message.request_id, parts, after + len(parts) >= given.count, missed)


def _given(services: Services, task: Task, number: int) -> Given | None:
    """Return an input of a task, or what stands for all that it has spawned; None: it has no such."""
    if number < 0:
        family = task.past.family if task.past is not None else b""
        spawned = families.spawned(services.working, family) if family else None
        return None if spawned is None else Given(id=spawned.node, count=spawned.count)
    member = task.spec.rules.member
    return member.inputs[number] if member is not None and number < len(member.inputs) else None


def _why(outcome: Outcome) -> Failure:
    """Return why a spawned task did not succeed."""
    if outcome.state not in TERMINAL:
        return Failure(TaskCodes.PENDING, "it has not ended")
    return outcome.failure or Failure(TaskCodes.CANCELLED, f"it is {outcome.state}")
