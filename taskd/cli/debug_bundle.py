"""`taskd debug-bundle`: one file for whoever is to help, without secrets."""

import os
from pathlib import Path
from typing import IO

import click

from taskd.cli.exits import Exit
from taskd.cli.options import json_option, server_options
from taskd.cli.output import hint, say, say_json
from taskd_protocol.errors import ConfigInvalid


@json_option
@server_options
@click.command("debug-bundle")
@click.argument("path", metavar="[FILE]", type=click.Path(path_type=Path), required=False)
@click.option(
    "--log",
    "logs",
    metavar="FILE",
    type=click.File("rb"),
    multiple=True,
    help="Take the end of this log of a server or agent too; - reads it from standard input.",
)
@click.option(
    "--config", metavar="FILE", type=click.Path(path_type=Path), help="Settings; else taskd.toml of this folder."
)
def debug_bundle(*, path: Path | None, logs: tuple[IO[bytes], ...], config: Path | None, as_json: bool) -> int:
    """Put what helps to find a fault into one file, without secrets.

    FILE is a .tar.gz that is not there yet; else one in this folder, named after the time. It holds versions,
    settings, what `taskd doctor` finds, what the server counts, its metrics and the ends of logs. Logs go where
    their service sends them: journalctl -u taskd | taskd debug-bundle --log -
    """
    from taskd.cli import bundle, checks
    from taskd.server.clock import SystemClock

    now_s = SystemClock().wall_ms() // 1000
    top = f"taskd-debug-{_stamp(now_s)}"
    path = path or Path(f"{top}.tar.gz")
    content, names = bundle.pack(bundle.collect(list(checks.examine()), logs, config), top, now_s)
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123 - its mode
            file.write(content)
    except OSError as error:
        raise ConfigInvalid(f"{path} cannot be written: {error.strerror}; name another file") from None
    if as_json:
        say_json({"path": str(path), "bytes": len(content), "files": names})
    else:
        say(str(path))
        hint(f"look through it before you send it: tar -xzf {path}")
    return Exit.DONE


def _stamp(now_s: int) -> str:
    import datetime as dt

    return dt.datetime.fromtimestamp(now_s, dt.UTC).strftime("%Y%m%dT%H%M%SZ")
