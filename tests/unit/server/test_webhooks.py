"""Webhooks: at least once, in order, over failures and restarts; signed; and not to where only the server may go."""

import base64
import hashlib
import hmac
import ipaddress
import random
import socket
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import pytest
import trio
from msgspec.structs import replace

from harness.peer import Peer
from harness.server import Server, VirtualClock
from taskd.core.webhook_records import WebhookRecord
from taskd.server import webhooks
from taskd.server.certificates import Certificates
from taskd.server.posting import check_url, look_up, post, read_network, signature
from taskd.server.webhooks import TRIES_MAX, Webhooks
from taskd.text.happenings import webhook_body
from taskd_protocol.connection_messages import Done, Error
from taskd_protocol.errors import BadRequest, ConfigInvalid
from taskd_protocol.event_messages import WebhookList, WebhookMade, WebhookOrder, WebhookPage, WebhookSet, WebhookView
from taskd_protocol.ids import format_task_id

URL = "https://example.org/hook"


@pytest.fixture
async def server(nursery: trio.Nursery, ca: Certificates) -> Server:
    """A server that keeps what happens."""
    return await Server(nursery, ca, watched=True).start()


class Receiver:
    """Takes what is posted, or refuses it."""

    def __init__(self, server: Server) -> None:
        self.refuses: str = ""
        self.posts: list[tuple[str, list[tuple[str, int]]]] = []
        self.tries = 0
        self.bodies: list[tuple[str, bytes]] = []
        self.answer: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint  # before it says that it has taken it
        server.nursery.start_soon(hooks_of(server).run, self.post, webhook_body, server.loop.ask)

    async def post(self, hook: WebhookRecord, delivery: str, body: bytes) -> str:
        assert hook.secret
        await trio.sleep(0.01)
        self.tries += 1
        if self.refuses:
            return self.refuses
        told = msgspec.json.decode(body)
        self.bodies.append((delivery, body))
        self.posts.append((delivery, [(event["what"], len(event["ids"])) for event in told["events"]]))
        await self.answer()
        return ""

    @property
    def events(self) -> list[tuple[str, int]]:
        return [event for _, events in self.posts for event in events]


def hooks_of(server: Server) -> Webhooks:
    assert server.watch is not None
    return server.watch.webhooks


async def make(server: Server, **fields: object) -> tuple[Peer, str]:
    admin = await server.client("admin")
    request = WebhookSet(admin.number(), "chat", URL, **fields)  # type: ignore[arg-type]  # as each test says
    return admin, (await admin.ask(request, WebhookMade)).secret


async def shown(admin: Peer) -> WebhookView:
    [view] = (await admin.ask(WebhookList(admin.number()), WebhookPage)).webhooks
    return view


async def order(admin: Peer, word: str) -> None:
    await admin.ask(WebhookOrder(admin.number(), "chat", word), Done)


async def test_what_happens_is_posted_in_order(server: Server) -> None:
    receiver = Receiver(server)
    admin, secret = await make(server, topics=["task."], queue="images")
    assert base64.b64decode(secret.removeprefix("whsec_"))
    client = await server.client()
    for count in (1, 2, 3):
        await server.submit(client, count, queue="images")
        await server.submit(client, 1, queue="mail")
        await trio.sleep(1)
    assert receiver.events == [("task.submitted", count) for count in (1, 2, 3)]
    assert len({delivery for delivery, _ in receiver.posts}) == 3
    view = await shown(admin)
    assert (view.failures, view.letters, view.after > 0) == (0, 0, True)


async def test_a_post_that_is_refused_is_tried_again_later_and_later(server: Server) -> None:
    receiver = Receiver(server)
    admin, _ = await make(server, topics=["task."])
    receiver.refuses = "it answered 500"
    await server.submit(await server.client(), 1)
    await trio.sleep(10)
    assert 2 < receiver.tries < 6
    view = await shown(admin)
    assert (view.failures, view.error) == (receiver.tries, "it answered 500")
    receiver.refuses = ""
    await trio.sleep(30)
    assert receiver.events == [("task.submitted", 1)]
    assert (await shown(admin)).failures == 0


async def test_after_the_last_try_events_are_dead_letters_and_what_follows_is_posted(server: Server) -> None:
    receiver = Receiver(server)
    admin, _ = await make(server, topics=["task."])
    receiver.refuses = "nobody is there"
    client = await server.client()
    await server.submit(client, 1)
    await trio.sleep(2 * 3600)
    assert receiver.tries == TRIES_MAX
    assert (await shown(admin)).letters == 1
    receiver.refuses = ""
    await server.submit(client, 2)
    await trio.sleep(5)
    assert receiver.events == [("task.submitted", 2)]
    await order(admin, "redrive")
    await trio.sleep(5)
    assert receiver.events == [("task.submitted", 2), ("task.submitted", 1)]
    assert (await shown(admin)).letters == 0


async def test_a_restart_goes_on_where_it_was(server: Server) -> None:
    """With the same secret, the same dead letters; what was not taken is posted, under the same id."""
    receiver = Receiver(server)
    admin, secret = await make(server, topics=["task."])
    client = await server.client()
    await server.submit(client, 1)
    await trio.sleep(2)
    receiver.refuses = "it answered 503"
    await server.submit(client, 2)
    await trio.sleep(2)
    assert (await shown(admin)).failures
    again = await server.crash()
    other = Receiver(again)
    await trio.sleep(2)
    assert other.events == [("task.submitted", 2)]
    [hook] = hooks_of(again).hooks.values()
    assert secret == f"whsec_{base64.b64encode(hook.secret).decode()}"


async def test_a_crash_between_an_answer_and_its_note_repeats_the_post_as_it_was(server: Server) -> None:
    """The same id, the same body; what has happened meanwhile comes behind it, and nothing is left out."""
    receiver = Receiver(server)
    await make(server, topics=["task."])
    client = await server.client()
    receiver.answer = trio.sleep_forever
    await server.submit(client, 1)
    await server.submit(client, 2)
    await trio.sleep(1)
    assert len(receiver.bodies) == 1
    await server.submit(client, 3)
    again = await server.crash()
    other = Receiver(again)
    await trio.sleep(2)
    assert other.bodies[0] == receiver.bodies[0]
    assert other.events == [("task.submitted", 1), ("task.submitted", 2), ("task.submitted", 3)]


@pytest.mark.parametrize("seed", range(8))
async def test_no_event_is_lost_wherever_the_power_fails(server: Server, seed: int) -> None:
    """At least once, in order, and under one id there is one body, whatever of the last batches the disk had kept."""
    rng = random.Random(seed)
    await make(server, topics=["task."])
    bodies: dict[str, bytes] = {}
    told: list[list[str]] = []
    sent: list[str] = []
    for life in range(6):
        receiver = Receiver(server)
        client = await server.client()
        for _ in range(rng.randint(1, 3)):
            sent += [format_task_id(spec.id) for spec in await server.submit(client, rng.randint(1, 2))]
            await trio.sleep(rng.choice([0.0, 0.005, 0.02, 0.3]))
        if life == 5:
            await trio.sleep(3)
        for delivery, body in receiver.bodies:
            assert bodies.setdefault(delivery, body) == body
            told.append([each for event in msgspec.json.decode(body)["events"] for each in event["ids"]])
        server = await server.crash(rng)
    assert list(dict.fromkeys(each for ids in told for each in ids)) == sent


async def test_nothing_is_shown_or_posted_that_a_crash_takes_back(server: Server) -> None:
    receiver = Receiver(server)
    admin = await server.client("admin")
    await server.submit(await server.client(), 1)
    with server.disk.held():
        await admin.send(WebhookSet(admin.number(), "chat", URL, ["task."]), WebhookList(admin.number()))
        await trio.sleep(1)
        hooks_of(server).hooks["chat"] = replace(hooks_of(server).hooks["chat"], after=0)
        await trio.sleep(1)
        assert not admin.told(WebhookMade)
        assert not admin.told(WebhookPage)
        assert receiver.tries == 0
    await trio.sleep(1)
    assert receiver.events == [("task.submitted", 1)]


async def test_a_dead_letter_too_many_is_counted_and_told(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """And each that there is room for is told as well; none of it is told to webhooks."""
    monkeypatch.setattr(webhooks, "LETTERS_MAX", 1)
    monkeypatch.setattr(webhooks, "TRIES_MAX", 2)
    receiver = Receiver(server)
    admin, _ = await make(server)
    receiver.refuses = "nobody is there"
    client = await server.client()
    for _ in range(2):
        await server.submit(client, 1)
        await trio.sleep(10)
    view = await shown(admin)
    assert (view.letters, view.lost) == (1, 1)
    noted = server.loop.tally.noted
    assert (noted["webhook.dead"], noted["webhook.lost"], server.loop.tally.letters) == (1, 1, 1)
    receiver.refuses = ""
    await server.submit(client, 1)
    await trio.sleep(5)
    [(_, body)] = receiver.bodies
    told = msgspec.json.decode(body)
    assert told["lost"] == 1
    assert not [event for event in told["events"] if event["what"].startswith("webhook.")]
    again = await server.crash()
    assert hooks_of(again).hooks["chat"].lost == 1
    assert again.loop.tally.letters == 1


async def test_dead_letters_have_a_bound_in_bytes(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "LETTERS_BYTES_MAX", 10)
    monkeypatch.setattr(webhooks, "TRIES_MAX", 2)
    receiver = Receiver(server)
    admin, _ = await make(server, topics=["task."])
    receiver.refuses = "nobody is there"
    await server.submit(await server.client(), 1)
    await trio.sleep(10)
    view = await shown(admin)
    assert (view.letters, view.lost) == (0, 1)


async def test_what_the_journal_keeps_no_longer_is_counted_as_lost(server: Server) -> None:
    receiver = Receiver(server)
    admin, _ = await make(server, topics=["task."])
    await order(admin, "pause")
    client = await server.client()
    await server.submit(client, 1)
    assert server.watch is not None
    assert isinstance(server.clock, VirtualClock)
    for _ in range(3):
        server.clock.wall_step_ms += 26 * 3600 * 1000
        await server.submit(client, 1)
    await order(admin, "resume")
    await trio.sleep(5)
    assert (await shown(admin)).lost == 1
    assert receiver.events
    assert all(msgspec.json.decode(body)["lost"] == 1 for _, body in receiver.bodies)


async def test_a_paused_one_posts_later_and_a_removed_one_never(server: Server) -> None:
    receiver = Receiver(server)
    admin, _ = await make(server, topics=["task."])
    await order(admin, "pause")
    client = await server.client()
    await server.submit(client, 1)
    await trio.sleep(5)
    assert receiver.events == []
    await order(admin, "resume")
    await trio.sleep(5)
    assert receiver.events == [("task.submitted", 1)]
    await order(admin, "remove")
    await server.submit(client, 1)
    await trio.sleep(5)
    assert receiver.events == [("task.submitted", 1)]
    assert (await admin.ask(WebhookList(admin.number()), WebhookPage)).webhooks == []
    again = await server.crash()
    assert not hooks_of(again).hooks


@pytest.mark.parametrize("word", ["remove", "pause"])
@pytest.mark.parametrize("letters", [False, True])
async def test_an_order_in_the_midst_of_a_post_is_obeyed_when_that_is_over(
    server: Server, monkeypatch: pytest.MonkeyPatch, word: str, *, letters: bool
) -> None:
    """A thread that posts cannot be cancelled; what comes of it changes no webhook that is gone."""
    monkeypatch.setattr(webhooks, "TRIES_MAX", 1)
    receiver = Receiver(server)
    admin, _ = await make(server, topics=["task."])
    receiver.refuses = "nobody is there" if letters else ""
    client = await server.client()
    await server.submit(client, 1)
    await server.submit(client, 1)
    await trio.sleep(2)

    async def answer_late() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(5)

    receiver.refuses, receiver.answer = "", answer_late
    if letters:
        await order(admin, "redrive")
        await order(admin, "redrive")
    else:
        await server.submit(client, 1)
    await trio.sleep(1)
    posts = len(receiver.posts)
    assert posts > 0
    await order(admin, word)
    await trio.sleep(20)
    views = (await admin.ask(WebhookList(admin.number()), WebhookPage)).webhooks
    assert [view.letters for view in views] == ([] if word == "remove" else [0])
    assert len(receiver.posts) == posts + (letters and word == "pause")
    again = await server.crash()
    assert len(hooks_of(again).hooks) == len(views)
    assert not hooks_of(again).letters


async def test_changed_it_keeps_its_secret_and_its_place(server: Server) -> None:
    receiver = Receiver(server)
    admin, first = await make(server, topics=["task."])
    await server.submit(await server.client(), 1)
    await trio.sleep(2)
    again = await admin.ask(WebhookSet(admin.number(), "chat", URL + "/2", ["agent."]), WebhookMade)
    await server.agent()
    await trio.sleep(2)
    assert first
    assert again.secret == ""
    assert receiver.events == [("task.submitted", 1), ("agent.connected", 0)]
    assert (await shown(admin)).url == URL + "/2"


@pytest.mark.parametrize(
    "request_",
    [
        WebhookSet(9, "", URL),
        WebhookSet(9, "chat", "ftp://example.org/"),
        WebhookSet(9, "chat", URL, [""]),
        WebhookOrder(9, "nobody", "pause"),
    ],
)
async def test_what_cannot_be_is_refused(server: Server, request_: WebhookSet | WebhookOrder) -> None:
    admin = await server.client("admin")
    await admin.send(request_)
    assert (await admin.take(Error)).code == "request.invalid"


async def test_there_are_so_many(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "WEBHOOKS_MAX", 1)
    admin, _ = await make(server)
    await admin.send(WebhookSet(99, "other", URL))
    assert (await admin.take(Error)).code == "request.invalid"


# -- where posts go -----------------------------------------------------------------------------


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    def found(host: str, port: int, **_: object) -> Sequence[tuple[object, ...]]:
        del host
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr("taskd.server.posting.socket.getaddrinfo", found)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0",  # noqa: S104 - where not to go
        "100.64.0.1", "224.0.0.1",
        "::1", "fe80::1", "fc00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::",
    ],
)  # fmt: skip
def test_what_only_the_server_may_reach_is_not_posted_to(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Whatever name leads there; a name that leads to both is led to the public one alone."""
    resolve_to(monkeypatch, address)
    with pytest.raises(OSError, match="no public address"):
        look_up(URL, [])
    resolve_to(monkeypatch, address, "93.184.216.34")
    assert look_up(URL, []).address == "93.184.216.34"


def test_an_operator_may_allow_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch, "10.1.2.3")
    assert look_up("http://chat.internal/x", [read_network("10.0.0.0/8")]).address == "10.1.2.3"
    resolve_to(monkeypatch, "93.184.216.34")
    with pytest.raises(OSError, match="with https"):
        look_up("http://example.org/x", [read_network("10.0.0.0/8")])
    with pytest.raises(ConfigInvalid):
        read_network("10.0.0.1/8")


@pytest.mark.parametrize(
    "url",
    [
        "", "example.org", "ftp://a/", "https://", "https://u:p@a/", "https://a/#x", "https://a:0/", "https://a:x/",
        "https://a/\n",
    ],
)  # fmt: skip
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(BadRequest):
        check_url(url)


def test_a_signature_is_what_others_can_check() -> None:
    """As standardwebhooks.com says it."""
    made = signature(b"secret", "msg-1", 1_700_000_000, b'{"a":1}')
    digest = hmac.new(b"secret", b'msg-1.1700000000.{"a":1}', hashlib.sha256).digest()
    assert made == "v1," + base64.b64encode(digest).decode()


def test_who_is_not_there_is_told_in_a_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
    told = post(url, b"s", "d", 1, b"{}", [ipaddress.ip_network("127.0.0.0/8")])
    assert "refused" in told
    assert "\n" not in told
