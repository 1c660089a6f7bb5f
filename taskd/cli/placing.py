"""Where a task may run, and what it holds there: the options of the commands that submit one."""

from typing import TYPE_CHECKING, TypedDict, TypeVar

import click

from taskd.cli.options import by_name, name_and_value

if TYPE_CHECKING:
    from taskd_protocol.resources import Where

C = TypeVar("C", bound=click.Command)


class Placed(TypedDict):
    """What a command is given that has these options."""

    cpu: str | None
    memory: str | None
    gpu: str | None
    resources: tuple[tuple[str, str], ...]
    labels: tuple[str, ...]


def placing_options(command: C) -> C:
    """Let a command be told where its task may run, and what it needs there."""
    for flags, metavar, text in (
        (["--cpu"], "N", "CPUs that it holds: 2, 0.5, all; else 1, if it asks for anything."),
        (["--memory"], "SIZE", "What it may take at most: 512MiB, 4GiB, or auto."),
        (["--gpu"], "N", "GPUs: 1, 0.5, a kind, a100, two of it, a100:2, or certain ones, [0,1]."),
    ):
        command.params.append(click.Option(flags, metavar=metavar, help=text))
    command.params += [
        click.Option(
            ["--resource", "resources"],
            metavar="NAME=N",
            type=name_and_value,
            multiple=True,
            help="What else agents offer by that name.",
        ),
        click.Option(
            ["--label", "labels"],
            metavar="RULE",
            multiple=True,
            help="Only agents with such labels: zone=a, 'cores>=8', 'disk in ssd,nvme', 'spot absent'.",
        ),
    ]
    return command


def where(wanted: Placed) -> "Where | None":
    """Return what the options come to.

    Raises:
        UsageError: One is no amount, or no rule; or two amounts are of one resource.
    """
    from taskd.client.options import Options
    from taskd.client.resources import Resources
    from taskd_protocol.errors import BadRequest
    from taskd_protocol.resources import check_where

    flags = {"cpu": wanted["cpu"], "memory": wanted["memory"], "gpu": wanted["gpu"]}
    said = [(name, amount) for name, amount in flags.items() if amount is not None]
    needs = by_name("--resource", [*said, *wanted["resources"]])
    try:
        resources = Resources(**needs) if needs else None
        made = Options(resources=resources, labels=wanted["labels"]).where()
        if made is not None:
            check_where(made)
    except BadRequest as error:
        raise click.UsageError(error.message) from None
    return made
