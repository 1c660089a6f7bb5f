"""The commit mark: how a peer proves to a server that was rolled back how far its store had come."""

import msgspec


class Mark(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A commit mark: proof of how far a server's store had come when it answered.

    A peer keeps the newest and shows it in HELLO. A server that does not know so
    new a commit was rolled back. The MAC is the server's, so no peer can invent one.
    """

    lineage: bytes
    """16 bytes: which store, since its creation or last restore."""
    sequence: int
    """Commits of that lineage that were durable."""
    mac: bytes
    """32 bytes, keyed BLAKE2b over lineage and sequence, and over the epoch unless that is 0."""
    epoch: int = 0
    """Which start of the server made the newest of them; 0: it did not say."""
