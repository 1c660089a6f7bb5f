"""Plays cases as it is told: ``python -m campaigns.player MODULE NAME``, with a number on each line of its input.

A first line of output says that it is ready. It answers each number with a line of JSON, what the case came to. A case
that is interrupted ends the process; the last line is then a string, the place.
"""

import importlib
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import msgspec

from campaigns.report import Found

Case = Callable[[int, Path, Found], None]
"""Plays a case by its number in an empty folder; what it finds it notes, and an exception is a violation too."""


def run_case(name: str, case: Case, number: int) -> Found:
    """Play one case."""
    found = Found()
    home = Path(tempfile.mkdtemp(prefix=f"taskd-{name}-{number}-"))
    try:
        case(number, home, found)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what the campaign was run for
        found.violations.append(place(error))
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return found


def place(error: BaseException) -> str:
    """Say in one line what happened, and where."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    said = str(error) or (frames[-1].line if frames else "") or ""
    return f"{type(error).__name__} at {where}: {' '.join(said.split())[:300]}"


def main() -> None:
    """Play until there is nothing more to read; what cases print goes to standard error."""
    module, name = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever starts us in the background ignores it
    numbers, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    play: Case = importlib.import_module(module).play
    answers.write(b"{}\n")
    try:
        for number in numbers:
            answers.write(msgspec.json.encode(run_case(name, play, int(number))) + b"\n")
    except KeyboardInterrupt as interrupted:
        answers.write(msgspec.json.encode(place(interrupted)) + b"\n")


if __name__ == "__main__":
    main()
