"""OTLP: spans go to a collector, over HTTP, some at a time, in a thread: the loop puts them in a queue and goes on.

Needs the extra ``taskd[otel]``. A collector that is away costs spans, which are counted, and nothing else.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import structlog
import trio

from taskd.server.platform import Offload
from taskd.server.tracing import Span
from taskd_protocol.errors import ConfigInvalid

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan

log = structlog.get_logger("taskd.server")

QUEUE_MAX: Final = 10_000
BATCH: Final = 512
EVERY_SECONDS: Final = 1.0
EXPORT_SECONDS: Final = 5.0
"""For one request to the collector, with its tries."""


class SpanExporter:
    """Takes spans, and sends them on.

    Attributes:
        dropped: Where it counts those that found no room, or no collector; by ``spans``.
    """

    def __init__(self, endpoint: str, software: str, offload: Offload, dropped: dict[str, int]) -> None:
        """Prepare.

        Args:
            endpoint: ``http://HOST:4318/v1/traces``.
            software: Name and version of the server.
            offload: Runs what blocks.
            dropped: As above.

        Raises:
            ConfigInvalid: The extra is not installed.
        """
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
            from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        except ImportError:
            raise ConfigInvalid("spans need taskd[otel]: pip install 'taskd[otel]', or leave --otlp away") from None
        name, _, version = software.partition(" ")
        self._exporter: OTLPSpanExporter = OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_SECONDS)
        self._resource: Resource = Resource({"service.name": name, "service.version": version})
        self._offload = offload
        self._queue: deque[Span] = deque()
        self._had_trouble = False
        self.dropped = dropped

    def put(self, span: Span) -> None:
        """Take a span."""
        if len(self._queue) < QUEUE_MAX:
            self._queue.append(span)
        else:
            self._drop(1)

    async def run(self) -> None:
        """Send on what there is, until cancelled; then once more, for a bounded time."""
        try:
            while True:
                await trio.sleep(EVERY_SECONDS)
                await self._send()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + EXPORT_SECONDS):
                await self._send()

    async def _send(self) -> None:
        while self._queue:
            batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
            if not await self._offload(lambda batch=batch: self._export(batch)):  # type: ignore[misc]  # bound at once
                self._drop(len(batch))
                return

    def _export(self, batch: Sequence[Span]) -> bool:
        from opentelemetry.sdk.trace.export import SpanExportResult  # noqa: PLC0415 - see above

        result = self._exporter.export([readable(span, self._resource) for span in batch])
        is_sent = result is SpanExportResult.SUCCESS
        if is_sent == self._had_trouble:
            self._had_trouble = not is_sent
            log.info("spans_are_sent_again") if is_sent else log.warning("spans_not_sent", to="the collector")
        return is_sent

    def _drop(self, count: int) -> None:
        self.dropped["spans"] = self.dropped.get("spans", 0) + count


def readable(span: Span, resource: "Resource") -> "ReadableSpan":
    """Return a span as the exporter takes it."""
    from opentelemetry.sdk.trace import ReadableSpan  # noqa: PLC0415 - see above
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope  # noqa: PLC0415
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags  # noqa: PLC0415

    def context(span_id: int) -> SpanContext:
        return SpanContext(span.trace_id, span_id, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

    attributes: Mapping[str, str | int] = span.attributes
    return ReadableSpan(
        name=span.name,
        context=context(span.span_id),
        parent=context(span.parent_id) if span.parent_id else None,
        resource=resource,
        attributes=attributes,
        kind=SpanKind.INTERNAL,
        status=Status(StatusCode.ERROR, span.error) if span.error else Status(StatusCode.OK),
        start_time=span.start_ns,
        end_time=span.end_ns,
        instrumentation_scope=InstrumentationScope("taskd"),
    )
