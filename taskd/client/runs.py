"""Runs of workflows: what one holds of one that was submitted, to ask how it goes, and to have it go on."""

import datetime as dt
import os
from dataclasses import dataclass
from typing import Final, Generic, TypeVar, overload

from taskd.client import operations
from taskd.client.client import TIMEOUT_S
from taskd.client.ends import Awaited
from taskd.client.line import Line
from taskd.client.outcome import error_of, value_of
from taskd.client.progress import WorkflowProgress, critical_path, progress_of
from taskd.client.waiting import Steps, arun, run
from taskd.client.workflow import NodeRef, Workflow
from taskd_protocol.connection_messages import Done
from taskd_protocol.errors import BadRequest, StoreCorrupt, TaskdError, WorkflowUnknown
from taskd_protocol.ids import format_task_id, parse_task_id
from taskd_protocol.limits import PAGE_ROWS_MAX
from taskd_protocol.payload import pack
from taskd_protocol.task import Outcome
from taskd_protocol.workflow import MAP, ORDER_ID_BYTES, is_workflow_id, member_id
from taskd_protocol.workflow_messages import (
    ChildrenPage,
    ChildrenQuery,
    NodeView,
    WorkflowNodes,
    WorkflowOrder,
    WorkflowQuery,
    WorkflowSignal,
    WorkflowView,
)

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

_SUCCEEDED: Final = "succeeded"


def order_of(workflow: bytes, action: str, node: str = "") -> WorkflowOrder:
    """Make an order to a workflow: however often it is sent, it is carried out once."""
    return WorkflowOrder(0, workflow, action, node, os.urandom(ORDER_ID_BYTES))


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """A node, as it stands."""

    name: str
    kind: str
    """``task``, ``map``, ``value``, ``sleep`` or ``signal``."""
    state: str
    """Of its task; or ``blocked``, ``waiting``, ``skipped``."""
    task: str
    """Name of what it runs; empty: nothing."""
    attempt: int
    agent: str
    started_at: dt.datetime | None
    """In UTC; None: not yet."""
    finished_at: dt.datetime | None
    code: str
    """Why it failed, or was skipped, as a stable word; empty: neither."""
    reason: str
    """The same for people."""
    children: int
    """Of ``map``: how many there are."""
    succeeded: int
    """Of those."""
    failed: int
    """Of those."""

    @property
    def ran(self) -> dt.timedelta | None:
        """How long it took, its last attempt if it was tried again; None: it has not ended, or never began."""
        if self.started_at is None or self.finished_at is None:
            return None
        return max(self.finished_at - self.started_at, dt.timedelta(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowStatus:
    """A workflow, as it stands."""

    id: str
    name: str
    state: str
    """``running``, ``cancelling``, ``succeeded``, ``failed`` or ``cancelled``; ``broken``: it cannot be read."""
    created_at: dt.datetime
    """In UTC."""
    finished_at: dt.datetime | None
    failed_node: str
    """The first whose failure made it fail; empty: none."""
    counts: dict[str, int]
    """Nodes by state."""
    nodes: list[NodeStatus]
    reason: str = ""
    """Why it is broken; empty: it is not."""


@dataclass(frozen=True, slots=True)
class MapItem(Generic[R_co]):
    """One item's task of a node that maps."""

    index: int
    """Of the item, from 0."""
    state: str
    value: R_co | None
    """What it returned; None: nothing yet, or nothing."""
    error: TaskdError | None
    """Why it did not succeed; None: it has, or may yet."""


class WorkflowRun:
    """A workflow that was submitted. The names with an ``a`` are for asyncio and trio."""

    def __init__(self, raw_id: bytes, link: Line, graph: Workflow | None = None) -> None:
        """Hold it.

        Args:
            raw_id: 16 bytes.
            link: To its server.
            graph: As it was written; None: it was found by its id, and nodes are known by their names.
        """
        self.raw_id = raw_id
        self._link = link
        self._graph = graph

    @property
    def id(self) -> str:
        """The workflow's id, a UUID as text; ``App.workflow_run`` finds it again by it."""
        return format_task_id(self.raw_id)

    @overload
    def result(self, node: NodeRef[R], timeout: float | None = None) -> R: ...
    @overload
    def result(self, node: str, timeout: float | None = None) -> object: ...
    def result(self, node: NodeRef[R] | str, timeout: float | None = None) -> object:
        """Wait until a node has ended, and return its result; of one that maps, the list of all results.

        Args:
            node: Itself, or its name.
            timeout: Seconds; None: as long as it takes.

        Raises:
            TaskFailed: It failed, or was skipped: the code tells.
            TaskCancelled: It was cancelled; likewise the other errors of ``TaskHandle.result``.
            TimedOut: It has not ended yet. It goes on; ask again.
            WorkflowUnknown: The workflow is not stored, or has no such node.
        """
        return run(self._result(node, timeout))

    @overload
    async def aresult(self, node: NodeRef[R], timeout: float | None = None) -> R: ...  # noqa: ASYNC109
    @overload
    async def aresult(self, node: str, timeout: float | None = None) -> object: ...  # noqa: ASYNC109
    async def aresult(self, node: NodeRef[R] | str, timeout: float | None = None) -> object:  # noqa: ASYNC109 - one name in both faces
        """Wait until a node has ended, and return its result; see ``result``."""
        return await arun(self._result(node, timeout))

    def wait(self, timeout: float | None = None) -> str:
        """Wait until the workflow has ended; return its state: ``succeeded``, ``failed`` or ``cancelled``.

        Raises:
            TimedOut: It has not ended yet. It goes on; ask again.
            StoreCorrupt: It cannot be read, and stays as it is.
            WorkflowUnknown: It is not stored.
        """
        return run(self._wait(timeout))

    async def await_(self, timeout: float | None = None) -> str:  # noqa: ASYNC109 - one name in both faces
        """Wait until the workflow has ended; see ``wait``. Its name would be a word of the language without the end."""
        return await arun(self._wait(timeout))

    def state(self) -> str:
        """Ask for the workflow's state: as of ``wait``, or ``running``, ``cancelling``, ``broken``: it cannot be read.

        Raises:
            WorkflowUnknown: It is not stored.
        """
        return run(self._state())

    async def astate(self) -> str:
        """Ask for the workflow's state; see ``state``."""
        return await arun(self._state())

    def status(self) -> WorkflowStatus:
        """Ask how the workflow and all its nodes stand.

        Raises:
            WorkflowUnknown: It is not stored.
        """
        return run(self._status())

    async def astatus(self) -> WorkflowStatus:
        """Ask how all nodes stand; see ``status``."""
        return await arun(self._status())

    def progress(self) -> WorkflowProgress:
        """Ask how far the workflow is.

        Raises:
            WorkflowUnknown: It is not stored.
        """
        return run(self._progress())

    async def aprogress(self) -> WorkflowProgress:
        """Ask how far the workflow is; see ``progress``."""
        return await arun(self._progress())

    def critical_path(self) -> list[NodeStatus]:
        """Ask for the chain of nodes, each after the one before, whose runs took longest together: what to make faster.

        Nodes that have not ended, or took no time, are left out; so it is empty as long as none has.

        Raises:
            WorkflowUnknown: It is not stored.
        """
        return run(self._critical_path())

    async def acritical_path(self) -> list[NodeStatus]:
        """Ask for the chain of nodes that took longest; see ``critical_path``."""
        return await arun(self._critical_path())

    @overload
    def partial(self, node: NodeRef[list[R]]) -> list[MapItem[R]]: ...
    @overload
    def partial(self, node: str) -> list[MapItem[object]]: ...
    def partial(self, node: NodeRef[list[R]] | str) -> object:
        """Ask how the tasks of a node that maps stand, in the order of the items; none while those are not known.

        Raises:
            BadRequest: It does not map.
            WorkflowUnknown: The workflow is not stored, or has no such node.
        """
        return run(self._partial(node))

    @overload
    async def apartial(self, node: NodeRef[list[R]]) -> list[MapItem[R]]: ...
    @overload
    async def apartial(self, node: str) -> list[MapItem[object]]: ...
    async def apartial(self, node: NodeRef[list[R]] | str) -> object:
        """Ask how the tasks of a node that maps stand; see ``partial``."""
        return await arun(self._partial(node))

    def cancel(self) -> None:
        """Have the workflow end: what runs is cancelled, and what had succeeded is taken back where nodes say how.

        Raises:
            WorkflowUnknown: It is not stored.
            WorkflowEnded: It has ended already.
        """
        run(self._order("cancel"))

    async def acancel(self) -> None:
        """Have the workflow end; see ``cancel``."""
        await arun(self._order("cancel"))

    def resume(self) -> None:
        """Have the workflow go on that failed: its failed nodes run again, those skipped since may; the rest is kept.

        Raises:
            WorkflowUnknown: It is not stored.
            WorkflowEnded: It cannot be resumed as it stands.
        """
        run(self._order("resume"))

    async def aresume(self) -> None:
        """Have the workflow go on; see ``resume``."""
        await arun(self._order("resume"))

    def rerun(self, node: NodeRef[object] | str) -> None:
        """Run a node that has ended again, and all that come after it.

        Raises:
            WorkflowUnknown: The workflow is not stored, or has no such node.
            WorkflowEnded: It cannot be done as it stands.
        """
        run(self._order("rerun", self._name(node)))

    async def arerun(self, node: NodeRef[object] | str) -> None:
        """Run a node again; see ``rerun``."""
        await arun(self._order("rerun", self._name(node)))

    def signal(self, name: str, value: object = None) -> None:
        """Let nodes go on that wait for this signal, now or later; its value is their result.

        Raises:
            PayloadUnpackable: The value is no data that can travel.
            WorkflowUnknown: The workflow is not stored.
            WorkflowEnded: It has ended.
        """
        run(self._signal(name, value))

    async def asignal(self, name: str, value: object = None) -> None:
        """Let nodes go on that wait for a signal; see ``signal``."""
        await arun(self._signal(name, value))

    def __repr__(self) -> str:
        """Show the id."""
        return f"<WorkflowRun {self.id}>"

    # -- the inside -----------------------------------------------------------------------

    def _result(self, node: NodeRef[object] | str, timeout_s: float | None) -> Steps[object]:
        position, is_map = yield from self._place(node)
        awaited = Awaited(member_id(self.raw_id, position))
        outcome = yield from operations.end_of(self._link, awaited, (), timeout_s)
        if outcome.state != _SUCCEEDED:
            raise error_of(outcome)
        if is_map:
            return [value_of(each) for each in (yield from self._children(position))]
        return value_of(outcome) if outcome.result else None  # the end of a sleep has none

    def _wait(self, timeout_s: float | None) -> Steps[str]:
        outcome = yield from operations.end_of(self._link, Awaited(self.raw_id), (), timeout_s)
        if outcome.state == "unknown":
            broken = outcome.failure is not None and outcome.failure.code == StoreCorrupt.code
            raise error_of(outcome) if broken else self._unknown()
        return outcome.state

    def _state(self) -> Steps[str]:
        return (yield from self._page(0, 1))[0].state

    def _status(self) -> Steps[WorkflowStatus]:
        view, nodes = yield from self._whole()
        return WorkflowStatus(
            id=self.id,
            name=view.name,
            state=view.state,
            created_at=_instant(view.created_at_ms),
            finished_at=None if view.finished_at_ms is None else _instant(view.finished_at_ms),
            failed_node=view.failed_node,
            counts=dict(view.counts),
            nodes=[_status_of(node) for node in nodes],
            reason=view.reason,
        )

    def _progress(self) -> Steps[WorkflowProgress]:
        view, nodes = yield from self._whole()
        return progress_of(view, nodes)

    def _critical_path(self) -> Steps[list[NodeStatus]]:
        _, nodes = yield from self._whole()
        return [_status_of(nodes[position]) for position in critical_path(nodes)]

    def _partial(self, node: NodeRef[object] | str) -> Steps[list[MapItem[object]]]:
        position, is_map = yield from self._place(node)
        if not is_map:
            raise BadRequest(f"node {self._name(node)!r} maps over nothing: result() tells what it returned")
        return [_item(index, each) for index, each in enumerate((yield from self._children(position)))]

    def _order(self, action: str, node: str = "") -> Steps[None]:
        yield from operations.call(self._link, order_of(self.raw_id, action, node), Done, TIMEOUT_S)

    def _signal(self, name: str, value: object) -> Steps[None]:
        yield from operations.call(self._link, WorkflowSignal(0, self.raw_id, name, pack(value)), Done, TIMEOUT_S)

    def _children(self, position: int) -> Steps[list[Outcome]]:
        """Ask for all children of a node, page by page."""
        outcomes: list[Outcome] = []
        while True:
            query = ChildrenQuery(0, member_id(self.raw_id, position), len(outcomes), PAGE_ROWS_MAX)
            page = yield from operations.call(self._link, query, ChildrenPage, TIMEOUT_S)
            outcomes += page.outcomes
            if len(outcomes) >= page.total or not page.outcomes:
                return outcomes

    def _whole(self) -> Steps[tuple[WorkflowView, list[NodeView]]]:
        """Ask for the workflow with all its nodes, page by page."""
        view, nodes = yield from self._page(0, PAGE_ROWS_MAX)
        while len(nodes) < view.nodes:
            more = (yield from self._page(len(nodes), PAGE_ROWS_MAX))[1]
            if not more:  # the rest cannot be read
                break
            nodes += more
        return view, nodes

    def _page(self, first: int, limit: int) -> Steps[tuple[WorkflowView, list[NodeView]]]:
        query = WorkflowQuery(0, self.raw_id, first, limit)
        page = yield from operations.call(self._link, query, WorkflowNodes, TIMEOUT_S)
        if page.view is None:
            raise self._unknown()
        return page.view, page.nodes

    def _place(self, node: NodeRef[object] | str) -> Steps[tuple[int, bool]]:
        """Return a node's position, and whether it maps."""
        if isinstance(node, NodeRef):
            self._name(node)
            return node.position, node.is_map
        if self._graph is not None:
            for position, known in enumerate(self._graph.nodes):
                if known.name == node:
                    return position, known.kind == MAP
            raise self._no_node(node)
        first = 0
        while True:
            view, nodes = yield from self._page(first, PAGE_ROWS_MAX)
            for position, each in enumerate(nodes, first):
                if each.name == node:
                    return position, each.kind == MAP
            first += len(nodes)
            if not nodes or first >= view.nodes:
                raise self._no_node(node)

    def _name(self, node: NodeRef[object] | str) -> str:
        if isinstance(node, str):
            return node
        if self._graph is not None and node.workflow is not self._graph:
            raise WorkflowUnknown(f"node {node.name!r} is of another workflow, {node.workflow.name!r}")
        return node.name

    def _no_node(self, name: str) -> WorkflowUnknown:
        return WorkflowUnknown(f"workflow {self.id} has no node {name[:64]!r}; `taskd workflow show` lists them")

    def _unknown(self) -> WorkflowUnknown:
        return WorkflowUnknown(f"workflow {self.id} is not stored; it was never accepted here, or ended long ago")


def parse_workflow_id(text: str) -> bytes:
    """Read a workflow's id as people write it; that of one of its tasks is read as its own.

    Raises:
        BadRequest: It is no such id.
    """
    raw = parse_task_id(text)
    if not is_workflow_id(raw):
        raise BadRequest(f"{text[:64]!r} is the id of a task; that of a workflow ends in ten zeros")
    return raw


def _item(index: int, outcome: Outcome) -> MapItem[object]:
    if outcome.state == _SUCCEEDED:
        return MapItem(index, outcome.state, value_of(outcome), None)
    ended = outcome.failure is not None or outcome.state == "cancelled"
    return MapItem(index, outcome.state, None, error_of(outcome) if ended else None)


def _status_of(view: NodeView) -> NodeStatus:
    failure = view.failure
    return NodeStatus(
        name=view.name,
        kind=view.kind,
        state=view.state,
        task=view.task,
        attempt=view.attempt,
        agent=view.agent,
        started_at=None if view.started_at_ms is None else _instant(view.started_at_ms),
        finished_at=None if view.finished_at_ms is None else _instant(view.finished_at_ms),
        code="" if failure is None else failure.code,
        reason="" if failure is None else failure.message,
        children=view.children,
        succeeded=view.succeeded,
        failed=view.failed,
    )


def _instant(unix_ms: int) -> dt.datetime:
    return _EPOCH + dt.timedelta(milliseconds=unix_ms)


_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
