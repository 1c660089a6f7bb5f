"""How a task ended, as the commands that wait for it tell it: a result on standard output, or an error."""

from taskd.cli.output import say, say_json
from taskd.cli.views import result_json, task_document
from taskd.client.client import Client
from taskd.client.outcome import error_of
from taskd_protocol.errors import TaskUnknown
from taskd_protocol.ids import format_task_id
from taskd_protocol.messages import TaskQuery, TaskView, TaskViews


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
    outcome = client.wait([task_id], timeout_s)[0]
    if as_json and outcome.state != "unknown":
        say_json(task_document(view_of(client, task_id)))
    if outcome.state != "succeeded":
        raise error_of(outcome)
    if not as_json:
        say_json(result_json(outcome.result))


def say_accepted(client: Client, task_id: bytes, *, as_json: bool) -> None:
    """Print the id of a task that was just submitted, or all of it as a task document."""
    if as_json:
        say_json(task_document(view_of(client, task_id)))
    else:
        say(format_task_id(task_id))
