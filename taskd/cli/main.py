"""The entry point of the `taskd` program: the command line, or one of the small processes that taskd starts of itself.

Imports nothing before it knows which: a process that only watches over others must stay small.
"""

import gc
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

WARDEN = "__warden__"
"""First word with which the one-file program becomes an agent's warden: there is no `python -m` to ask for one."""

GC_THRESHOLD = 200_000
"""Objects between two collections of the youngest generation. Importing a server makes 145,000 and hardly any garbage:
collecting at Python's 700 is a sixth of a start, and at 50,000 a tenth."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run one command, then exit.

    Args:
        argv: The words after the program's name; None: those of this process.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == [WARDEN]:
        from taskd.agent import warden

        warden.main(words[1:])
    from taskd.program import CONVERTER, ISSUER, PARENT_VARIABLE

    parent = os.environ.pop(PARENT_VARIABLE, "")
    if parent.isdecimal():
        from taskd.agent.prctl import die_with_parent

        die_with_parent(int(parent))
    if words[:1] == [ISSUER]:
        from taskd.server import issuing

        issuing.main(words[1:])
    if words[:1] == [CONVERTER]:
        from taskd.http import converting

        converting.main(words[1:])
    gc.set_threshold(GC_THRESHOLD)
    from taskd.cli import program
    from taskd.cli.terminal import whole

    sys.stdout = whole(sys.stdout)
    sys.exit(program.run(words))
