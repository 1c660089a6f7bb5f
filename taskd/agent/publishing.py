"""Publishing: the schedules that the code defines are made known to the server.

An agent's own token may not do that, so that a stolen agent schedules nothing: it takes a client's.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import structlog
import trio

from taskd.client.client import Client
from taskd.client.profile import Profile
from taskd_protocol.errors import CannotConnect, ConnectionLost, TaskdError, TimedOut
from taskd_protocol.schedule import Schedule
from taskd_protocol.schedule_messages import ScheduleChanges, ScheduleSync

log = structlog.get_logger("taskd.agent")

AGAIN_S: Final = 15.0
"""Pause before the server is tried again, when it cannot be reached."""

ORPHANS: Final = "they fire no more: taskd schedule rm NAME removes one, resume NAME has it fire all the same"
ADVICE: Final = "run `taskd schedule sync` where a client's token is"


async def publish(server: Profile | None, schedules: Mapping[str, Sequence[Schedule]]) -> None:
    """Have the server keep what each module's code defines; log what came of it.

    Args:
        server: With a client's token; None: there is none here.
        schedules: By module.
    """
    if server is None:
        if any(schedules.values()):
            log.info("schedules of the code are not made known from here", advice=ADVICE)
        return
    client = Client(server, name="schedules of an agent")
    try:
        for module, defined in schedules.items():
            await _sync(client, module, defined)
    finally:
        client.close()


async def _sync(client: Client, module: str, defined: Sequence[Schedule]) -> None:
    while True:
        try:
            done = await client.acall(ScheduleSync(0, module, list(defined)), ScheduleChanges)
        except (CannotConnect, ConnectionLost, TimedOut):
            await trio.sleep(AGAIN_S)
        except TaskdError as refusal:
            log.warning("schedules refused", module=module, reason=refusal.message)
            return
        else:
            if done.added or done.changed or done.removed:
                log.info("schedules", module=module, added=done.added, changed=done.changed, removed=done.removed)
            if done.orphaned:
                log.warning("schedules no longer defined", module=module, names=done.orphaned, advice=ORPHANS)
            return
