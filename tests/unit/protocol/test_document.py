"""The protocol document and the code say the same: messages, fields, codes, limits, roles, states, payload codes."""

import re
import types
from typing import get_args, get_origin, get_type_hints

import msgspec
import pytest

from protocol_document import VECTORS, bare, described_messages, section, sections, wire_name
from taskd.core import lifecycle
from taskd_protocol import (
    access_messages,
    agent_messages,
    connection,
    connection_messages,
    errors,
    event_messages,
    explanation,
    handshake,
    house_messages,
    limit_messages,
    limiting,
    limits,
    messages,
    payload,
    point,
    resources,
    schedule,
    schedule_messages,
    task,
    workflow,
    workflow_messages,
)
from taskd_protocol.connection_messages import Chunk, PeerLimits

SERVER_GETS: frozenset[type[msgspec.Struct]] = frozenset(get_args(messages.ToServer))
PEER_GETS: frozenset[type[msgspec.Struct]] = frozenset(get_args(messages.ToPeer))
MESSAGES: list[type[msgspec.Struct]] = [*dict.fromkeys([*get_args(messages.ToServer), *get_args(messages.ToPeer)])]
DIRECTIONS = {(True, False): "→ server", (False, True): "→ peer", (True, True): "both ways"}


def records() -> dict[str, type[msgspec.Struct]]:
    """Return the structs that travel inside messages."""
    found: dict[str, type[msgspec.Struct]] = {}
    rooms = (messages, explanation, resources, task, workflow, workflow_messages, schedule, schedule_messages)
    more = (access_messages, agent_messages, connection_messages, house_messages, limiting, limit_messages)
    for room in (*rooms, *more, event_messages, point):
        for value in vars(room).values():
            if isinstance(value, type) and issubclass(value, msgspec.Struct) and value not in SERVER_GETS | PEER_GETS:
                found[value.__name__] = value
    return found


def written_type(hint: object) -> str:
    """Write a field's type as the document does."""
    given = [argument for argument in get_args(hint) if argument is not type(None)]
    if given[-1:] == [...]:  # a list that can be compared and kept as a key
        return f"[{written_type(given[0])}]"
    arguments = [written_type(argument) for argument in given]
    if isinstance(hint, types.UnionType):
        (only,) = arguments
        return f"{only}?"
    origin = get_origin(hint)
    if origin is list:
        return f"[{arguments[0]}]"
    if origin is dict:
        return f"{{{arguments[0]}: {arguments[1]}}}"
    if origin is tuple:
        return f"({', '.join(arguments)})"
    assert isinstance(hint, type)
    return "bin" if hint is bytes else hint.__name__


def written_default(field: msgspec.structs.FieldInfo) -> str:
    """Write a field's default as the document does."""
    if field.required:
        return "required"
    default: object = field.default_factory() if callable(field.default_factory) else field.default
    written: dict[type, str] = {
        type(None): "nil",
        bool: str(default).lower(),
        str: f'"{default}"',
        bytes: 'bin ""' if default == b"" else repr(default),
        tuple: "[]" if default == () else repr(default),
    }
    if isinstance(default, msgspec.Struct):
        assert default == type(default)()
        return f"{type(default).__name__}()"
    return written.get(type(default), repr(default))


def written_fields(kind: type[msgspec.Struct], first: int) -> list[list[str]]:
    """Write a struct's fields as the document's rows, without their meanings."""
    hints = get_type_hints(kind)
    return [
        [str(position), field.name, written_type(hints[field.name]), written_default(field)]
        for position, field in enumerate(msgspec.structs.fields(kind), first)
    ]


def without_meaning(rows: list[list[str]]) -> list[list[str]]:
    assert all(row[4] for row in rows), "each field has a meaning"
    return [[bare(cell) for cell in row[:4]] for row in rows]


def test_messages() -> None:
    """Every message stands in the document with its number and direction, in order, and no other does."""
    coded = [
        (kind.__struct_config__.tag, wire_name(kind), DIRECTIONS[kind in SERVER_GETS, kind in PEER_GETS])
        for kind in SERVER_GETS | PEER_GETS
    ]
    told = [(found.number, found.name, found.direction) for found in described_messages()]
    assert told == sorted(coded)


@pytest.mark.parametrize("kind", MESSAGES, ids=wire_name)
def test_fields(kind: type[msgspec.Struct]) -> None:
    """A message's fields have the document's positions, names, types and defaults."""
    (found,) = [found for found in described_messages() if found.name == wire_name(kind)]
    assert without_meaning(found.fields) == written_fields(kind, 1)


@pytest.mark.parametrize("name", sorted(records()))
def test_records(name: str) -> None:
    """So have a record's."""
    assert without_meaning(section(name).rows) == written_fields(records()[name], 0)


def test_no_other_records() -> None:
    """The document describes no record that the code does not have."""
    titles = [found.title for found in sections()]
    described = titles[titles.index("11.8 Records") + 1 : titles.index("12. Payloads")]
    assert sorted(described) == sorted(records())


def test_requests_are_answered() -> None:
    """Each request says what answers it, and that answer is a message to peers that carries its id."""
    answers = {wire_name(kind): kind for kind in PEER_GETS}
    requests = [kind for kind in SERVER_GETS if "request_id" in kind.__struct_fields__]
    assert len(requests) > 10
    for kind in requests:
        (title,) = [
            f"{found.number} {found.name} ({found.direction})"
            for found in described_messages()
            if found.name == wire_name(kind)
        ]
        told = re.findall(r"Answered (?:by )?`([A-Z_]+)`", section(title).text)
        if kind in {messages.FollowMore, messages.FollowStop, event_messages.EventsMore}:
            assert told == []
            continue
        (answer,) = told
        assert answers[answer].__struct_fields__[0] == "request_id" == kind.__struct_fields__[0]


def test_error_codes() -> None:
    """Every code stands in one of the tables of codes with its flag, and no other does."""
    tables = [found.rows for found in sections() if found.title.startswith(("9.1", "9.2", "9.3"))]
    told = {bare(code): flag for rows in tables for code, flag, _ in rows}
    assert len(told) == sum(map(len, tables)), "each stands once"
    assert told == {code: "yes" if kind.retryable else "no" for code, kind in errors.error_codes().items()}


def test_task_codes() -> None:
    """So does every code of a failed attempt."""
    coded = {value for name, value in vars(errors.TaskCodes).items() if name.isupper()}
    assert {bare(code) for code, _ in section("9.4 Failures of attempts").rows} == coded


def test_reasons() -> None:
    """So does every code of what a task waits for."""
    coded = {value for name, value in vars(explanation.Reasons).items() if name.isupper()}
    coded |= {str(obstacle) for obstacle in explanation.Obstacle}
    assert {bare(code) for code, _ in section("9.5 What tasks wait for").rows} == coded


def test_codes_in_prose() -> None:
    """Whatever the prose calls a code is one."""
    tables = [section("9.4 Failures of attempts"), section("9.5 What tasks wait for")]
    known = set(errors.error_codes()) | {bare(code) for table in tables for code, _ in table.rows}
    areas = "|".join(sorted({code.split(".")[0] for code in known if "." in code}))
    told = {code for found in sections() for code in re.findall(rf"`((?:{areas})\.[a-z_]+)`", found.text)}
    assert told - {task.COMMAND_NAME} <= known


def test_limits() -> None:
    """Every limit stands in the document with its value, and no other does."""
    coded = {name: str(value) for name, value in vars(limits).items() if name.isupper()}
    assert {bare(name): value for name, value, _ in section("10. Limits").rows} == coded


def test_told_limits() -> None:
    """What WELCOME tells is marked, names the field, and the field's default is the limit."""
    told = {
        field: bare(name)
        for name, _, meaning in section("10. Limits").rows
        for field in re.findall(r"\*told\* as `(\w+)`", meaning)
    }
    defaults = PeerLimits()
    assert {field: getattr(limits, name) for field, name in told.items()} == msgspec.structs.asdict(defaults)


def test_roles() -> None:
    """The table of roles is the one that the server enforces."""
    roles = ("viewer", "client", "operator", "admin", "agent")
    told: dict[str, set[str]] = {role: set() for role in roles}
    for name, *marks in section("4.2 Roles").rows:
        for role, mark in zip(roles, marks, strict=True):
            assert mark in {"x", ""}
            if mark:
                told[role].add(name)
    assert told == {role: set(map(wire_name, kinds)) for role, kinds in handshake.ALLOWED.items()}
    listed = {name for name, *_ in section("4.2 Roles").rows}
    assert listed == {wire_name(kind) for kind in SERVER_GETS - handshake.BEFORE_WELCOME - {Chunk}}


def test_control_lane() -> None:
    """The document names exactly the messages that overtake."""
    first = section("3.2 Lanes and order").text.split("are **bulk**")[0]
    control: tuple[type[msgspec.Struct], ...] = connection.CONTROL
    assert set(re.findall(r"`([A-Z_]+)`", first)) == set(map(wire_name, control))


def test_states() -> None:
    """The states are those of the lifecycle, and those marked as ended are its terminal ones."""
    told = {bare(state): ended for state, ended, _ in section("8. Task states").rows}
    assert told == {state.value: "yes" if state in lifecycle.TERMINAL else "no" for state in lifecycle.State}


def test_payload_codes() -> None:
    """The payload's extension codes are the codec's."""
    told = {int(code) for code, _, _ in section("12. Payloads").rows}
    coded = {extension.code for extension in payload._BUILT_IN.values()}
    assert told == coded | {payload.BIG_INT_CODE, payload.INPUT_CODE, payload.REGISTERED_CODE}
    text = section("12. Payloads").text
    depths = re.search(r"nest at most (\d+) deep, arrays and maps at most (\d+) deep", text)
    assert depths is not None
    assert [int(depth) for depth in depths.groups()] == [payload.EXTENSION_DEPTH_MAX, payload.PAYLOAD_DEPTH_MAX]


def test_example() -> None:
    """The example's bytes are those of the vector that it names."""
    text = section("13. Example").text
    block = text.split("```")[1]
    hexadecimal = "".join(re.split(r" {2,}", line)[0] for line in block.splitlines())
    vector = (VECTORS / "016-submit.json").read_bytes()
    frames = [case["frames"] for case in msgspec.json.decode(vector)["cases"] if case["name"] == "example"]
    assert frames == [[bytes.fromhex(hexadecimal).hex()]]
