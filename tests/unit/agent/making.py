"""Grants and messages, made short."""

from msgspec import structs

from taskd_protocol.agent_messages import Lease
from taskd_protocol.connection_messages import PeerLimits, Welcome
from taskd_protocol.limits import PAYLOAD_BYTES_MAX, PROTOCOL_VERSION_MAX
from taskd_protocol.mark import Mark
from taskd_protocol.payload import pack_arguments
from taskd_protocol.resources import Granted, Hold
from taskd_protocol.task import Grant, TaskSpec

NO_ARGUMENTS = pack_arguments([], {})


def task_id(token: int) -> bytes:
    """A task id that tells the token of its lease."""
    return b"\x01\x9a" + token.to_bytes(4, "big") + b"\x70\x00\x80" + bytes(7)


def grant(token: int, name: str = "m.f", payload: bytes = NO_ARGUMENTS, attempt: int = 1) -> Grant:
    return Grant(token, attempt, TaskSpec(task_id(token), name, payload))


def holding(token: int, cpu: int = 0, name: str = "m.f", *, alone: bool = False, **others: int) -> Grant:
    """A lease that holds so many thousandths of a CPU, and more."""
    holds = [Hold("cpu", cpu)] if cpu else []
    granted = Granted([*holds, *(Hold(other, amount) for other, amount in others.items())], exclusive_host=alone)
    return structs.replace(grant(token, name), granted=granted)


def grants(tokens: range, name: str = "m.f") -> list[Grant]:
    return [grant(token, name) for token in tokens]


def lease(number: int, given: list[Grant], pool: int = 0) -> Lease:
    return Lease(number, pool, given)


def mark(sequence: int, lineage: bytes = b"L" * 16) -> Mark:
    return Mark(lineage, sequence, bytes(32))


def welcome(
    *,
    session: bytes = b"S" * 16,
    sequence: int = 1,
    server_time_ms: int = 0,
    payload_bytes_max: int = PAYLOAD_BYTES_MAX,
    heartbeat_ms: int = 5_000,
    version: int = PROTOCOL_VERSION_MAX,
) -> Welcome:
    limits = PeerLimits(payload_bytes_max=payload_bytes_max, heartbeat_ms=heartbeat_ms)
    return Welcome(version, session, 1, server_time_ms, limits, mark(sequence), "agent", "scripted")
