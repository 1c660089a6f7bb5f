"""`taskd dev`: a server and an agent with one command; stopped together, the agent started again when it crashes."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from taskd.cli import children
from taskd.cli.asking import login_link
from taskd.cli.exits import Exit
from taskd.cli.folders import state_dir
from taskd.cli.interrupts import take_as_ctrl_c
from taskd.cli.output import hint
from taskd.client import profile as profiles

START_S: Final = 60.0
"""How long the server may take to serve: it may have a long log to read."""
RESTART_S: Final = 1.0
"""Pause before a crashed agent is started again, so that one which always crashes does not fill the screen."""


@click.command
@click.argument("modules", metavar="[MODULE]...", nargs=-1)
@click.option("--data-dir", metavar="DIR", type=click.Path(path_type=Path), help="Where tasks are kept.")
@click.option("--listen", metavar="HOST:PORT", help="Where clients and agents connect; port 0 takes a free one.")
@click.option("--http", metavar="HOST:PORT", help="Where browsers and probes connect (HTTP).")
@click.option("--processes", metavar="N", type=click.IntRange(min=1), help="Worker processes of the agent.")
@click.option("--concurrency", metavar="N", type=click.IntRange(min=1), help="Async tasks one worker runs at a time.")
def dev(
    *,
    modules: tuple[str, ...],
    data_dir: Path | None,
    listen: str | None,
    http: str | None,
    processes: int | None,
    concurrency: int | None,
) -> int:
    """Run a server and an agent here, with one command.

    The agent runs the tasks of the MODULEs, found from this folder; without one it runs commands only. Tasks are
    kept in ~/.local/state/taskd/dev from one start to the next. Ctrl-C stops both.
    """
    root = Path(os.path.abspath(data_dir or state_dir() / "dev"))  # noqa: PTH100 - as the server names it
    server = children.start(
        ["server", "--data-dir", str(root), *_given("--listen", listen), *_given("--http", http)],
        stdout=subprocess.PIPE,
    )
    try:
        take_as_ctrl_c(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        line = children.first_line(server, START_S)
        if line is None:
            return children.stop(server)  # it has said why
        context = _context_of(root)
        _welcome(line, context)
        words = ["agent", *modules, "--context", context]
        words += [*_given("--processes", processes), *_given("--concurrency", concurrency)]
        return _supervise(server, lambda: children.start(words))
    except KeyboardInterrupt:
        return Exit.DONE
    finally:
        if server.poll() is None:
            children.stop(server)


def _supervise(server: children.Child, start_agent: Callable[[], children.Child]) -> int:
    """Keep an agent beside the server, until the server ends or the agent cannot run at all; return the exit code."""
    agent = start_agent()
    try:
        while True:
            if children.wait_any([server, agent]) is server:
                hint("taskd: the server has ended, so dev ends too")
                return server.wait() or Exit.UNREACHABLE
            code = agent.wait()
            if code in {Exit.USAGE, Exit.REFUSED}:
                return code  # it has said why, and would say it again
            hint(f"taskd: the agent has ended with exit code {code}; another one starts")
            if children.wait_any([server], RESTART_S) is None:
                agent = start_agent()
    finally:
        if agent.poll() is None:
            children.stop(agent)


def _welcome(line: str, context: str) -> None:
    _, address, http = line.split(" ")
    profile = profiles.resolve(name=context)
    hint(f"server   {address}\nhttp     {http}\npage     {login_link(profile)} (logs in once)\nstop     Ctrl-C")
    if profiles.current_name() != context:
        hint(f"clients  talk to another server; choose this one with: taskd context use {context}")


def _context_of(root: Path) -> str:
    """Return the name of the profile that the server of this data directory has written."""
    return next(known.name for known in profiles.profiles() if known.data_dir == str(root))


def _given(option: str, value: object) -> list[str]:
    return [] if value is None else [option, str(value)]
