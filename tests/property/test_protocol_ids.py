"""Ids: they sort as they were made, and are read as they were written."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskd_protocol.errors import BadRequest
from taskd_protocol.ids import (
    RANDOM_BYTES_PER_TASK_ID,
    format_task_id,
    is_made_id,
    is_task_id,
    make_task_ids,
    parse_task_id,
    task_id_unix_ms,
)

INSTANTS = st.integers(0, 2**48 - 1)


@st.composite
def batches(draw: st.DrawFn) -> tuple[int, bytes]:
    """Return a number of ids and the chance that makes them."""
    count = draw(st.integers(0, 50))
    size = count * RANDOM_BYTES_PER_TASK_ID
    return count, draw(st.binary(min_size=size, max_size=size))


@given(batches(), INSTANTS)
def test_made_ids(batch: tuple[int, bytes], unix_ms: int) -> None:
    """Each id is a UUID of version 7 of that instant; a batch is in rising order."""
    count, entropy = batch
    ids = make_task_ids(count, unix_ms, entropy)
    assert len(ids) == count
    assert ids == sorted(ids)
    for task_id in ids:
        known = uuid.UUID(bytes=task_id)
        assert (known.version, known.variant) == (7, uuid.RFC_4122)
        assert is_task_id(task_id)
        assert task_id_unix_ms(task_id) == unix_ms


@given(batches(), batches(), INSTANTS, INSTANTS)
def test_order_of_time(first: tuple[int, bytes], second: tuple[int, bytes], one_ms: int, other_ms: int) -> None:
    """Ids of an earlier millisecond sort before those of a later one, as bytes and as text."""
    early, late = sorted([one_ms, other_ms])
    if early == late:
        return
    before, after = make_task_ids(first[0], early, first[1]), make_task_ids(second[0], late, second[1])
    assert sorted(after + before) == before + after
    assert sorted(map(format_task_id, after + before)) == [format_task_id(task_id) for task_id in before + after]


@given(INSTANTS)
def test_chance_is_kept(unix_ms: int) -> None:
    """74 bits of chance are in the id: two draws that differ in any of them make two ids."""
    bits = 8 * RANDOM_BYTES_PER_TASK_ID
    draws = [(1 << bit).to_bytes(RANDOM_BYTES_PER_TASK_ID, "big") for bit in range(bits)]
    ids = make_task_ids(bits + 1, unix_ms, bytes(RANDOM_BYTES_PER_TASK_ID) + b"".join(draws))
    assert len(set(ids)) == 75


@given(batches(), INSTANTS)
def test_text_round_trip(batch: tuple[int, bytes], unix_ms: int) -> None:
    """The text is a UUID's, and is read back, with hyphens or without, in either case."""
    for task_id in make_task_ids(batch[0], unix_ms, batch[1]):
        text = format_task_id(task_id)
        assert text == str(uuid.UUID(bytes=task_id))
        for written in (text, text.upper(), text.replace("-", ""), f" {text}\n"):
            assert parse_task_id(written) == task_id


@given(st.one_of(st.text(max_size=50), st.text("0123456789abcdef-", min_size=30, max_size=40)))
def test_any_text(text: str) -> None:
    """Any text is an id or refused; what is read is a UUID of version 7, or of 8, as a workflow's tasks have."""
    try:
        task_id = parse_task_id(text)
    except BadRequest:
        return
    assert is_task_id(task_id) or is_made_id(task_id)


@given(st.binary(max_size=20))
def test_any_bytes(raw: bytes) -> None:
    """Bytes are an id exactly if they are a UUID of version 7 and its variant."""
    known = uuid.UUID(bytes=raw) if len(raw) == 16 else None
    expected = known is not None and known.variant == uuid.RFC_4122 and known.version == 7
    assert is_task_id(raw) == expected


def test_nothing_is_no_id() -> None:
    with pytest.raises(BadRequest):
        parse_task_id("")
