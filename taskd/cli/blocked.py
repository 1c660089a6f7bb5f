"""What waits in workflows: nodes that come after others are no tasks yet, so that no list of tasks has them."""

from typing import Final

from taskd.client.client import Client
from taskd_protocol.ids import format_task_id
from taskd_protocol.limits import PAGE_ROWS_MAX
from taskd_protocol.workflow_messages import WorkflowList, WorkflowPage

PAGES_MAX: Final = 10
"""Pages of workflows that a count goes through: some 50,000 of them, whatever state they are in."""


def nodes_that_wait(client: Client) -> str:
    """Tell how many there are, and where to look; empty: none."""
    waiting: dict[bytes, int] = {}
    cursor, pages = b"", 0
    while pages == 0 or (cursor and pages < PAGES_MAX):
        page = client.call(WorkflowList(0, "running", limit=PAGE_ROWS_MAX, cursor=cursor), WorkflowPage)
        waiting |= {view.id: blocked for view in page.views if (blocked := view.counts.get("blocked", 0))}
        cursor, pages = page.cursor, pages + 1
    if not waiting:
        return ""
    nodes, least = sum(waiting.values()), "at least " if cursor else ""
    told = f"{least}{nodes:,} node{'s are no tasks' if nodes > 1 else ' is no task'} yet, waiting for others"
    if len(waiting) == 1:
        return f"{told}: taskd workflow show {format_task_id(next(iter(waiting)))}"
    return f"{told}, in {len(waiting):,} workflows: taskd workflow ls --state running"
