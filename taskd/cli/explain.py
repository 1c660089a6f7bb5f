"""`taskd task explain`: why a task is where it is."""

import click

from taskd.cli.connection import server
from taskd.cli.options import json_option, server_options
from taskd.cli.output import say, say_json, say_rows
from taskd.cli.views import Document, error_document, iso
from taskd.client.explanation import lines_of
from taskd_protocol.errors import TaskUnknown
from taskd_protocol.explanation import Explanation, Reason
from taskd_protocol.ids import format_task_id, parse_task_id
from taskd_protocol.messages import TaskExplain, TaskExplained
from taskd_protocol.words import obstacle_text, reason_text


@json_option
@server_options
@click.command
@click.argument("task_id", metavar="ID")
def explain(*, task_id: str, as_json: bool) -> None:
    """Tell what a task waits for, and what rules out each agent; or who runs it, or how it ended.

    ID is a task's, or that of a node of a workflow.
    """
    with server() as client:
        told = client.call(TaskExplain(0, parse_task_id(task_id)), TaskExplained).explanation
    if told is None:
        raise TaskUnknown(f"no task or node {task_id} is stored; `taskd task ls` lists those that are")
    if as_json:
        say_json(explanation_document(told))
    else:
        say_explanation(told)


def say_explanation(told: Explanation) -> None:
    """Print an explanation for people."""
    for label, text in [*lines_of(told), *_standing(told)]:
        say(f"{label:<10} {text}")
    if told.agents:
        say("")
        say_rows(("AGENT", "WHY NOT"), [(each.agent, obstacle_text(each.reason)) for each in told.agents])
    for code, count in told.others.items():
        say(f"and {count:,} more: {obstacle_text(Reason(code))}")


def _standing(told: Explanation) -> list[tuple[str, str]]:
    facts = [
        ("agent", told.agent),
        ("started", iso(told.started_at_ms or None)),
        ("finished", iso(told.finished_at_ms or None)),
    ]
    return [(label, text) for label, text in facts if text]


def explanation_document(told: Explanation) -> Document:
    """Return an explanation as scripts see it."""
    place = told.place
    return {
        "id": format_task_id(told.id),
        "name": told.name,
        "queue": told.queue or None,
        "state": told.state,
        "attempt": told.attempt,
        "waits_for": None if told.reason is None else _reason_document(told.reason),
        "place": None
        if place is None
        else {
            "ahead": place.ahead,
            "exact": place.is_exact,
            "ahead_at_least": place.ahead_min,
            "ready": place.ready,
            "lines_before": place.lines_before,
        },
        "starts_in_s": None if told.starts_in_ms < 0 else told.starts_in_ms / 1000,
        "granted_per_minute": round(told.per_minute, 3),
        "impossible": told.impossible,
        "kept_free": told.kept_free or None,
        "rather": {"agent": told.rather, "for": told.rather_for} if told.rather else None,
        "agents": [
            {
                "agent": each.agent,
                "never": each.never,
                **_reason_document(each.reason),
                "text": obstacle_text(each.reason),
            }
            for each in told.agents
        ],
        "other_agents": dict(told.others),
        "agent": told.agent or None,
        "holds": None
        if told.holds is None
        else [{"name": hold.name, "amount": hold.amount, "items": hold.items} for hold in told.holds.holds],
        "started_at": iso(told.started_at_ms or None),
        "finished_at": iso(told.finished_at_ms or None),
        "error": None if told.failure is None else error_document(told.failure),
        "waited": [
            {
                "attempt": each.attempt,
                "for": [{"code": one.code, "subject": one.subject or None, "ms": one.ms} for one in each.waited],
            }
            for each in told.waited
        ],
    }


def _reason_document(reason: Reason) -> Document:
    return {
        "code": reason.code,
        "subject": reason.subject or None,
        "text": reason_text(reason),
        "wants": reason.wants or None,
        "free": reason.free if reason.total else None,
        "total": reason.total or None,
        "count": reason.count or None,
        "until": iso(reason.until_ms or None),
        "named": reason.named,
    }
