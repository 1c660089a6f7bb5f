"""Workflows: graphs of tasks, one definition for wire, disk and HTTP.

A workflow's id is a UUID of version 8 that ends in five zero bytes. Those five
number what belongs to it: 20 bits the node, from 1, then 20 bits the child of a
node that maps, from 1. So the id of each task of a workflow is known before it
is made, sorts beside its siblings, and tells which workflow it is of.
"""

import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec

from taskd_protocol import limits
from taskd_protocol.errors import BadRequest, PayloadTooLarge, WorkflowInvalid
from taskd_protocol.ids import TASK_ID_BYTES, is_made_id
from taskd_protocol.task import TaskSpec, are_all_names, check_name, check_template
from taskd_protocol.tracing import NO_TRACEPARENT, is_traceparent

STEM_BYTES: Final = 11
"""Of a task's id, what it shares with all of its workflow."""

_NUMBERS_BYTES: Final = TASK_ID_BYTES - STEM_BYTES

ENTROPY_BYTES: Final = 5
"""That an id is made from."""

NUMBER_BITS: Final = 20
"""Of a node's number, and of a child's."""

CHILDREN_MAX: Final = (1 << NUMBER_BITS) - 1
"""Of one node that maps."""

CHOICE_BYTES_MAX: Final = 512
"""Of a value, packed, that a branch goes by: a longer result is not at hand when it is decided anew."""

ORDER_ID_BYTES: Final = 16
"""Drawn for each order to a workflow."""

NIL: Final = b"\xc0"
"""The packed value of what has none."""

TASK: Final = "task"
MAP: Final = "map"
VALUE: Final = "value"
SLEEP: Final = "sleep"
SIGNAL: Final = "signal"
SPAWN: Final = "spawn"
"""The one node of what the server keeps of a task's children; nobody submits it."""
KINDS: Final = (TASK, MAP, VALUE, SLEEP, SIGNAL)

ALL_SUCCEEDED: Final = "all_succeeded"
TRIGGERS: Final = (
    ALL_SUCCEEDED,
    "all_done",
    "one_failed",
    "one_succeeded",
    "none_failed",
    "none_failed_min_one_succeeded",
    "all_failed",
    "always",
)
"""When a node runs, by what has become of the nodes before it; Airflow's rules and their meanings."""

WHOLE: Final = (ALL_SUCCEEDED, "all_done", "none_failed", "none_failed_min_one_succeeded")
"""Those that run a node only when all before it have ended."""

FINISH: Final = "finish_what_you_can"
FAIL_FAST: Final = "fail_fast"
POLICIES: Final = (FINISH, FAIL_FAST)

ON_SUCCESS: Final = "on_success"
ON_FAILURE: Final = "on_failure"
COMPENSATE: Final = "compensate"
PHASES: Final = ("", ON_SUCCESS, ON_FAILURE, COMPENSATE)


_skip = msgspec.msgpack.Decoder(msgspec.Raw).decode


class Choice(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """That a node runs only if another one's result is this: a branch."""

    node: int
    """Whose result."""
    packed: bytes
    """The value, packed, up to ``CHOICE_BYTES_MAX``; compared byte by byte."""


class Node(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One node of a workflow. It names others by their positions, which are all before its own."""

    name: str
    """The only one of its workflow."""
    kind: str = TASK
    """``task``; ``map``: a task for each item of ``over``'s result; ``value``: ``packed``; ``sleep``: ``wait_ms``;
    ``signal``: until ``signal`` comes."""
    task: TaskSpec | None = None
    """Of ``task`` and ``map``: what is submitted when its turn has come, under an empty id."""
    needs: list[int] = []
    """Nodes whose results its arguments hold: its input of number n is that of the n-th."""
    after: list[int] = []
    """Nodes that it comes after, without their results."""
    when: str = ALL_SUCCEEDED
    """Its trigger rule, over ``needs`` and ``after``."""
    only_if: list[Choice] = []
    """Of nodes among ``needs`` and ``after``: it is skipped unless all are so."""
    over: int = -1
    """Of ``map``: which of ``needs`` is the list; a child's input of that number is its item. Else -1."""
    in_flight_max: int = 0
    """Of ``map``: so many children at a time; 0: any."""
    may_fail: bool = False
    """Its failure does not make the workflow fail."""
    phase: str = ""
    """``on_success``, ``on_failure``: when all others have ended, if they have so; ``compensate``: if the workflow has
    failed and the node ``compensates`` had succeeded, the last first. Empty: in its turn."""
    compensates: int = -1
    """The node that it takes back; else -1."""
    packed: bytes = b""
    """Of ``value``."""
    signal: str = ""
    """Of ``signal``: its name. Several nodes may wait for the same one."""
    wait_ms: int = 0
    """Of ``sleep``: how long; of ``signal``: after so long it has failed, 0: never."""


class WorkflowSpec(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A workflow as its client asked for it, beside its nodes."""

    id: bytes
    """16 bytes, a workflow id, by the client before the first try; the same on every resend."""
    name: str
    nodes: int
    """How many."""
    policy: str = FINISH
    """What a failed node does to those that do not wait for it: ``finish_what_you_can``, or ``fail_fast``: they are
    cancelled."""
    traceparent: str = ""
    """Of each of its tasks that has none of its own; empty: none."""


def is_workflow_id(raw: bytes) -> bool:
    """Tell whether the bytes are the id of a workflow."""
    return is_made_id(raw) and not any(raw[STEM_BYTES:])


def make_workflow_id(unix_ms: int, entropy: bytes) -> bytes:
    """Make a workflow's id.

    Args:
        unix_ms: Server-corrected Unix time in milliseconds.
        entropy: ``ENTROPY_BYTES`` random ones, of which 34 bits are used: they tell apart what shares a millisecond.
    """
    head = (unix_ms & ((1 << 48) - 1)).to_bytes(6, "big")
    drawn = bytes([0x80 | entropy[0] & 0x0F, entropy[1], 0x80 | entropy[2] & 0x3F, entropy[3], entropy[4]])
    return head + drawn + bytes(TASK_ID_BYTES - STEM_BYTES)


def workflow_of(task_id: bytes) -> bytes:
    """Return the id of the workflow that a task is of."""
    return task_id[:STEM_BYTES] + bytes(TASK_ID_BYTES - STEM_BYTES)


def member_id(workflow: bytes, node: int, child: int = -1) -> bytes:
    """Return the id of a node's task, or of a child's of a node that maps; both are counted from 0."""
    number = (node + 1) << NUMBER_BITS | (child + 1)
    return workflow[:STEM_BYTES] + number.to_bytes(_NUMBERS_BYTES, "big")


def place_of(task_id: bytes) -> tuple[int, int]:
    """Return the node, -1 for the workflow itself, and the child, -1 for the node itself, that an id is of."""
    number = int.from_bytes(task_id[STEM_BYTES:], "big")
    return (number >> NUMBER_BITS) - 1, (number & CHILDREN_MAX) - 1


def spawn_digest(before: bytes, name: str, payload: bytes) -> bytes:
    """Return the digest over what a task has spawned, from that of what it had spawned before; empty: nothing."""
    digest = hashlib.blake2b(before, digest_size=TASK_ID_BYTES)
    for part in (name.encode(), payload):
        digest.update(len(part).to_bytes(4, "big"))
        digest.update(part)
    return digest.digest()


def check_workflow(spec: WorkflowSpec, nodes_max: int) -> None:
    """Refuse a workflow that is out of range, its nodes apart.

    Raises:
        WorkflowInvalid: It is too large, or empty.
        BadRequest: Another field is out of its range; it is named.
    """
    if not is_workflow_id(spec.id):
        raise BadRequest("a workflow's id is 16 bytes, a UUID of version 8 that ends in five zero bytes")
    check_name("workflow name", spec.name)
    if not 0 < spec.nodes <= nodes_max:
        raise WorkflowInvalid(
            f"workflow {spec.name[:64]!r} has {spec.nodes} nodes; it has 1 to {nodes_max}: use map for many of a kind,"
            " or have the server started with a higher --workflow-nodes-max"
        )
    if spec.policy not in POLICIES:
        raise BadRequest(f"policy {spec.policy[:32]!r} is unknown; use {' or '.join(POLICIES)}")
    if spec.traceparent and not is_traceparent(spec.traceparent):
        raise BadRequest(NO_TRACEPARENT)


def check_nodes(nodes: Sequence[Node], first: int, payload_bytes_max: int) -> None:
    """Refuse nodes of which one is out of range; that their names differ is not looked at.

    Args:
        nodes: Some, in order.
        first: The position of the first.
        payload_bytes_max: Of arguments, and of a value.

    Raises:
        WorkflowInvalid: Says which node, and what is wrong with it.
    """
    are_names = are_all_names([node.name for node in nodes])
    known: set[str] = set()
    for position, node in enumerate(nodes, first):
        try:
            if not are_names:
                check_name("node name", node.name)
            _check_edges(node, position)
            _check_kind(node, payload_bytes_max, known)
        except WorkflowInvalid:
            raise
        except (BadRequest, PayloadTooLarge) as error:
            raise WorkflowInvalid(f"node {node.name[:64]!r}: {error.message}") from None


def check_packed(what: str, packed: bytes) -> None:
    """Refuse bytes that are not one packed value.

    Raises:
        BadRequest: They are not.
    """
    try:
        _skip(packed)
    except (msgspec.MsgspecError, RecursionError):
        raise BadRequest(f"{what} is not one value in MessagePack, or nested too deeply") from None


def _check_edges(node: Node, position: int) -> None:
    needs, after = node.needs, node.after
    parents = needs + after if needs and after else needs or after
    for parent in parents:
        if not 0 <= parent < position:
            what = "itself" if parent == position else f"node number {parent}, which does not come before it"
            raise BadRequest(f"it waits for {what}: the graph has a cycle, or its nodes are not in order")
    if len(parents) > 1 and len(set(parents)) < len(parents):
        raise BadRequest("it names a node before it twice")
    if node.when not in TRIGGERS:
        raise BadRequest(f"trigger rule {node.when[:32]!r} is unknown; use one of {', '.join(TRIGGERS)}")
    if node.only_if:
        if node.when not in WHOLE:
            raise BadRequest(f"only_if goes with a trigger rule that waits for all: {', '.join(WHOLE)}")
        before = set(parents)
        if any(choice.node not in before for choice in node.only_if):
            raise BadRequest("only_if goes by the result of a node that it comes after; name that among needs or after")
        if max(len(choice.packed) for choice in node.only_if) > CHOICE_BYTES_MAX:
            raise BadRequest(f"only_if compares values of up to {CHOICE_BYTES_MAX} bytes: have it go by a shorter one")
    if node.phase or node.compensates >= 0:
        _check_phase(node, position)


def _check_phase(node: Node, position: int) -> None:
    if node.phase not in PHASES:
        raise BadRequest(f"phase {node.phase[:32]!r} is unknown; use one of {', '.join(PHASES[1:])}, or none")
    if (node.phase == COMPENSATE) != (node.compensates >= 0) or node.compensates >= position:
        raise BadRequest("a node of the phase compensate names a node before it that it takes back, and no other does")


def _check_kind(node: Node, payload_bytes_max: int, known: set[str]) -> None:
    task = node.task
    if task is not None:
        check_template(task, payload_bytes_max, known)
    if task is None or node.kind != TASK or node.over >= 0 or node.in_flight_max or node.packed or node.wait_ms:
        _check_other(node, payload_bytes_max)  # most are a task, and no more


def _check_other(node: Node, payload_bytes_max: int) -> None:
    if node.kind not in KINDS:
        raise BadRequest(f"kind {node.kind[:32]!r} is unknown; use one of {', '.join(KINDS)}")
    if (node.task is not None) != (node.kind in {TASK, MAP}):
        raise BadRequest(f"a node of the kind {node.kind} {'has no' if node.task is not None else 'needs a'} task")
    if (node.kind == MAP) != (0 <= node.over < len(node.needs)):
        raise BadRequest("a node that maps says which of its needs is the list, and no other does")
    if not 0 <= node.in_flight_max <= CHILDREN_MAX:
        raise BadRequest(f"in_flight_max of {node.in_flight_max} is out of range; it goes from 0, for any")
    if len(node.packed) > payload_bytes_max:
        raise BadRequest(f"a value of {len(node.packed)} bytes; the limit is {payload_bytes_max}")
    if node.kind == VALUE:
        check_packed("its value", node.packed)
    if node.kind == SIGNAL:
        check_name("signal name", node.signal)
    if not 0 <= node.wait_ms <= limits.DELAY_MS_MAX or (node.kind == SLEEP and not node.wait_ms):
        raise BadRequest(f"wait of {node.wait_ms} ms is out of range; it goes from 1 ms to ten years")
