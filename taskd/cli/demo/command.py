"""`taskd demo`: the command."""

import os
import sys
from pathlib import Path

import click

from taskd_protocol.errors import ConfigInvalid


@click.command
@click.option(
    "--directory",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
    help="Measure the Python files in here, instead of the standard library.",
)
@click.option("--python", metavar="PATH", help="The interpreter that runs the work; taskd must be installed for it.")
def demo(*, directory: Path | None, python: str | None) -> int:
    """Watch real work survive the loss of an agent.

    Starts a server and two agents of its own, in a directory that is removed afterwards. Has every source file
    of Python's standard library parsed and measured, one task for each. Kills one agent halfway. Shows that
    nothing was lost or counted twice, and what the measures tell.
    """
    from taskd.cli.demo import story

    if python is None and getattr(sys, "frozen", False):
        raise ConfigInvalid("the one-file taskd brings no Python: name one that has taskd with --python PATH")
    if python is not None and os.sep in python:
        python = os.path.abspath(python)  # noqa: PTH100 - resolved, it would leave its virtual environment
    return story.tell(directory or story.library_of(python or sys.executable), python)
