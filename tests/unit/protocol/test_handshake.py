"""The handshake's rules: versions, roles, what each role may send, the commit mark."""

import hashlib
import itertools
from typing import get_args

import msgspec
import pytest

from taskd_protocol import handshake, limits
from taskd_protocol import messages as m
from taskd_protocol.access_messages import CertRenew, Invite, TokenCreate, TokenList, TokenRevoke
from taskd_protocol.agent_messages import Ack, Checkpoints, Drain, Logs, Nack
from taskd_protocol.connection_messages import Chunk, Hello, Ping, Pong
from taskd_protocol.errors import BadRequest, RoleRefused, ServerRolledBack, UnexpectedMessage, VersionUnsupported
from taskd_protocol.handshake import (
    ALLOWED,
    TOKEN_ROLES,
    check_allowed,
    check_hello,
    check_mark,
    check_role,
    choose_version,
    make_mark,
    mark_is_ours,
    newest_mark,
)
from taskd_protocol.mark import Mark

KEY = bytes(range(32))
LINEAGE = bytes(range(16))

SERVER_GETS: list[type[msgspec.Struct]] = list(get_args(m.ToServer))


def hello(lowest: int = 1, highest: int = 1, role: str = "client", **more: object) -> Hello:
    plain = Hello(lowest, highest, role, "token")
    return msgspec.structs.replace(plain, **more)


def bare(kind: type[msgspec.Struct]) -> msgspec.Struct:
    """Return a message of that kind, whatever is in it."""
    required = [field.name for field in msgspec.structs.fields(kind) if field.required]
    return kind(**dict.fromkeys(required, 1))


@pytest.mark.parametrize(
    ("ours", "theirs", "chosen"),
    [((1, 1), (1, 1), 1), ((1, 1), (1, 9), 1), ((2, 3), (1, 2), 2), ((2, 3), (3, 4), 3), ((1, 5), (2, 4), 4)],
)
def test_versions(monkeypatch: pytest.MonkeyPatch, ours: tuple[int, int], theirs: tuple[int, int], chosen: int) -> None:
    """The highest version that both know is taken."""
    monkeypatch.setattr(limits, "PROTOCOL_VERSION_MIN", ours[0])
    monkeypatch.setattr(limits, "PROTOCOL_VERSION_MAX", ours[1])
    assert choose_version(hello(*theirs)) == chosen


@pytest.mark.parametrize(
    ("theirs", "behind"), [((3, 9), "the server"), ((0, 0), "the peer"), ((-5, -1), "the peer"), ((9, 1), "the server")]
)
def test_no_version_in_common(theirs: tuple[int, int], behind: str) -> None:
    """Without one both ranges are named, and who is to be upgraded."""
    with pytest.raises(VersionUnsupported) as caught:
        choose_version(hello(*theirs))
    assert f"{theirs[0]} to {theirs[1]}" in caught.value.message
    assert f"{limits.PROTOCOL_VERSION_MIN} to {limits.PROTOCOL_VERSION_MAX}" in caught.value.message
    assert caught.value.message.endswith(f"upgrade {behind}")


@pytest.mark.parametrize(
    "good",
    [
        hello(),
        hello(name="a person's laptop"),
        hello(role="join", name="worker-1"),
        hello(role="agent", name="worker-1", boot_id=bytes(16), session=bytes(16)),
    ],
)
def test_good_hellos(good: Hello) -> None:
    """Clients may leave their name out; agents have a name and a boot id."""
    check_hello(good)


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        (hello(role="admin"), "role"),
        (hello(role=""), "role"),
        (hello(role="agent", boot_id=bytes(16)), "name"),
        (hello(role="agent", name="worker-1"), "boot_id"),
        (hello(role="agent", name="worker\n1", boot_id=bytes(16)), "name"),
        (hello(name="x" * (limits.NAME_CHARS_MAX + 1)), "name"),
        (hello(boot_id=b"short"), "boot_id"),
        (hello(session=b""), "session"),
        (hello(session=bytes(17)), "session"),
    ],
)
def test_bad_hellos(bad: Hello, named: str) -> None:
    """A field out of range is named, in one line that repeats nothing unprintable."""
    with pytest.raises(BadRequest) as caught:
        check_hello(bad)
    assert named in caught.value.message
    assert caught.value.message.isprintable()


def test_roles_of_tokens() -> None:
    """Agents' tokens connect as agents, all others as clients, and an invitation opens no session."""
    assert set(TOKEN_ROLES) == set(ALLOWED)
    for role in TOKEN_ROLES:
        good, bad = ("agent", "client") if role == "agent" else ("client", "agent")
        check_role(good, role)
        with pytest.raises(RoleRefused):
            check_role(bad, role)
    for role in ("join", "root", ""):
        for asked in ("client", "agent"):
            with pytest.raises(RoleRefused):
                check_role(asked, role)


@pytest.mark.parametrize("role", TOKEN_ROLES)
@pytest.mark.parametrize("kind", SERVER_GETS)
def test_every_role_and_message(role: str, kind: type[msgspec.Struct]) -> None:
    """What a role does not list is refused: a request under its id, anything else with the connection."""
    message = bare(kind)
    if kind in ALLOWED[role]:
        check_allowed(role, message)
        return
    is_request = "request_id" in kind.__struct_fields__
    with pytest.raises(RoleRefused if is_request else UnexpectedMessage):
        check_allowed(role, message)


def test_roles_include_each_other() -> None:
    """Each role of a person or program has all that the one before it has; an agent has nothing of theirs."""
    order = ("viewer", "client", "operator", "admin")
    for less, more in itertools.pairwise(order):
        assert ALLOWED[less] <= ALLOWED[more]
    assert ALLOWED["agent"] & ALLOWED["admin"] == {Ping, Pong}
    assert frozenset().union(*ALLOWED.values()) == set(SERVER_GETS) - handshake.BEFORE_WELCOME - {Chunk}


def test_viewers_change_nothing() -> None:
    """No message that changes something is a viewer's."""
    changing = {m.Submit, m.Cancel, TokenCreate, TokenRevoke, Invite, CertRenew}
    changing |= {Ack, Nack, Drain, Logs, Checkpoints}
    assert not ALLOWED["viewer"] & changing
    assert TokenList not in ALLOWED["operator"]


def test_mark_is_what_the_document_says() -> None:
    """The MAC is keyed BLAKE2b with 32 bytes over the lineage and the sequence in 8 bytes, big-endian."""
    mark = make_mark(KEY, LINEAGE, 0x0102030405)
    expected = hashlib.blake2b(LINEAGE + bytes([0, 0, 0, 1, 2, 3, 4, 5]), key=KEY, digest_size=32).digest()
    assert mark == Mark(LINEAGE, 0x0102030405, expected)
    assert mark_is_ours(KEY, mark)


@pytest.mark.parametrize("sequence", [0, 1, 2**63, 2**64 - 1])
def test_marks_cannot_be_changed(sequence: int) -> None:
    """A mark with anything else in it, or of another key, is not ours."""
    mark = make_mark(KEY, LINEAGE, sequence)
    assert mark_is_ours(KEY, mark)
    assert not mark_is_ours(bytes(32), mark)
    for other in (
        Mark(LINEAGE, sequence ^ 1, mark.mac),
        Mark(bytes(16), sequence, mark.mac),
        Mark(LINEAGE, sequence, bytes(32)),
        Mark(LINEAGE, sequence, mark.mac[:31]),
        Mark(LINEAGE, sequence, b""),
        Mark(LINEAGE[:15], sequence, mark.mac),
        Mark(LINEAGE + b"\0", sequence, mark.mac),
        Mark(LINEAGE, -1, mark.mac),
        Mark(LINEAGE, 2**64, mark.mac),
        Mark(LINEAGE, sequence, mark.mac, 1),
        Mark(LINEAGE, sequence, mark.mac, -1),
        Mark(LINEAGE, sequence, mark.mac, 2**64),
        Mark(LINEAGE, sequence, make_mark(KEY, LINEAGE, sequence, 7).mac),
    ):
        assert not mark_is_ours(KEY, other)


def test_rolled_back() -> None:
    """A later commit of this store, under our own MAC, is proof; nothing else is."""
    check_mark(KEY, None, LINEAGE, 5)
    check_mark(KEY, make_mark(KEY, LINEAGE, 5), LINEAGE, 5)
    check_mark(KEY, make_mark(KEY, LINEAGE, 4), LINEAGE, 5)
    check_mark(KEY, make_mark(bytes(32), LINEAGE, 6), LINEAGE, 5)
    check_mark(KEY, make_mark(KEY, bytes(16), 6), LINEAGE, 5)
    check_mark(KEY, Mark(LINEAGE, 2**64 - 1, bytes(32)), LINEAGE, 5)
    with pytest.raises(ServerRolledBack) as caught:
        check_mark(KEY, make_mark(KEY, LINEAGE, 6), LINEAGE, 5)
    assert "commit 6" in caught.value.message


LIVES = [(100, 0), (200, 10), (300, 30)]
"""Three starts: the first came to 10 commits, the second to 30; the third is at work."""


@pytest.mark.parametrize(
    ("epoch", "sequence"),
    [(100, 1), (100, 10), (200, 30), (300, 31), (300, 50), (50, 2**60), (0, 50)],
)
def test_a_mark_of_what_each_start_left_is_no_proof(epoch: int, sequence: int) -> None:
    """Nor is one from before all that the store knows of."""
    check_mark(KEY, make_mark(KEY, LINEAGE, sequence, epoch), LINEAGE, 50, LIVES)


@pytest.mark.parametrize(
    ("epoch", "sequence"),
    [(100, 11), (200, 31), (200, 50), (300, 51), (250, 5), (400, 1), (0, 51)],
)
def test_what_was_committed_since_does_not_hide_a_loss(epoch: int, sequence: int) -> None:
    """A start leaves what was told of it, and is known itself, or the store was rolled back."""
    with pytest.raises(ServerRolledBack):
        check_mark(KEY, make_mark(KEY, LINEAGE, sequence, epoch), LINEAGE, 50, LIVES)
    check_mark(KEY, make_mark(bytes(32), LINEAGE, sequence, epoch), LINEAGE, 50, LIVES)


def test_the_newest_mark_is_kept() -> None:
    """Of one lineage the higher, of another the one told last."""
    low, high, other = (
        make_mark(KEY, LINEAGE, 5, 200),
        make_mark(KEY, LINEAGE, 6, 100),
        make_mark(KEY, bytes(16), 1),
    )
    assert newest_mark(None, low) is low
    assert newest_mark(low, high) is high
    assert newest_mark(high, low) is high
    assert newest_mark(high, other) is other
