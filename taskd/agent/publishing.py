"""Publishing: the schedules and limits that the code defines are made known to the server.

An agent's own token may not do that, so that a stolen agent schedules and limits nothing: it takes a client's.
"""

from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

import structlog
import trio

from taskd.client.client import Client
from taskd.client.profile import Profile
from taskd_protocol.errors import CannotConnect, ConnectionLost, TaskdError, TimedOut
from taskd_protocol.limit_messages import LimitChanges, LimitSync
from taskd_protocol.limiting import Limit
from taskd_protocol.messages import ToPeer, ToServer
from taskd_protocol.schedule import Schedule
from taskd_protocol.schedule_messages import ScheduleChanges, ScheduleSync

log = structlog.get_logger("taskd.agent")

ReplyT = TypeVar("ReplyT", bound=ToPeer)

AGAIN_S: Final = 15.0
"""Pause before the server is tried again, when it cannot be reached."""

ORPHANS: Final = "they fire no more: taskd schedule rm NAME removes one, resume NAME has it fire all the same"
ADVICE: Final = "run `taskd schedule sync` where a client's token is"
LIMITS_ADVICE: Final = "run `taskd limit sync` where a client's token is"

OTHERS: Final = "`taskd limit ls` tells who said them"


async def publish(
    server: Profile | None, schedules: Mapping[str, Sequence[Schedule]], limits: Mapping[str, Sequence[Limit]]
) -> None:
    """Have the server keep what each module's code defines; log what came of it.

    Args:
        server: With a client's token; None: there is none here.
        schedules: By module.
        limits: By module.
    """
    if server is None:
        if any(schedules.values()):
            log.info("schedules of the code are not made known from here", advice=ADVICE)
        if any(limits.values()):
            log.info("limits of the code are not made known from here", advice=LIMITS_ADVICE)
        return
    client = Client(server, name="schedules and limits of an agent")
    try:
        for module, said in limits.items():
            await _sync_limits(client, module, said)
        for module, defined in schedules.items():
            await _sync(client, module, defined)
    finally:
        client.close()


async def _ask(client: Client, refused: str, module: str, request: ToServer, answer: type[ReplyT]) -> ReplyT | None:
    """Ask until the server can be reached; None: it refused, which is logged."""
    while True:
        try:
            return await client.acall(request, answer)
        except (CannotConnect, ConnectionLost, TimedOut):
            await trio.sleep(AGAIN_S)
        except TaskdError as refusal:
            log.warning(refused, module=module, reason=refusal.message)
            return None


async def _sync(client: Client, module: str, defined: Sequence[Schedule]) -> None:
    done = await _ask(client, "schedules refused", module, ScheduleSync(0, module, list(defined)), ScheduleChanges)
    if done is None:
        return
    if done.added or done.changed or done.removed:
        log.info("schedules", module=module, added=done.added, changed=done.changed, removed=done.removed)
    if done.orphaned:
        log.warning("schedules no longer defined", module=module, names=done.orphaned, advice=ORPHANS)


async def _sync_limits(client: Client, module: str, said: Sequence[Limit]) -> None:
    done = await _ask(client, "limits refused", module, LimitSync(0, module, list(said)), LimitChanges)
    if done is None:
        return
    if done.changed or done.removed:
        log.info("limits", module=module, changed=done.changed, removed=done.removed)
    if done.kept:
        log.info("limits that others said stay", module=module, names=done.kept, advice=OTHERS)
