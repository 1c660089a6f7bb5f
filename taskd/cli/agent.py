"""`taskd agent`: the command."""

import os
from pathlib import Path

import click

from taskd.cli.lazy import import_structlog
from taskd.cli.options import by_name, chosen_server, name_and_value, server_options
from taskd.cli.output import hint


@server_options
@click.command
@click.argument("modules", metavar="[MODULE]...", nargs=-1)
@click.option(
    "--name", metavar="NAME", help="What people call it; else this machine's name. One agent has it at a time."
)
@click.option("--processes", metavar="N", type=click.IntRange(min=1), help="Worker processes; else one for each CPU.")
@click.option("--concurrency", metavar="N", type=click.IntRange(min=1), help="Async tasks at the same time; else 100.")
@click.option("--queues", metavar="A,B", help="Take only tasks of these queues; else of all.")
@click.option(
    "--label", "labels", metavar="NAME=VALUE", type=name_and_value, multiple=True, help="For tasks and people."
)
@click.option(
    "--cpus", metavar="N", type=click.FloatRange(min=0.001), help="What it offers of this machine's CPUs; else all."
)
@click.option("--memory", metavar="SIZE", help="What it offers of this machine's memory, as 16GiB; else all.")
@click.option(
    "--resource",
    "resources",
    metavar="NAME=N",
    type=name_and_value,
    multiple=True,
    help="What else it has for tasks to hold: license=4, or what can be told apart: fpga=[a,b].",
)
@click.option("--life", metavar="TIME", help="This machine is there for no longer than this: 2h.")
@click.option("--pin-cpus", is_flag=True, default=None, help="Keep tasks that hold whole CPUs on CPUs of their own.")
@click.option("--log-rate", metavar="SIZE", help="What one attempt may say a second; more is left out; else 1MiB.")
@click.option("--log-size", metavar="SIZE", help="And in all; else 64MiB, which is the most.")
@click.option("--code-version", metavar="V", help="Of the modules; else as their App says.")
@click.option("--python", metavar="PATH", help="The interpreter that runs the workers; taskd must be installed for it.")
@click.option("--loop", metavar="LOOP", help="What runs async tasks: asyncio or trio; else asyncio.")
@click.option("--join", "code", metavar="CODE", help="Join the server that printed this code, then be its agent.")
@click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error; else info.")
@click.option("--log-form", metavar="FORM", help="people or json; else by whether standard error is a terminal.")
@click.option(
    "--config",
    "file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Settings; else taskd.toml of this folder, if there is one.",
)
def agent(
    *,
    queues: str | None,
    labels: tuple[tuple[str, str], ...],
    resources: tuple[tuple[str, str], ...],
    code: str | None,
    file: Path | None,
    **flags: str | float | tuple[str, ...] | None,
) -> int:
    """Run an agent: it does the tasks of your modules.

    MODULEs are imported from this folder; without one it runs commands only. TERM or Ctrl-C lets it finish what
    runs, a second one ends it at once. Each option is also option_name under [agent] in taskd.toml, and, but for
    labels and resources, TASKD_OPTION_NAME in the environment.
    """
    import_structlog()
    from taskd.cli import working
    from taskd.server.settings import load_settings

    settings = load_settings(
        working.AgentSettings,
        "agent",
        flags={
            **flags,
            "queues": None if queues is None else [queue for queue in queues.split(",") if queue],
            "labels": by_name("--label", labels) or None,
            "resources": by_name("--resource", resources) or None,
        },
        environ=os.environ,
        file=file,
    )
    url, context = chosen_server()
    server = working.find_server(url, context) if code is None else working.join_server(code)
    if code is not None:
        hint(f"joined {server.address}; from now on: taskd agent --context {server.name} MODULE...")
    return working.run(settings, server, working.find_client(url, context) if code is None else None)
