"""`taskd server`: the command."""

import os
from pathlib import Path

import click

from taskd.cli.folders import state_dir
from taskd.cli.lazy import import_structlog
from taskd_protocol.errors import ConfigInvalid


@click.command
@click.option("--data-dir", metavar="DIR", help="Where tasks, results, certificates and tokens are kept.")
@click.option(
    "--listen",
    metavar="HOST:PORT",
    help="Where clients and agents connect; else 127.0.0.1:7070, port 0 takes a free one.",
)
@click.option("--http", metavar="HOST:PORT", help="Where its HTTP API is; else 127.0.0.1:7071.")
@click.option("--url-prefix", metavar="PATH", help="Of every path of HTTP, as a proxy passes them on: /taskd.")
@click.option(
    "--host-name",
    "host_names",
    metavar="NAME",
    multiple=True,
    help="One more name or address that peers use for this machine.",
)
@click.option("--tls/--no-tls", default=None, help="Plain TCP is for loopback only.")
@click.option("--retention-age", metavar="TIME", help="Keep finished tasks so long; else 7d.")
@click.option("--retention-size", metavar="SIZE", help="And while they weigh no more than this in all; else 4GiB.")
@click.option("--log-retention-age", metavar="TIME", help="Keep what finished tasks have said so long; else 7d.")
@click.option("--log-retention-size", metavar="SIZE", help="And while it weighs no more than this in all; else 2GiB.")
@click.option("--key-retention", metavar="TIME", help="Keep idempotency keys so long after the submit; else 24h.")
@click.option("--payload-max", metavar="SIZE", help="Largest arguments or result of one task; else 16MiB.")
@click.option("--workflow-nodes-max", metavar="NUMBER", help="Largest workflow that is taken; else 10000 nodes.")
@click.option(
    "--heartbeat",
    metavar="TIME",
    help="How often agents give a sign of life; else 5s. Three missed, and their tasks go to others.",
)
@click.option(
    "--ageing", metavar="TIME", help="After so long a wait a task is level with new ones of one priority more; else 1m."
)
@click.option(
    "--webhook-network",
    "webhook_networks",
    metavar="NETWORK",
    multiple=True,
    help="Webhooks may post there though it is not public, and in the clear: 10.0.0.0/8.",
)
@click.option("--otlp", metavar="URL", help="Send spans to this collector: http://127.0.0.1:4318/v1/traces.")
@click.option("--trace-ratio", metavar="SHARE", help="Of so many traces, 0 to 1; else 0.01.")
@click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error; else info.")
@click.option("--log-form", metavar="FORM", help="people or json; else by whether standard error is a terminal.")
@click.option(
    "--config",
    "file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Settings; else taskd.toml of this folder, if there is one.",
)
def server(*, file: Path | None, **flags: str | bool | tuple[str, ...] | None) -> int:
    """Run the server.

    Its first start makes certificates, an admin token and the profile that lets commands, agents and programs of
    this user find it. Once it serves it says so: "serving taskd://HOST:PORT http://HOST:PORT". Each option is also
    TASKD_OPTION_NAME in the environment and option_name under [server] in taskd.toml.
    """
    import_structlog()
    from taskd.cli import serving
    from taskd.server.config import SECTION, ServerConfig
    from taskd.server.settings import load_settings

    config = load_settings(
        ServerConfig,
        SECTION,
        flags=flags,
        environ=os.environ,
        file=file,
        defaults=_defaults(),
    )
    return serving.run(config)


def _defaults() -> dict[str, str]:
    """Return where the data goes if nothing says so; a user without a home must say it."""
    try:
        return {"data_dir": str(state_dir() / "server")}
    except ConfigInvalid:
        return {}
