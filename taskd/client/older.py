"""Older servers: what one that speaks version 1 of the protocol may be asked.

It reads what it does not know of a task, and drops it without a word: that is refused here instead.
"""

from taskd_protocol.errors import ServerTooOld
from taskd_protocol.filtering import TaskFilter
from taskd_protocol.messages import JobStart, Submit, TaskCount, TaskExplain, TaskList, ToServer
from taskd_protocol.task import DEFAULT_RETRY, TaskSpec
from taskd_protocol.workflow_messages import (
    ChildrenQuery,
    WorkflowList,
    WorkflowOrder,
    WorkflowQuery,
    WorkflowSignal,
    WorkflowSubmit,
)

_WORKFLOWS = (WorkflowSubmit, WorkflowOrder, WorkflowSignal, WorkflowList, WorkflowQuery, ChildrenQuery)


def refusal_in_version_1(message: ToServer) -> ServerTooOld | None:
    """Return why this is not to be sent on a connection of version 1; None: it may be."""
    if isinstance(message, _WORKFLOWS):
        return ServerTooOld("the server speaks version 1 of the protocol, which has no workflows: upgrade the server")
    if isinstance(message, TaskExplain):
        return ServerTooOld("the server speaks version 1 of the protocol, and explains nothing: upgrade the server")
    if isinstance(message, TaskList | TaskCount | JobStart):
        words = _newer_words(message.filter)
        if words:
            return ServerTooOld(
                f"the server speaks version 1 of the protocol and would pass over {' and '.join(words)} of the filter:"
                " upgrade the server, or leave them out"
            )
    for spec in message.tasks if isinstance(message, Submit) else ():
        options = _newer_options(spec)
        if options:
            return ServerTooOld(
                f"the server speaks version 1 of the protocol and would leave out {' and '.join(options)} of"
                f" {spec.name[:64]!r}: upgrade the server, or submit without"
            )
    return None


def _newer_words(wanted: TaskFilter) -> list[str]:
    """Return what of a filter version 1 does not have."""
    plain = TaskFilter()
    fields = ("before_ms", "priority_min", "priority_max", "agent", "label", "key")
    return [field for field in fields if getattr(wanted, field) != getattr(plain, field)]


def _newer_options(spec: TaskSpec) -> list[str]:
    """Return the options of a task that version 1 does not have, as users call them."""
    rules, retry = spec.rules, spec.retry or DEFAULT_RETRY
    asked = {
        "timeout": rules.timeout_ms,
        "soft_timeout": rules.soft_timeout_ms,
        "ttl": rules.ttl_ms,
        "deadline": rules.deadline_ms,
        "exclusive": rules.exclusive,
        "heartbeat": rules.heartbeat_ms,
        "at_most_once": rules.at_most_once,
        "headers": rules.headers,
        "unique": rules.unique is not None,
        "fair_key": rules.fair_key,
        "retry on": retry.on,
        "retry not_on": retry.not_on,
        "crash_limit": retry.crash_limit != DEFAULT_RETRY.crash_limit,
        "limits": bool(rules.limits),
        "fifo_key": bool(rules.fifo_key),
    }
    return [option for option, value in asked.items() if value]
