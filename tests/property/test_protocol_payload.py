"""Payloads: what is packed comes back as it was, of the same types, and hostile bytes do no harm."""

import contextlib
import datetime as dt
import pathlib
import threading
import uuid

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from taskd_protocol.errors import PayloadUnpackable
from taskd_protocol.payload import (
    EXTENSION_DEPTH_MAX,
    PAYLOAD_DEPTH_MAX,
    pack,
    pack_arguments,
    unpack,
    unpack_arguments,
)

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
ZONES = st.one_of(
    st.none(),
    st.just(dt.UTC),
    st.integers(-14 * 60, 14 * 60).map(lambda minutes: dt.timezone(dt.timedelta(minutes=minutes))),
)
HASHABLE: st.SearchStrategy[object] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**200), 2**200),
    st.floats(allow_nan=False),
    TEXT,
    st.binary(max_size=20),
    st.datetimes(timezones=ZONES),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.builds(uuid.UUID, bytes=st.binary(min_size=16, max_size=16)),
    st.decimals(allow_nan=False),
    st.complex_numbers(allow_nan=False),
    TEXT.filter(lambda text: "\0" not in text).map(pathlib.Path),
    TEXT.map(pathlib.PurePosixPath),
)
"""Values that may stand in sets and as keys."""

FROZEN = st.recursive(
    HASHABLE,
    lambda inner: st.one_of(st.lists(inner, max_size=3).map(tuple), st.frozensets(inner, max_size=3)),
    max_leaves=6,
)
VALUES: st.SearchStrategy[object] = st.recursive(
    FROZEN,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(FROZEN, inner, max_size=3),
        st.sets(FROZEN, max_size=3),
    ),
    max_leaves=12,
)


def shape(value: object) -> object:
    """Return what tells two values apart even where they are equal: their types, all the way down."""
    kind = type(value)
    match value:
        case list() | tuple():
            return kind, [shape(item) for item in value]
        case dict():
            return kind, [(shape(key), shape(item)) for key, item in value.items()]
        case set() | frozenset():
            return kind, sorted(repr(shape(item)) for item in value)
        case dt.datetime() | dt.time():
            return kind, value.isoformat()
        case _:
            return kind, repr(value)


@given(VALUES)
@example([(1, 2), [1, 2]])
@example({(1, 2): "tuple", "b": {1, 2}})
@example([True, 1, 1.0, -0.0, 2**64, -(2**63) - 1])
def test_round_trip(value: object) -> None:
    """A value comes back equal, and of the same types: a tuple is no list, a bool no integer."""
    assert shape(unpack(pack(value))) == shape(value)


@given(st.sets(FROZEN, max_size=6), st.randoms(use_true_random=False))
def test_equal_sets_are_equal_bytes(value: set[object], random: object) -> None:
    """A set's bytes do not depend on the order in which it was filled."""
    items = list(value)
    random.shuffle(items)  # type: ignore[attr-defined]  # the strategy's own random.Random
    assert pack(set(items)) == pack(value)


@given(st.lists(VALUES, max_size=3), st.dictionaries(TEXT, VALUES, max_size=3))
def test_calls(args: list[object], kwargs: dict[str, object]) -> None:
    """A call's arguments come back as they were."""
    read_args, read_kwargs = unpack_arguments(pack_arguments(args, kwargs))
    assert shape(read_args) == shape(args)
    assert shape(read_kwargs) == shape(kwargs)


@given(st.binary(max_size=200))
def test_garbage(data: bytes) -> None:
    """Any bytes are a value or refused with the one error for it; a value can be packed again."""
    try:
        value = unpack(data)
    except PayloadUnpackable:
        return
    if value == value:  # noqa: PLR0124 - not NaN
        pack(value)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Return a packed value with some bytes changed, put in or left out."""
    data = bytearray(pack(draw(VALUES)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 3)))
        data[start:end] = draw(st.binary(max_size=3))
    return bytes(data)


@given(damaged())
def test_damaged_values(data: bytes) -> None:
    """So are the bytes of real values after damage, as a value and as a call."""
    for read in (unpack, unpack_arguments):
        with contextlib.suppress(PayloadUnpackable):
            read(data)


PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), TEXT, st.binary(max_size=9)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=5,
)


@given(st.integers(0, 127), PLAIN)
def test_hostile_extensions(code: int, body: object) -> None:
    """Every extension code with any body under it is a value or refused."""
    data = msgpack.packb(msgpack.ExtType(code, msgpack.packb(body)))
    with contextlib.suppress(PayloadUnpackable):
        unpack(data)


@given(st.integers(0, 3 * EXTENSION_DEPTH_MAX), st.integers(0, 3))
def test_nested_extensions(depth: int, lists_between: int) -> None:
    """Extensions nest as deep as is said and no deeper, written and read, on a thread with a small stack."""
    value: object = ()
    data = msgpack.packb(msgpack.ExtType(1, b"\x90"))
    for _ in range(depth):
        for _ in range(lists_between):
            value, data = [value], b"\x91" + data
        value, data = (value,), msgpack.packb(msgpack.ExtType(1, b"\x91" + data))
    outcomes: list[object] = []

    def written_first(_: bytes) -> object:
        return unpack(pack(value))

    def read_both() -> None:
        for read in (unpack, written_first):
            try:
                outcomes.append(read(data))
            except PayloadUnpackable:
                outcomes.append("refused")

    before = threading.stack_size(1024 * 1024)
    try:
        thread = threading.Thread(target=read_both)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    assert outcomes == ([value, value] if depth < EXTENSION_DEPTH_MAX else ["refused", "refused"])


@pytest.mark.parametrize("depth", [1, PAYLOAD_DEPTH_MAX - 1, PAYLOAD_DEPTH_MAX, PAYLOAD_DEPTH_MAX + 1, 100_000])
def test_nested_lists(depth: int) -> None:
    """What can be written can be read; deeper nesting is refused on either side, never a crash."""
    value: list[object] = [1]
    for _ in range(depth - 1):
        value = [value]
    data = b"\x91" * depth + b"\x01"
    if depth <= PAYLOAD_DEPTH_MAX:
        assert pack(value) == data
        assert pack(unpack(data)) == data
    else:
        with pytest.raises(PayloadUnpackable):
            pack(value)
        with pytest.raises(PayloadUnpackable):
            unpack(data)
