"""`taskd run`: a command on some agent, as if it ran here: its output live, its exit code, Ctrl-C."""

import signal
from typing import Final, Unpack

import click

from taskd.cli.connection import server
from taskd.cli.copying import Output
from taskd.cli.endings import tell_warnings
from taskd.cli.exits import Exit
from taskd.cli.interrupts import take_as_ctrl_c
from taskd.cli.options import duration_ms, name_and_value, server_options
from taskd.cli.output import hint
from taskd.cli.placing import Placed, placing_options, where
from taskd.client.client import Client
from taskd.client.outcome import error_of
from taskd.client.trace import make_traceparents
from taskd_protocol.command import pack_command
from taskd_protocol.errors import TaskCodes
from taskd_protocol.ids import format_task_id
from taskd_protocol.limits import PRIORITY_MAX, PRIORITY_MIN
from taskd_protocol.messages import Cancel, Cancelled, Follow
from taskd_protocol.task import COMMAND_NAME, DEFAULT_QUEUE, NO_RULES, Outcome, Retry, Rules, TaskSpec

_SIGNALLED: Final = 128
"""Added by shells to the number of the signal that ended a command."""


@server_options
@placing_options
@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("command", metavar="-- COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--queue", metavar="NAME", default=DEFAULT_QUEUE, show_default=True, help="Where it waits for an agent.")
@click.option("--priority", type=click.IntRange(PRIORITY_MIN, PRIORITY_MAX), default=0, help="Higher runs sooner.")
@click.option("--sticky", metavar="WORD", default="", help="Rather on the agent where the last task of that word ran.")
@click.option("--cwd", metavar="DIR", help="Where it runs, on the agent; else where the agent does.")
@click.option(
    "--env", "variables", metavar="NAME=VALUE", type=name_and_value, multiple=True, help="Set in its environment."
)
@click.option(
    "--max-attempts",
    metavar="N",
    type=click.IntRange(min=1),
    default=1,
    help="Run it again when it fails.",
    show_default=True,
)
@click.option("--time-limit", "limit_ms", metavar="TIME", type=duration_ms("s"), default="0", help="Kill it then.")
def run(
    *,
    command: tuple[str, ...],
    queue: str,
    priority: int,
    sticky: str,
    cwd: str | None,
    variables: tuple[tuple[str, str], ...],
    max_attempts: int,
    limit_ms: int,
    **placed: Unpack[Placed],
) -> int:
    """Run a command on an agent, as if it ran here.

    Shows its output as it comes, and ends with its exit code. Ctrl-C cancels it. Its standard input is empty.
    """
    payload = pack_command(command, env=dict(variables) or None, cwd=cwd)
    rules = Rules(timeout_ms=limit_ms, where=where(placed), sticky=sticky)
    with server() as client:
        [new_id] = client.make_ids(1)
        spec = TaskSpec(
            id=new_id,
            name=COMMAND_NAME,
            payload=payload,
            queue=queue,
            priority=priority,
            retry=Retry(max_attempts=max_attempts),
            traceparent=make_traceparents([new_id])[0],
            given=None if rules == NO_RULES else rules,
        )
        take_as_ctrl_c(signal.SIGTERM)
        try:
            task_id = client.submit([spec])[0]
            tell_warnings(client)
        except KeyboardInterrupt:
            client.call(Cancel(0, [spec.id]), Cancelled)  # it may have arrived all the same
            raise
        output = Output(client, Follow(0, task_id))
        try:
            output.show()
            return _exit_code(client.wait([task_id])[0])
        except KeyboardInterrupt:
            return _cancel(client, task_id, output)
        except BrokenPipeError:
            client.call(Cancel(0, [task_id]), Cancelled)
            raise


def _cancel(client: Client, task_id: bytes, output: Output) -> int:
    """Cancel the command and show what it still says; interrupted once more, leave it to the agent."""
    hint("taskd: cancelling; Ctrl-C again leaves without waiting")
    try:
        client.call(Cancel(0, [task_id]), Cancelled)
        output.show()
        client.wait([task_id])
    except KeyboardInterrupt:
        hint(f"taskd: left while it ends; see taskd task show {format_task_id(task_id)}")
    return Exit.INTERRUPTED


def _exit_code(outcome: Outcome) -> int:
    """Return the command's own exit code, as a shell would.

    Raises:
        TaskdError: It has none: cancelled by somebody else, or never started.
    """
    if outcome.state == "succeeded":
        return Exit.DONE
    failure = outcome.failure
    if outcome.state == "dead" and failure is not None:
        if failure.code == TaskCodes.COMMAND_NOT_STARTED:
            hint(f"taskd: {failure.message}")
            return Exit.NOT_STARTED
        if failure.code == TaskCodes.COMMAND_FAILED and failure.exit_code is not None:
            return failure.exit_code if failure.exit_code >= 0 else _SIGNALLED - failure.exit_code
    raise error_of(outcome)
