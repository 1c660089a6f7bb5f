"""`taskd workflow`: what became of workflows, and steering them; `taskd plan` and `taskd lint`, for workflow files."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from msgspec import to_builtins
from msgspec.structs import replace

from taskd.cli.connection import server
from taskd.cli.exits import Exit
from taskd.cli.flow_watch import watch_workflow
from taskd.cli.options import duration_ms, json_option, json_value, server_options
from taskd.cli.output import hint, say, say_document, say_json, say_pieces, say_rows
from taskd.cli.timings import timing_text
from taskd.client.client import Client
from taskd.client.progress import critical_path, ended_count, ran_ms
from taskd.client.runs import order_of
from taskd.text.documents import error_text
from taskd.text.flows import workflow_detail, workflow_document
from taskd.text.values import arguments_text, iso, result_text
from taskd_protocol.command import read_command
from taskd_protocol.connection_messages import Done
from taskd_protocol.errors import BadRequest, ScheduleExists, WorkflowInvalid, WorkflowUnknown
from taskd_protocol.ids import format_task_id, parse_task_id
from taskd_protocol.limits import PAGE_ROWS_MAX
from taskd_protocol.payload import pack, pack_arguments, unpack_arguments
from taskd_protocol.schedule import Schedule
from taskd_protocol.schedule_messages import ScheduleChanges, ScheduleList, SchedulePage, ScheduleSet
from taskd_protocol.task import COMMAND_NAME
from taskd_protocol.workflow import MAP, SLEEP, VALUE, Node, is_workflow_id, member_id
from taskd_protocol.workflow_messages import (
    NodeView,
    WorkflowList,
    WorkflowNodes,
    WorkflowPage,
    WorkflowQuery,
    WorkflowSignal,
    WorkflowView,
)

if TYPE_CHECKING:
    from taskd.text.flowfiles import FlowFile

STATES: Final = ("running", "cancelling", "succeeded", "failed", "cancelled", "broken")

FAILURES_SHOWN: Final = 10
"""Nodes that failed, with why; `--json` has all."""


@click.group
def workflow() -> None:
    """List, show, draw, submit and steer workflows."""


workflow.add_command(watch_workflow)


@json_option
@server_options
@workflow.command("ls")
@click.option("--state", type=click.Choice(STATES), default=None, help="Only workflows in this state.")
@click.option("--name", metavar="NAME", default="", help="Only workflows of this name; '*' stands for anything.")
@click.option(
    "--limit", metavar="N", type=click.IntRange(min=1), default=100, show_default=True, help="At most so many."
)
def list_workflows(*, state: str | None, name: str, limit: int, as_json: bool) -> None:
    """List workflows, newest first."""
    with server() as client:
        views = list(_pages(client, WorkflowList(0, state or "", name, limit)))
    if as_json:
        say_document([workflow_document(view) for view in views])
        return
    say_rows(("ID", "NAME", "STATE", "NODES", "DONE", "FAILED AT", "CREATED"), [_row(view) for view in views])
    if len(views) == limit:
        hint(f"shown are the newest {limit}; --limit shows more")


@json_option
@server_options
@workflow.command
@click.argument("workflow_id", metavar="ID")
def show(*, workflow_id: str, as_json: bool) -> None:
    """Show a workflow: its graph, how far it is, what failed and why, and what can be done."""
    with server() as client:
        view, nodes = _whole(client, _workflow_id(workflow_id))
    if as_json:
        say_document(workflow_detail(view, nodes))
    else:
        _say_workflow(view, nodes)


@server_options
@workflow.command
@click.argument("what", metavar="ID|FILE")
@click.option(
    "--format",
    "form",
    type=click.Choice(("dot", "mermaid", "svg")),
    default="mermaid",
    show_default=True,
    help="For Graphviz, for Markdown, or a picture.",
)
def graph(*, what: str, form: str) -> None:
    """Print a workflow's graph, with the states of its nodes; or the graph of a workflow file."""
    from taskd.cli.graphs import shape_of_node, shape_of_view
    from taskd.cli.pictures import FORMS

    if Path(what).suffix in {".toml", ".json"}:
        flow = _read(Path(what))
        name, shapes = flow.name, [shape_of_node(node) for node in flow.nodes]
    else:
        with server() as client:
            view, nodes = _whole(client, _workflow_id(what))
        name, shapes = view.name, [shape_of_view(node) for node in nodes]
    say(FORMS[form](name, shapes))


@server_options
@workflow.command
@click.argument("workflow_ids", metavar="ID...", nargs=-1, required=True)
def cancel(*, workflow_ids: tuple[str, ...]) -> None:
    """Have workflows end: what runs is cancelled, and what had succeeded is taken back where nodes say how."""
    with server() as client:
        for text in workflow_ids:
            client.call(order_of(_workflow_id(text), "cancel"), Done)
            say(f"workflow {text} is being cancelled; taskd workflow wait {text} tells its end")


@server_options
@workflow.command
@click.argument("workflow_id", metavar="ID")
def resume(*, workflow_id: str) -> None:
    """Have a failed workflow go on: failed nodes run again, those skipped since may; what has succeeded is kept."""
    with server() as client:
        client.call(order_of(_workflow_id(workflow_id), "resume"), Done)
    say(f"workflow {workflow_id} goes on; taskd workflow show {workflow_id} tells how far it is")


@server_options
@workflow.command
@click.argument("workflow_id", metavar="ID")
@click.argument("node", metavar="NODE")
def rerun(*, workflow_id: str, node: str) -> None:
    """Run a node that has ended again, and all that come after it."""
    with server() as client:
        client.call(order_of(_workflow_id(workflow_id), "rerun", node), Done)
    say(f"workflow {workflow_id} runs again from node {node}")


@server_options
@workflow.command
@click.argument("workflow_id", metavar="ID")
@click.argument("name", metavar="SIGNAL")
@click.argument("value", metavar="[JSON]", type=json_value, default="null")
def signal(*, workflow_id: str, name: str, value: object) -> None:
    """Let nodes go on that wait for a signal, now or later; JSON is their result."""
    with server() as client:
        client.call(WorkflowSignal(0, _workflow_id(workflow_id), name, pack(value)), Done)
    say(f"workflow {workflow_id} has signal {name}")


@json_option
@server_options
@workflow.command
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--wait", is_flag=True, help="Wait for the end, and print the state.")
@click.option("--timeout", "timeout_ms", metavar="TIME", type=duration_ms("s"), help="Wait no longer: 30s, 5m.")
@click.option("--now", is_flag=True, help="Start it once, also if the file has a schedule, which stays as it is.")
def submit(*, file: Path, wait: bool, timeout_ms: int | None, now: bool, as_json: bool) -> int:
    """Start the workflow of a file, TOML or JSON; prints its id as soon as the server has it on disk.

    If the file has a [schedule], that is made, or changed, and starts the workflow in its times.
    """
    flow = _read(file)
    if flow.schedule is not None and not now:
        if wait:
            raise click.UsageError(f"{file} has a schedule: with --now it is started once, and --wait waits for that")
        return _keep_schedule(flow.schedule, as_json=as_json)
    with server() as client:
        raw_id = client.submit_workflow(flow.name, flow.nodes, flow.policy)
        if not wait:
            if as_json:
                say_document(workflow_document(_page(client, raw_id, 0, 1)[0]))
            else:
                say(format_task_id(raw_id))
            return Exit.DONE
        try:
            return _say_end(client, raw_id, timeout_ms, as_json=as_json)
        except KeyboardInterrupt:
            hint(f"taskd: the workflow goes on; see taskd workflow show {format_task_id(raw_id)}")
            raise


@json_option
@server_options
@workflow.command("wait")
@click.argument("workflow_id", metavar="ID")
@click.option("--timeout", "timeout_ms", metavar="TIME", type=duration_ms("s"), help="Wait no longer: 30s, 5m.")
def wait_for(*, workflow_id: str, timeout_ms: int | None, as_json: bool) -> int:
    """Wait until a workflow has ended, and print its state; the exit code is 0 if it has succeeded, else 1."""
    with server() as client:
        return _say_end(client, _workflow_id(workflow_id), timeout_ms, as_json=as_json)


@json_option
@click.command
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
def lint(*, file: Path, as_json: bool) -> int:
    """Tell all that is wrong with a workflow file.

    Each line names the file, the line in it, and the node. The exit code is 2 if anything is wrong.
    """
    from taskd.text.flowfiles import read_flow

    flow = read_flow(file)
    if as_json:
        say_json(
            [
                {"node": problem.node or None, "line": problem.line or None, "message": problem.message}
                for problem in flow.problems
            ]
        )
    elif flow.problems:
        for problem in flow.problems:
            say(problem.told(str(file)))
    else:
        when = "" if flow.schedule is None else f", scheduled {timing_text(flow.schedule.timing)}"
        say(f"{file}: {len(flow.nodes):,} node{'s' if len(flow.nodes) > 1 else ''}{when}, nothing is wrong")
    return Exit.USAGE if flow.problems else Exit.DONE


@json_option
@click.command
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
def plan(*, file: Path, as_json: bool) -> None:
    """Tell what a workflow file would run, in which order.

    Each layer waits for those above it. Nothing is submitted, and no server is asked.
    """
    from taskd.cli.graphs import drawn, layers, shape_of_node
    from taskd.cli.schedule_views import missed_text
    from taskd.text.schedules import asked_document

    flow = _read(file)
    name, policy, nodes, schedule = flow.name, flow.policy, flow.nodes, flow.schedule
    shapes = [shape_of_node(node, _call_text(node, nodes)) for node in nodes]
    rows = layers(shapes)
    if as_json:
        say_json(
            {
                "name": name,
                "policy": policy,
                "node_count": len(nodes),
                "schedule": None if schedule is None else to_builtins(asked_document(schedule)),
                "layers": [
                    [
                        {
                            "name": nodes[position].name,
                            "kind": nodes[position].kind,
                            "phase": nodes[position].phase or None,
                        }
                        for position in row
                    ]
                    for row in rows
                ],
            }
        )
        return
    say(f"workflow {name}: {len(nodes):,} nodes in {len(rows):,} layers, {policy}")
    if schedule is not None:
        rules = f"overlap {schedule.overlap}, missed {missed_text(schedule)}"
        say(f"schedule {schedule.name}: {timing_text(schedule.timing)}, {rules}")
    for line in drawn(shapes):
        say_pieces(line)


# -- what they share ------------------------------------------------------------------------


def _workflow_id(text: str) -> bytes:
    raw = parse_task_id(text)
    if not is_workflow_id(raw):
        raise BadRequest(f"{text[:64]!r} is no workflow's id; `taskd workflow ls` lists those that are stored")
    return raw


def _read(file: Path) -> "FlowFile":
    """Read a workflow file.

    Raises:
        WorkflowInvalid: Something is wrong with it; all of it was told.
    """
    from taskd.text.flowfiles import read_flow

    flow = read_flow(file)
    if flow.problems:
        *before, last = [problem.told(str(file)) for problem in flow.problems]
        for told in before:
            hint(told)
        raise WorkflowInvalid(last)
    return flow


def _keep_schedule(schedule: Schedule, *, as_json: bool) -> int:
    """Have the server keep the schedule of a file.

    Raises:
        ScheduleExists: One of that name is there, and is none of a workflow.
    """
    from taskd.cli.schedule_views import change_text
    from taskd.text.schedules import schedule_document

    name = schedule.name
    with server() as client:
        before = client.call(ScheduleList(0, [name]), SchedulePage).schedules
        if before and before[0].schedule.workflow is None:
            raise ScheduleExists(f"schedule {name[:64]!r} submits a task: say another name in [schedule], or remove it")
        changes = client.call(ScheduleSet(0, schedule), ScheduleChanges)
        [view] = client.call(ScheduleList(0, [name]), SchedulePage).schedules
    if as_json:
        say_document(schedule_document(view))
    else:
        say(f"schedule {name} {change_text(changes)}; it fires next at {iso(view.next_at_ms) or 'no time'}")
        hint(f"taskd schedule trigger {name} starts one now")
    return Exit.DONE


def _pages(client: Client, request: WorkflowList) -> Iterator[WorkflowView]:
    """Ask for page after page until there are as many workflows as wanted, or no more."""
    left, cursor = request.limit, b""
    while left > 0:
        page = client.call(replace(request, limit=min(left, PAGE_ROWS_MAX), cursor=cursor), WorkflowPage)
        yield from page.views
        left, cursor = left - len(page.views), page.cursor
        if not cursor:
            return


def _page(client: Client, raw_id: bytes, first: int, limit: int) -> tuple[WorkflowView, list[NodeView]]:
    page = client.call(WorkflowQuery(0, raw_id, first, limit), WorkflowNodes)
    if page.view is None:
        raise WorkflowUnknown(
            f"no workflow {format_task_id(raw_id)} is stored; `taskd workflow ls` lists those that are"
        )
    return page.view, page.nodes


def _whole(client: Client, raw_id: bytes) -> tuple[WorkflowView, list[NodeView]]:
    """Ask for a workflow with all its nodes."""
    view, nodes = _page(client, raw_id, 0, PAGE_ROWS_MAX)
    while len(nodes) < view.nodes:
        more = _page(client, raw_id, len(nodes), PAGE_ROWS_MAX)[1]
        if not more:
            break
        nodes += more
    return view, nodes


def _say_end(client: Client, raw_id: bytes, timeout_ms: int | None, *, as_json: bool) -> int:
    """Wait until a workflow has ended; print its state, or all of it as a document; return the exit code."""
    outcome = client.wait([raw_id], None if timeout_ms is None else timeout_ms / 1000)[0]
    view, _ = _page(client, raw_id, 0, 1)
    if as_json:
        say_document(workflow_document(view))
    else:
        say(view.state if view.reason else outcome.state)
        if view.reason:
            hint(f"taskd: it cannot be read, and stays as it is: {view.reason}")
        if view.failed_node:
            text = format_task_id(raw_id)
            hint(f"taskd: node {view.failed_node} failed; taskd workflow show {text} tells why")
    return Exit.DONE if outcome.state == "succeeded" else Exit.TASK_FAILED


def _row(view: WorkflowView) -> tuple[str, ...]:
    created = (iso(view.created_at_ms) or "-").replace("T", " ")[:19]
    done, failed = f"{ended_count(view):,}", view.failed_node or "-"
    return format_task_id(view.id), view.name, view.state, f"{view.nodes:,}", done, failed, created


def _say_workflow(view: WorkflowView, nodes: Sequence[NodeView]) -> None:
    from taskd.cli.graphs import drawn, shape_of_view

    text = format_task_id(view.id)
    counts = ", ".join(f"{count:,} {state}" for state, count in view.counts.items() if count)
    say_pieces([(f"{'workflow':<10} {view.name}, {text}", "")])
    say_pieces([(f"{'state':<10} ", ""), (view.state, view.state), (f": {view.reason}" if view.reason else "", "")])
    facts = [
        ("nodes", f"{ended_count(view):,} of {view.nodes:,} have ended{counts and f': {counts}'}"),
        ("policy", view.policy),
        ("schedule", f"{view.schedule}, for {iso(view.scheduled_for_ms)}" if view.schedule else ""),
        ("trace", view.traceparent[3:35]),
        ("created", iso(view.created_at_ms)),
        ("finished", iso(view.finished_at_ms)),
    ]
    for label, fact in facts:
        if fact:
            say(f"{label:<10} {fact}")
    shapes = [shape_of_view(node) for node in nodes]
    say("")
    for line in drawn(shapes):
        say_pieces(line)
    closing = [*_longest(nodes), *_failures(view, nodes), *_next(view, nodes)]
    if closing:
        say("")
    for label, fact in closing:
        say(f"{label:<10} {fact}")


def _longest(nodes: Sequence[NodeView]) -> Iterator[tuple[str, str]]:
    """Tell the chain of nodes that took longest together."""
    from taskd.cli.graphs import seconds_text

    chain = [nodes[position] for position in critical_path(nodes)]
    if len(chain) > 1:
        each = [f"{node.name} {seconds_text(ran_ms(node))}" for node in chain]
        together = seconds_text(sum([ran_ms(node) for node in chain]))
        yield "longest", f"{' → '.join(each)}: {together} together"


def _failures(view: WorkflowView, nodes: Sequence[NodeView]) -> Iterator[tuple[str, str]]:
    """Tell which nodes failed, and why; those that were skipped for it need not be told."""
    states = {"dead", "expired", "failed"} | ({"cancelled"} if view.state == "failed" else set())
    failed = [(position, node) for position, node in enumerate(nodes) if node.state in states]
    for position, node in failed[:FAILURES_SHOWN]:
        why = f": {node.state}" if node.failure is None else f": {' '.join(error_text(node.failure).split())}"
        yield "failed", f"{node.name}{why}"
        if node.task and node.kind != MAP:
            yield "", f"taskd task show {format_task_id(member_id(view.id, position))}"
    if len(failed) > FAILURES_SHOWN:
        yield "", f"and {len(failed) - FAILURES_SHOWN:,} more; --json has all"


def _next(view: WorkflowView, nodes: Sequence[NodeView]) -> Iterator[tuple[str, str]]:
    """Tell what can be done about it."""
    text = format_task_id(view.id)
    for name in dict.fromkeys(node.signal for node in nodes if node.kind == "signal" and node.state == "waiting"):
        yield "next", f"taskd workflow signal {text} {name}"
    if view.state == "failed":
        yield "next", f"taskd workflow resume {text}"
    elif view.state == "running":
        yield "next", f"taskd workflow wait {text}"


def _call_text(node: Node, nodes: Sequence[Node]) -> str:
    """Tell what a node would do, as people write it; a result of another one is told by its name."""
    if node.kind == VALUE:
        return result_text(node.packed)
    if node.kind == SLEEP:
        return f"sleeps {node.wait_ms / 1000:g} s"
    if node.task is None:
        late = f", {node.wait_ms / 1000:g} s at most" if node.wait_ms else ""
        return f"waits for signal {node.signal}{late}"
    inputs = [f"<{nodes[position].name}>" for position in node.needs]
    each = ""
    if node.kind == MAP:
        each = f" for each item{f', {node.in_flight_max:,} at a time' if node.in_flight_max else ''}"
        inputs[node.over] = f"<item of {nodes[node.needs[node.over]].name}>"
    packed = [pack(text) for text in inputs]
    if node.task.name == COMMAND_NAME:
        return f"$ {shlex.join(read_command(node.task.payload, packed).argv)}{each}"
    args, kwargs = unpack_arguments(node.task.payload, packed)
    return f"{node.task.name}({arguments_text(pack_arguments(args, kwargs))}){each}"
