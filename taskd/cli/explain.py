"""`taskd task explain`: why a task is where it is."""

import click

from taskd.cli.connection import server
from taskd.cli.options import json_option, server_options
from taskd.cli.output import say, say_document, say_rows
from taskd.client.explanation import lines_of
from taskd.text.explained import explanation_document
from taskd.text.values import iso
from taskd_protocol.errors import TaskUnknown
from taskd_protocol.explanation import Explanation, Reason
from taskd_protocol.ids import parse_task_id
from taskd_protocol.messages import TaskExplain, TaskExplained
from taskd_protocol.words import obstacle_text


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
        say_document(explanation_document(told))
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
