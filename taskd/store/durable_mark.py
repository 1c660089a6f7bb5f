"""The durable mark: what was durable, told beside the log.

A log that was cut short, or whose last length field is damaged, reads like one
whose end was torn by a crash, and what was acknowledged would be gone without a
word. So each flush writes its sequence into a small file, unsynced: it is never
ahead of the log, and after a kill it is exact. A store that opens below its mark
has lost what was acknowledged.
"""

import os
from pathlib import Path
from typing import Final

NAME: Final = "durable.mark"
"""Not to be taken along into a copy that may hold less."""

LOSS_NAME: Final = "rolled.back"
"""Made when a peer has proved that the store had come further, or elsewhere; likewise not to be taken along."""

_LINEAGE_BYTES: Final = 16
_SEQUENCE_BYTES: Final = 8


class DurableMark:
    """The file, open for the store's life. May be used from the flushing thread."""

    def __init__(self, folder: Path, lineage: bytes) -> None:
        """Open it, or make it.

        Raises:
            OSError: The disk refuses.
        """
        self._lineage = lineage
        self._descriptor = os.open(folder / NAME, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, sequence: int) -> None:
        """Note that all up to ``sequence`` is durable.

        Raises:
            OSError: The disk refuses.
        """
        os.pwrite(self._descriptor, self._lineage + sequence.to_bytes(_SEQUENCE_BYTES, "big"), 0)

    def close(self) -> None:
        """Let go of the file; calling it twice is harmless."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def marked_sequence(folder: Path, lineage: bytes) -> int:
    """Return what is known to have been durable; 0 when the file is missing, or tells of another lineage."""
    return _read(folder / NAME, lineage)


def note_loss(folder: Path, lineage: bytes, sequence: int) -> None:
    """Note that a commit of that number was durable and is not there.

    Raises:
        OSError: The disk refuses.
    """
    (folder / LOSS_NAME).write_bytes(lineage + sequence.to_bytes(_SEQUENCE_BYTES, "big"))


def noted_loss(folder: Path, lineage: bytes) -> int:
    """Return the number of the commit that is known to be lost; 0: nothing is known of that, in this lineage."""
    return _read(folder / LOSS_NAME, lineage)


def _read(file: Path, lineage: bytes) -> int:
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return 0
    if len(content) != _LINEAGE_BYTES + _SEQUENCE_BYTES or content[:_LINEAGE_BYTES] != lineage:
        return 0
    return int.from_bytes(content[_LINEAGE_BYTES:], "big")
