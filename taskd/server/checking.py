"""Checking: a store that is not served is looked through by another process, so that the loop goes on."""

import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

import msgspec
import trio

from taskd.program import bound_environment, program
from taskd_protocol.errors import StoreCorrupt, StoreFailed

NICENESS: Final = 10
"""Of the check: who serves goes first."""

_READ_BYTES: Final = 64 * 1024


class Checked(msgspec.Struct, frozen=True):
    """What `taskd fsck --json` tells of a store that is whole."""

    clean: bool
    sequence: int
    tasks: dict[str, int]


class CheckStore(Protocol):
    """Checks the store in a folder, which nobody has open."""

    async def __call__(self, store: Path, /) -> Checked:
        """Return what is in it; cancelled, nothing of it runs any more.

        Raises:
            StoreCorrupt: It is not whole.
            StoreFailed: It could not be checked.
        """
        ...


async def check_store(store: Path) -> Checked:
    """See ``CheckStore``."""
    # On the loop's own thread: the kernel ends the child when the thread that started it ends. A few ms.
    child = subprocess.Popen(  # noqa: ASYNC220, S603 - our own program
        program(["fsck", "--store", str(store), "--json"]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=bound_environment(),
        process_group=0,
    )
    try:
        with suppress(OSError):  # it has ended already
            os.setpriority(os.PRIO_PROCESS, child.pid, NICENESS)
        assert child.stdout is not None
        output = await _read(os.dup(child.stdout.fileno()))
        await _ended(child.pid)
    finally:
        child.kill()  # nobody waits for it any more
        child.wait()
        assert child.stdout is not None
        child.stdout.close()
    lines = output.decode(errors="replace").splitlines()
    with suppress(msgspec.DecodeError, StopIteration):
        checked = msgspec.json.decode(next(line for line in lines if line.startswith("{")), type=Checked)
        if checked.clean:
            return checked
    raise (StoreCorrupt if child.returncode == os.EX_DATAERR else StoreFailed)(
        f"the copy does not pass its check: {lines[-1] if lines else 'it said nothing'}"
    )


async def _ended(pid: int) -> None:
    fd = os.pidfd_open(pid)
    try:
        await trio.lowlevel.wait_readable(fd)
    finally:
        os.close(fd)


async def _read(fd: int) -> bytes:
    pieces = []
    async with trio.lowlevel.FdStream(fd) as stream:
        while piece := await stream.receive_some(_READ_BYTES):
            pieces.append(piece)
    return b"".join(pieces)
