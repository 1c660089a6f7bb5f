"""Apart: this program as a process that does one thing, and ends, while the loop goes on.

For what holds the interpreter's lock for long, in a thread too. Cancelled, nothing of it runs any more.
"""

import os
import subprocess
from contextlib import suppress
from typing import Final, Protocol

import trio

from taskd.program import bound_environment, program

_READ_BYTES: Final = 64 * 1024


class Apart(Protocol):
    """Runs our program with something on its standard input."""

    async def __call__(self, words: list[str], said: bytes, /) -> bytes:
        """Return what it put out.

        Raises:
            ChildProcessError: It failed.
        """
        ...


class Processes:
    """An ``Apart``; what is more than some at a time waits."""

    def __init__(self, count_max: int) -> None:
        """Bound how many run at a time: each may take the memory of what it reads many times over."""
        self._room = trio.CapacityLimiter(count_max)

    async def __call__(self, words: list[str], said: bytes, /) -> bytes:
        """See ``Apart``."""
        async with self._room:
            code, output = await run_program(words, said)
        if code:
            raise ChildProcessError(f"taskd {' '.join(words)} ended with {code}; its log says why")
        return output


async def run_program(
    words: list[str], said: bytes = b"", *, errors_too: bool = False, niceness: int = 0
) -> tuple[int, bytes]:
    """Run `taskd WORDS…`; return its exit code and what it put out.

    Args:
        words: Those.
        said: Its standard input.
        errors_too: Return what it says on standard error as well; else that goes where ours goes.
        niceness: Of the process.
    """
    # On the loop's own thread: the kernel ends the child when the thread that started it ends. A few ms.
    child = subprocess.Popen(  # noqa: ASYNC220, S603 - our own program
        program(words),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if errors_too else None,
        env=bound_environment(),
        process_group=0,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    output: list[bytes] = []
    try:
        with suppress(OSError):  # it has ended already
            os.setpriority(os.PRIO_PROCESS, child.pid, niceness)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_say, os.dup(child.stdin.fileno()), said)
            child.stdin.close()
            nursery.start_soon(_hear, os.dup(child.stdout.fileno()), output)
        await _ended(child.pid)
    finally:
        child.kill()  # nobody waits for it any more
        child.wait()
        child.stdout.close()
    return child.returncode, b"".join(output)


async def _say(fd: int, said: bytes) -> None:
    async with trio.lowlevel.FdStream(fd) as stream:
        with suppress(trio.BrokenResourceError):  # it ends without having heard it all, and its exit code tells
            await stream.send_all(said)


async def _hear(fd: int, output: list[bytes]) -> None:
    async with trio.lowlevel.FdStream(fd) as stream:
        while piece := await stream.receive_some(_READ_BYTES):
            output.append(bytes(piece))


async def _ended(pid: int) -> None:
    fd = os.pidfd_open(pid)
    try:
        await trio.lowlevel.wait_readable(fd)
    finally:
        os.close(fd)
