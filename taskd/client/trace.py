"""Trace contexts of submits, in W3C form: ``00-<32 hex>-<16 hex>-<flags>``.

A submit under an OpenTelemetry span is its child; one from within a task is a child of its attempt;
any other begins a trace of its own, in which its span has none above it.
"""

import os
import sys
from collections.abc import Sequence

from taskd.client.context import running
from taskd_protocol.tracing import context_below

_TRACE_HEX = 32


def make_traceparents(ids: Sequence[bytes]) -> list[str]:
    """Make the trace contexts of the submits of tasks, or of a workflow, by their ids."""
    parent = _open_telemetry_parent() or _attempt()  # within a task the first is its attempt's, or its own code's
    if parent is not None:
        return [parent] * len(ids)
    digits, spans = os.urandom(len(ids) * _TRACE_HEX // 2).hex(), b"".join(ids).hex()
    return [
        f"00-{digits[at : at + _TRACE_HEX]}-{spans[at + _TRACE_HEX // 2 : at + _TRACE_HEX]}-01"  # see ``root_of``
        for at in range(0, len(digits), _TRACE_HEX)
    ]


def _attempt() -> str | None:
    """Return the context of the attempt that runs here, as the server tells its span."""
    task = running.get()
    if task is None:
        return None
    return context_below(task.traceparent, bytes.fromhex(task.id.replace("-", "")), task.attempt) or None


def _open_telemetry_parent() -> str | None:
    """Return the current span's context if the program uses OpenTelemetry; it is never imported from here."""
    module = sys.modules.get("opentelemetry.trace")
    if module is None:
        return None
    span = module.get_current_span().get_span_context()
    if not span.is_valid:
        return None
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{int(span.trace_flags):02x}"
