"""Trace contexts of submits, in W3C form: ``00-<32 hex>-<16 hex>-<flags>``.

A submit under an OpenTelemetry span is its child; one from within a task continues that task's trace;
any other begins a trace of its own.
"""

import os
import re
import sys

from taskd.client.context import running

_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_TRACE_HEX = 32
_SPAN_HEX = 16
_BOTH_HEX = _TRACE_HEX + _SPAN_HEX


def make_traceparents(count: int) -> list[str]:
    """Make the trace contexts of ``count`` submits, each a span of its own."""
    span = _open_telemetry_parent()
    if span is not None:  # within a task, too: its attempt's, or one of its code's own
        return [span] * count
    parent = _task_parent()
    if parent is None:
        digits = os.urandom(count * _BOTH_HEX // 2).hex()
        return [
            f"00-{digits[at : at + _TRACE_HEX]}-{digits[at + _TRACE_HEX : at + _BOTH_HEX]}-01"
            for at in range(0, count * _BOTH_HEX, _BOTH_HEX)
        ]
    digits = os.urandom(count * _SPAN_HEX // 2).hex()
    head, flags = parent[: 3 + _TRACE_HEX], parent[-2:]
    return [f"{head}-{digits[at : at + _SPAN_HEX]}-{flags}" for at in range(0, count * _SPAN_HEX, _SPAN_HEX)]


def _task_parent() -> str | None:
    task = running.get()
    if task is None or not _TRACEPARENT.fullmatch(task.traceparent):
        return None
    return task.traceparent


def _open_telemetry_parent() -> str | None:
    """Return the current span's context if the program uses OpenTelemetry; it is never imported from here."""
    module = sys.modules.get("opentelemetry.trace")
    if module is None:
        return None
    span = module.get_current_span().get_span_context()
    if not span.is_valid:
        return None
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{int(span.trace_flags):02x}"
