"""A small server for the client's tests: real sockets, real protocol, everything in memory.

It accepts every submit and runs tasks the moment they come, unless told otherwise. Nothing here is durable.
"""

import contextlib
import socket
import ssl
import threading
from typing import TYPE_CHECKING

from taskd_protocol.connection import Connection, UnknownMessage, server_side
from taskd_protocol.connection_messages import Done, Error, Hello, PeerLimits, Ping, Pong, Welcome
from taskd_protocol.errors import TaskdError
from taskd_protocol.explanation import Explanation, Misfit, Reason
from taskd_protocol.handshake import make_mark
from taskd_protocol.house_messages import QueueList, QueuePage
from taskd_protocol.limits import PROTOCOL_VERSION_MAX
from taskd_protocol.messages import (
    Accepted,
    AttemptView,
    Cancel,
    Cancelled,
    Follow,
    FollowMore,
    LogEntry,
    LogPage,
    OutcomeCredit,
    Outcomes,
    Submit,
    TaskExplain,
    TaskExplained,
    TaskQuery,
    TaskRetried,
    TaskRetry,
    TaskView,
    TaskViews,
    ToPeer,
    ToServer,
    Wait,
)
from taskd_protocol.payload import pack, unpack_arguments
from taskd_protocol.task import Failure, Outcome, TaskSpec
from taskd_protocol.workflow import Node, member_id, workflow_of
from taskd_protocol.workflow_messages import (
    ChildrenPage,
    ChildrenQuery,
    NodeView,
    WorkflowAccepted,
    WorkflowNodes,
    WorkflowOrder,
    WorkflowQuery,
    WorkflowSignal,
    WorkflowSubmit,
    WorkflowView,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
from pathlib import Path

TOKEN = "taskd_client_fake_secret_0"
SERVER_TIME_MS = 1_900_000_000_000
KEY = bytes(32)


class Peer:
    """One connection."""

    def __init__(self, server: "FakeServer", stream: socket.socket) -> None:
        self.server = server
        self.stream = stream
        self.connection: Connection[ToServer] = server_side()
        self.writing = threading.Lock()
        self.credit = 0
        self.waiting: dict[bytes, None] = {}
        self.hello: Hello | None = None
        self.pages: dict[int, Iterator[LogPage]] = {}

    def serve(self) -> None:
        try:
            while data := self.stream.recv(1 << 18):
                with self.server.lock:
                    for message in self.connection.receive(data):
                        self.server.take(self, message)
                    self.push()
                self.flush()
        except (OSError, TaskdError):
            pass
        finally:
            with self.server.lock:
                self.server.peers.discard(self)
            with contextlib.suppress(OSError):
                self.stream.close()

    def send(self, message: ToPeer) -> None:
        self.connection.send(message)

    def push(self) -> None:
        """Put what is waited for and known into the outbox, as far as the credit goes."""
        known = self.server.outcomes
        ready = [task_id for task_id in self.waiting if task_id in known][: self.credit]
        self.credit -= len(ready)
        for start in range(0, len(ready), 500):
            part = ready[start : start + 500]
            self.send(Outcomes([known[task_id] for task_id in part]))
            for task_id in part:
                del self.waiting[task_id]

    def flush(self) -> None:
        """Send what waits; on a connection that is gone it is lost."""
        with self.writing, contextlib.suppress(OSError):
            while data := self.connection.data_to_send():
                self.stream.sendall(data)

    def hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self.stream.shutdown(socket.SHUT_RDWR)


def echo(spec: TaskSpec) -> Outcome | None:
    """Run a task by returning its first argument."""
    args, _ = unpack_arguments(spec.payload)
    return Outcome(spec.id, "succeeded", 1, pack(args[0] if args else None))


class FakeServer:
    """Listens on a loopback port until it is stopped.

    Attributes:
        run: Makes a task's outcome when it is accepted; None: it does not end by itself.
        intercept: Sees each message first; True: it was dealt with.
        log: Output that FOLLOW gives of every task, in pages.
    """

    def __init__(
        self, tls: ssl.SSLContext | None = None, *, ca_file: Path | None = None, limits: PeerLimits | None = None
    ) -> None:
        self.lock = threading.RLock()
        self.tls = tls
        self.ca_file = ca_file
        self.limits = limits or PeerLimits()
        self.run: Callable[[TaskSpec], Outcome | None] = echo
        self.intercept: Callable[[Peer, ToServer | UnknownMessage], bool] = lambda _peer, _message: False
        self.log: list[list[LogEntry]] = []
        self.received: list[ToServer | UnknownMessage] = []
        self.tasks: dict[bytes, TaskSpec] = {}
        self.keys: dict[str, bytes] = {}
        self.attempts: dict[bytes, list[AttemptView]] = {}
        self.reason: Reason | None = None
        self.warnings: list[Misfit] = []
        self.outcomes: dict[bytes, Outcome] = {}
        self.drafts: dict[bytes, list[Node]] = {}
        self.workflows: dict[bytes, tuple[WorkflowSubmit, list[Node]]] = {}
        self.orders: list[WorkflowOrder | WorkflowSignal] = []
        self.children: dict[bytes, list[Outcome]] = {}
        self.page_rows = 1_000
        self.commits = 0
        self.peers: set[Peer] = set()
        self.port = 0
        self._listener: socket.socket | None = None
        self.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        if self.tls is None:
            return f"taskd+tcp://{TOKEN}@{self.address}"
        return f"taskd://{TOKEN}@{self.address}?ca={self.ca_file}"

    def start(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stop(self) -> None:
        """Stop listening and cut every connection; what was accepted is kept for the next start."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        self.drafts.clear()
        self.cut()

    def cut(self) -> None:
        """Cut every connection."""
        with self.lock:
            for peer in list(self.peers):
                peer.hang_up()

    def end(self, outcome: Outcome) -> None:
        """Let a task end now."""
        with self.lock:
            self.outcomes[outcome.id] = outcome
            for peer in list(self.peers):
                peer.push()
                peer.flush()

    def submits(self) -> list[Submit]:
        with self.lock:
            return [message for message in self.received if isinstance(message, Submit)]

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                stream, _ = listener.accept()
            except OSError:
                return
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(stream,), daemon=True).start()

    def _serve(self, stream: socket.socket) -> None:
        if self.tls is not None:
            try:
                stream = self.tls.wrap_socket(stream, server_side=True)
            except OSError:
                stream.close()
                return
        peer = Peer(self, stream)
        with self.lock:
            self.peers.add(peer)
        peer.serve()

    def take(self, peer: Peer, message: ToServer | UnknownMessage) -> None:  # noqa: C901 - one case a message
        self.received.append(message)
        if self.intercept(peer, message):
            return
        match message:
            case Hello():
                self._hello(peer, message)
            case Submit():
                peer.send(self._accepted(message))
            case Wait():
                peer.send(Done(message.request_id))
                peer.waiting.update(dict.fromkeys(message.ids))
                for task_id in message.ids:
                    if task_id not in self.tasks and workflow_of(task_id) not in self.workflows:
                        gone = Failure("task.unknown", "that task is not stored")
                        self.outcomes.setdefault(task_id, Outcome(task_id, "unknown", failure=gone))
            case OutcomeCredit():
                peer.credit += message.outcomes
            case Follow():
                self._follow(peer, message)
            case FollowMore():
                self._page(peer, message.request_id)
            case WorkflowSubmit():
                peer.send(self._workflow(message))
            case WorkflowQuery() | ChildrenQuery() | WorkflowOrder() | WorkflowSignal():
                peer.send(self._of_workflow(message))
            case _:
                peer.send(self._reply(message))

    def _of_workflow(self, message: WorkflowQuery | ChildrenQuery | WorkflowOrder | WorkflowSignal) -> ToPeer:
        match message:
            case WorkflowQuery():
                return self._nodes(message)
            case ChildrenQuery():
                outcomes = self.children.get(message.id, [])
                shown = outcomes[message.first : message.first + min(message.limit, self.page_rows)]
                return ChildrenPage(message.request_id, len(outcomes), shown)
            case _ if message.id not in self.workflows:
                return Error(message.request_id, "workflow.unknown", "that workflow is not stored")
            case _:
                self.orders.append(message)
                return Done(message.request_id)

    def _reply(self, message: ToServer | UnknownMessage) -> ToPeer:
        match message:
            case Cancel():
                return Cancelled(message.request_id, [self._cancel(task_id) for task_id in message.ids])
            case TaskRetry():
                return TaskRetried(message.request_id, [self._retry(task_id) for task_id in message.ids])
            case TaskQuery() | TaskExplain():
                return self._show(message)
            case QueueList():
                return QueuePage(message.request_id, [])
            case Ping():
                return Pong(message.nonce, SERVER_TIME_MS)
            case _:
                return Error(getattr(message, "request_id", 0), "protocol.unknown_kind", "not known here")

    def _hello(self, peer: Peer, hello: Hello) -> None:
        peer.hello = hello
        if hello.token != TOKEN:
            peer.send(Error(0, "auth.refused", "the token is not known"))
            peer.flush()
            peer.hang_up()
            return
        peer.connection.trust()
        peer.credit = self.limits.outcome_credit
        mark = make_mark(KEY, bytes(16), self.commits)
        session = bytes(15) + b"s"
        peer.send(Welcome(PROTOCOL_VERSION_MAX, session, 1, SERVER_TIME_MS, self.limits, mark, "client", "fake"))

    def _accepted(self, submit: Submit) -> Accepted:
        existing: list[tuple[int, bytes]] = []
        for index, spec in enumerate(submit.tasks):
            first = self.keys.get(spec.key, spec.id) if spec.key else spec.id
            if first in self.tasks:
                existing.append((index, first))
                continue
            self.tasks[spec.id] = spec
            if spec.key:
                self.keys[spec.key] = spec.id
            outcome = self.run(spec)
            if outcome is not None:
                self.outcomes[spec.id] = outcome
        self.commits += 1
        return Accepted(submit.request_id, make_mark(KEY, bytes(16), self.commits), existing, self.warnings)

    def _workflow(self, submit: WorkflowSubmit) -> WorkflowAccepted | Error:
        """Parts are known until the server stops; what does not fit them is refused."""
        spec = submit.workflow
        draft = self.drafts.setdefault(spec.id, [])
        if submit.first == 0:
            draft.clear()
        if submit.first != len(draft):
            return Error(submit.request_id, "request.invalid", "nodes before these have not come")
        draft += submit.nodes
        if len(draft) == spec.nodes:
            self.workflows[spec.id] = submit, self.drafts.pop(spec.id)
        self.commits += 1
        return WorkflowAccepted(
            submit.request_id, make_mark(KEY, bytes(16), self.commits), submit.first + len(submit.nodes)
        )

    def _nodes(self, query: WorkflowQuery) -> WorkflowNodes:
        if query.id not in self.workflows:
            return WorkflowNodes(query.request_id, None, [])
        submit, nodes = self.workflows[query.id]
        spec, ended = submit.workflow, self.outcomes.get(query.id)
        view = WorkflowView(
            id=spec.id,
            name=spec.name,
            state="running" if ended is None else ended.state,
            nodes=len(nodes),
            counts={},
            created_at_ms=SERVER_TIME_MS,
            finished_at_ms=None,
            policy=spec.policy,
            traceparent=spec.traceparent,
        )
        shown = range(query.first, min(len(nodes), query.first + min(query.limit, self.page_rows)))
        return WorkflowNodes(query.request_id, view, [self._node(spec.id, at, nodes[at]) for at in shown])

    def _node(self, workflow: bytes, position: int, node: Node) -> NodeView:
        task = "" if node.task is None else node.task.name
        ended = self.outcomes.get(member_id(workflow, position))
        return NodeView(
            name=node.name,
            kind=node.kind,
            state="blocked" if ended is None else ended.state,
            task=task,
            needs=node.needs,
            after=node.after,
            when=node.when,
            failure=None if ended is None else ended.failure,
            started_at_ms=SERVER_TIME_MS if ended else None,
        )

    def _cancel(self, task_id: bytes) -> str:
        if task_id not in self.tasks:
            return "unknown"
        return self.outcomes.setdefault(task_id, Outcome(task_id, "cancelled")).state

    def _retry(self, task_id: bytes) -> str:
        if task_id not in self.tasks:
            return "unknown"
        if task_id in self.outcomes and self.outcomes[task_id].state == "succeeded":
            return "succeeded"
        self.outcomes.pop(task_id, None)
        return "ready"

    def _show(self, message: TaskQuery | TaskExplain) -> TaskViews | TaskExplained:
        if isinstance(message, TaskQuery):
            return TaskViews(message.request_id, [self._view(task_id) for task_id in message.ids])
        spec = self.tasks.get(message.id)
        told = None if spec is None else Explanation(spec.id, spec.name, spec.queue, "ready", 0, self.reason)
        return TaskExplained(message.request_id, told)

    def _view(self, task_id: bytes) -> TaskView | None:
        spec = self.tasks.get(task_id)
        if spec is None:
            return None
        outcome = self.outcomes.get(task_id)
        return TaskView(
            id=spec.id,
            name=spec.name,
            queue=spec.queue,
            state="ready" if outcome is None else outcome.state,
            priority=spec.priority,
            attempt=0,
            failures=0,
            max_attempts=3,
            agent="",
            created_at_ms=SERVER_TIME_MS,
            due_at_ms=None,
            started_at_ms=None,
            finished_at_ms=None,
            payload=spec.payload,
            result=None,
            failure=None,
            key=spec.key,
            traceparent=spec.traceparent,
            waits_for="",
            attempts=self.attempts.get(task_id, []),
        )

    def _follow(self, peer: Peer, follow: Follow) -> None:
        if follow.id not in self.tasks:
            peer.send(Error(follow.request_id, "task.unknown", "that task is not stored"))
            return
        pages = [[entry for entry in page if entry.sequence >= follow.sequence] for page in self.log]
        peer.pages[follow.request_id] = iter(
            [*(LogPage(follow.request_id, page) for page in pages if page), LogPage(follow.request_id, [], end=True)]
        )
        self._page(peer, follow.request_id)

    def _page(self, peer: Peer, request_id: int) -> None:
        page = next(peer.pages.get(request_id, iter(())), None)
        if page is not None:
            peer.send(page)
