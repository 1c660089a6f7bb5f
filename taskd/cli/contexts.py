"""`taskd context`: which of the servers that are known here the commands talk to."""

import click

from taskd.cli.options import json_option
from taskd.cli.output import say, say_json, say_rows
from taskd.client import profile as profiles


@click.group
def context() -> None:
    """Choose which server the commands talk to."""


@json_option
@context.command("ls")
def list_contexts(*, as_json: bool) -> None:
    """List the servers that are known here."""
    current = profiles.current_name()
    known = profiles.profiles()
    if as_json:
        say_json(
            [
                {
                    "name": profile.name,
                    "current": profile.name == current,
                    "address": profile.address,
                    "http": profile.http or None,
                    "data_dir": profile.data_dir or None,
                }
                for profile in known
            ]
        )
    elif not known:
        say(f"no server is known here yet: {profiles.START_ONE}")
    else:
        rows = [
            ("*" if profile.name == current else "", profile.name, profile.address, profile.data_dir or "-")
            for profile in known
        ]
        say_rows(("", "NAME", "ADDRESS", "DATA DIRECTORY"), rows)


@context.command
@click.argument("name")
def use(name: str) -> None:
    """Talk to the server called NAME from now on."""
    chosen = profiles.use(name)
    say(f"{chosen.name} {chosen.address}")
