"""The client: everything a program can ask a server, in terms of the protocol's own messages.

What users of tasks want is the App; this is what it, the command line and tests stand on.
"""

import os
import platform
import sys
from collections.abc import AsyncGenerator, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

import taskd
from taskd.client import operations
from taskd.client.clock import mono_s
from taskd.client.ends import Awaited
from taskd.client.line import Line
from taskd.client.misfits import texts_of
from taskd.client.operations import ReplyT
from taskd.client.promise import Following, Looking
from taskd.client.trace import make_traceparents
from taskd.client.waiting import Steps, arun, run
from taskd_protocol import limits
from taskd_protocol.errors import ConnectionLost
from taskd_protocol.event_messages import EventPage, EventsFollow
from taskd_protocol.ids import RANDOM_BYTES_PER_TASK_ID, TaskId, make_task_ids
from taskd_protocol.messages import Follow, LogEntry, ToServer
from taskd_protocol.task import Outcome, TaskSpec, check_specs
from taskd_protocol.workflow import ENTROPY_BYTES, Node, WorkflowSpec, check_nodes, make_workflow_id

if TYPE_CHECKING:
    from taskd.client.profile import Profile

TIMEOUT_S: Final = 30.0
"""Default for an answer of the server: longer than its restart, shorter than a person's patience."""

CHUNK_TASKS: Final = 1_000
CHUNK_BYTES: Final = 200_000
"""A SUBMIT of a bulk submit holds at most so many tasks, or little more than so many payload bytes: it fits one
frame, and the server begins with it while the next is being made."""


class Client:
    """A connection to a server, made at the first use and again whenever it is lost.

    Safe to use from any number of threads and event loops, and after a fork. The names with an
    ``a`` are for asyncio and trio.

    Attributes:
        profile: The server that it talks to.
        link: For those who run operations of their own.
        warnings: What the server said of submits that it accepted: that no agent could ever run these tasks.
    """

    def __init__(self, profile: "Profile | None" = None, *, name: str = "", line: Line | None = None) -> None:
        """Prepare a client; nothing is connected yet.

        Args:
            profile: Which server; None: what ``resolve`` finds.
            name: A label for people who look at the server; by default program, host and process.
            line: A way to a server that is there already, in place of a profile.

        Raises:
            ConfigInvalid: No server is known here, or the profile is damaged.
        """
        if line is None:
            # sockets and TLS: a quarter of what a worker imports, and one that submits nothing does without
            from taskd.client.link import Link  # noqa: PLC0415
            from taskd.client.profile import resolve  # noqa: PLC0415

            known = resolve() if profile is None else profile
            line = Link(known, name=name or _label(), software=f"taskd-python/{taskd.__version__}")
        self.link: Line = line
        self.warnings: list[str] = []
        self.profile = line.profile

    def connect(self, timeout: float | None = TIMEOUT_S) -> None:
        """Return once the server has welcomed us; raise at once when it will not, or is not there."""
        run(operations.connect(self.link, timeout))

    def call(self, message: ToServer, reply: type[ReplyT], timeout: float | None = TIMEOUT_S) -> ReplyT:
        """Ask what is answered by one message.

        Args:
            message: Any request; its request id is set here, give 0.
            reply: The kind of message that answers it.
            timeout: Seconds.

        Raises:
            TaskdError: The server's refusal, or why there is no answer.
        """
        return run(operations.call(self.link, message, reply, timeout))

    async def acall(self, message: ToServer, reply: type[ReplyT], timeout: float | None = TIMEOUT_S) -> ReplyT:  # noqa: ASYNC109 - one name in both faces
        """Ask what is answered by one message; see ``call``."""
        return await arun(operations.call(self.link, message, reply, timeout))

    def make_ids(self, count: int, timeout: float | None = TIMEOUT_S) -> list[TaskId]:
        """Make ids for new tasks, in rising order, from the server's time; connects if that was never told."""
        run(operations.connect(self.link, timeout))
        return self.make_ids_nowait(count, 0)[0]

    def make_ids_nowait(self, count: int, not_before_ms: int) -> tuple[list[TaskId], int]:
        """Make ids for new tasks, all of one millisecond, after a connection was made.

        Args:
            count: How many.
            not_before_ms: The millisecond is this one at least, so that a series of calls rises.

        Returns:
            The ids, and the millisecond.
        """
        unix_ms = max(not_before_ms, self._server_ms())
        return make_task_ids(count, unix_ms, os.urandom(count * RANDOM_BYTES_PER_TASK_ID)), unix_ms

    def submit(self, specs: Sequence[TaskSpec], timeout: float | None = TIMEOUT_S) -> list[bytes]:
        """Submit tasks; return when all are durable.

        Args:
            specs: With ids of ``make_ids``.
            timeout: Seconds, for each thousand of them.

        Returns:
            Their ids, in order; where a key was known, the id of the first task that had it.

        Raises:
            TaskdError: They were refused, or why there is no answer.
        """
        return run(self._submit(specs, timeout))

    async def asubmit(self, specs: Sequence[TaskSpec], timeout: float | None = TIMEOUT_S) -> list[bytes]:  # noqa: ASYNC109
        """Submit tasks; see ``submit``."""
        return await arun(self._submit(specs, timeout))

    def _submit(self, specs: Sequence[TaskSpec], timeout_s: float | None) -> Steps[list[bytes]]:
        session = yield from operations.connect(self.link, timeout_s)
        check_specs(specs, session.limits.payload_bytes_max)
        ids = [spec.id for spec in specs]
        chunks = list(cut(specs, session.limits.submit_tasks_max))
        start = 0
        for chunk, accepted in zip(chunks, (yield from operations.submit(self.link, chunks, timeout_s)), strict=True):
            for index, task_id in accepted.existing:
                ids[start + index] = task_id
            self.warnings += texts_of(accepted.warnings, [spec.name for spec in chunk]) if accepted.warnings else ()
            start += len(chunk)
        return ids

    def wait(self, ids: Sequence[bytes], timeout: float | None = None) -> list[Outcome]:
        """Wait until all these tasks have ended.

        Returns:
            Their outcomes in the order asked; of one that is not stored the state is ``unknown``.

        Raises:
            TimedOut: Not all have ended within ``timeout`` seconds.
        """
        tasks = [Awaited(task_id) for task_id in ids]
        run(operations.ends_of(self.link, tasks, timeout))
        return [task.outcome for task in tasks if task.outcome is not None]

    def follow(self, task_id: bytes, sequence: int = 0, timeout: float | None = None) -> Iterator[LogEntry]:
        """Read a task's output as it comes, until the task has ended.

        Args:
            task_id: 16 bytes.
            sequence: Of the first entry wanted.
            timeout: Seconds that may pass without output; None: any.

        Raises:
            TaskUnknown: No such task is stored.
        """
        yield from self.read(Follow(0, task_id, sequence), timeout)

    def read(self, wanted: Follow, timeout: float | None = None) -> Iterator[LogEntry]:
        """Read of a task's output what is wanted of it; see ``follow``."""
        following = Following(wanted)
        self.link.ask(following)
        try:
            while (page := run(operations.next_page(self.link, following, timeout))) is not None:
                yield from page
        finally:
            if not following.ended:
                self.link.give_up(following)

    def events(self, wanted: EventsFollow, timeout: float | None = None) -> Iterator[EventPage]:
        """Read what happens, page by page, over lost connections and restarts of the server; it never ends by itself.

        Args:
            wanted: From where on, and what; give 0 as its request id.
            timeout: Seconds that may pass without a page; None: any.
        """
        looking = Looking(wanted)
        self.link.ask(looking)
        try:
            while True:
                yield run(operations.next_events(self.link, looking, timeout))
        finally:
            self.link.give_up(looking)

    async def aevents(self, wanted: EventsFollow, timeout: float | None = None) -> AsyncGenerator[EventPage]:  # noqa: ASYNC109
        """Read what happens; see ``events``."""
        looking = Looking(wanted)
        self.link.ask(looking)
        try:
            while True:
                yield await arun(operations.next_events(self.link, looking, timeout))
        finally:
            self.link.give_up(looking)

    def submit_workflow(
        self, name: str, nodes: Sequence[Node], policy: str, timeout: float | None = TIMEOUT_S
    ) -> bytes:
        """Start a workflow; return its id when it is durable.

        Raises:
            TaskdError: It was refused, or why there is no answer.
        """
        return run(self.workflow_steps(name, nodes, policy, timeout))

    def workflow_steps(self, name: str, nodes: Sequence[Node], policy: str, timeout_s: float | None) -> Steps[bytes]:
        """Do what ``submit_workflow`` does, in whatever way the caller waits."""
        session = yield from operations.connect(self.link, timeout_s)
        check_nodes(nodes, 0, session.limits.payload_bytes_max)
        raw_id = make_workflow_id(self._server_ms(), os.urandom(ENTROPY_BYTES))
        spec = WorkflowSpec(raw_id, name, len(nodes), policy, make_traceparents([raw_id])[0])
        yield from operations.submit_workflow(self.link, spec, list(cut_nodes(nodes)), timeout_s)
        return raw_id

    def server_ms(self) -> int:
        """Return the server's time of day, UTC.

        Raises:
            TaskdError: It cannot be reached.
        """
        run(operations.connect(self.link, TIMEOUT_S))
        return self._server_ms()

    def _server_ms(self) -> int:
        session = self.link.session
        if session is None or session.clock_offset_ms is None:
            raise ConnectionLost("this client was closed")
        return round(mono_s() * 1000 + session.clock_offset_ms)

    def close(self) -> None:
        """Hang up; whoever still waits gets ConnectionLost. A later use connects anew."""
        self.link.close()


def cut(specs: Sequence[TaskSpec], tasks_max: int) -> Iterator[list[TaskSpec]]:
    """Cut a bulk submit into SUBMITs, by tasks and by bytes."""
    rest = iter(specs)
    while chunk := list(islice(rest, max(1, min(CHUNK_TASKS, tasks_max)))):
        piece: list[TaskSpec] = []
        size = 0
        for spec in chunk:
            if piece and size + len(spec.payload) > CHUNK_BYTES:
                yield piece
                piece, size = [], 0
            piece.append(spec)
            size += len(spec.payload)
        yield piece


def cut_nodes(nodes: Sequence[Node]) -> Iterator[list[Node]]:
    """Cut a workflow into WORKFLOW_SUBMITs, by nodes and by bytes."""
    piece: list[Node] = []
    size = 0
    for node in nodes:
        node_bytes = len(node.packed) + (0 if node.task is None else len(node.task.payload))
        if piece and (len(piece) == limits.NODES_MAX or size + node_bytes > CHUNK_BYTES):
            yield piece
            piece, size = [], 0
        piece.append(node)
        size += node_bytes
    yield piece


def _label() -> str:
    program = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python"
    label = f"{program} on {platform.node()}, process {os.getpid()}"
    return "".join(letter if letter.isprintable() else "?" for letter in label)[: limits.NAME_CHARS_MAX]
