"""`taskd dashboard`: the way to the page in the browser."""

import click

from taskd.cli.options import chosen_server, server_options
from taskd.cli.output import say
from taskd.client.profile import resolve


@server_options
@click.command
def dashboard() -> None:
    """Print a link that opens the dashboard, and logs in once.

    It is good for ten minutes; whoever opens it first may do what the token of this command may do.
    """
    from taskd.cli.asking import login_link

    url, context = chosen_server()
    say(login_link(resolve(url, name=context)))
