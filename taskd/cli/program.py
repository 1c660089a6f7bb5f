"""The program: its commands, and what becomes of what went wrong: one line and an exit code."""

import os
import sys
from collections.abc import Sequence
from typing import Final

import click

from taskd import __version__
from taskd.cli.exits import Exit, exit_code
from taskd.cli.lazy import Later, LazyGroup
from taskd.cli.options import server_options
from taskd.cli.output import hint
from taskd_protocol.errors import TaskdError

_BROKEN_PIPE: Final = 141
"""As a shell says it of a program whose reader went away: 128 + SIGPIPE."""

_TEXT: Final = """Run tasks that survive: a server, agents that do the work, and clients.

`taskd dev MODULE` starts everything for the tasks in your module, here and now. `taskd demo` shows what it is like.
"""

COMMANDS: Final = (
    Later("dev", "taskd.cli.dev:dev", "Run a server and an agent here, with one command."),
    Later("demo", "taskd.cli.demo.command:demo", "Watch real work survive the loss of an agent."),
    Later("server", "taskd.cli.server:server", "Run the server."),
    Later("agent", "taskd.cli.agent:agent", "Run an agent: it does the tasks of your modules."),
    Later("dashboard", "taskd.cli.dashboard:dashboard", "Print a link that opens the dashboard, and logs in once."),
    Later("submit", "taskd.cli.submit:submit", "Submit a task by its name."),
    Later("watch", "taskd.cli.watch:watch", "Print what happens, as it happens."),
    Later("top", "taskd.cli.top:top", "Show throughput, waits, queues and agents, live; Ctrl-C ends it."),
    Later("run", "taskd.cli.run:run", "Run a command on an agent, as if it ran here."),
    Later("task", "taskd.cli.tasks:task", "List, show, explain, wait for, cancel and retry tasks."),
    Later("schedule", "taskd.cli.schedules:schedule", "Look at schedules; make, pause, resume and trigger them."),
    Later("workflow", "taskd.cli.workflows:workflow", "List, show, draw, submit and steer workflows."),
    Later("plan", "taskd.cli.workflows:plan", "Tell what a workflow file would run, in which order."),
    Later("lint", "taskd.cli.workflows:lint", "Tell all that is wrong with a workflow file."),
    Later("dead", "taskd.cli.dead:dead", "List, show, retry and purge tasks whose attempts are spent."),
    Later("queue", "taskd.cli.queues:queue", "Look at the queues; pause, drain and resume them, weigh them."),
    Later("limit", "taskd.cli.limits:limit", "Limit how many tasks run at a time, or begin in a time, on all agents."),
    Later("agents", "taskd.cli.agents:agents", "Look at the agents; drain and resume them; invite new ones."),
    Later(
        "webhook",
        "taskd.cli.webhooks:webhook",
        "Have what happens posted to other programs; look at that, pause and end it.",
    ),
    Later("token", "taskd.cli.tokens:token", "Create, list and revoke access tokens."),
    Later("cert", "taskd.cli.certs:cert", "Show and renew the server's certificate."),
    Later("context", "taskd.cli.contexts:context", "Choose which server the commands talk to."),
    Later("backup", "taskd.cli.backups:backup", "Copy a server's data into a new folder, and check the copy."),
    Later("restore", "taskd.cli.backups:restore", "Make a backup the data directory of a server."),
    Later("fsck", "taskd.cli.stores:fsck", "Check a stopped server's data directory."),
    Later("recover", "taskd.cli.stores:recover", "Save what can be saved of a damaged data directory."),
    Later("doctor", "taskd.cli.doctor:doctor", "Check this machine and the way to the server."),
    Later(
        "debug-bundle",
        "taskd.cli.debug_bundle:debug_bundle",
        "Put what helps to find a fault into one file, without secrets.",
    ),
    Later("completion", "taskd.cli.completion:completion", "Print the completion script of a shell."),
)


class _ReaderLeft(Exception):
    """Standard output was closed by whoever read it."""


class _Root(LazyGroup):
    """All of taskd."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; tell of a reader that left in our words, as click would end the process by itself."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise _ReaderLeft from None


root = server_options(_Root("taskd", _TEXT, COMMANDS))
root = click.version_option(version=__version__, prog_name="taskd", message="%(prog)s %(version)s")(root)


def run(words: Sequence[str]) -> int:
    """Run one command; return its exit code. What is to be told was told."""
    try:
        code: object = root.main(list(words), prog_name="taskd", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return Exit.USAGE
    except click.ClickException as error:
        return _fail(_sentence(error), Exit.USAGE)
    except TaskdError as error:
        return _fail(error.message, exit_code(error))
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    except (_ReaderLeft, BrokenPipeError):
        # What is still buffered has no reader: it must not fail once more when Python shuts down.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    return code if isinstance(code, int) else Exit.DONE


def _fail(message: str, code: int) -> int:
    hint(f"taskd: {' '.join(message.split())}")
    return code


def _sentence(error: click.ClickException) -> str:
    """Say what was wrong with the words, and where to read which are right."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    message = error.format_message().rstrip(".")
    return f"{message}; see {context.command_path} --help" if context is not None else message
