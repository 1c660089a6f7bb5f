"""`taskd cert`: the certificate that the server shows to whoever connects."""

import click

from taskd.cli.connection import server
from taskd.cli.options import json_option, server_options
from taskd.cli.output import say, say_document
from taskd.text.documents import certificate_document
from taskd.text.values import iso
from taskd_protocol.access_messages import CertQuery, CertRenew, CertView


@click.group
def cert() -> None:
    """Show and renew the server's certificate."""


@json_option
@server_options
@cert.command
def show(*, as_json: bool) -> None:
    """Show the certificate in use."""
    with server() as client:
        _say(client.call(CertQuery(0), CertView), as_json=as_json)


@json_option
@server_options
@cert.command
@click.option(
    "--host-name", "host_names", metavar="NAME", multiple=True, help="One more name or address to put into it."
)
def renew(*, host_names: tuple[str, ...], as_json: bool) -> None:
    """Issue a new certificate from the same CA; nobody is disconnected."""
    with server() as client:
        _say(client.call(CertRenew(0, list(host_names)), CertView), as_json=as_json)


def _say(view: CertView, *, as_json: bool) -> None:
    if as_json:
        say_document(certificate_document(view))
        return
    say(f"names     {', '.join(view.host_names)}")
    say(f"valid     {iso(view.not_before_ms)} to {iso(view.not_after_ms)}")
    say(f"SHA-256   {view.sha256.hex()}")
    say(f"CA        {view.ca_sha256.hex()}")
