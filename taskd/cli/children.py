"""Servers and agents that a command starts: processes of this same program, which never outlive it."""

import contextlib
import os
import select
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Final

from taskd.program import bound_environment, program

GRACE_S: Final = 15.0
"""How long a child that was asked to stop may take, before it is killed."""

Child = subprocess.Popen[bytes]


def start(
    words: Sequence[str],
    *,
    cwd: Path | None = None,
    stdout: int | None = None,
    stderr: IO[bytes] | None = None,
) -> Child:
    """Start `taskd` with these words.

    Ctrl-C does not reach it: its parent decides in which order things stop. Call it from the main
    thread alone: the kernel ends the child when the thread that started it ends.

    Args:
        words: After the program's name.
        cwd: Where it looks for modules and settings; None: where we are.
        stdout: As of ``subprocess.Popen``; None: shared with us.
        stderr: A file for what it logs; None: shared with us.
    """
    return subprocess.Popen(  # noqa: S603 - our own program
        program(words),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        cwd=cwd,
        env=bound_environment(),
        process_group=0,
    )


def first_line(child: Child, timeout_s: float) -> str | None:
    """Return the first line that it prints, without its end; None when none comes in time, or it ends before."""
    assert child.stdout is not None  # started with a pipe
    fd = child.stdout.fileno()
    text = b""
    while not text.endswith(b"\n"):
        readable, _, _ = select.select([fd], [], [], timeout_s)
        piece = os.read(fd, 1) if readable else b""  # a byte at a time: what comes after is not ours
        if not piece:
            return None
        text += piece
    return text.decode(errors="replace").rstrip("\n")


def wait_any(children: Sequence[Child], timeout_s: float | None = None) -> Child | None:
    """Return the first of these that has ended; None when none does in time."""
    with contextlib.ExitStack() as stack:
        fds = {stack.enter_context(_pidfd(child)): child for child in children}
        ended, _, _ = select.select(list(fds), [], [], timeout_s)
    return fds[ended[0]] if ended else None


def stop(child: Child, grace_s: float = GRACE_S) -> int:
    """Ask it to stop, kill it if it does not; return its exit code, negative for a signal."""
    child.terminate()
    try:
        return child.wait(grace_s)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


@contextlib.contextmanager
def _pidfd(child: Child) -> Iterator[int]:
    fd = os.pidfd_open(child.pid)
    try:
        yield fd
    finally:
        os.close(fd)
