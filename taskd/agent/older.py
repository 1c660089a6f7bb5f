"""Older servers: what one that speaks version 1 of the protocol can be told of what this agent says.

Such a server knows no streams of data, keeps no details for next attempts, has one budget for all failures, takes no
credit back, and ends the connection over what it does not know.
"""

from collections.abc import Iterable
from typing import TypeVar

from msgspec.structs import replace

from taskd_protocol.agent_messages import Checkpoints, Logs, Nack
from taskd_protocol.streams import STACKS, STDERR

M = TypeVar("M")

_OUTCOMES = {"crashed": "failed", "lost": "released"}


def in_version_1(messages: Iterable[M]) -> list[M | Nack | Logs]:
    """Return what is to be said of these, as version 1 has it."""
    told: list[M | Nack | Logs] = []
    for message in messages:
        if isinstance(message, Nack):
            told.append(Nack([replace(f, outcome=_OUTCOMES.get(f.outcome, f.outcome)) for f in message.failures]))
        elif isinstance(message, Logs):
            told.append(
                Logs([replace(piece, stream=STDERR) if piece.stream > STACKS else piece for piece in message.pieces])
            )
        elif not isinstance(message, Checkpoints):
            told.append(message)
    return told
