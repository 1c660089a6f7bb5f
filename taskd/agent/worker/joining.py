"""Joining: spans that a task's own code makes with OpenTelemetry become children of its attempt's span.

OpenTelemetry is never imported from here: a module that uses it has imported it.
"""

import sys

from taskd.client.context import TaskContext
from taskd_protocol.ids import parse_task_id
from taskd_protocol.tracing import read_traceparent, span_id_of


def join_trace(task: TaskContext) -> None:
    """Make the attempt's span the current one, in the context of now, which is to be the attempt's own."""
    module = sys.modules.get("opentelemetry.trace")
    if module is None:
        return
    trace = read_traceparent(task.traceparent)
    if trace is None:
        return
    from opentelemetry.context import attach  # noqa: PLC0415 - it is there: see above

    attempt = span_id_of(parse_task_id(task.id), "attempt", task.attempt)
    context = module.SpanContext(trace.trace_id, attempt, is_remote=True, trace_flags=module.TraceFlags(trace.flags))
    attach(module.set_span_in_context(module.NonRecordingSpan(context)))
