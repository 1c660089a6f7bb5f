"""The server itself: what it has counted and spent, and copies of its store."""

from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec

from taskd.http.routes import AnyRoute, Call, Nothing, get, post
from taskd_protocol.errors import error_from_code
from taskd_protocol.house_messages import Backup, BackupView, Stats, StatsQuery
from taskd_protocol.ids import format_task_id, parse_task_id


class StatsDocument(msgspec.Struct):
    """What the server has counted and spent since its start."""

    tasks: dict[str, int]
    """Stored tasks by state."""
    counts: dict[str, int]
    stages_ns: dict[str, int]
    """The loop's own time, by stage."""
    cpu_ns: int


class BackupBody(msgspec.Struct, forbid_unknown_fields=True):
    """Where a copy goes."""

    path: Annotated[str, msgspec.Meta(min_length=1, max_length=4_000)]
    """A new folder on the server's machine, with its whole path."""
    with_keys: bool = True
    """With the CA and its key: who restores it is trusted as this server is."""
    id: str | None = None
    """Of a copy that was begun: how far is it? Null: a new one."""


class BackupDocument(msgspec.Struct):
    """How far a copy is: told after a second, or at its next stage; ask again under its id."""

    id: str
    stage: Literal["copying", "checking", "done"]
    copied_bytes: int
    total_bytes: int
    sequence: int | None
    """The last commit that is in it, when it is done."""
    tasks: dict[str, int]
    """In it, by state, when it is done."""


async def show_stats(call: Call[Nothing, Nothing]) -> StatsDocument:
    """Tell what the server has counted and spent since its start."""
    stats = await call.ask(StatsQuery(0), Stats)
    return StatsDocument(stats.tasks, stats.counts, stats.stages_ns, stats.cpu_ns)


async def back_up(call: Call[Nothing, BackupBody]) -> BackupDocument:
    """Copy the store into a new folder of the server's machine, and check the copy; the server goes on meanwhile."""
    body = call.body
    backup_id = bytes(call.make_ids(1)[0]) if body.id is None else bytes(parse_task_id(body.id))
    view = await call.ask(Backup(0, backup_id, body.path, not body.with_keys), BackupView)
    if view.stage == "failed":
        raise error_from_code(view.code, view.message)
    stage: Literal["copying", "checking", "done"] = "copying"
    if view.stage == "checking":
        stage = "checking"
    elif view.stage == "done":
        stage = "done"
    sequence = view.sequence if stage == "done" else None
    return BackupDocument(format_task_id(backup_id), stage, view.copied_bytes, view.total_bytes, sequence, view.tasks)


ROUTES: Final[Sequence[AnyRoute]] = (
    get("/stats", show_stats, Nothing, StatsDocument, StatsQuery),
    post("/backups", back_up, Nothing, BackupBody, BackupDocument, Backup),
)
