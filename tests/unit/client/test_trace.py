"""Trace contexts: well formed, fresh where nothing is traced, continued where something is."""

import os
import re
import sys
from types import ModuleType, SimpleNamespace

import pytest

from taskd.client.context import TaskContext, current, running
from taskd.client.trace import make_traceparents
from taskd_protocol.errors import BadRequest
from taskd_protocol.task import Grant, TaskSpec
from taskd_protocol.tracing import root_of, span_id_of

FORM = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def context(traceparent: str) -> TaskContext:
    return TaskContext(Grant(1, 1, TaskSpec(bytes(16), "m.f", traceparent=traceparent)))


def test_each_is_a_trace_of_its_own() -> None:
    ids = [os.urandom(16) for _ in range(100)]
    made = make_traceparents(ids)
    assert all(FORM.fullmatch(one) for one in made)
    assert len({one[3:35] for one in made}) == 100
    assert [int(one[36:52], 16) for one in made] == [root_of(each) for each in ids]
    assert make_traceparents([]) == []


def test_what_a_task_submits_is_below_its_attempt() -> None:
    parent = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-00"
    token = running.set(context(parent))
    try:
        made = make_traceparents([os.urandom(16)] * 10)
    finally:
        running.reset(token)
    assert set(made) == {f"{parent[:36]}{span_id_of(bytes(16), 'attempt', 1):016x}-00"}


@pytest.mark.parametrize("broken", ["", "nonsense", "00-xyz"])
def test_a_task_without_a_proper_trace_starts_one(broken: str) -> None:
    token = running.set(context(broken))
    try:
        [made] = make_traceparents([bytes(15) + b"x"])
    finally:
        running.reset(token)
    assert FORM.fullmatch(made)


@pytest.mark.parametrize("valid", [True, False])
def test_under_a_span_of_opentelemetry_the_submit_is_its_child(monkeypatch: pytest.MonkeyPatch, *, valid: bool) -> None:
    span = SimpleNamespace(is_valid=valid, trace_id=0xABC, span_id=0xDEF, trace_flags=1)
    module = ModuleType("opentelemetry.trace")
    module.get_current_span = lambda: SimpleNamespace(get_span_context=lambda: span)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", module)
    [made] = make_traceparents([bytes(15) + b"x"])
    assert FORM.fullmatch(made)
    assert (made == f"00-{0xABC:032x}-{0xDEF:016x}-01") is valid


def test_outside_a_task_there_is_no_context() -> None:
    with pytest.raises(BadRequest, match="no task runs here"):
        current()


def test_a_task_knows_its_id_as_text() -> None:
    assert context("").id == "00000000-0000-0000-0000-000000000000"
