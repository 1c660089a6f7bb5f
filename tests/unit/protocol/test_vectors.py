"""The golden files in ``protocol/vectors/``: our codec and an independent one write and read exactly these bytes."""

import datetime as dt
import decimal
import fractions
import pathlib
import uuid
from collections.abc import Callable, Iterator
from typing import get_args

import msgpack
import msgspec
import pytest

from protocol_document import VECTORS, wire_name
from taskd_protocol import messages, payload
from taskd_protocol.connection import Connection, peer_side, server_side
from taskd_protocol.connection_messages import Chunk
from taskd_protocol.errors import PayloadUnpackable

SERVER_GETS: frozenset[type[msgspec.Struct]] = frozenset(get_args(messages.ToServer))
PEER_GETS: frozenset[type[msgspec.Struct]] = frozenset(get_args(messages.ToPeer))
KINDS = {wire_name(kind): kind for kind in SERVER_GETS | PEER_GETS}


class Run(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bytes; with ``times``, one byte so often."""

    bin: str
    times: int = 1

    def data(self) -> bytes:
        return bytes.fromhex(self.bin) * self.times


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One message, and the frames that carry it."""

    name: str
    frames: list[str | list[str | Run]]
    array: list[object] = []
    read_only: bool = False
    same_as: str = ""

    def data(self) -> bytes:
        """Return the bytes of the frames, one after the other."""
        parts: Iterator[str | Run] = (
            part for frame in self.frames for part in (frame if isinstance(frame, list) else [frame])
        )
        return b"".join(part.data() if isinstance(part, Run) else bytes.fromhex(part) for part in parts)


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All cases of one message."""

    message: str
    type: int
    cases: list[Case]


def read(path: pathlib.Path) -> File:
    return msgspec.json.decode(path.read_bytes(), type=File)


FILES = [read(path) for path in sorted(VECTORS.glob("[0-9]*.json"))]
CASES = [
    pytest.param(file, case, id=f"{file.message}-{case.name}")
    for file in FILES
    for case in file.cases
    if not case.read_only
]
READ_ONLY = [
    pytest.param(file, case, id=f"{file.message}-{case.name}")
    for file in FILES
    for case in file.cases
    if case.read_only
]


def as_told(value: object) -> object:
    """Turn what a file tells into what travels."""
    match value:
        case {"bin": str()}:
            return msgspec.convert(value, Run).data()
        case dict():
            return {key: as_told(item) for key, item in value.items()}
        case list():
            return [as_told(item) for item in value]
        case _:
            return value


def unframe(data: bytes) -> list[bytes]:
    """Cut bytes into frames' bodies, as simply as the document says it."""
    bodies: list[bytes] = []
    while data:
        end = 4 + int.from_bytes(data[:4], "big")
        assert len(data) >= end
        bodies.append(data[4:end])
        data = data[end:]
    return bodies


def decode(kind: type[msgspec.Struct], data: bytes) -> object:
    """Read bytes as the side that gets this message reads them."""
    if kind is Chunk:  # a connection puts these together instead of giving them out
        (body,) = unframe(data)
        return msgspec.msgpack.decode(body, type=messages.ToServer)
    connection: Connection[messages.ToServer] | Connection[messages.ToPeer]
    connection = server_side() if kind in SERVER_GETS else peer_side()
    connection.trust()
    (message,) = connection.receive(data)
    return message


def sent(message: messages.Message) -> bytes:
    """Return the bytes that a new connection sends."""
    connection = peer_side()
    connection.send(message)
    data = b""
    while more := connection.data_to_send():
        data += more
    assert connection.outbox_bytes == 0
    return data


def test_every_message_has_its_file() -> None:
    """Each message has one file under its number and name, with a minimal and a full case."""
    assert sorted((file.message, file.type) for file in FILES) == sorted(
        (name, kind.__struct_config__.tag) for name, kind in KINDS.items()
    )
    for file in FILES:
        assert [case.name for case in file.cases][:2] == ["minimal", "full"]
        assert (VECTORS / f"{file.type:03}-{file.message.lower().replace('_', '-')}.json").exists()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.message)
def test_cases_cover_the_fields(file: File) -> None:
    """The minimal case leaves everything optional out, the full one has each field at something else."""
    kind = KINDS[file.message]
    minimal, full = (decode(kind, case.data()) for case in file.cases[:2])
    assert isinstance(minimal, kind)
    for field in msgspec.structs.fields(kind):
        assert getattr(minimal, field.name) != getattr(full, field.name)
    required = {field.name: getattr(minimal, field.name) for field in msgspec.structs.fields(kind) if field.required}
    assert minimal == kind(**required)


@pytest.mark.parametrize(("file", "case"), CASES)
def test_our_codec(file: File, case: Case) -> None:
    """The bytes are read as the array's fields, and written as they were."""
    kind = KINDS[file.message]
    tag, *fields = case.array
    expected = msgspec.convert(as_told([tag, *fields]), kind)
    message = decode(kind, case.data())
    assert message == expected
    assert sent(message) == case.data()  # type: ignore[arg-type]  # each kind is one of the union


@pytest.mark.parametrize(("file", "case"), CASES)
def test_independent_codec(file: File, case: Case) -> None:
    """The reference library of the format reads the array from the bytes, and writes these bytes for it."""
    bodies = unframe(case.data())
    if len(bodies) > 1:
        chunks = [msgpack.unpackb(body) for body in bodies]
        assert [chunk[:3] for chunk in chunks] == [[4, 0, i == len(chunks) - 1] for i in range(len(chunks))]
        assert [msgpack.packb(chunk) for chunk in chunks] == bodies
        bodies = [b"".join(chunk[3] for chunk in chunks)]
    (body,) = bodies
    array = as_told(case.array)
    assert msgpack.unpackb(body, strict_map_key=True) == array
    assert msgpack.packb(array) == body
    assert case.array[0] == file.type


@pytest.mark.parametrize(("file", "case"), READ_ONLY)
def test_read_only(file: File, case: Case) -> None:
    """Arrays that end early, go on for longer, or use the longest forms, are read as the same message."""
    kind = KINDS[file.message]
    (same,) = [other for other in file.cases if other.name == case.same_as]
    assert case.data() != same.data()
    assert decode(kind, case.data()) == decode(kind, same.data())


def test_large_messages_are_chunked() -> None:
    """Some vectors take several frames, none of which is over the limit."""
    large = [case for file in FILES for case in file.cases if len(case.frames) > 1]
    assert len(large) >= 4
    for case in large:
        assert all(len(body) <= 256 * 1024 for body in unframe(case.data()))


# -- payloads ---------------------------------------------------------------------------


class PayloadCase(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A value in the file's notation, and its bytes."""

    name: str
    bytes: str
    value: object = None


class PayloadFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is carried, and what is refused."""

    values: list[PayloadCase]
    refused: list[PayloadCase]


PAYLOADS = msgspec.json.decode((VECTORS / "payloads.json").read_bytes(), type=PayloadFile)


def members(body: object) -> list[object]:
    assert isinstance(body, list)
    return [value_of(item) for item in body]


VALUES: dict[str, Callable[[object], object]] = {
    "bin": lambda body: bytes.fromhex(str(body)),
    "map": lambda body: {value_of(k): value_of(v) for k, v in msgspec.convert(body, list[tuple[object, object]])},
    "tuple": lambda body: tuple(members(body)),
    "set": lambda body: set(members(body)),
    "frozenset": lambda body: frozenset(members(body)),
    "datetime": lambda body: dt.datetime.fromisoformat(str(body)),
    "date": lambda body: dt.date.fromisoformat(str(body)),
    "time": lambda body: dt.time.fromisoformat(str(body)),
    "duration": lambda body: dt.timedelta(*msgspec.convert(body, tuple[int, int, int])),
    "uuid": lambda body: uuid.UUID(str(body)),
    "decimal": lambda body: decimal.Decimal(str(body)),
    "complex": lambda body: complex(str(body)),
    "path": lambda body: pathlib.Path(str(body)),
    "int": lambda body: int(str(body)),
    "input": lambda body: payload.Input(int(str(body))),
    "registered": lambda body: fractions.Fraction(*msgspec.convert(body, tuple[str, tuple[int, int]])[1]),
}
"""The notation of the file, into values."""

CODES = {
    "tuple": 1, "set": 2, "frozenset": 3, "datetime": 4, "date": 5, "time": 6, "duration": 7, "uuid": 8,
    "decimal": 9, "complex": 10, "path": 11, "int": 13, "input": 14, "registered": 64,
}  # fmt: skip


def value_of(told: object) -> object:
    """Turn a value in the file's notation into the value."""
    if isinstance(told, list):
        return members(told)
    if isinstance(told, dict):
        ((kind, body),) = told.items()
        return VALUES[kind](body)
    return told


def independently(told: object) -> bytes:
    """Pack a value in the file's notation with another library, by the document alone."""
    return msgspec.msgpack.encode(_as_extensions(told))


def _as_extensions(told: object) -> object:
    if isinstance(told, list):
        return [_as_extensions(item) for item in told]
    if not isinstance(told, dict):
        return told
    ((kind, body),) = told.items()
    if kind == "bin":
        return bytes.fromhex(body)
    if kind == "map":  # its keys need not hash here: already packed
        pairs = b"".join(independently(key) + independently(value) for key, value in body)
        return msgspec.Raw(bytes([0x80 | len(body)]) + pairs)
    if kind == "int":
        body = format(int(body), "x")
    return msgspec.msgpack.Ext(CODES[kind], independently(body))


@pytest.fixture(autouse=True)
def _registered_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """Know the registered type of the vectors, in this test only."""
    monkeypatch.setattr(payload, "_registered", {})
    monkeypatch.setattr(payload, "_registered_names", {})
    payload.register_type(
        fractions.Fraction,
        "example.fraction",
        lambda value: [value.numerator, value.denominator],
        lambda plain: fractions.Fraction(*msgspec.convert(plain, tuple[int, int])),
    )


@pytest.mark.parametrize("case", PAYLOADS.values, ids=lambda case: case.name)
def test_payload_values(case: PayloadCase) -> None:
    """A value is packed as these bytes, and they are read as the value, of its type."""
    value = value_of(case.value)
    assert payload.pack(value).hex() == case.bytes
    read_back = payload.unpack(bytes.fromhex(case.bytes))
    assert read_back == value
    assert type(read_back) is type(value)


@pytest.mark.parametrize("case", PAYLOADS.values, ids=lambda case: case.name)
def test_payload_values_independently(case: PayloadCase) -> None:
    """Another library gives the same bytes, by what the document says of each extension code."""
    assert independently(case.value).hex() == case.bytes


@pytest.mark.parametrize("case", PAYLOADS.refused, ids=lambda case: case.name)
def test_payload_refusals(case: PayloadCase) -> None:
    """Bytes that are no packed value are refused with the one error for it."""
    with pytest.raises(PayloadUnpackable):
        payload.unpack(bytes.fromhex(case.bytes))
