"""Head: what a store says of itself, before anything else in it is looked at."""

from pathlib import Path
from typing import Final, NamedTuple

from rocksdict import Rdict

from taskd.store import engine
from taskd.store.keys import FORMAT_KEY, LINEAGE_KEY
from taskd_protocol.errors import StoreCorrupt, StoreTooNew, StoreTooOld

FORMAT: Final = 4
"""Of keys and records. A store of a higher one is refused; one of a lower is brought here by ``migrate``, which is
where the procedure for the next one stands."""


class Head(NamedTuple):
    """Format and lineage."""

    format: int
    lineage: bytes
    """16 bytes: this store since its creation or last restore."""


def read_head(database: Rdict, path: Path) -> Head | None:
    """Return the head, None when the store is still without one.

    Raises:
        StoreCorrupt: The head is damaged.
        StoreTooNew: A newer taskd wrote it.
    """
    written, lineage = engine.get_many(database, [FORMAT_KEY, LINEAGE_KEY])
    if written is None or lineage is None:
        if next(engine.walk(database, b"", b"\xff"), None) is None:
            return None
        raise StoreCorrupt(f"the store at {path} has lost its format mark; {engine.RECOVER_ADVICE}")
    if not written.isdigit():
        raise StoreCorrupt(f"the store at {path} has no readable format mark; {engine.RECOVER_ADVICE}")
    if int(written) > FORMAT:
        raise StoreTooNew(
            f"the store at {path} has format {int(written)}, this taskd knows {FORMAT}: use the newer taskd"
        )
    return Head(int(written), lineage)


def read_current_head(database: Rdict, path: Path) -> Head | None:
    """Return the head of a store that must be of today's format, None when it is still without one.

    Raises:
        StoreCorrupt: The head is damaged.
        StoreTooNew: A newer taskd wrote it.
        StoreTooOld: It was not opened by a server since taskd was upgraded.
    """
    head = read_head(database, path)
    if head is not None and head.format < FORMAT:
        raise StoreTooOld(
            f"the store at {path} has format {head.format}, this taskd works with {FORMAT}: start the server on it once"
        )
    return head
