"""`taskd doctor`: is this machine fit, is the server there, and what to do where it is not."""

import click

from taskd.cli.exits import Exit, exit_code
from taskd.cli.options import json_option, server_options
from taskd.cli.output import say, say_json

_MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


@json_option
@server_options
@click.command
def doctor(*, as_json: bool) -> int:
    """Check this machine and the way to the server.

    Each line says ok, warn or FAIL, and what to do. The exit code is 0 unless something failed.
    """
    from taskd.cli import checks

    findings = list(checks.examine())
    failures = [finding for finding in findings if finding.status == "fail"]
    if as_json:
        say_json(
            {
                "ok": not failures,
                "checks": [
                    {"name": f.name, "status": f.status, "message": f.message, "advice": f.advice or None}
                    for f in findings
                ],
            }
        )
    else:
        for finding in findings:
            advice = f": {finding.advice}" if finding.advice else ""
            say(f"{_MARKS[finding.status]}  {finding.name:<12} {finding.message}{advice}")
    if not failures:
        return Exit.DONE
    error = failures[0].error
    return Exit.USAGE if error is None else exit_code(error)
