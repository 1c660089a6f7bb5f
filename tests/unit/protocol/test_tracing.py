"""Trace contexts: read strictly, sampled by their ids, and spans of which two sides make the same id."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskd_protocol.tracing import Trace, are_traceparents, is_traceparent, read_traceparent, span_id_of

TASK_ID = bytes.fromhex("0197c1a07d3c7c4e9f000123456789ab")


def test_a_traceparent_is_read() -> None:
    text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert read_traceparent(text) == Trace(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, 1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
    ],
)
def test_what_is_none_says_nothing(text: str) -> None:
    assert read_traceparent(text) is None


GOOD = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@st.composite
def odd(draw: st.DrawFn) -> str:
    """Draw what is nearly one: some of its letters are others, or it is longer or shorter."""
    letters = list(GOOD)
    for _ in range(draw(st.integers(0, 3))):
        letters[draw(st.integers(0, 54))] = draw(st.sampled_from("0-afgA1\u0661\ud800"))
    return "".join(letters)[draw(st.integers(0, 1)) :] + draw(st.sampled_from(("", "0", "-")))


@given(st.lists(odd() | st.just(GOOD) | st.just(GOOD.replace("b7ad6b7169203331", f"{1:016x}")), max_size=4))
def test_many_are_looked_at_as_one_is(texts: list[str]) -> None:
    assert are_traceparents(texts) == all(is_traceparent(text) for text in texts)


def test_neighbours_do_not_make_up_for_each_other() -> None:
    assert are_traceparents([GOOD, GOOD])
    assert not are_traceparents([GOOD[:-1], f"1{GOOD}"])
    assert not are_traceparents([GOOD, f"00-{'0' * 32}-b7ad6b7169203331-01"])


@given(st.integers(1, (1 << 128) - 1), st.floats(0, 1), st.floats(0, 1))
def test_more_of_the_share_is_more_of_the_traces(trace_id: int, one: float, other: float) -> None:
    """As OpenTelemetry's own sampler decides; one that is not to be sampled never is."""
    trace = Trace(trace_id, 1, 1)
    assert not trace.is_sampled(min(one, other)) or trace.is_sampled(max(one, other))
    assert trace.is_sampled(1)
    assert not trace.is_sampled(0)
    assert not Trace(trace_id, 1, 0).is_sampled(1)


def test_spans_of_a_task_have_ids_of_their_own() -> None:
    made = [span_id_of(TASK_ID, "attempt", number) for number in range(1, 4)] + [span_id_of(TASK_ID, "submit")]
    assert len(set(made)) == 4
    assert span_id_of(TASK_ID, "attempt", 2) == made[1]
    assert span_id_of(TASK_ID, "attempt", 1) == 0x932ED8153AA6F245, "agents of other versions make the same"
