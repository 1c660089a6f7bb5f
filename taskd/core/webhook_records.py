"""What is kept of webhooks: where events are to be sent, and what could not be."""

import msgspec


class WebhookRecord(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """A webhook."""

    url: str
    secret: bytes
    """What its posts are signed with."""
    topics: list[str]
    """How the words of its events begin; empty: all."""
    queue: str
    name: str
    """As in EVENTS_FOLLOW."""
    created_at_ms: int
    after: int
    """The number of the last event that was delivered, or is a dead letter."""
    paused: bool = False
    failures: int = 0
    """In a row."""
    error: str = ""
    """Of the last of them."""
    until: int = 0
    """The number of the last event of the post under way; up to ``after``: none is."""
    lost: int = 0
    """How often events were lost to it: they were kept no longer when their turn came, or had died when there was no
    room for one more dead letter."""


class LetterRecord(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """Events that could not be delivered."""

    at_ms: int
    attempts: int
    error: str
    events: int
    """How many."""
    body: bytes
    """As it was to be posted."""
