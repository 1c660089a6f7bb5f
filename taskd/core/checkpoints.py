"""Checkpoints: how far running attempts have come, kept for the attempts after them."""

from taskd.core import records
from taskd.core.agent_commands import KeepCheckpoints
from taskd.core.commands import Now
from taskd.core.lines import lease_record
from taskd.core.working import Working
from taskd_protocol.errors import BadRequest
from taskd_protocol.limits import DETAILS_BYTES_MAX


def keep(w: Working, command: KeepCheckpoints, now: Now) -> None:
    """Keep the details of leased attempts; drop what is stale.

    Raises:
        BadRequest: One is empty, or over the limit.
    """
    for checkpoint in command.checkpoints:
        if not 0 < len(checkpoint.details) <= DETAILS_BYTES_MAX:
            raise BadRequest(f"details of a heartbeat are 1 to {DETAILS_BYTES_MAX} bytes, packed")
    agent = w.agents.get(command.agent)
    if agent is None:
        return
    agent.seen_mono_ms = now.mono_ms
    for checkpoint in command.checkpoints:
        task = agent.leases.get(checkpoint.token)
        if task is None or task.spec.id != checkpoint.id:
            continue
        is_first = not task.details
        agent.granted_bytes += len(checkpoint.details)
        task.details = checkpoint.details
        w.put(records.DETAILS, task.spec.id, task.details)
        if is_first:
            w.put(records.LEASE, task.spec.id, lease_record(task))
