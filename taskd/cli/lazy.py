"""What is imported late, or without what it would bring: so that commands answer at once and servers stay small."""

import importlib
import sys
from collections.abc import Sequence

import click


class Later(click.Command):
    """Stands in a group for a command that was not imported yet: enough for help and completion."""

    def __init__(self, name: str, where: str, summary: str, *, hidden: bool = False) -> None:
        """Name the command.

        Args:
            name: As people type it.
            where: ``package.module:attribute`` of the command.
            summary: The command's short help, word for word.
            hidden: Not shown in help.
        """
        super().__init__(name, short_help=summary, hidden=hidden)
        self.where = where

    def load(self) -> click.Command:
        """Import the command."""
        module, _, attribute = self.where.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command


class LazyGroup(click.Group):
    """A group of commands to be imported later, listed as they were given."""

    def __init__(self, name: str, text: str, commands: Sequence[Later]) -> None:
        super().__init__(name, help=text, commands=commands)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - the signature is click's
        """Return the names in the order in which they were given, rather than sorted."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the words begin with, and only now import it."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.load() if isinstance(command, Later) else command, rest


def import_structlog() -> None:
    """Import structlog without Rich, which it takes where it is installed: 4 MiB of a server that never uses it.

    Rich paints tracebacks with the locals in them, which no log of ours may show.
    """
    kept = sys.modules.get("rich")
    sys.modules["rich"] = None  # type: ignore[assignment]  # an import that finds this fails as if nothing were there
    try:
        importlib.import_module("structlog")
    finally:
        del sys.modules["rich"]
        if kept is not None:
            sys.modules["rich"] = kept
