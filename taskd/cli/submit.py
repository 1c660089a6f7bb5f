"""`taskd submit`: one task, by its name."""

from typing import Unpack

import click
from msgspec import structs

from taskd.cli.connection import server
from taskd.cli.endings import say_accepted, say_end, tell_warnings
from taskd.cli.options import duration_ms, json_list_or_object, json_object, json_option, server_options
from taskd.cli.output import hint
from taskd.cli.placing import Placed, placing_options, where
from taskd.cli.terminal import is_watched
from taskd.cli.waiting import show_progress
from taskd.client.clock import mono_s
from taskd.client.trace import make_traceparents
from taskd_protocol.ids import format_task_id
from taskd_protocol.limits import PRIORITY_MAX, PRIORITY_MIN
from taskd_protocol.payload import pack_arguments
from taskd_protocol.task import DEFAULT_QUEUE, NO_RULES, QUEUED, RUNNING, WINDOW, Retry, Rules, TaskSpec, Unique


def _unique(text: str) -> Unique:
    if text in {QUEUED, RUNNING}:
        return Unique(text)
    if not text[:1].isdigit():
        raise click.BadParameter(f"{text[:40]!r} is neither queued nor running, nor a time such as 90s or 15m")
    return Unique(WINDOW, duration_ms("s")(text))


@json_option
@server_options
@placing_options
@click.command
@click.argument("name")
@click.argument("arguments", metavar="[JSON-ARGS]", type=json_list_or_object, default="[]")
@click.option("--kwargs", metavar="JSON", type=json_object, default="{}", help="Named arguments, as an object.")
@click.option("--queue", metavar="NAME", default=DEFAULT_QUEUE, show_default=True, help="Where it waits.")
@click.option(
    "--priority",
    type=click.IntRange(PRIORITY_MIN, PRIORITY_MAX),
    default=0,
    help="Higher runs sooner.",
    show_default=True,
)
@click.option("--delay", "delay_ms", metavar="TIME", type=duration_ms("s"), default="0", help="Not before: 90s, 15m.")
@click.option("--fair-key", metavar="KEY", default="", help="Tasks of a queue that have one share it, key by key.")
@click.option("--sticky", metavar="WORD", default="", help="Rather on the agent where the last task of that word ran.")
@click.option("--key", default="", help="A second submit with the same key finds the first task.")
@click.option(
    "--unique",
    metavar="WHEN",
    type=_unique,
    help="One task at a time of the same name and arguments: queued, running, or for a time: 90s, 15m.",
)
@click.option("--unique-key", metavar="KEY", default="", help="What tells the work apart in place of the arguments.")
@click.option("--replace", is_flag=True, help="With --unique: a first one that waits is cancelled for this one.")
@click.option("--max-attempts", metavar="N", type=click.IntRange(min=1), help="Failed attempts until it is dead.")
@click.option(
    "--time-limit", "limit_ms", metavar="TIME", type=duration_ms("s"), default="0", help="Kill an attempt that runs on."
)
@click.option("--at-most-once", is_flag=True, help="Never run it again once it may have started.")
@click.option("--preemptible", is_flag=True, help="It may be stopped for a higher priority, and goes on later.")
@click.option("--exclusive", is_flag=True, help="Never run two attempts at a time, whatever is cut off.")
@click.option("--wait", is_flag=True, help="Wait for the end and print the result as JSON.")
@click.option(
    "--progress/--no-progress",
    default=None,
    help="With --wait: show how far it is; on a terminal, unless told not to.",
)
@click.option("--timeout", "timeout_ms", metavar="TIME", type=duration_ms("s"), help="Wait no longer: 30s, 5m.")
def submit(
    *,
    name: str,
    arguments: list[object] | dict[str, object],
    kwargs: dict[str, object],
    queue: str,
    priority: int,
    delay_ms: int,
    fair_key: str,
    sticky: str,
    key: str,
    unique: Unique | None,
    unique_key: str,
    replace: bool,
    max_attempts: int | None,
    limit_ms: int,
    at_most_once: bool,
    exclusive: bool,
    preemptible: bool,
    wait: bool,
    progress: bool | None,
    timeout_ms: int | None,
    as_json: bool,
    **placed: Unpack[Placed],
) -> None:
    """Submit a task by its name.

    JSON-ARGS are its arguments: '[1, "two"]', or an object that names them. Prints the task's id as soon as the
    server has it on disk. What the task's decorator says, such as its queue, retries and limits, is for submits by
    programs: here only the options given here count.
    """
    named = {**(arguments if isinstance(arguments, dict) else {}), **kwargs}
    payload = pack_arguments(arguments if isinstance(arguments, list) else [], named)
    if unique is None and (unique_key or replace):
        raise click.UsageError("--unique-key and --replace say how --unique is meant: give it, too")
    retry = None if max_attempts is None else Retry(max_attempts=max_attempts)
    rules = Rules(
        timeout_ms=limit_ms,
        unique=None if unique is None else structs.replace(unique, key=unique_key, replace=replace),
        at_most_once=at_most_once,
        exclusive=exclusive,
        where=where(placed),
        fair_key=fair_key,
        sticky=sticky,
        preemptible=preemptible,
    )
    with server() as client:
        [new_id] = client.make_ids(1)
        spec = TaskSpec(
            id=new_id,
            name=name,
            payload=payload,
            queue=queue,
            priority=priority,
            delay_ms=delay_ms,
            retry=retry,
            key=key,
            traceparent=make_traceparents([new_id])[0],
            given=None if rules == NO_RULES else rules,
        )
        task_id = client.submit([spec])[0]
        tell_warnings(client)
        if wait:
            timeout_s, since_s = None if timeout_ms is None else timeout_ms / 1000, mono_s()
            try:
                if is_watched() if progress is None else progress:
                    show_progress(client, task_id, timeout_s)
                    timeout_s = None if timeout_s is None else max(0.0, timeout_s - (mono_s() - since_s))
                say_end(client, task_id, timeout_s, as_json=as_json)
            except KeyboardInterrupt:
                hint(f"taskd: the task goes on; see taskd task show {format_task_id(task_id)}")
                raise
        else:
            say_accepted(client, task_id, as_json=as_json)
