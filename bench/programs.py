"""Programs under measurement: started in a session of their own, ended with all their children."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

STOP_WITHIN_S = 10.0
"""From SIGTERM to SIGKILL."""
POLL_S = 0.02

BENCH = Path(__file__).parent


@contextmanager
def program(
    argv: Sequence[str],
    log: Path,
    *,
    heard: bool = False,
    spoken: bool = False,
    environment: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in ``bench/``; end it and what it started on the way out.

    What it says goes to ``log``, but its standard output to a pipe if it is to be ``heard``; its
    standard input is one if it is to be ``spoken`` to.
    """
    with log.open("ab") as messages:
        process = subprocess.Popen(
            argv,
            cwd=BENCH,
            env=environment,
            stdin=subprocess.PIPE if spoken else subprocess.DEVNULL,
            stdout=subprocess.PIPE if heard else messages,
            stderr=messages,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        end(process)
        for pipe in (process.stdin, process.stdout):
            if pipe:
                with suppress(BrokenPipeError):  # what was said to one who had gone
                    pipe.close()


def end(process: subprocess.Popen[bytes], first: signal.Signals = signal.SIGTERM) -> None:
    """End a program, politely or not, and then whatever is left of its session and of its children."""
    if process.returncode is not None:
        return  # ended before, here
    children = []
    with suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children(recursive=True)
    if process.poll() is None:
        process.send_signal(first)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_WITHIN_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # the session is ours: its leader was started here
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait()


def line(process: subprocess.Popen[bytes], within_s: float) -> str:
    """Return the first line that the program prints.

    Raises:
        SystemExit: It ended or stayed silent; its log tells why.
    """
    assert process.stdout
    readable, _, _ = select.select([process.stdout], [], [], within_s)
    text = process.stdout.readline().decode() if readable else ""
    if not text:
        sys.exit(f"{process.args!r} said nothing within {within_s:.0f} s; see its log")
    return text.strip()


def until(condition: str, seconds: float) -> Iterator[None]:
    """Go round a loop until its body breaks out of it.

    Raises:
        SystemExit: The condition, told in words, did not come true in time.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield
        time.sleep(POLL_S)
    sys.exit(f"not within {seconds:.0f} s: {condition}")


def descendants(processes: Sequence[subprocess.Popen[bytes]]) -> list[int]:
    """Return the ids of all that these programs have started."""
    return [child.pid for process in processes for child in psutil.Process(process.pid).children(recursive=True)]
