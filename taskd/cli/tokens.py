"""`taskd token`: who may talk to the server."""

import click

from taskd.cli.connection import server
from taskd.cli.options import duration_ms, json_option, server_options
from taskd.cli.output import hint, say, say_document, say_json, say_rows
from taskd.text.documents import token_document
from taskd.text.values import iso
from taskd_protocol.access_messages import TokenCreate, TokenCreated, TokenList, TokenPage, TokenRevoke
from taskd_protocol.connection_messages import Done

_ROLES = ("client", "agent", "viewer", "operator", "admin")


@click.group
def token() -> None:
    """Create, list and revoke access tokens."""


@json_option
@server_options
@token.command
@click.option("--role", type=click.Choice(_ROLES), required=True, help="What its holder may do.")
@click.option(
    "--expires",
    "expires_in_ms",
    metavar="TIME",
    type=duration_ms("d"),
    default="90d",
    show_default=True,
    help="How long it is good for: 12h, 90d; a bare number counts days.",
)
@click.option("--label", default="", help="For people: whose it is.")
def create(*, role: str, expires_in_ms: int, label: str, as_json: bool) -> None:
    """Create a token and print it. It is shown this once: the server keeps only its hash."""
    with server() as client:
        text = client.call(TokenCreate(0, role, label, expires_in_ms), TokenCreated).token
    if as_json:
        say_json({"token": text})
    else:
        say(text)


@json_option
@server_options
@token.command("ls")
def list_tokens(*, as_json: bool) -> None:
    """List the tokens, oldest first, expired and revoked ones too."""
    with server() as client:
        views = sorted(client.call(TokenList(0), TokenPage).tokens, key=lambda view: (view.created_at_ms, view.key_id))
    if as_json:
        say_document([token_document(view) for view in views])
        return
    rows = [
        (
            view.key_id,
            view.role,
            view.label or "-",
            (iso(view.expires_at_ms) or "-")[:10],
            "yes" if view.revoked else "no",
        )
        for view in views
    ]
    say_rows(("KEY ID", "ROLE", "LABEL", "EXPIRES", "REVOKED"), rows)


@server_options
@token.command
@click.argument("key_id", metavar="KEY-ID")
def revoke(*, key_id: str) -> None:
    """Refuse a token from now on; who uses it is disconnected within a second.

    KEY-ID is what `taskd token ls` shows. The token itself does as well.
    """
    # People paste the whole token. Its secret stays here.
    parts = key_id.split("_")
    named = parts[2] if len(parts) == 5 and parts[0] == "taskd" else key_id  # noqa: PLR2004 - taskd_ROLE_KEYID_SECRET_SUM
    with server() as client:
        client.call(TokenRevoke(0, named), Done)
    hint(f"revoked {named}")
