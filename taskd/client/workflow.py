"""Workflows: the graph that a program writes down, node by node, before it submits it.

Invariants:
- A node names only nodes that were written before it, of the same workflow: a cycle cannot be written.
- Each node was checked, by itself, when it was written; what concerns several is checked before the submit.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Final, Generic, Literal, Self, TypeAlias, TypeVar

import msgspec
from msgspec.structs import replace

from taskd.client.waiting import Steps, arun, run
from taskd_protocol.errors import BadRequest, PayloadUnpackable, WorkflowInvalid
from taskd_protocol.limits import PAYLOAD_BYTES_MAX
from taskd_protocol.payload import Input, pack
from taskd_protocol.task import TaskSpec
from taskd_protocol.workflow import (
    ALL_SUCCEEDED,
    CHILDREN_MAX,
    COMPENSATE,
    ON_FAILURE,
    ON_SUCCESS,
    POLICIES,
    SIGNAL,
    SLEEP,
    VALUE,
    Choice,
    Node,
    check_nodes,
)

if TYPE_CHECKING:
    from taskd.client.client import Client
    from taskd.client.runs import WorkflowRun

T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)

Trigger: TypeAlias = Literal[
    "all_succeeded",
    "all_done",
    "one_failed",
    "one_succeeded",
    "none_failed",
    "none_failed_min_one_succeeded",
    "all_failed",
    "always",
]
"""When a node runs, by what has become of those before it."""

Policy: TypeAlias = Literal["finish_what_you_can", "fail_fast"]
"""What a failed node does to those that do not wait for it."""

NODES_MAX: Final = CHILDREN_MAX - 1
"""Of one workflow, by the numbers that there are; servers have a bound of their own, far lower."""

LATER_DEFAULT: Final = "all_done"
"""Trigger rule of nodes that run when others have failed: by the usual one those would rule them out."""


class Condition(msgspec.Struct, frozen=True):
    """That a node's result is a certain value; made by ``NodeRef.equals``."""

    ref: "NodeRef[object]"
    packed: bytes


class NodeRef(Generic[R_co]):
    """A node of a workflow, standing for its result wherever an argument of another one is.

    Attributes:
        name: The only one of its workflow.
        position: Among the nodes, from 0.
        workflow: Which it is of.
        is_map: It is a task for each item of a list, and its result the list of theirs.
    """

    __slots__ = ("is_map", "name", "position", "workflow")

    def __init__(self, workflow: "Workflow", name: str, position: int, *, is_map: bool) -> None:
        self.workflow = workflow
        self.name = name
        self.position = position
        self.is_map = is_map

    def equals(self, value: object) -> Condition:
        """Give the condition that this node's result is that value, for ``only_if``: a branch.

        Raises:
            PayloadUnpackable: It is no data that can travel.
        """
        return Condition(self, pack(value))

    def __repr__(self) -> str:
        """Show the name."""
        return f"<node {self.name!r} of workflow {self.workflow.name!r}>"


Refs: TypeAlias = NodeRef[object] | Iterable[NodeRef[object]]
Conditions: TypeAlias = Condition | Iterable[Condition]


class NodeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of a node beside its call."""

    name: str | None = None
    """None: the task's own, numbered where that is taken."""
    when: str | None = None
    after: Refs = ()
    only_if: Conditions = ()
    may_fail: bool = False


class Places:
    """Results in a call's arguments: each node once, numbered in the order in which they are met.

    Attributes:
        needs: The positions of the nodes, by their numbers.
    """

    OVER: Final = 0
    """The number of the list that a node maps over, whose place its items take."""

    def __init__(self, workflow: "Workflow", node: str, over: NodeRef[object] | None = None) -> None:
        """Begin.

        Args:
            workflow: Which the node is written into.
            node: Its name.
            over: What it maps over, if it does.
        """
        self._workflow = workflow
        self._node = node
        self._over = -1 if over is None else workflow.own(over, node)
        self.needs = [] if over is None else [self._over]

    def put(self, value: object) -> object:
        """Return the value with the place of a result wherever a node stood.

        Raises:
            WorkflowInvalid: A node is of another workflow, or the one that is mapped over.
        """
        match value:
            case NodeRef():
                return self._place(value)
            case dict() if type(value) is dict:
                return {self.put(key): self.put(each) for key, each in value.items()}
            case list() | tuple() | set() | frozenset() if type(value) in {list, tuple, set, frozenset}:
                return type(value)([self.put(each) for each in value])
            case _:
                return value

    def _place(self, ref: NodeRef[object]) -> Input:
        position = self._workflow.own(ref, self._node)
        if position == self._over:
            raise WorkflowInvalid(
                f"node {self._node!r} maps over {ref.name!r}, whose items take its place: it cannot have the whole"
                " list as another argument"
            )
        if position not in self.needs:
            self.needs.append(position)
        return Input(self.needs.index(position))


class Workflow:
    """A graph of tasks; made by ``App.workflow``, filled by ``task.node`` within its ``with`` block.

    Attributes:
        name: For people; several may have the same.
        nodes: As they stand, in order.
        policy: What a failed node does to those that do not wait for it.
    """

    def __init__(self, name: str, *, policy: Policy, client: "Callable[[], Client]", timeout_s: float) -> None:
        """Begin an empty one.

        Args:
            name: For people.
            policy: What a failed node does to those that do not wait for it.
            client: Gives the client of now.
            timeout_s: How long a submit may take.

        Raises:
            BadRequest: The policy is unknown.
        """
        if policy not in POLICIES:
            raise BadRequest(f"policy {policy!r} is unknown; use {' or '.join(POLICIES)}")
        self.name = name
        self.nodes: list[Node] = []
        self.policy = policy
        self._client = client
        self._timeout_s = timeout_s
        self._names: set[str] = set()
        self._numbers: dict[str, int] = {}  # the last that was put behind a name
        self._default_when: set[int] = set()  # of these nodes the trigger rule was not said
        self._compensates = -1  # the node that those written now take back
        self._tokens: list[Token[Workflow | None]] = []

    def __enter__(self) -> Self:
        """Have ``task.node`` write nodes here."""
        self._tokens.append(_open.set(self))
        return self

    def __exit__(self, *_: object) -> None:
        """Have it write them where it did before."""
        _open.reset(self._tokens.pop())

    def value(self, value: T, *, name: str = "value") -> NodeRef[T]:
        """Write a node whose result is this value.

        Raises:
            WorkflowInvalid: It is no data that can travel, or too large.
        """
        name = self.free_name(name)
        try:
            packed = pack(value)
        except PayloadUnpackable as error:
            raise WorkflowInvalid(f"node {name!r}: {error.message}") from None
        return self.add(Node(name, VALUE, packed=packed), NodeOptions())

    def sleep(
        self,
        seconds: float,
        *,
        after: Refs = (),
        when: Trigger | None = None,
        only_if: Conditions = (),
        name: str = "sleep",
    ) -> NodeRef[None]:
        """Write a node that ends so many seconds after its turn has come; it holds no slot meanwhile."""
        name = self.free_name(name)
        node = Node(name, SLEEP, wait_ms=_wait_ms(name, seconds))
        return self.add(node, NodeOptions(after=after, when=when, only_if=only_if))

    def signal(
        self,
        signal: str,
        *,
        timeout: float | None = None,
        after: Refs = (),
        when: Trigger | None = None,
        only_if: Conditions = (),
        may_fail: bool = False,
        name: str | None = None,
    ) -> NodeRef[object]:
        """Write a node that waits for ``WorkflowRun.signal``, or `taskd workflow signal`, and has its value for result.

        Args:
            signal: Its name. One that came before the node's turn counts.
            timeout: Seconds after which it has failed; None: never.
            after: What it comes after.
            when: Its trigger rule.
            only_if: See ``NodeRef.equals``.
            may_fail: Its failure does not make the workflow fail.
            name: Of the node; None: the signal's.
        """
        chosen = self.free_name(signal if name is None else name)
        wait_ms = 0 if timeout is None else _wait_ms(chosen, timeout)
        options = NodeOptions(after=after, when=when, only_if=only_if, may_fail=may_fail)
        return self.add(Node(chosen, SIGNAL, signal=signal, wait_ms=wait_ms), options)

    def on_success(self, *refs: NodeRef[object]) -> None:
        """Have these nodes run only when all others have ended and none has failed."""
        self._mark(refs, ON_SUCCESS)

    def on_failure(self, *refs: NodeRef[object]) -> None:
        """Have these nodes run only when all others have ended and the workflow has failed; not when it was cancelled.

        Unless they say otherwise they run whatever became of the nodes that they name: ``when="all_done"``.
        """
        self._mark(refs, ON_FAILURE)

    def submit(self) -> "WorkflowRun":
        """Start it; return once it is durable on the server. Called again it starts another one.

        Raises:
            WorkflowInvalid: It cannot run as it is written; the node is named.
            TaskdError: The server cannot be reached, or refuses.
        """
        return run(self._submit())

    async def asubmit(self) -> "WorkflowRun":
        """Start it, on asyncio or trio; see ``submit``."""
        return await arun(self._submit())

    def check(self) -> None:
        """Refuse what cannot run as it is written, as far as that can be told here.

        Raises:
            WorkflowInvalid: The node is named.
        """
        check_phases(self.nodes)
        if not self.nodes:
            raise WorkflowInvalid(f"workflow {self.name!r} has no nodes: write them with task.node() within its block")

    # -- for nodes ------------------------------------------------------------------------

    def free_name(self, wanted: str, *, exactly: bool = False) -> str:
        """Return a name that no node has: the one wanted, numbered where that is taken.

        Raises:
            WorkflowInvalid: Exactly that was wanted.
        """
        if wanted not in self._names:
            return wanted
        if exactly:
            raise WorkflowInvalid(f"two nodes are named {wanted!r}: give one another name=")
        number = self._numbers.get(wanted, 1)
        while (name := f"{wanted}-{(number := number + 1)}") in self._names:
            pass
        self._numbers[wanted] = number
        return name

    def own(self, ref: NodeRef[object], node: str) -> int:
        """Return the position of a node that is named by another one.

        Raises:
            WorkflowInvalid: It is none of this workflow.
        """
        if not isinstance(ref, NodeRef):
            raise WorkflowInvalid(f"node {node!r}: {ref!r:.60} is no node; give what task.node() returned")
        if ref.workflow is not self:
            raise WorkflowInvalid(
                f"node {node!r} names node {ref.name!r}, which is of another workflow, {ref.workflow.name!r}"
            )
        return ref.position

    def add(
        self, node: Node, options: NodeOptions, *, task: TaskSpec | None = None, needs: Sequence[int] = ()
    ) -> NodeRef[T]:
        """Write a node down.

        Args:
            node: Its name, and what is said of its kind alone.
            options: What is said of any.
            task: Of those that have one.
            needs: Positions of the nodes whose results it gets.

        Raises:
            WorkflowInvalid: It is out of range, or names what it cannot; it is named.
        """
        name, position = node.name, len(self.nodes)
        if position >= NODES_MAX:
            raise WorkflowInvalid(f"node {name!r} is one too many, after {NODES_MAX}: use map for many of a kind")
        choices = [
            Choice(self.own(each.ref, name), each.packed)
            for each in ([options.only_if] if isinstance(options.only_if, Condition) else options.only_if)
        ]
        after = (
            [options.after] if isinstance(options.after, NodeRef | str) else options.after
        )  # str: to be refused whole
        behind = dict.fromkeys([*(self.own(ref, name) for ref in after), *(choice.node for choice in choices)])
        phase, compensates = (COMPENSATE, self._compensates) if self._compensates >= 0 else ("", -1)
        if options.when is None:
            self._default_when.add(position)
        made = replace(
            node,
            task=task,
            needs=list(needs),
            after=[each for each in behind if each not in needs],
            when=options.when or (LATER_DEFAULT if phase else ALL_SUCCEEDED),
            only_if=choices,
            may_fail=options.may_fail,
            phase=phase,
            compensates=compensates,
        )
        check_nodes([made], position, PAYLOAD_BYTES_MAX)
        self.nodes.append(made)
        self._names.add(name)
        return NodeRef(self, name, position, is_map=node.kind == "map")

    @contextmanager
    def compensating(self, ref: NodeRef[object]) -> Iterator[None]:
        """Have the node that is written meanwhile take back that one, should it come to that.

        Raises:
            WorkflowInvalid: Not exactly one was written.
        """
        if self._compensates >= 0:
            raise WorkflowInvalid(f"node {ref.name!r}: what takes back another node is not taken back itself")
        before = len(self.nodes)
        self._compensates = ref.position
        try:
            yield
        finally:
            self._compensates = -1
        if len(self.nodes) != before + 1:
            raise WorkflowInvalid(
                f"node {ref.name!r}: compensate writes {len(self.nodes) - before} nodes; it is to write one, that takes"
                " this one back"
            )

    # -- the inside -----------------------------------------------------------------------

    def _mark(self, refs: Iterable[NodeRef[object]], phase: str) -> None:
        for ref in refs:
            position = self.own(ref, phase)
            node = self.nodes[position]
            if node.phase not in {"", phase}:
                raise WorkflowInvalid(f"node {ref.name!r} runs {_when(node.phase)} already")
            when = LATER_DEFAULT if position in self._default_when else node.when
            self.nodes[position] = replace(node, phase=phase, when=when)

    def _submit(self) -> "Steps[WorkflowRun]":
        from taskd.client.runs import WorkflowRun  # noqa: PLC0415 - not for workers that submit none

        self.check()
        client = self._client()
        raw_id = yield from client.workflow_steps(self.name, self.nodes, self.policy, self._timeout_s)
        return WorkflowRun(raw_id, client.link, self)


def check_phases(nodes: list[Node]) -> None:
    """Refuse a node that waits for one which runs only later.

    Raises:
        WorkflowInvalid: Both are named.
    """
    for node in nodes:
        for parent in (nodes[position] for position in (*node.needs, *node.after)):
            if parent.phase and (parent.phase != node.phase or node.phase == COMPENSATE):
                raise WorkflowInvalid(
                    f"node {node.name!r} comes after {parent.name!r}, which runs {_when(parent.phase)}: it"
                    " would never run"
                )


def open_workflow(task: str) -> Workflow:
    """Return the workflow whose block this is.

    Raises:
        WorkflowInvalid: There is none.
    """
    workflow = _open.get()
    if workflow is None:
        raise WorkflowInvalid(f"{task}.node() is for the block of a workflow: with app.workflow(…) as wf: …")
    return workflow


def _when(phase: str) -> str:
    later = {ON_SUCCESS: "when all else has succeeded", ON_FAILURE: "when the workflow has failed"}
    return later.get(phase, "only to take another node back")


def _wait_ms(name: str, seconds: float) -> int:
    if not math.isfinite(seconds) or seconds <= 0:
        raise WorkflowInvalid(
            f"node {name!r}: a wait of {seconds} seconds is out of range; it goes from 1 ms to ten years"
        )
    return max(1, round(seconds * 1000))


_open: ContextVar[Workflow | None] = ContextVar("taskd_workflow", default=None)
