"""Payloads: what is refused and how it is said, and types that users register."""

import collections
import dataclasses
import datetime as dt
import enum
import sys
import threading
import zoneinfo

import pytest

from taskd_protocol import payload
from taskd_protocol.errors import BadRequest, PayloadUnpackable
from taskd_protocol.payload import Input, pack, pack_arguments, register_type, unpack, unpack_arguments


@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    y: object


class Colour(enum.IntEnum):
    RED = 1


class Text(str):
    __slots__ = ()


@pytest.fixture(autouse=True)
def _no_registered_types(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test registers its own types."""
    monkeypatch.setattr(payload, "_registered", {})
    monkeypatch.setattr(payload, "_registered_names", {})


def register_point(name: str = "tests.point") -> None:
    register_type(Point, name, lambda point: [point.x, point.y], lambda plain: Point(*plain))  # type: ignore[misc]


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (object(), "builtins.object"),
        ([1, {"deep": Point(1, 2)}], "test_payload.Point"),
        (Colour.RED, "Colour"),
        (Text("x"), "Text"),
        (collections.OrderedDict(a=1), "collections.OrderedDict"),
        (len, "builtin_function_or_method"),
        (dt.UTC, "datetime.timezone"),
        ("\ud800", "surrogates"),
    ],
    ids=repr,
)
def test_refused_values(value: object, named: str) -> None:
    """What cannot be carried as it is, is refused by its type's name: never changed, never pickled."""
    with pytest.raises(PayloadUnpackable, match=named):
        pack(value)


def test_values_that_hold_themselves() -> None:
    """They are refused, whichever way they hold themselves."""
    plain: list[object] = []
    plain.append(plain)
    through_tuple: list[object] = []
    through_tuple.append((through_tuple,))
    for value in (plain, through_tuple):
        with pytest.raises(PayloadUnpackable):
            pack(value)


def test_arguments_are_named() -> None:
    """The refusal names the argument that cannot be packed."""
    with pytest.raises(PayloadUnpackable, match=r"^argument 2 cannot be packed: builtins\.object "):
        pack_arguments([1, object()], {"size": 2})
    with pytest.raises(PayloadUnpackable, match=r"^size cannot be packed: builtins\.object "):
        pack_arguments([1], {"size": object()})


@pytest.mark.parametrize("data", [pack([]), pack([[], {}, 1]), pack([{}, []]), pack([[], {1: 2}]), pack(None), b""])
def test_no_call(data: bytes) -> None:
    """A payload that is no call is refused."""
    with pytest.raises(PayloadUnpackable):
        unpack_arguments(data)


def test_zones() -> None:
    """A zone is carried as its offset at that instant: the instant is the same, the zone's rules are gone."""
    moment = dt.datetime(2025, 7, 1, 12, tzinfo=zoneinfo.ZoneInfo("Europe/Oslo"))
    read = unpack(pack(moment))
    assert read == moment
    assert isinstance(read, dt.datetime)
    assert read.tzinfo == dt.timezone(dt.timedelta(hours=2))


def test_timestamps_of_others_are_read() -> None:
    """The format's own timestamp, as other languages write it, is a time in UTC; out of range, it is refused."""
    assert unpack(bytes.fromhex("d6ff00000001")) == dt.datetime(1970, 1, 1, 0, 0, 1, tzinfo=dt.UTC)
    for bad in ("d6ff0000", "c70cff000000007fffffffffffffff", "c70cffffffffff0000000000000000"):
        with pytest.raises(PayloadUnpackable):
            unpack(bytes.fromhex(bad))


def test_registered_types() -> None:
    """A registered type comes back as itself, at any depth, also inside another."""
    register_point()
    value = {"where": (Point(1, Point(2, None)), [Point(3, {4})])}
    assert unpack(pack(value)) == value


def test_unregistered_on_the_reading_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the name is not known, it is named, and nothing is imported or run."""
    register_point()
    data = pack(Point(1, 2))
    monkeypatch.setattr(payload, "_registered_names", {})
    with pytest.raises(PayloadUnpackable, match=r"'tests\.point' is not registered here; import its module"):
        unpack(data)


def test_errors_of_registered_types() -> None:
    """Whatever a registered type's own functions raise is told as one error, with what was raised."""

    def only_mappings(plain: object) -> Point:
        return {"there is": Point(0, 0)}[plain]  # type: ignore[index]  # what came in may be anything: here, a list

    register_type(Point, "tests.point", lambda point: [1 // point.x], only_mappings)
    with pytest.raises(PayloadUnpackable, match=r"to_plain of 'tests\.point' failed: ZeroDivisionError"):
        pack(Point(0, 0))
    data = pack(Point(1, 0))
    with pytest.raises(PayloadUnpackable, match=r"from_plain of 'tests\.point' refused what came in: TypeError"):
        unpack(data)


def test_after_a_refusal() -> None:
    """A value that was refused halfway leaves nothing behind in the next one's bytes."""
    expected = pack([1, 2, 3])
    for _ in range(3):
        with pytest.raises(PayloadUnpackable):
            pack([1, 2, object()])
        assert pack([1, 2, 3]) == expected
    assert pack("x" * 1_000_000) == pack("x" * 1_000_000)
    assert pack([1, 2, 3]) == expected


def test_threads() -> None:
    """Values packed at the same time, also while packing another, do not mix."""
    register_type(Point, "tests.point", lambda point: [point.x, unpack(pack(point.y))], lambda plain: Point(*plain))  # type: ignore[misc]
    mixed: list[object] = []

    def work(number: int) -> None:
        for turn in range(200):
            value = [number, turn, Point(number, [turn]), (number,) * 3]
            if unpack(pack(value)) != value:
                mixed.append(value)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert mixed == []


def test_names_belong_to_one_type() -> None:
    """A name that is taken is refused, also to a type that has another name already."""
    register_point()
    register_type(Text, "tests.text", str.upper, Text)
    for name in ("tests.point", "tests.text"):
        with pytest.raises(BadRequest, match="belongs to"):
            register_type(Colour if name == "tests.text" else Text, name, int, Colour)  # type: ignore[arg-type]
    assert unpack(pack(Point(1, 2))) == Point(1, 2)


def test_registering_again_replaces() -> None:
    """A reloaded module registers its type anew, under the same name or another."""
    register_point()
    register_point()
    register_point("tests.spot")
    assert b"tests.spot" in pack(Point(1, 2))
    register_type(Text, "tests.point", str.upper, lambda plain: Text(str(plain)))  # the name is free again
    assert unpack(pack(Text("a"))) == "A"


@pytest.mark.parametrize("kind", [int, str, list, dict, tuple, dt.datetime, bytes, type(None)])
def test_carried_types_cannot_be_registered(kind: type) -> None:
    """What is carried as it is would never reach the functions: registering it is a mistake."""
    with pytest.raises(BadRequest):
        register_type(kind, "tests.mine", str, str)


def test_inputs_take_their_places() -> None:
    """Wherever in the arguments they stand: in lists, maps, tuples and sets; each place gets a value of its own."""
    packed = pack_arguments([Input(0), [Input(1), (2, [Input(0)])]], {"by": {"key": Input(1)}, "of": {Input(2)}})
    args, kwargs = unpack_arguments(packed, [pack([1]), pack({"a": 2}), pack("x")])
    assert args == [[1], [{"a": 2}, (2, [[1]])]]
    assert kwargs == {"by": {"key": {"a": 2}}, "of": {"x"}}
    assert args[0] is not args[1][1][1][0]  # type: ignore[index]  # as compared above


@pytest.mark.parametrize("inputs", [[b"\xc0"], [b"\xc0", b"\xc1"]])
def test_inputs_that_are_none(inputs: list[bytes]) -> None:
    """An input that is not given, or is no packed value, is refused."""
    with pytest.raises(PayloadUnpackable):
        unpack_arguments(pack_arguments([Input(1)], {}), inputs)
