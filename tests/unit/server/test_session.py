"""Sessions: who comes in, what is refused and how, and what a peer that misbehaves costs."""

from collections.abc import Sequence

import msgspec
import pytest
import structlog
import trio
from trio.testing import lockstep_stream_pair, memory_stream_pair

from harness.peer import hello
from harness.server import MARK_KEY, Server, leased
from taskd.server import tokens
from taskd.server.agent_role import AgentRole
from taskd.server.certificates import open_certificates
from taskd.server.clock import SystemClock
from taskd.server.session import GOODBYE_SECONDS, Session
from taskd_protocol import limit_messages as lm
from taskd_protocol import limits
from taskd_protocol import messages as m
from taskd_protocol import schedule_messages as sm
from taskd_protocol import workflow_messages as wm
from taskd_protocol.access_messages import (
    Ca,
    CaRequest,
    CertQuery,
    CertRenew,
    CertView,
    Invitation,
    Invite,
    Joined,
    TokenCreate,
    TokenCreated,
    TokenList,
    TokenPage,
    TokenRevoke,
)
from taskd_protocol.agent_messages import (
    Ack,
    Checkpoints,
    Drain,
    Heartbeat,
    HeartbeatSeen,
    LeaseCredit,
    Logs,
    Nack,
    Offer,
    Started,
)
from taskd_protocol.connection import encode, peer_side
from taskd_protocol.connection_messages import Chunk, Done, Error, Hello, Ping, Pong, Welcome
from taskd_protocol.errors import AuthRefused, DiskFull
from taskd_protocol.event_messages import EventsFollow, EventsMore, OverviewQuery, WebhookList, WebhookOrder, WebhookSet
from taskd_protocol.filtering import TaskFilter
from taskd_protocol.framing import frame
from taskd_protocol.handshake import ALLOWED, TOKEN_ROLES, make_mark
from taskd_protocol.house_messages import (
    AgentDrain,
    AgentList,
    Backup,
    FairKeyWeigh,
    MemoryList,
    QueueDrain,
    QueueList,
    QueuePage,
    QueueWeigh,
    StatsQuery,
)
from taskd_protocol.limiting import Limit
from taskd_protocol.limits import OUTBOX_BYTES_MAX, PREAUTH_BYTES_MAX, PREAUTH_SECONDS
from taskd_protocol.schedule import Schedule, Timing
from taskd_protocol.task import TaskSpec
from taskd_protocol.workflow import Node, WorkflowSpec, make_workflow_id

TASK = bytes(6) + b"\x70" + bytes(1) + b"\x80" + bytes(7)


# -- coming in --------------------------------------------------------------------------------


async def test_welcome_tells_what_the_server_allows(server: Server) -> None:
    """Version, role, limits, time and mark; the session asked for, or a new one."""
    peer = server.connect()
    await peer.send(hello("client", server.tokens["operator"]))
    welcome = await peer.take(Welcome)
    assert (welcome.version, welcome.role, len(welcome.session)) == (limits.PROTOCOL_VERSION_MAX, "operator", 16)
    assert welcome.server_time_ms == server.clock.wall_ms()
    assert welcome.mark == make_mark(MARK_KEY, server.disk.lineage, server.disk.durable_sequence, server.working.epoch)
    assert welcome.limits == server.services.limits
    assert welcome.epoch == server.working.epoch
    again = server.connect()
    await again.send(msgspec.structs.replace(hello("client", server.tokens["client"]), session=welcome.session))
    assert (await again.take(Welcome)).session == welcome.session


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
async def test_a_handshake_in_pieces(server: Server, size: int) -> None:
    """However the network cuts it."""
    wire = peer_side()
    wire.send(hello("client", server.tokens["client"]))
    data = wire.data_to_send()
    peer = server.connect()
    for start in range(0, len(data), size):
        await peer.send_bytes(data[start : start + size])
        await trio.sleep(0.001)
    await peer.take(Welcome)
    await peer.ask(QueueList(1), QueuePage)


def bad_tokens(server: Server) -> dict[str, str]:
    """Tokens that are not good, by what is wrong with them."""
    good = server.tokens["client"]
    head, secret, _ = good.rsplit("_", 2)
    wrong = tokens.mint("client", bytes(tokens.ENTROPY_BYTES))
    other_secret = wrong.text.split("_")[3]
    body = f"{head}_{other_secret}"
    return {
        "empty": "",
        "garbage": "hunter2",
        "checksum": f"{head}_{secret}_00000000",
        "unknown": wrong.text,
        "secret": f"{body}_{tokens._checksum(body)}",
        "expired": server.tokens["expired"],
        "revoked": server.tokens["revoked"],
        "invitation": server.tokens["join"],
        "long": "taskd_" + "x" * 3_000,
    }


async def test_all_bad_tokens_look_alike(server: Server) -> None:
    """Nobody learns from a refusal how close a guess was."""
    await server.mint("client", key="expired", lasts_ms=1_000)
    await server.mint("client", key="revoked")
    await server.mint("join")
    admin = await server.client("admin")
    await admin.ask(TokenRevoke(1, server.key_ids["revoked"]), Done)
    await trio.sleep(2)
    answers = []
    for wrong, text in bad_tokens(server).items():
        peer = server.connect()
        await peer.send(hello("client", text))
        answers.append((await peer.end(), wrong))
    assert {error.code for error, _ in answers} == {"auth.refused"}
    assert len({(error.message, error.retryable) for error, _ in answers}) == 1
    assert "taskd token create" in answers[0][0].message


@pytest.mark.parametrize(("as_role", "token_role"), [("agent", "client"), ("agent", "admin"), ("client", "agent")])
async def test_a_token_for_another_kind_of_peer_is_refused(server: Server, as_role: str, token_role: str) -> None:
    """And the refusal says so: whoever holds it may know."""
    peer = server.connect()
    await peer.send(hello(as_role, server.tokens[token_role], "a1", bytes(16)))
    assert (await peer.end()).code == "auth.role"


@pytest.mark.parametrize(
    ("versions", "behind"), [((3, 4), "upgrade the server"), ((0, 0), "upgrade the peer"), ((5, 4), "upgrade")]
)
async def test_a_peer_of_another_version_is_told_both(server: Server, versions: tuple[int, int], behind: str) -> None:
    """And who is to be upgraded."""
    peer = server.connect()
    asked = msgspec.structs.replace(
        hello("client", server.tokens["client"]), version_min=versions[0], version_max=versions[1]
    )
    await peer.send(asked)
    why = await peer.end()
    assert why.code == "protocol.version"
    assert f"{versions[0]} to {versions[1]}" in why.message
    assert behind in why.message


@pytest.mark.parametrize(
    "fields",
    [
        {"role": "king"},
        {"role": "agent", "name": "", "boot_id": bytes(16)},
        {"role": "agent", "name": "a", "boot_id": bytes(3)},
        {"name": "x" * 300},
        {"session": b"short"},
    ],
)
async def test_a_hello_out_of_range_is_refused(server: Server, fields: dict[str, object]) -> None:
    """With the field named, whoever sent it."""
    peer = server.connect()
    await peer.send(msgspec.structs.replace(hello("client", server.tokens["client"]), **fields))
    assert (await peer.end()).code == "request.invalid"


async def test_whoever_says_nothing_is_closed_on_after_five_seconds(server: Server) -> None:
    """Also who drips, and who stops in the middle."""
    wire = peer_side()
    wire.send(hello("client", server.tokens["client"]))
    data = wire.data_to_send()
    before = trio.current_time()
    silent, halfway, dripping = server.connect(), server.connect(), server.connect()
    await halfway.send_bytes(data[:20])
    for start in range(0, len(data), 5):
        if dripping.over.is_set():
            break
        await dripping.send_bytes(data[start : start + 5])
        await trio.sleep(0.5)
    for peer in (silent, halfway, dripping):
        assert (await peer.end()).code == "protocol.handshake_timeout"
    assert trio.current_time() - before == pytest.approx(PREAUTH_SECONDS, abs=0.6)


async def test_whoever_leaves_before_it_says_who_it_is_leaves_nothing(server: Server) -> None:
    """A truncated HELLO is no HELLO."""
    peer = server.connect()
    await peer.send_bytes(b"\x00\x00\x00")
    await peer.close()
    await peer.settle()
    assert server.hub._peers == {}


GARBAGE = [
    (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "protocol.too_large"),
    (b"\x00\x00\x00\x00", "protocol.violation"),
    (b"\xff\xff\xff\xff", "protocol.too_large"),
    (frame(b"\xc1" * 20), "protocol.violation"),
    (frame(b"\x93\x01\x02"), "protocol.violation"),
    (frame(b"\x80"), "protocol.violation"),
    (frame(b"\x9f" * 2_000), "protocol.violation"),
    (frame(bytes(2)) + frame(bytes(2)), "protocol.violation"),
    ((PREAUTH_BYTES_MAX + 1).to_bytes(4, "big"), "protocol.too_large"),
    (frame(b"\x92\x01\xa1\xff"), "protocol.violation"),
]


@pytest.mark.parametrize(("data", "code"), GARBAGE)
async def test_garbage_before_hello_is_answered_and_closed_on(server: Server, data: bytes, code: str) -> None:
    """And what comes after it is not looked at: it may hold a frame."""
    peer = server.connect()
    wire = peer_side()
    wire.send(hello("client", server.tokens["client"]))
    await peer.send_bytes(data + wire.data_to_send())
    assert (await peer.end()).code == code
    assert server.hub._peers == {}


@pytest.mark.parametrize(
    ("data", "code"),
    [(data, code) for data, code in GARBAGE if b"GET" not in data and data[:2] != b"\x00\x00\x10"[:2]]
    + [
        ((limits.FRAME_BYTES_MAX + 1).to_bytes(4, "big"), "protocol.too_large"),
        (b"".join(frame(encode(Chunk(i, False, b"x"))) for i in range(9)), "protocol.violation"),  # noqa: FBT003
        (frame(encode(Chunk(0, True, encode(Chunk(0, True, b""))))), "protocol.violation"),  # noqa: FBT003
        (frame(encode(QueuePage(1, []))), "protocol.violation"),
    ],
)
async def test_garbage_after_hello_ends_that_connection_alone(server: Server, data: bytes, code: str) -> None:
    """What it asked before is answered, what it says after is void, and nobody else notices."""
    peer, other = await server.client(), await server.client()
    await peer.ask(QueueList(1), QueuePage)
    await peer.send_bytes(data + frame(encode(m.Submit(2, server.specs()))))
    assert (await peer.end()).code == code
    await other.ask(QueueList(1), QueuePage)
    assert server.working.counters.by_queue == {}


async def test_a_submit_in_chunks_that_stops_halfway_is_no_submit(server: Server) -> None:
    """The connection broke: nothing was said."""
    peer = await server.client()
    wire = peer_side()
    wire.send(m.Submit(1, server.specs(payload=bytes(1_000_000))))
    data = b""
    while part := wire.data_to_send():
        data += part
    await peer.send_bytes(data[: len(data) // 2])
    await peer.close()
    await peer.settle()
    assert server.working.counters.by_queue == {}
    assert server.hub._peers == {}


@pytest.mark.parametrize("first", [Ping(1), QueueList(1), m.Submit(1, [])])
async def test_the_first_message_is_hello(server: Server, first: m.Message) -> None:
    """Nothing else is answered before."""
    peer = server.connect()
    await peer.send(first)
    assert (await peer.end()).code == "protocol.unexpected"


async def test_more_than_a_hello_before_welcome_is_refused(server: Server) -> None:
    """What is said before WELCOME came is said to a stranger."""
    peer = server.connect()
    await peer.send(hello("client", server.tokens["client"]), QueueList(1))
    assert (await peer.end()).code == "protocol.unexpected"


async def test_a_second_hello_is_refused(server: Server) -> None:
    """A connection is one peer's."""
    peer = await server.client()
    await peer.send(hello("client", server.tokens["admin"]))
    assert (await peer.end()).code == "protocol.unexpected"


async def test_an_unknown_message_type_is_answered_and_the_connection_stays(server: Server) -> None:
    """A newer peer finds out what it must do without."""
    peer = await server.client()
    await peer.send_bytes(frame(msgspec.msgpack.encode([127, 7, "new", {"field": 1}])))
    refused = await peer.take(Error)
    assert (refused.request_id, refused.code) == (7, "protocol.unknown_kind")
    await peer.ask(QueueList(8), QueuePage)
    await peer.send_bytes(frame(msgspec.msgpack.encode([127])))  # there is nobody to answer
    assert (await peer.end()).code == "protocol.unknown_kind"


async def test_refused_strangers_are_a_line_a_second(server: Server) -> None:
    """However many knock; each line says how many were left out, and none holds what they said."""
    with structlog.testing.capture_logs() as lines:
        for _ in range(30):
            peer = server.connect()
            await peer.send(hello("client", "taskd_client_guess_guess_00000000"))
            await peer.end()
        await trio.sleep(1)
        peer = server.connect()
        await peer.send_bytes(b"GET / HTTP/1.1\r\n\r\n")
        await peer.end()
    assert [line["left_out"] for line in lines] == [0, 29]
    assert "auth.refused" in lines[0]["reason"]
    assert not any("guess" in str(line) for line in lines)


# -- who may do what ----------------------------------------------------------------------------

WORKFLOW = make_workflow_id(0, bytes(5))

EVERY_MESSAGE: Sequence[m.Message] = [
    Ping(1),
    Pong(1),
    m.Submit(5, [TaskSpec(TASK, "m.f")]),
    m.Wait(5, [TASK]),
    m.OutcomeCredit(1),
    m.Cancel(5, [TASK]),
    m.TaskRetry(5, [TASK]),
    m.TaskHasten(5, [TASK]),
    m.TaskQuery(5, [TASK]),
    m.TaskCount(5),
    m.JobStart(5, TASK, "retry", TaskFilter(ids=[TASK])),
    m.JobList(5),
    m.TaskExplain(5, bytes(16)),
    m.DeadList(5),
    QueueDrain(5, "images"),
    QueueWeigh(5, "images", 3),
    FairKeyWeigh(5, "images", "acme", 3),
    AgentDrain(5, "a1"),
    m.TaskList(5),
    QueueList(5),
    AgentList(5),
    MemoryList(5),
    m.Follow(5, TASK),
    m.FollowMore(5),
    m.FollowStop(5),
    TokenCreate(5, "viewer"),
    TokenList(5),
    TokenRevoke(5, "none"),
    Invite(5),
    CertQuery(5),
    StatsQuery(5),
    Backup(5, bytes(16), "/backup"),
    sm.ScheduleSet(5, Schedule("tick", Timing(every_ms=60_000), TaskSpec(TASK, "m.f"))),
    sm.ScheduleSync(5, "shop", []),
    sm.ScheduleList(5),
    sm.ScheduleOrder(5, "tick", "pause"),
    sm.ScheduleTrigger(5, "tick", TASK),
    sm.ScheduleBackfill(5, "tick", TASK, 0, 1),
    sm.ScheduleHistory(5, "tick"),
    sm.SchedulePreview(5, "tick"),
    lm.LimitSet(5, Limit("queue:images", 3)),
    lm.LimitSync(5, "shop", []),
    lm.LimitRemove(5, "queue:images"),
    lm.LimitList(5),
    lm.QueuePause(5, "images"),
    LeaseCredit(0, 1),
    Ack([]),
    Nack([]),
    Heartbeat(1, 0, []),
    Drain(),
    Logs([]),
    Checkpoints([]),
    Started([]),
    Offer([]),
    wm.InputQuery(5, 1, 0),
    wm.Spawn(5, 1, 0, [TaskSpec(b"", "m.f")]),
    wm.WorkflowSubmit(5, WorkflowSpec(WORKFLOW, "report", 1), 0, [Node("wait", kind="sleep", wait_ms=5)]),
    wm.WorkflowOrder(5, WORKFLOW, "cancel"),
    wm.WorkflowSignal(5, WORKFLOW, "go"),
    wm.WorkflowList(5),
    wm.WorkflowQuery(5, WORKFLOW),
    wm.ChildrenQuery(5, WORKFLOW),
    EventsFollow(5),
    EventsMore(5),
    OverviewQuery(5),
    WebhookSet(5, "mine", "https://example.org/"),
    WebhookList(5),
    WebhookOrder(5, "mine", "pause"),
]


def test_every_message_to_a_server_is_tried() -> None:
    """But those of the handshake, chunks, and the renewal, which has a test of its own."""
    tried = {type(message) for message in EVERY_MESSAGE}
    assert set(m.ToServer.__args__) - tried == {Hello, CaRequest, Chunk, CertRenew}


@pytest.mark.parametrize("role", [role for role in TOKEN_ROLES if role != "agent"])
@pytest.mark.parametrize("message", EVERY_MESSAGE, ids=lambda message: type(message).__name__)
async def test_a_role_may_send_what_its_row_says(server: Server, role: str, message: m.Message) -> None:
    """Every message, every role: a request that is not allowed is refused, anything else closed on."""
    peer = await server.client(role)
    await peer.send(message)
    await peer.settle()
    refusals = [(error.request_id, error.code) for error in peer.told(Error)]
    if type(message) in ALLOWED[role]:
        assert not {code for _, code in refusals} & {"auth.role", "protocol.unexpected"}
        assert not peer.over.is_set()
    elif hasattr(message, "request_id"):
        assert refusals == [(5, "auth.role")]
        await peer.ask(QueueList(6), QueuePage)
    else:
        assert refusals == [(0, "protocol.unexpected")]
        assert peer.over.is_set()


@pytest.mark.parametrize("message", EVERY_MESSAGE, ids=lambda message: type(message).__name__)
async def test_an_agent_may_send_what_its_row_says(server: Server, message: m.Message) -> None:
    """It cannot submit, list or read: a stolen agent sees what it was granted."""
    peer = await server.agent()
    await peer.send(message)
    await peer.settle()
    refusals = [(error.request_id, error.code) for error in peer.told(Error)]
    if type(message) in ALLOWED["agent"]:
        assert not {code for _, code in refusals} & {"auth.role", "protocol.unexpected"}
    elif hasattr(message, "request_id"):
        assert refusals == [(5, "auth.role")]
    else:
        assert refusals == [(0, "protocol.unexpected")]


@pytest.mark.parametrize("message", [Ack([]), Nack([]), Logs([]), LeaseCredit(0, 1), Drain()])
async def test_an_agent_offers_before_anything_else(server: Server, message: m.Message) -> None:
    """Before its offer was accepted it may be another process under a live agent's name."""
    peer = server.connect()
    await peer.send(hello("agent", server.tokens["agent"], "a1", bytes(16)))
    await peer.take(Welcome)
    await peer.send(Heartbeat(1, 0, []))
    await peer.take(HeartbeatSeen)
    await peer.send(message)
    assert (await peer.end()).code == "protocol.unexpected"


# -- tokens, invitations, certificates ------------------------------------------------------------


async def test_a_created_token_is_good_until_it_is_revoked(server: Server) -> None:
    """Listed without its secret; its sessions end at once when it is revoked, and only its."""
    admin = await server.client("admin")
    created = await admin.ask(TokenCreate(1, "client", "for a test", 60_000), TokenCreated)
    server.tokens["new"] = created.token
    peer, other = await server.client("new"), await server.client()
    listed = await admin.ask(TokenList(2), TokenPage)
    (view,) = [view for view in listed.tokens if view.label == "for a test"]
    assert view.key_id == tokens.parse(created.token).key_id
    assert (view.role, view.expires_at_ms - view.created_at_ms, view.revoked) == ("client", 60_000, False)
    before = trio.current_time()
    await admin.ask(TokenRevoke(3, view.key_id), Done)
    assert (await peer.end()).code == "auth.refused"
    assert trio.current_time() - before < 1
    await other.ask(QueueList(4), QueuePage)
    again = server.connect()
    await again.send(hello("client", created.token))
    assert (await again.end()).code == "auth.refused"
    listed = await admin.ask(TokenList(4), TokenPage)
    assert [view.revoked for view in listed.tokens if view.label == "for a test"] == [True]


async def test_nothing_is_heard_of_who_was_sent_away(server: Server) -> None:
    """The task of the connection is woken a round later; what has come by then is not even read."""
    session = Session(server.services, memory_stream_pair()[0], "192.0.2.1:9")
    read: list[bytes] = []

    def receive() -> bytes:
        read.append(b"")
        return b"frames"

    session.end(AuthRefused("the token was revoked"))
    assert not session._hear(receive, AgentRole(session, hello("agent", server.tokens["agent"])))
    assert read == []


async def test_revoking_ends_an_agent_too(server: Server) -> None:
    """Its leases stay until its time is up: it may come back with another token."""
    admin, client, agent = await server.client("admin"), await server.client(), await server.agent(credit=1)
    await server.submit(client)
    await leased(agent, 1)
    await admin.ask(TokenRevoke(1, server.key_ids["agent"]), Done)
    assert (await agent.end()).code == "auth.refused"
    await agent.settle()
    assert server.working.counters.by_queue["default"]["running"] == 1
    await trio.sleep(20)
    assert server.working.counters.by_queue["default"] == {"ready": 1, "running": 0}


@pytest.mark.parametrize(
    ("request_message", "code"),
    [
        (TokenCreate(1, "king"), "request.invalid"),
        (TokenCreate(1, "join"), "request.invalid"),
        (TokenCreate(1, "client", "", 0), "request.invalid"),
        (TokenCreate(1, "client", "", 20 * 366 * 24 * 3600 * 1000), "request.invalid"),
        (TokenCreate(1, "client", "x" * 257), "request.invalid"),
        (TokenRevoke(1, "nobody"), "token.unknown"),
        (Invite(1, 0), "request.invalid"),
        (Invite(1, 601_000), "request.invalid"),
    ],
)
async def test_requests_for_access_are_checked(server: Server, request_message: m.Message, code: str) -> None:
    """And refused with the reason; the connection goes on."""
    admin = await server.client("admin")
    assert (await admin.ask(request_message, Error)).code == code
    await admin.ask(QueueList(2), QueuePage)


async def test_an_invitation_is_good_once(server: Server) -> None:
    """For a token of the role agent, which the invited machine alone has seen."""
    admin = await server.client("admin")
    invitation = await admin.ask(Invite(1), Invitation)
    assert invitation.ca_sha256 == server.services.certificates.ca_sha256
    assert invitation.addresses == ["127.0.0.1:7070"]
    stranger = server.connect()
    await stranger.send(CaRequest())
    assert (await stranger.take(Ca)).pem == server.services.certificates.ca_pem
    await stranger.over.wait()
    joining = server.connect()
    await joining.send(hello("join", invitation.secret, "far", bytes(16)))
    server.tokens["joined"] = (await joining.take(Joined)).token
    await joining.over.wait()
    agent = server.connect()
    await agent.send(hello("agent", server.tokens["joined"], "far", bytes(16)))
    assert (await agent.take(Welcome)).role == "agent"
    again = server.connect()
    await again.send(hello("join", invitation.secret, "far", bytes(16)))
    assert (await again.end()).code == "auth.invitation"
    assert "join" not in {view.role for view in (await admin.ask(TokenList(2), TokenPage)).tokens}


async def test_two_who_join_by_one_invitation_at_once(server: Server) -> None:
    """One of them gets in."""
    secret = await server.mint("join")
    with server.disk.held():
        peers = [server.connect(), server.connect()]
        for peer in peers:
            await peer.send(hello("join", secret, "far", bytes(16)))
        await peers[0].settle()
    for peer in peers:
        await peer.over.wait()
    assert sorted([len(peer.told(Joined)) for peer in peers]) == [0, 1]
    assert [error.code for peer in peers for error in peer.told(Error)] == ["auth.invitation"]


@pytest.mark.parametrize("secret", ["", "garbage", "expired", "a real token"])
async def test_other_secrets_join_nobody(server: Server, secret: str) -> None:
    """With the error that says what to do, whatever it was."""
    if secret == "expired":
        secret = await server.mint("join", lasts_ms=1_000)
        await trio.sleep(2)
    elif secret == "a real token":
        secret = server.tokens["agent"]
    peer = server.connect()
    await peer.send(hello("join", secret, "far", bytes(16)))
    why = await peer.end()
    assert why.code == "auth.invitation"
    assert "taskd agents invite" in why.message


async def test_a_renewal_keeps_the_session_that_asked_for_it(
    nursery: trio.Nursery, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """And adds the names; the CA stays the one that peers have pinned."""
    own = open_certificates(tmp_path_factory.mktemp("renewed"), ["localhost"], SystemClock().wall_ms())
    server = await Server(nursery, own).start()
    admin = await server.client("admin")
    before = await admin.ask(CertQuery(1), CertView)
    renewed = await admin.ask(CertRenew(2, ["more.example"]), CertView)
    assert set(renewed.host_names) == {*before.host_names, "more.example"}
    assert renewed.sha256 != before.sha256
    assert renewed.ca_sha256 == before.ca_sha256
    refused = await admin.ask(CertRenew(3, ["not a name"]), Error)
    assert refused.code == "config.invalid"
    assert (await admin.ask(CertQuery(4), CertView)).sha256 == renewed.sha256


async def test_a_peer_that_knows_more_than_the_store_stops_the_server(server: Server) -> None:
    """The data directory was rolled back: nothing that it says can be trusted. Only a real mark counts."""
    ahead = server.disk.durable_sequence + 1
    lineage = server.disk.lineage
    for mark in (
        make_mark(bytes(32), lineage, ahead),
        make_mark(MARK_KEY, bytes(16), ahead),
        make_mark(MARK_KEY, lineage, ahead - 1),
    ):
        peer = server.connect()
        await peer.send(msgspec.structs.replace(hello("client", server.tokens["client"]), mark=mark))
        await peer.take(Welcome)
    stranger = server.connect()
    real = make_mark(MARK_KEY, lineage, ahead + 10)
    await stranger.send(msgspec.structs.replace(hello("client", "no token"), mark=real))
    assert (await stranger.end()).code == "auth.refused"
    assert server.faults.stopped == []
    peer = server.connect()
    await peer.send(msgspec.structs.replace(hello("client", server.tokens["client"]), mark=real))
    assert (await peer.end()).code == "server.rolled_back"
    assert [why.code for why in server.faults.stopped] == ["server.rolled_back"]


# -- peers that misbehave -------------------------------------------------------------------------


async def test_a_reader_that_does_not_read_is_cut_off(server: Server) -> None:
    """At a bound, and everybody else is served meanwhile."""
    slow = server.connect(lockstep_stream_pair, reads=False)
    other = await server.client()
    spec = (await server.submit(other, payload=bytes(15_000_000)))[0]
    await slow.send(hello("client", server.tokens["client"]))
    welcome = b""
    while not peer_side().receive(welcome):
        welcome += bytes(await slow.stream.receive_some())
    for number in range(OUTBOX_BYTES_MAX // 15_000_000 + 1):
        await slow.send(m.TaskQuery(number + 1, [spec.id]))
        await other.ask(QueueList(other.number()), QueuePage)
    with pytest.raises(trio.BrokenResourceError):
        await slow.send(Ping(1))
    await trio.sleep(GOODBYE_SECONDS + 0.1)
    assert len(server.hub._peers) == 1
    await other.ask(QueueList(other.number()), QueuePage)


async def test_questions_under_way_are_bounded(server: Server) -> None:
    """Each may read megabytes; a peer that asks without reading answers is put off."""
    client = await server.client()
    with server.disk.reads_held():
        await client.send(*[m.TaskList(number) for number in range(1, 111)])
        await client.settle()
        refused = client.told(Error)
        assert {(error.code, error.retryable) for error in refused} == {("server.busy", True)}
        assert len(refused) == 10
    for _ in range(100):
        await client.take(m.TaskPage)
    await client.ask(m.TaskList(200), m.TaskPage)


async def test_a_peer_that_resets_in_the_middle_is_forgotten(server: Server) -> None:
    """With all that it waited for and followed."""
    client, other = await server.client(), await server.client()
    (spec,) = await server.submit(client)
    await client.send(m.Wait(10, [spec.id]), m.Follow(11, spec.id))
    await client.settle()
    assert server.hub._waiters
    assert server.hub._followers
    await client.close()
    await other.settle()
    assert not server.hub._waiters
    assert not server.hub._followers
    assert len(server.hub._peers) == 1


@pytest.mark.parametrize(
    "message",
    [
        m.OutcomeCredit(0),
        m.OutcomeCredit(1 << 40),
        m.Submit(0, []),
    ],
)
async def test_nonsense_that_nobody_waits_for_ends_the_connection(server: Server, message: m.Message) -> None:
    """There is no request to refuse."""
    peer = await server.client()
    await peer.send(message)
    assert (await peer.end()).code == "request.invalid"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (m.Submit(1, []), "request.invalid"),
        (m.Submit(1, [TaskSpec(b"short", "m.f")]), "request.invalid"),
        (m.Submit(1, [TaskSpec(TASK, "")]), "request.invalid"),
        (m.Submit(1, [TaskSpec(TASK, "m.f", priority=101)]), "request.invalid"),
        (m.Submit(1, [TaskSpec(TASK, "m.f", delay_ms=-1)]), "request.invalid"),
        (m.Submit(1, [TaskSpec(TASK, "m.f", traceparent="zz")]), "request.invalid"),
        (m.Wait(1, [b"short"]), "request.invalid"),
        (m.Cancel(1, [TASK] * 10_001), "request.invalid"),
        (m.TaskQuery(1, [b""]), "request.invalid"),
        (m.TaskRetry(1, [b""]), "request.invalid"),
        (m.TaskHasten(1, [b""]), "request.invalid"),
        (m.TaskList(1, filter=TaskFilter(name="x" * 300)), "request.invalid"),
        (m.TaskCount(1, "fly"), "request.invalid"),
        (m.TaskCount(1, filter=TaskFilter(group=b"short")), "request.invalid"),
        (m.JobStart(1, TASK, "fly", TaskFilter()), "request.invalid"),
        (QueueDrain(1, ""), "request.invalid"),
        (QueueWeigh(1, "", 1), "request.invalid"),
        (FairKeyWeigh(1, "images", "", 1), "request.invalid"),
        (FairKeyWeigh(1, "images", "acme", 0), "request.invalid"),
        (QueueWeigh(1, "images", 0), "request.invalid"),
        (QueueWeigh(1, "images", 1001), "request.invalid"),
        (AgentDrain(1, "nobody"), "agent.unknown"),
        (m.JobStart(1, b"short", "retry", TaskFilter()), "request.invalid"),
        (m.JobStart(1, TASK, "retry", TaskFilter(since_ms=-1)), "request.invalid"),
        (m.JobStart(1, TASK, "retry", TaskFilter(ids=[b"short"])), "request.invalid"),
        (m.Follow(1, b""), "request.invalid"),
        (m.Follow(1, TASK, -1), "request.invalid"),
        (m.Follow(1, TASK), "task.unknown"),
    ],
)
async def test_requests_out_of_range_are_refused(server: Server, message: m.Message, code: str) -> None:
    """With a coded error in one line; the connection goes on, and nothing has changed."""
    peer = await server.client("operator")
    refused = await peer.ask(message, Error)
    assert refused.code == code
    assert "\n" not in refused.message
    await peer.ask(QueueList(2), QueuePage)
    assert server.working.counters.by_queue == {}


async def test_a_disk_without_room_refuses_submits_and_nothing_else(server: Server) -> None:
    """What there is can be finished."""
    client, agent = await server.client(), await server.agent(credit=1)
    (spec,) = await server.submit(client)
    server.faults.full = DiskFull("the disk of this test is full; free some", retry_after_ms=5_000)
    refused = await client.ask(m.Submit(9, server.specs()), Error)
    assert (refused.code, refused.retryable, refused.retry_after_ms) == ("server.disk_full", True, 5_000)
    (grant,) = await leased(agent, 1)
    assert grant.spec.id == spec.id
    server.faults.full = None
    await server.submit(client)


async def test_a_session_ends_when_its_token_expires(server: Server) -> None:
    """Whatever it is doing; another one goes on."""
    await server.mint("client", key="short", lasts_ms=60_000)
    peer, other = await server.client("short"), await server.client()
    await trio.sleep(59)
    await peer.ask(QueueList(1), QueuePage)
    await trio.sleep(1.5)
    assert (await peer.end()).code == "auth.refused"
    await other.ask(QueueList(1), QueuePage)
