"""Fans: nodes of workflows that make a task for each item of a list that is known at run time only.

The items are read in pieces and become arguments of the children, whose ids follow
from their positions: so there are no edges, and what is in memory is a byte a child.
"""

from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from taskd.core import records
from taskd.core.commands import Now
from taskd.core.effects import WantItems
from taskd.core.flows import Fan, Flow, inputs_of
from taskd.core.graph import FAILED, RELEASED, STOPPED, SUCCEEDED
from taskd.core.settling import SKIPS, end_node
from taskd.core.workflow_commands import MapItems
from taskd.core.workflow_records import NodeRecord
from taskd.core.working import Working
from taskd_protocol.errors import PayloadTooLarge, TaskCodes
from taskd_protocol.task import Failure, Given, TaskSpec
from taskd_protocol.workflow import CHILDREN_MAX, Node, member_id

ITEMS: Final = 500
"""Read at once for a node that maps."""

ITEMS_BYTES: Final = 4 * 1024 * 1024
"""With so many at hand no more are read: each may be 16 MiB, as a result of another map's child."""

Make = Callable[[TaskSpec, bytes, list[Given]], None]
"""Makes a task of a template, under an id, with inputs."""


def begin(w: Working, flow: Flow, position: int, node: Node, now: Now) -> None:
    """Have a node map; one that is resumed runs those children again that did not succeed."""
    fan = flow.fans.get(position)
    node_id = member_id(flow.id, position)
    if fan is not None:
        fan.resume(now.wall_ms)
        flow.spreading[position] = None
        w.put(records.NODE, node_id, fan.noted(NodeRecord("running", now.wall_ms)))
        return
    made = flow.refanned.pop(position, 0)
    w.put(records.NODE, node_id, NodeRecord("running", now.wall_ms, made=made))
    flow.unsized[position] = made
    want_items(w, flow, position, node, 0)


def want_items(w: Working, flow: Flow, position: int, node: Node, first: int) -> None:
    """Have items read for a node that maps."""
    source = node.needs[node.over]
    fan = flow.fans.get(source)
    children = -1 if fan is None else len(fan.statuses)
    w.effects.append(WantItems(flow.id, position, member_id(flow.id, source), children, first, ITEMS))


def take_items(w: Working, flow: Flow, command: MapItems, now: Now) -> None:
    """Take in items that were read for a node, and with the first how many there are."""
    position = command.node
    if position in flow.unsized and command.first == 0:
        made = flow.unsized.pop(position)
        failure = _failure_of(w, flow, command)
        if failure is not None:
            _end_unsized(w, flow, position, made, NodeRecord("dead", 0, now.wall_ms, failure=failure))
            return
        fan = flow.fans[position] = Fan(bytearray(command.total), made, now.wall_ms)
        w.put(records.NODE, member_id(flow.id, position), fan.noted(NodeRecord("running", now.wall_ms)))
        if flow.halted:
            fan.stop()
    else:
        known = flow.fans.get(position)
        if known is None or known.stopped or not known.reading or command.first != known.released + len(known.items):
            return  # it was stopped meanwhile
        fan = known
    fan.reading = False
    if not fan.stopped:
        failure = _failure_of(w, flow, command)  # how long all are shows with the first of a list, but not of a map's
        if failure is None:
            fan.items.extend(command.items)
        else:
            fan.stop(failure)
    flow.spreading[position] = None
    w.moving[flow.stem] = flow


def _failure_of(w: Working, flow: Flow, command: MapItems) -> Failure | None:
    """Return why a node cannot map over that, or None."""
    node = flow.node(command.node)
    source = flow.node(node.needs[node.over]).name[:64]
    if command.total < 0:
        return Failure(TaskCodes.NOT_A_LIST, f"what node {source!r} gave to map over is no list")
    if command.total > CHILDREN_MAX:
        text = f"node {source!r} gave {command.total} items to map over; a node has up to {CHILDREN_MAX}"
        return Failure(TaskCodes.NOT_A_LIST, text)
    task = node.task
    assert task is not None
    size, most = len(task.payload) + command.longest, w.settings.payload_bytes_max
    if command.total and size > most:  # a lease is one message
        text = f"an item with the other arguments is {size} bytes, the limit is {most}: map over references"
        return Failure(PayloadTooLarge.code, text)
    return None


def _end_unsized(w: Working, flow: Flow, position: int, made: int, record: NodeRecord) -> None:
    """End a node before it is known how many children it has; those of before are there for when it maps anew."""
    if made:
        flow.refanned[position] = made
    w.put(records.NODE, member_id(flow.id, position), replace(record, made=made))
    end_node(w, flow, position, FAILED, failure=record.failure)


def spread(w: Working, flow: Flow, position: int, make: Make, room: int, now: Now) -> int:  # noqa: PLR0917 - as its fellows
    """Make tasks of a node's next items, as far as there is room; end it when all have ended.

    Returns:
        How many nodes and children that concerned.
    """
    fan = flow.fans[position]
    node = flow.node(position)
    if fan.again >= 0:
        return _run_again(w, flow, position, fan, room)
    if fan.has_ended:
        end(w, flow, position, fan, now)
        return 1
    assert node.task is not None
    free = node.in_flight_max - fan.open if node.in_flight_max else room
    spent = min(len(fan.items), room, max(free, 0))
    inputs = inputs_of(flow, node, w.affinity) if spent else []
    for _ in range(spent):
        item = fan.items.popleft()
        child = fan.release()
        child_id = member_id(flow.id, position, child)
        if child < fan.made:
            flow.reruns.append((child_id, item))
            w.put(records.NODE, child_id, NodeRecord("blocked", 0, packed=item))
        else:
            inputs[node.over] = Given(item)
            make(node.task, child_id, list(inputs))
    if spent and fan.made:
        w.put(records.NODE, member_id(flow.id, position), fan.noted(NodeRecord("running", fan.started_at_ms)))
    known = fan.released + len(fan.items)
    is_low = len(fan.items) < ITEMS // 2 and sum(map(len, fan.items)) < ITEMS_BYTES
    if is_low and known < len(fan.statuses) and not (fan.reading or fan.stopped):
        fan.reading = True
        want_items(w, flow, position, node, known)
    if spent == room and fan.items:
        flow.spreading[position] = None  # there is more for the next turn
        w.moving[flow.stem] = flow
    return spent


def _run_again(w: Working, flow: Flow, position: int, fan: Fan, room: int) -> int:
    """Void some children that failed before their node was resumed; return how many.

    The node's record tells how far that has come: so each is met once, whatever comes between.
    """
    spent = 0
    while spent < room and fan.again >= 0:
        child = fan.statuses.find(FAILED, fan.again, fan.released)
        if child >= 0:
            child_id = member_id(flow.id, position, child)
            w.put(records.NODE, child_id, NodeRecord("blocked", 0))
            fan.note(child, RELEASED)
            flow.reruns.append((child_id, b""))
            spent += 1
        fan.again = child + 1 if child >= 0 else -1
    w.put(records.NODE, member_id(flow.id, position), fan.noted(NodeRecord("running", fan.started_at_ms)))
    flow.spreading[position] = None
    return max(spent, 1)


def end(w: Working, flow: Flow, position: int, fan: Fan, now: Now) -> None:
    """End a node all of whose children have ended."""
    failed = fan.missed
    failure = fan.refusal or Failure(
        TaskCodes.UPSTREAM_FAILED, f"{failed} of its {len(fan.statuses)} children did not succeed"
    )
    state = "dead" if failed else "succeeded"
    record = NodeRecord(state, fan.started_at_ms, now.wall_ms, failure=failure if failed else None)
    w.put(records.NODE, member_id(flow.id, position), fan.noted(record))
    end_node(w, flow, position, FAILED if failed else SUCCEEDED, failure=failure if failed else None)


def stop_unsized(w: Working, flow: Flow, position: int, now: Now) -> None:
    """End a node whose items are on their way, and whose workflow was stopped."""
    made = flow.unsized.pop(position)
    record = NodeRecord("cancelled", 0, now.wall_ms, failure=SKIPS[STOPPED])
    _end_unsized(w, flow, position, made, record)
