"""RocksDB's log, looked at before RocksDB reads it.

A header whose type byte is damaged makes RocksDB 9.8 read the same record for
ever: the types of recycled logs, which taskd does not write, are five values of
that byte. So the chain of headers is followed first, and such a log refused.
What the records hold is RocksDB's to check. Its list of tables, the MANIFEST, is such a log, too.
"""

import mmap
import struct
from pathlib import Path
from typing import Final

from taskd_protocol.errors import StoreCorrupt

BLOCK_BYTES: Final = 32 * 1024
"""Records do not span blocks; a longer one is written in pieces."""

_HEADER: Final = struct.Struct("<IHB")  # checksum, length, type
_PIECES: Final = frozenset({1, 2, 3, 4})  # a whole record; the first, middle and last piece of one
_PREALLOCATED: Final = 0


def check_logs(path: Path, advice: str) -> None:
    """Follow the headers of every log in a store's folder.

    Raises:
        StoreCorrupt: One holds what no taskd wrote. A torn end is none of that.
    """
    for log in sorted(path.glob("*.log")):
        _check(log, advice)


def check_manifests(path: Path) -> None:
    """Follow the headers of every list of tables in a store's folder: nothing is read without one.

    Raises:
        StoreCorrupt: One holds what no taskd wrote.
    """
    for manifest in sorted(path.glob("MANIFEST-*")):
        _check(manifest, "restore a backup")


def _check(log: Path, advice: str) -> None:
    damaged = first_damage(log)
    if damaged is not None:
        raise StoreCorrupt(f"{log} is damaged at byte {damaged}; {advice}")


def first_damage(log: Path) -> int | None:
    """Return the offset of the first header that cannot be one, or None."""
    with log.open("rb") as file:
        size = log.stat().st_size
        if size == 0:
            return None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _first_damage(data, size)


def blank_damage(log: Path) -> None:
    """Turn each impossible header into one whose record fills its block and has a wrong checksum.

    RocksDB stops there, or skips the block, as its recovery mode says; it hangs nowhere.
    """
    while (at := first_damage(log)) is not None:
        rest_of_block = BLOCK_BYTES - at % BLOCK_BYTES - _HEADER.size
        with log.open("r+b") as file:
            file.seek(at)
            checksum, _, _ = _HEADER.unpack(file.read(_HEADER.size))
            file.seek(at)
            file.write(_HEADER.pack(checksum ^ 1, rest_of_block, 1))


def _first_damage(data: mmap.mmap, size: int) -> int | None:
    unpack, header_bytes = _HEADER.unpack_from, _HEADER.size
    at = 0
    while at + header_bytes <= size:
        block_left = BLOCK_BYTES - at % BLOCK_BYTES
        if block_left < header_bytes:  # too short for a header: left empty
            at += block_left
            continue
        _, length, piece = unpack(data, at)
        end = at + header_bytes + length
        if piece not in _PIECES:
            return None if piece == _PREALLOCATED and length == 0 else at
        if end > size:  # the end is torn
            return None
        if header_bytes + length > block_left:
            return at
        at = end
    return None
