"""Checking: a store that is not served is looked through by another process, so that the loop goes on."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

import msgspec

from taskd.server.apart import run_program
from taskd_protocol.errors import StoreCorrupt, StoreFailed

NICENESS: Final = 10
"""Of the check: who serves goes first."""


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
    code, output = await run_program(["fsck", "--store", str(store), "--json"], errors_too=True, niceness=NICENESS)
    lines = output.decode(errors="replace").splitlines()
    with suppress(msgspec.DecodeError, StopIteration):
        checked = msgspec.json.decode(next(line for line in lines if line.startswith("{")), type=Checked)
        if checked.clean:
            return checked
    raise (StoreCorrupt if code == os.EX_DATAERR else StoreFailed)(
        f"the copy does not pass its check: {lines[-1] if lines else 'it said nothing'}"
    )
