"""Explaining: what clients are told of why a task, or a node of a workflow, is where it is."""

from taskd.core import records
from taskd.core.explain import explain_node, explain_task, with_ended
from taskd.core.records import AttemptRecord, Key, SpecRecord, StateRecord
from taskd.core.workflow_records import NodeRecord, WorkflowRecord
from taskd.server.services import Services
from taskd.server.views import attempt_keys
from taskd.server.workflow_role import read_nodes, read_outcomes
from taskd_protocol import limits
from taskd_protocol import messages as m
from taskd_protocol.errors import BadRequest
from taskd_protocol.explanation import Explanation
from taskd_protocol.ids import TASK_ID_BYTES, is_made_id
from taskd_protocol.workflow import member_id, place_of, workflow_of


async def explain(services: Services, message: m.TaskExplain) -> m.TaskExplained:
    """Answer TASK_EXPLAIN.

    Raises:
        BadRequest: It is no id.
    """
    task_id = message.id
    if len(task_id) != TASK_ID_BYTES:
        raise BadRequest(f"a task's id is {TASK_ID_BYTES} bytes")
    kinds = [records.SPEC, records.STATE, records.NODE]
    keys: list[Key] = [(kind, task_id) for kind in kinds]
    if is_made_id(task_id):
        keys.append((records.WORKFLOW, workflow_of(task_id)))
    found = await services.reader.read_now(keys)
    spec, state = found[records.SPEC, task_id], found[records.STATE, task_id]
    if isinstance(spec, SpecRecord):
        state = state if isinstance(state, StateRecord) else None
        told = explain_task(services.working, spec, state, services.loop.now())
        wanted = attempt_keys(services.working, task_id, found)
        read = await services.reader.read(wanted)
        ended = [(key[1], attempt) for key in wanted if isinstance(attempt := read[key], AttemptRecord)]
        return m.TaskExplained(message.request_id, with_ended(told, ended))
    workflow, record = found.get((records.WORKFLOW, workflow_of(task_id))), found[records.NODE, task_id]
    if not isinstance(workflow, WorkflowRecord):
        return m.TaskExplained(message.request_id, None)
    record = record if isinstance(record, NodeRecord) else None
    return m.TaskExplained(message.request_id, await _explain_node(services, task_id, workflow, record))


async def _explain_node(
    services: Services, node_id: bytes, workflow: WorkflowRecord, record: NodeRecord | None
) -> Explanation | None:
    """Explain what is no task; None: the workflow has no such node.

    Raises:
        StoreCorrupt: Its nodes cannot be read.
    """
    position, child = place_of(node_id)
    if not 0 <= position < workflow.spec.nodes or child >= 0:
        return None
    [node] = await read_nodes(services, workflow, position, position + 1)
    before = [*node.needs, *node.after][: limits.PAGE_ROWS_MAX]
    ids = [member_id(workflow.spec.id, parent) for parent in before]
    outcomes = await read_outcomes(services, ids, "none")
    names = await _names(services, workflow, before)
    parents = [(name, outcome.state) for name, outcome in zip(names, outcomes, strict=True)]
    return explain_node(services.working, node, node_id, workflow=workflow, record=record, parents=parents)


async def _names(services: Services, workflow: WorkflowRecord, positions: list[int]) -> list[str]:
    if not positions:
        return []
    first = min(positions)
    nodes = await read_nodes(services, workflow, first, max(positions) + 1)
    return [nodes[position - first].name for position in positions]
