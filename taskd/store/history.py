"""History: the chain of records that batches carry about themselves.

Each batch's record holds the digest of the record before it. RocksDB recovers a
log record by record; a log file that has vanished from the middle it does not
miss. The chain does.
"""

import hashlib
from pathlib import Path
from typing import Final

from rocksdict import Rdict

from taskd.store.engine import walk
from taskd.store.keys import COMMIT_PREFIX, commit_key, successor
from taskd_protocol.errors import StoreCorrupt

COMMITS_KEPT: Final = 4096
"""Records kept: a gap is seen while fewer batches than this came after it."""

_COUNT_BYTES = 4


class Commit:
    """A batch's own record: how many writes it had, and the digest of the record before it.

    Attributes:
        sequence: The batch's number.
        value: What is stored.
        digest: What the next record holds of this one.
    """

    __slots__ = ("digest", "sequence", "value")

    def __init__(self, sequence: int, value: bytes) -> None:
        self.sequence = sequence
        self.value = value
        self.digest = hashlib.blake2b(commit_key(sequence) + value, digest_size=16).digest()

    @classmethod
    def after(cls, sequence: int, digest_before: bytes, writes_count: int) -> "Commit":
        """Make the record of a batch."""
        return cls(sequence, writes_count.to_bytes(_COUNT_BYTES, "big") + digest_before)

    def follows(self, before: "Commit") -> bool:
        """Tell whether this batch is the one after ``before``."""
        return self.sequence == before.sequence + 1 and self.value[_COUNT_BYTES:] == before.digest


FIRST = Commit(0, b"")
"""What the first batch follows."""


def last_commit(database: Rdict) -> Commit:
    """Return the newest record, whatever came before it.

    Raises:
        StoreCorrupt: It cannot be read.
    """
    for key, value in walk(database, COMMIT_PREFIX, successor(COMMIT_PREFIX), reverse=True):
        return _commit(key, value)
    return FIRST


def check_history(database: Rdict, path: Path) -> Commit:
    """Follow the chain as far back as it is kept; return its last record.

    Raises:
        StoreCorrupt: A record is missing, or does not follow the one before it.
    """
    last: Commit | None = None
    for key, value in walk(database, COMMIT_PREFIX, successor(COMMIT_PREFIX)):
        commit = _commit(key, value)
        if last is not None and not commit.follows(last):
            raise StoreCorrupt(
                f"the store at {path} lacks what was committed between {last.sequence} and {commit.sequence};"
                " restore a backup"
            )
        last = commit
    return last or FIRST


def _commit(key: bytes, value: bytes) -> Commit:
    return Commit(int.from_bytes(key[len(COMMIT_PREFIX) :], "big"), value)
