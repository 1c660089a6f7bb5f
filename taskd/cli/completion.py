"""`taskd completion`: the script that teaches a shell to complete taskd's words."""

import click
from click.shell_completion import get_completion_class

from taskd.cli.output import say

_HOW = """Print the completion script of a shell.

\b
bash:  taskd completion bash > ~/.local/share/bash-completion/completions/taskd
zsh:   taskd completion zsh > "${fpath[1]}/_taskd"
fish:  taskd completion fish > ~/.config/fish/completions/taskd.fish
"""


@click.command(help=_HOW, short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion(shell: str) -> None:
    """Print the script; it asks `taskd` itself what may follow."""
    kind = get_completion_class(shell)
    assert kind is not None
    root = click.get_current_context().find_root()
    say(kind(root.command, {}, "taskd", "_TASKD_COMPLETE").source())
