"""Nodes of one task: what ``task.node`` is, with which a workflow is written.

A call takes the function's own arguments and what is said of the node. Where the function has a parameter of such a
name, ``with_`` tells which is meant.
"""

from collections.abc import Callable, Iterable, Mapping
from types import EllipsisType
from typing import TYPE_CHECKING, Generic, Protocol, TypeAlias, TypeVar, cast

from taskd.client.workflow import Conditions, NodeOptions, NodeRef, Places, Refs, Trigger, Workflow, open_workflow
from taskd_protocol.errors import BadRequest, PayloadUnpackable, WorkflowInvalid
from taskd_protocol.payload import Input
from taskd_protocol.task import TaskSpec
from taskd_protocol.workflow import MAP, TASK, Node

if TYPE_CHECKING:
    from taskd.client.binding import Binder

R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")


class Call(Protocol):
    """What nodes need of a task, with the options under which it is submitted."""

    name: str
    binder: "Binder"

    def node_task(self, args: tuple[object, ...], kwargs: dict[str, object]) -> TaskSpec:
        """Return what is to be submitted for a call, under an empty id.

        Raises:
            PayloadUnpackable: An argument cannot be carried; it is named.
        """
        ...


class HasNode(Protocol):
    """A task."""

    @property
    def node(self) -> "Nodes[object]":
        """See ``Submitter.node``."""
        ...


Undo: TypeAlias = HasNode | Callable[[NodeRef[object]], NodeRef[object]]
"""What takes a node back: a task, called with the node's result; or a function that writes one node, given this one."""


class PlainNodes(Generic[R_co]):
    """Writes nodes of which everything was said; all arguments are the function's own."""

    def __init__(self, call: Call, options: NodeOptions, undo: Undo | None, in_flight: int) -> None:
        self._call = call
        self._options = options
        self._undo = undo
        self._in_flight = in_flight

    def __call__(self, *args: object, **kwargs: object) -> NodeRef[R_co]:
        """Write a node; see ``Nodes``."""
        workflow = open_workflow(self._call.name)
        self._call.binder.check(args, kwargs)
        name = self._name(workflow)
        return self._write(workflow, Node(name, TASK), Places(workflow, name), args, kwargs)

    def map(self, over: NodeRef[object] | Iterable[object], *args: object, **kwargs: object) -> NodeRef[list[R_co]]:
        """Write a node that maps; see ``Nodes.map``."""
        workflow = open_workflow(self._call.name)
        self._call.binder.check((over, *args), kwargs)
        name = self._name(workflow)
        if not isinstance(over, NodeRef):
            if isinstance(over, str | bytes | Mapping) or not isinstance(over, Iterable):
                raise WorkflowInvalid(
                    f"node {name!r} maps over a list, or a node that returns one: {over!r:.60} is neither"
                )
            items = list(over)
            if any(isinstance(item, NodeRef) for item in items):
                raise WorkflowInvalid(f"node {name!r} maps over a list of nodes: write a node for each of them instead")
            over = workflow.value(items, name=f"{name}-items")
        places = Places(workflow, name, over)
        node = Node(name, MAP, over=places.OVER, in_flight_max=self._in_flight)
        return self._write(workflow, node, places, (Input(places.OVER), *args), kwargs)

    def _name(self, workflow: Workflow) -> str:
        if self._options.name is not None:
            return workflow.free_name(self._options.name, exactly=True)
        return workflow.free_name(self._call.name.rpartition(".")[2])

    def _write(
        self, workflow: Workflow, node: Node, places: Places, args: tuple[object, ...], kwargs: Mapping[str, object]
    ) -> NodeRef[T]:
        put = tuple([places.put(each) for each in args])
        put_by_name = {key: places.put(each) for key, each in kwargs.items()}
        try:
            task = self._call.node_task(put, put_by_name)
        except (PayloadUnpackable, BadRequest) as error:
            raise WorkflowInvalid(f"node {node.name!r}: {error.message}") from None
        ref: NodeRef[T] = workflow.add(node, self._options, task=task, needs=places.needs)
        if self._undo is not None:
            with workflow.compensating(ref):
                if hasattr(self._undo, "node"):
                    cast("HasNode", self._undo).node(ref)
                else:
                    self._undo(ref)
        return ref


class Nodes(Generic[R_co]):
    """Writes nodes of one task into the workflow whose block this is."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def __call__(
        self,
        *args: object,
        name: str | EllipsisType = ...,
        when: Trigger | EllipsisType = ...,
        after: Refs | EllipsisType = ...,
        only_if: Conditions | EllipsisType = ...,
        may_fail: bool | EllipsisType = ...,
        compensate: Undo | EllipsisType | None = ...,
        **kwargs: object,
    ) -> NodeRef[R_co]:
        """Write a node that calls the task.

        Wherever an argument is another node, or holds one in lists, tuples, sets and dicts, that one's result will be,
        and the node comes after it.

        Args:
            args: Of the function.
            name: Of the node; not said: the task's, numbered where that is taken.
            when: Its trigger rule, over all nodes that it comes after; not said: ``all_succeeded``.
            after: Nodes that it comes after, without their results.
            only_if: It is skipped unless results are as these say, see ``NodeRef.equals``: a branch.
            may_fail: Its failure does not make the workflow fail.
            compensate: What takes it back, if it has succeeded and the workflow fails: a task that is called with its
                result, or a function that is given this node and writes one.
            kwargs: Of the function.

        Raises:
            TypeError: The function does not take these arguments, or has a parameter of such a name itself.
            WorkflowInvalid: No workflow's block is here, or the node cannot be; it is named.
        """
        self._refuse_own(name=name, when=when, after=after, only_if=only_if, may_fail=may_fail, compensate=compensate)
        return self.with_(
            name=None if isinstance(name, EllipsisType) else name,
            when=None if isinstance(when, EllipsisType) else when,
            after=() if isinstance(after, EllipsisType) else after,
            only_if=() if isinstance(only_if, EllipsisType) else only_if,
            may_fail=False if isinstance(may_fail, EllipsisType) else may_fail,
            compensate=None if isinstance(compensate, EllipsisType) else compensate,
        )(*args, **kwargs)

    def map(
        self,
        over: NodeRef[object] | Iterable[object],
        *args: object,
        in_flight: int | EllipsisType = ...,
        name: str | EllipsisType = ...,
        when: Trigger | EllipsisType = ...,
        after: Refs | EllipsisType = ...,
        only_if: Conditions | EllipsisType = ...,
        may_fail: bool | EllipsisType = ...,
        **kwargs: object,
    ) -> NodeRef[list[R_co]]:
        """Write a node that calls the task once for each item of a list, which is its first argument.

        Args:
            over: A node whose result is a list; or a list, which becomes a node.
            args: Of the function, after the item; they may be nodes, but for ``over`` itself.
            in_flight: So many at a time; not said: any.
            name: As of any node; likewise the others.
            when: Its trigger rule.
            after: Nodes that it comes after.
            only_if: See ``NodeRef.equals``.
            may_fail: Its failure does not make the workflow fail.
            kwargs: Of the function.

        Raises:
            TypeError: As of any node.
            WorkflowInvalid: As of any node.
        """
        self._refuse_own(in_flight=in_flight, name=name, when=when, after=after, only_if=only_if, may_fail=may_fail)
        return self.with_(
            in_flight=0 if isinstance(in_flight, EllipsisType) else in_flight,
            name=None if isinstance(name, EllipsisType) else name,
            when=None if isinstance(when, EllipsisType) else when,
            after=() if isinstance(after, EllipsisType) else after,
            only_if=() if isinstance(only_if, EllipsisType) else only_if,
            may_fail=False if isinstance(may_fail, EllipsisType) else may_fail,
        ).map(over, *args, **kwargs)

    def with_(
        self,
        *,
        name: str | None = None,
        when: Trigger | None = None,
        after: Refs = (),
        only_if: Conditions = (),
        may_fail: bool = False,
        compensate: Undo | None = None,
        in_flight: int = 0,
    ) -> PlainNodes[R_co]:
        """Say of a node what there is to say, and return what is to be called with the function's arguments alone."""
        options = NodeOptions(name=name, when=when, after=after, only_if=only_if, may_fail=may_fail)
        return PlainNodes(self._call, options, compensate, in_flight)

    def _refuse_own(self, **said: object) -> None:
        """Refuse what the function might mean to have for itself."""
        both = [name for name, value in said.items() if value is not ... and self._call.binder.takes(name)]
        if both:
            task, option = self._call.name.rpartition(".")[2], both[0]
            raise TypeError(
                f"{self._call.name}() has a parameter {option!r} of its own: write {task}.node.with_({option}=…)(…) for"
                f" the node's, {task}.node.with_()(…, {option}=…) for the function's"
            )
