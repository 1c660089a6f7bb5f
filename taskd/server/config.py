"""What an operator may choose about a server.

Knows no source: ``settings`` reads it from flags, environment and file.
"""

from pathlib import Path
from typing import Annotated, Final

import msgspec

from taskd.core.lines import AGEING_MS
from taskd.core.working import Settings
from taskd.server.addresses import Address
from taskd.server.logs import Form, Level
from taskd.server.settings import ByteCount, Milliseconds
from taskd_protocol import limits

SECTION: Final = "server"

_SECOND: Final = 1_000
_MINUTE: Final = 60 * _SECOND
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
_NODES: Final = 1_000_000  # what a node's number in its id leaves room for
_MIB: Final = 1 << 20
_GIB: Final = 1 << 30

_Retention = Annotated[Milliseconds, msgspec.Meta(ge=_MINUTE, description="it goes from 1m up")]
_KeyRetention = Annotated[Milliseconds, msgspec.Meta(ge=_HOUR, description="it goes from 1h up")]
_RetentionSize = Annotated[ByteCount, msgspec.Meta(ge=_MIB, description="it goes from 1MiB up")]
_Payload = Annotated[
    ByteCount, msgspec.Meta(ge=1024, le=limits.PAYLOAD_BYTES_MAX, description="it goes from 1KiB to 16MiB")
]
_Nodes = Annotated[int, msgspec.Meta(ge=1, le=_NODES, description="it goes from 1 to 1000000")]
_Heartbeat = Annotated[Milliseconds, msgspec.Meta(ge=500, le=_MINUTE, description="it goes from 500ms to 1m")]

_Ageing = Annotated[Milliseconds, msgspec.Meta(ge=1, le=365 * _DAY, description="it goes from 1ms to 365d")]

_Share = Annotated[float, msgspec.Meta(ge=0, le=1, description="it goes from 0 to 1")]


class ServerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One server's settings; the names in quotes are those that people write."""

    data_dir: Path
    """Where everything that must last is kept; made at the first start."""
    listen: Address = Address("127.0.0.1", 7070)
    """Where clients and agents connect."""
    http: Address = Address("127.0.0.1", 7071)
    """Where browsers and probes connect; plain on loopback, TLS elsewhere."""
    url_prefix: str = ""
    """Of every path of HTTP but the probes', as a proxy passes them on: ``/taskd``."""
    host_names: tuple[str, ...] = ()
    """Names and addresses added to the certificate, and allowed as Host of an HTTP request."""
    tls: bool = True
    """Off only on loopback."""
    payload_bytes_max: _Payload = msgspec.field(default=ByteCount(limits.PAYLOAD_BYTES_MAX), name="payload_max")
    """A task's packed arguments, or its packed result."""
    retention_age_ms: _Retention = msgspec.field(default=Milliseconds(7 * _DAY), name="retention_age")
    """Finished tasks and their results are kept so long."""
    retention_bytes: _RetentionSize = msgspec.field(default=ByteCount(4 * _GIB), name="retention_size")
    """And while they weigh less in all than this."""
    log_retention_age_ms: _Retention = msgspec.field(default=Milliseconds(7 * _DAY), name="log_retention_age")
    """What finished tasks have said is kept so long, and no longer than they are."""
    log_retention_bytes: _RetentionSize = msgspec.field(default=ByteCount(2 * _GIB), name="log_retention_size")
    """And while it weighs less in all than this."""
    key_retention_ms: _KeyRetention = msgspec.field(default=Milliseconds(_DAY), name="key_retention")
    """Idempotency keys are kept so long after the submit, whatever becomes of their tasks."""
    workflow_nodes_max: _Nodes = limits.WORKFLOW_NODES_MAX
    """Nodes of one workflow, the children of those that map apart."""
    heartbeat_ms: _Heartbeat = msgspec.field(default=Milliseconds(limits.HEARTBEAT_MS), name="heartbeat")
    """How often agents give a sign of life; three missed and their tasks go to others."""
    ageing_ms: _Ageing = msgspec.field(default=Milliseconds(AGEING_MS), name="ageing")
    """After so long a wait a task is on a level with new ones of one priority more."""
    webhook_networks: tuple[str, ...] = ()
    """Networks that are not public, and that webhooks may post to all the same."""
    otlp: str = ""
    """Where spans of tasks are sent, over HTTP; empty: nowhere."""
    trace_ratio: _Share = 0.01
    """The share of traces of which spans are sent."""
    log_level: Level = "info"
    log_form: Form = "auto"
    """``auto``: for people on a terminal, JSON elsewhere."""

    def settings(self) -> Settings:
        """Return what the core needs of it."""
        return Settings(
            payload_bytes_max=self.payload_bytes_max,
            retention_age_ms=self.retention_age_ms,
            retention_bytes=self.retention_bytes,
            log_retention_age_ms=self.log_retention_age_ms,
            log_retention_bytes=self.log_retention_bytes,
            key_retention_ms=self.key_retention_ms,
            workflow_nodes_max=self.workflow_nodes_max,
            heartbeat_ms=self.heartbeat_ms,
            ageing_ms=self.ageing_ms,
        )
