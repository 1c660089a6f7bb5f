"""Keys: where a record lies.

A key is the shard (one byte, 0 in a single server), the kind (one byte), then
the id. They sort bytewise, so that a kind lies together, in the order of its
ids. The kind 0 is the store's own and never reaches the core.
"""

from taskd.core.records import Kind

SHARD = b"\x00"
"""A single server has one shard."""

STORE = Kind(b"\x00")
"""What a store keeps about itself."""

FORMAT_KEY = SHARD + STORE + b"format"
LINEAGE_KEY = SHARD + STORE + b"lineage"
MIGRATION_KEY = SHARD + STORE + b"migration"
"""How far a migration has come, there only meanwhile: the step's number in one byte, then the last id."""
COMMIT_PREFIX = SHARD + STORE + b"commit"
"""Followed by the batch's number in 8 bytes."""

ID_START = len(SHARD) + 1
"""Where the id begins in a key."""


def make_key(kind: Kind, record_id: bytes) -> bytes:
    """Return the key of the record of that kind and id."""
    return SHARD + kind + record_id


def split_key(key: bytes) -> tuple[Kind, bytes]:
    """Return the kind and id of a key."""
    return Kind(key[1:ID_START]), key[ID_START:]


def commit_key(sequence: int) -> bytes:
    """Return the key of the record that the batch of that number carries."""
    return COMMIT_PREFIX + sequence.to_bytes(8, "big")


def successor(prefix: bytes) -> bytes:
    """Return the first key after all that begin with ``prefix``, which begins with a shard number."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1])


def describe_key(key: bytes) -> str:
    """Return the key as people read it: kind, then id, in ASCII where it is and hexadecimal where not."""
    kind, record_id = split_key(key)
    text = record_id.decode("ascii", "replace")
    shown = text if text.isprintable() and text.isascii() else record_id.hex()
    return f"{kind.decode('latin-1') if kind != STORE else 'store'}/{shown}"
