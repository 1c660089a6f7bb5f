"""Dead letters: what tasks died of, by groups. Their tasks are listed, retried and purged by ``group:`` of a filter."""

from collections.abc import Sequence
from typing import Final

import msgspec

from taskd.http.errors import NotFound
from taskd.http.paging import Limit
from taskd.http.routes import AnyRoute, Call, Nothing, get
from taskd.text.documents import DeadGroupDetail, DeadGroupDocument, dead_group_detail, dead_group_document
from taskd_protocol.filtering import TaskFilter
from taskd_protocol.messages import DeadList, DeadPage, TaskList, TaskPage

GROUPS_MAX: Final = 10_000
"""More than are told apart."""

NEWEST: Final = 10


class DeadAsked(msgspec.Struct, forbid_unknown_fields=True):
    """How many groups."""

    limit: Limit = 100


class GroupAsked(msgspec.Struct, forbid_unknown_fields=True):
    """A group, by the beginning of its name."""

    group: str


class DeadGroups(msgspec.Struct):
    """Groups of dead tasks; those in which a task died last come first."""

    groups: list[DeadGroupDocument]
    groups_count: int
    """All that there are."""
    tasks_count: int
    """Dead tasks in all of them."""


async def list_dead(call: Call[DeadAsked, Nothing]) -> DeadGroups:
    """List what tasks died of."""
    page = await call.ask(DeadList(0, call.asked.limit), DeadPage)
    return DeadGroups([dead_group_document(view) for view in page.groups], page.groups_count, page.tasks_count)


async def show_dead(call: Call[GroupAsked, Nothing]) -> DeadGroupDetail:
    """Show a group with its newest tasks."""
    prefix = call.asked.group.lower()
    groups = (await call.ask(DeadList(0, GROUPS_MAX), DeadPage)).groups
    found = [group for group in groups if group.fingerprint.hex().startswith(prefix)]
    if len(found) != 1:
        how = "no group begins" if not found else f"{len(found)} groups begin"
        raise NotFound(f"{how} with {prefix[:40]!r}")
    wanted = TaskFilter(group=found[0].fingerprint)
    page = await call.ask(TaskList(0, limit=NEWEST, filter=wanted), TaskPage)
    return dead_group_detail(found[0], page.views)


ROUTES: Final[Sequence[AnyRoute]] = (
    get("/dead", list_dead, DeadAsked, DeadGroups, DeadList),
    get("/dead/{group}", show_dead, GroupAsked, DeadGroupDetail, DeadList, TaskList),
)
