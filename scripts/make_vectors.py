"""Write protocol/vectors/: each message, and packed payloads, as bytes for implementations in other languages.

The files are golden: they are committed, and the tests compare the code with them. Run this after
a message was added; what it changes in existing cases is a break of compatibility.

Usage: python scripts/make_vectors.py [FOLDER]
"""

import datetime as dt
import decimal
import fractions
import json
import pathlib
import re
import struct
import sys
import uuid
from collections.abc import Mapping
from typing import cast, get_args, get_origin, get_type_hints

import msgpack
import msgspec

from taskd_protocol import messages, payload
from taskd_protocol.agent_messages import Ack, Lease
from taskd_protocol.connection import Connection, encode, peer_side
from taskd_protocol.ids import TaskId
from taskd_protocol.task import Grant, Outcome, Report, TaskSpec

FOLDER = pathlib.Path(__file__).parent.parent / "protocol" / "vectors"

TASK_ID = TaskId(bytes.fromhex("019aa8a95c007abc8def0123456789ab"))
TOKEN = (1_763_740_800 << 31) | 42
RUN_BYTES = 64
"""So many equal bytes in a row are written as a run."""

SAMPLES: Mapping[str, object] = {
    "addresses": ["192.0.2.7:7350", "taskd.example:7350"],
    "agent": "worker-1",
    "at_ms": 1_763_740_803_250,
    "attempt": 2,
    "boot_id": bytes(range(16)),
    "ca_sha256": bytes(range(32, 64)),
    "code": "task.raised",
    "cpu_percent": 12.5,
    "created_at_ms": 1_763_740_800_000,
    "cursor": b"\x00\xff\x10",
    "data": b"line one\nline two\n",
    "epoch": 1_763_740_800,
    "existing": [(0, TASK_ID), (300, TASK_ID)],
    "expires_in_ms": 3_600_000,
    "factor": 1.5,
    "headers": {"user": "u-1", "tenant": "größe"},
    "held": [TOKEN, TOKEN + 1],
    "id": TASK_ID,
    "ids": [TASK_ID, TASK_ID],
    "jitter": 0.5,
    "key": "invoice/2025/11",
    "kind": "process",
    "label": "Ünïcode ✓",
    "labels": {"zone": "a", "gpu": "none"},
    "lineage": bytes(range(16, 32)),
    "load1": 0.75,
    "mac": bytes(range(100, 132)),
    "name": "app.tasks.thumbnail",
    "outcome": "failed",
    "payload": payload.pack_arguments(["a.png"], {"size": 256}),
    "pem": "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
    "priority": -7,
    "queue": "images",
    "queues": ["images", "default"],
    "resources": {"cpu": 2.0, "gpu": 0.5},
    "result": payload.pack("a-256.png"),
    "role": "client",
    "secret": "taskd_join_abcdefghijkl_secret_00000000",
    "session": bytes(range(64, 80)),
    "sha256": bytes(range(128, 160)),
    "software": "taskd 0.1.0",
    "stale": [TOKEN + 2],
    "started_at_ms": 1_763_740_802_000,
    "state": "succeeded",
    "stream": 1,
    "token": TOKEN,
    "tokens": [TOKEN, TOKEN + 1],
    "traceback": "Traceback (most recent call last):\n  ...\nValueError: no\n",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "type": "builtins.ValueError",
}
"""What fields of these names hold in the full cases, where the type allows; other fields get numbers and words."""


def sample(hint: object, name: str, *, full: bool, position: int = 0) -> object:
    """Return a value for a field: of the type, telling which field it is."""
    if name == "request_id":
        return 300 if full else 1
    arguments = get_args(hint)
    if get_origin(hint) is not None and type(None) not in arguments:
        return _sample_of_many(hint, name, full=full, position=position)
    if type(None) in arguments:
        inner = next(argument for argument in arguments if argument is not type(None))
        return sample(inner, name, full=True, position=position) if full else None
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return build(hint, full=full)
    known = SAMPLES.get(name)
    if full and known is not None and _fits(known, hint):
        return known
    plain: Mapping[object, tuple[object, object]] = {
        # the full cases go through every width that an integer can have
        int: (0, (5, 200, 40_000, 3_000_000_000, 5_000_000_000)[position % 5]),
        str: ("", name),
        bytes: (b"", name.encode()),
        bool: (False, True),
        float: (0.0, 1.25),
    }
    return plain[hint][full]


def _fits(value: object, hint: object) -> bool:
    """Tell whether a field of that type can hold the value: some names stand for different things."""
    try:
        return msgspec.convert(value, hint) == value
    except msgspec.ValidationError:
        return False


def _sample_of_many(hint: object, name: str, *, full: bool, position: int) -> object:
    origin, known = get_origin(hint), SAMPLES.get(name)
    assert origin in {list, dict, tuple}, hint
    if not full:
        return {list: [], dict: {}, tuple: ()}[origin]
    if known is not None and _fits(known, hint):
        return known
    if origin is not dict:
        each = [sample(get_args(hint)[0], name, full=True, position=position)]
        return each if origin is list else tuple(each)
    return {"ready": 3, "running": 65_536}


def build(kind: type[msgspec.Struct], *, full: bool) -> msgspec.Struct:
    """Return a struct with its required fields alone, or with every field at something but its default."""
    hints = get_type_hints(kind)
    fields = msgspec.structs.fields(kind)
    values = {
        field.name: not full
        if field.default is True
        else sample(hints[field.name], field.name, full=full, position=position)
        for position, field in enumerate(fields)
        if full or field.required
    }
    return kind(**values)


def wire_name(kind: type) -> str:
    """Return a message's name as the document writes it: TASK_VIEWS for TaskViews."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).upper()


def as_array(value: object, *, drop_defaults: bool = False, more: bool = False) -> object:
    """Return what travels: structs as lists.

    Args:
        value: A struct, or what is in one.
        drop_defaults: End each array before the fields at its end that have their defaults.
        more: Add elements that no reader knows to each array.
    """
    if isinstance(value, msgspec.Struct):
        items = [as_array(getattr(value, n), drop_defaults=drop_defaults, more=more) for n in value.__struct_fields__]
        if drop_defaults:
            plain = build(type(value), full=False)
            fields = msgspec.structs.fields(type(value))
            while items and not fields[len(items) - 1].required:
                name = fields[len(items) - 1].name
                if getattr(value, name) != getattr(plain, name):
                    break
                items.pop()
        tag = value.__struct_config__.tag
        head = [] if tag is None else [tag]
        return [*head, *items, *([None, "later", [1, {"a": b"b"}]] if more else [])]
    if isinstance(value, (list, tuple)):
        return [as_array(item, drop_defaults=drop_defaults, more=more) for item in value]
    return value


def pack_wide(value: object) -> bytes:
    """Pack with the longest form of everything: what a reader must take, and no writer should send."""
    match value:
        case bool() | None | float():
            return msgpack.packb(value)
        case int():
            return struct.pack(">BQ", 0xCF, value) if value >= 0 else struct.pack(">Bq", 0xD3, value)
        case str():
            return struct.pack(">BI", 0xDB, len(value.encode())) + value.encode()
        case bytes():
            return struct.pack(">BI", 0xC6, len(value)) + value
        case list():
            return struct.pack(">BI", 0xDD, len(value)) + b"".join(map(pack_wide, value))
        case dict():
            items = b"".join(pack_wide(k) + pack_wide(v) for k, v in value.items())
            return struct.pack(">BI", 0xDF, len(value)) + items
        case _:
            raise AssertionError(value)


def told(value: object) -> object:
    """Return a value as the files write it: binary as ``{"bin": hex}``, long runs as ``{"bin": hex, "times": n}``."""
    match value:
        case bytes():
            first = value[:1]
            if len(value) >= RUN_BYTES and value == first * len(value):
                return {"bin": first.hex(), "times": len(value)}
            return {"bin": value.hex()}
        case list() | tuple():
            return [told(item) for item in value]
        case dict():
            return {key: told(item) for key, item in value.items()}
        case _:
            return value


def pieces(data: bytes) -> object:
    """Return bytes in hexadecimal; with long runs of one byte as a list of hexadecimal and runs."""
    parts: list[object] = []
    end = 0
    for run in re.finditer(rb"(.)\1{%d,}" % (RUN_BYTES - 1), data, re.DOTALL):
        parts += [data[end : run.start()].hex(), {"bin": run[1].hex(), "times": len(run[0])}]
        end = run.end()
    if not parts:
        return data.hex()
    return [part for part in [*parts, data[end:].hex()] if part]


def frames(message: msgspec.Struct) -> list[object]:
    """Return the frames as a connection sends them."""
    connection: Connection[messages.ToPeer] = peer_side()
    connection.send(cast("messages.Message", message))
    data = b""
    while more := connection.data_to_send():
        data += more
    found: list[object] = []
    while data:
        end = 4 + int.from_bytes(data[:4], "big")
        found.append(pieces(data[:end]))
        data = data[end:]
    return found


def framed(body: bytes) -> list[object]:
    """Return one frame of the body."""
    return [(len(body).to_bytes(4, "big") + body).hex()]


def large(kind: type[msgspec.Struct]) -> msgspec.Struct | None:
    """Return a message that takes several frames, for those that carry payloads and results."""
    many = b"\x61" * 300_000
    by_kind: dict[type[msgspec.Struct], msgspec.Struct] = {
        messages.Submit: messages.Submit(9, [TaskSpec(TASK_ID, "app.big", many)]),
        Lease: Lease(1, 0, [Grant(TOKEN, 1, TaskSpec(TASK_ID, "app.big", many))]),
        Ack: Ack([Report(TOKEN, TASK_ID, 1, many)]),
        messages.Outcomes: messages.Outcomes([Outcome(TASK_ID, "succeeded", 1, many)]),
    }
    return by_kind.get(kind)


def cases(kind: type[msgspec.Struct]) -> list[dict[str, object]]:
    """Return a message's cases."""
    named = {"minimal": build(kind, full=False), "full": build(kind, full=True)}
    if kind is messages.Submit:
        spec = TaskSpec(TASK_ID, "app.add", payload.pack_arguments([1, 2], {}), traceparent=str(SAMPLES["traceparent"]))
        named["example"] = messages.Submit(7, [spec])
    if (message := large(kind)) is not None:
        named["large"] = message
    found: list[dict[str, object]] = [
        {"name": name, "array": told(as_array(message)), "frames": frames(message)} for name, message in named.items()
    ]
    for name, same_as, body in (
        ("short", "minimal", msgpack.packb(as_array(named["minimal"], drop_defaults=True))),
        ("longer", "full", msgpack.packb(as_array(named["full"], more=True))),
        ("wide", "full", pack_wide(as_array(named["full"]))),
    ):
        if body != encode(cast("messages.Message", named[same_as])):
            found.append({"name": name, "read_only": True, "same_as": same_as, "frames": framed(body)})
    return found


Described = tuple[str, object, object]
"""Name, the value in the notation of the file, the value."""


def payload_values() -> list[Described]:
    """Return values of every kind that the payload codec carries."""
    moment = dt.datetime(2025, 11, 21, 16, 0, 0, 250_000, tzinfo=dt.timezone(dt.timedelta(hours=1)))
    naive = dt.datetime(2025, 11, 21, 16, 0, 0)  # noqa: DTZ001 - one without a zone is a case of its own
    span = dt.timedelta(days=-1, seconds=3_600, microseconds=5)
    name = uuid.UUID("0197c1a0-7d3c-7c4e-9f00-0123456789ab")
    return [
        ("nil", None, None),
        ("true", True, True),
        ("integers", [0, 127, 128, -32, -33, 65_536, 2**63], [0, 127, 128, -32, -33, 65_536, 2**63]),
        ("floats", [0.5, -1.25e300], [0.5, -1.25e300]),
        ("string", "Ünïcode ✓", "Ünïcode ✓"),
        ("binary", {"bin": "00ff"}, b"\x00\xff"),
        ("array", [1, [2, []]], [1, [2, []]]),
        ("map", {"map": [["a", 1], [2, None], [{"tuple": [1, 2]}, "t"]]}, {"a": 1, 2: None, (1, 2): "t"}),
        ("call", [["a.png"], {"map": [["size", 256]]}], [["a.png"], {"size": 256}]),
        ("tuple", {"tuple": [1, {"tuple": []}, [2]]}, (1, (), [2])),
        ("set", {"set": [1, "a", 200]}, {"a", 200, 1}),
        ("set of sets", {"set": [{"frozenset": []}, {"frozenset": [1]}]}, {frozenset({1}), frozenset()}),
        ("frozen set", {"frozenset": ["x"]}, frozenset({"x"})),
        ("date and time", {"datetime": moment.isoformat()}, moment),
        ("date and time, no zone", {"datetime": naive.isoformat()}, naive),
        ("date", {"date": "2025-11-21"}, dt.date(2025, 11, 21)),
        ("time", {"time": "16:00:00.000250"}, dt.time(16, 0, 0, 250)),
        ("duration", {"duration": [-1, 3_600, 5]}, span),
        ("uuid", {"uuid": str(name)}, name),
        ("decimal", {"decimal": "-1.50E+400"}, decimal.Decimal("-1.50E+400")),
        ("complex", {"complex": "(1-2.5j)"}, 1 - 2.5j),
        ("path", {"path": "/srv/a b"}, pathlib.Path("/srv/a b")),
        ("large integer", {"int": str(2**64)}, 2**64),
        ("large negative integer", {"int": str(-(2**70) - 5)}, -(2**70) - 5),
        ("input", {"input": 300}, payload.Input(300)),
        ("registered type", {"registered": ["example.fraction", [1, 3]]}, fractions.Fraction(1, 3)),
    ]


def payload_refusals() -> list[tuple[str, bytes]]:
    """Return bytes that are no packed value."""
    nested = msgpack.packb([])
    for _ in range(payload.EXTENSION_DEPTH_MAX + 1):
        nested = msgpack.packb(msgpack.ExtType(1, b"\x91" + nested))
    return [
        ("empty", b""),
        ("cut short", b"\x92\x01"),
        ("something after it", b"\x01\x01"),
        ("never used code", b"\xc1"),
        ("claims four billion elements", b"\xdd\xff\xff\xff\xff"),
        ("unknown extension", msgpack.packb(msgpack.ExtType(99, b"\xc0"))),
        ("unknown registered type", msgpack.packb(msgpack.ExtType(64, msgpack.packb(["no.such", 1])))),
        ("tuple of a string", msgpack.packb(msgpack.ExtType(1, msgpack.packb("ab")))),
        ("uuid of a number", msgpack.packb(msgpack.ExtType(8, b"\x05"))),
        ("date that is none", msgpack.packb(msgpack.ExtType(5, msgpack.packb("2025-02-30")))),
        ("set that cannot be", msgpack.packb(msgpack.ExtType(2, msgpack.packb([[]])))),
        ("map with an array as key", b"\x81\x90\xc0"),
        ("string that is no UTF-8", b"\xa1\xff"),
        ("extensions nested too deep", nested),
    ]


def write(path: pathlib.Path, head: Mapping[str, object], lists: Mapping[str, list[dict[str, object]]]) -> None:
    """Write a file that people can read: one case after the other, one line for each of its parts."""
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    for name, entries in lists.items():
        told_entries = [
            "    {"
            + ",\n     ".join(f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in entry.items())
            + "}"
            for entry in entries
        ]
        lines.append(f"  {json.dumps(name)}: [\n" + ",\n".join(told_entries) + "\n  ]")
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def main(folder: pathlib.Path) -> None:
    """Write all files."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in {**dict.fromkeys(get_args(messages.ToServer)), **dict.fromkeys(get_args(messages.ToPeer))}:
        tag = kind.__struct_config__.tag
        name = wire_name(kind)
        path = folder / f"{tag:03}-{name.lower().replace('_', '-')}.json"
        write(path, {"message": name, "type": tag}, {"cases": cases(kind)})
    payload.register_type(
        fractions.Fraction,
        "example.fraction",
        lambda value: [value.numerator, value.denominator],
        lambda plain: fractions.Fraction(*plain) if isinstance(plain, list) else fractions.Fraction(),
    )
    values = [
        {"name": name, "value": notation, "bytes": payload.pack(value).hex()}
        for name, notation, value in payload_values()
    ]
    refused: list[dict[str, object]] = [{"name": name, "bytes": data.hex()} for name, data in payload_refusals()]
    write(folder / "payloads.json", {}, {"values": values, "refused": refused})


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
