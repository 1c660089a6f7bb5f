"""How a task ended, as the commands that wait for it tell it: a result on standard output, or an error."""

from typing import Final

from taskd.cli.output import hint, say, say_document, say_json
from taskd.client.client import Client
from taskd.client.outcome import error_of
from taskd.text.documents import task_document
from taskd.text.values import result_json
from taskd_protocol.errors import TaskUnknown, TimedOut
from taskd_protocol.ids import format_task_id
from taskd_protocol.messages import TaskQuery, TaskView, TaskViews
from taskd_protocol.task import Outcome

HINT_AFTER_S: Final = 3.0
"""A task that has not ended by then and does not even run is likely to wait for something that the user forgot."""


def view_of(client: Client, task_id: bytes) -> TaskView:
    """Ask for one task.

    Raises:
        TaskUnknown: It is not stored.
    """
    view = client.call(TaskQuery(0, [task_id]), TaskViews).views[0]
    if view is None:
        raise TaskUnknown(f"no task {format_task_id(task_id)} is stored; `taskd task ls` lists those that are")
    return view


def say_end(client: Client, task_id: bytes, timeout_s: float | None, *, as_json: bool) -> None:
    """Wait until a task has ended; print its result as JSON, or all of it as a task document.

    Args:
        client: To its server.
        task_id: 16 bytes.
        timeout_s: None: as long as it takes.
        as_json: Print the task document, also of one that failed.

    Raises:
        TaskFailed: It is dead; likewise TaskCancelled, TaskUnknown and ResultGone for their ends.
        TimedOut: It has not ended yet.
    """
    outcome = _wait(client, task_id, timeout_s)
    if as_json and outcome.state != "unknown":
        say_document(task_document(view_of(client, task_id)))
    if outcome.state != "succeeded":
        raise error_of(outcome)
    if not as_json:
        say_json(result_json(outcome.result))


def tell_why_it_waits(client: Client, task_id: bytes) -> None:
    """Tell why a task does not run, if it does not."""
    view = client.call(TaskQuery(0, [task_id]), TaskViews).views[0]
    if view is not None and view.waits_for:
        hint(f"taskd: not started yet: {view.waits_for}")


def _wait(client: Client, task_id: bytes, timeout_s: float | None) -> Outcome:
    """Wait for the end; tell, once, why the task does not run, if it has not begun to by then."""
    if timeout_s is not None and timeout_s <= HINT_AFTER_S:
        return client.wait([task_id], timeout_s)[0]
    try:
        return client.wait([task_id], HINT_AFTER_S)[0]
    except TimedOut:
        tell_why_it_waits(client, task_id)
    return client.wait([task_id], None if timeout_s is None else timeout_s - HINT_AFTER_S)[0]


def tell_warnings(client: Client) -> None:
    """Tell what the server said of a submit that it accepted."""
    for text in client.warnings:
        hint(f"taskd: {text}")


def say_accepted(client: Client, task_id: bytes, *, as_json: bool) -> None:
    """Print the id of a task that was just submitted, or all of it as a task document."""
    if as_json:
        say_document(task_document(view_of(client, task_id)))
    else:
        say(format_task_id(task_id))
