import json

import pytest

from taskd_protocol.access_messages import (
    CertQuery,
    CertRenew,
    CertView,
    Invitation,
    Invite,
    TokenCreate,
    TokenCreated,
    TokenPage,
    TokenRevoke,
    TokenView,
)
from taskd_protocol.agent_messages import HostStats
from taskd_protocol.connection_messages import Done
from taskd_protocol.errors import RoleRefused
from taskd_protocol.house_messages import (
    AgentDrain,
    AgentPage,
    AgentView,
    FairKeyWeigh,
    MemoryPage,
    MemoryView,
    QueueDrain,
    QueuePage,
    QueueView,
    QueueWeigh,
    StockView,
)
from taskd_protocol.join import parse_join_code
from unit.cli.fake_client import TOKEN, FakeClient, Taskd

AGENT = AgentView(
    name="ash",
    boot_id=bytes(range(16)),
    state="live",
    slots=4,
    running=3,
    host=HostStats(12.345, 0.5, 1 << 30, 8 << 30),
    labels={"zone": "a"},
    task_names=["app.fetch"],
    queues=[],
    software="taskd 0.1.0",
    seen_at_ms=0,
    stock=[StockView("cpu", 4_000, 1_500), StockView("gpu", 2_000, 500, {"0": 0, "1": 500})],
    pressed=True,
)
CERTIFICATE = CertView(0, ["localhost", "127.0.0.1"], 0, 86_400_000, b"\x01" * 32, b"\x02" * 32)


def test_queues_as_json(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [QueuePage(0, [QueueView("web", 1, 2, 3)])]
    assert json.loads(taskd("queue", "ls", "--json").out) == [
        {
            "name": "web",
            "ready": 1,
            "scheduled": 2,
            "running": 3,
            "paused": False,
            "draining": False,
            "weight": 1,
            "fair_weights": {},
        }
    ]


def test_queues_for_people(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [QueuePage(0, [QueueView("web", 1_234_567, 2, 3)])]
    assert taskd("queue", "ls").out.splitlines()[1].split() == ["web", "1,234,567", "2", "3", "1", "open"]


def test_agents_as_json(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [AgentPage(0, [AGENT])]
    assert json.loads(taskd("agents", "ls", "--json").out) == [
        {
            "name": "ash",
            "boot_id": "000102030405060708090a0b0c0d0e0f",
            "state": "live",
            "slots": 4,
            "running": 3,
            "cpu_percent": 12.3,
            "memory_used": 1 << 30,
            "memory_total": 8 << 30,
            "labels": {"zone": "a"},
            "resources": {
                "cpu": {"total": 4_000, "free": 1_500, "items": {}},
                "gpu": {"total": 2_000, "free": 500, "items": {"0": 0, "1": 500}},
            },
            "pressed": True,
            "task_names": ["app.fetch"],
            "queues": [],
        }
    ]


def test_one_agent_for_people(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [AgentPage(0, [AGENT])]
    lines = taskd("agents", "show", "ash").out.splitlines()
    assert "kept busy by others" in lines[0]
    assert [line.split() for line in lines[-2:]] == [["cpu", "4", "1.5", "-"], ["gpu", "2", "0.5", "1", "(0.5)"]]


def test_an_agent_that_is_not_here(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [AgentPage(0, [AGENT])]
    ended = taskd("agents", "show", "oak")
    assert ended.code != 0
    assert "taskd agents ls" in ended.err


def test_memory_that_was_learned(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [MemoryPage(0, [MemoryView("app.fetch", 12, 300 << 20, 400 << 20)])]
    assert taskd("agents", "memory").out.splitlines()[1].split() == ["app.fetch", "12", "300", "MiB", "400", "MiB"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["queue", "drain", "web"], QueueDrain(0, "web")),
        (["queue", "resume", "web"], QueueDrain(0, "web", resume=True)),
        (["queue", "weight", "web", "7"], QueueWeigh(0, "web", 7)),
        (["queue", "weight", "web", "7", "--fair-key", "acme"], FairKeyWeigh(0, "web", "acme", 7)),
        (["agents", "drain", "ash"], AgentDrain(0, "ash")),
        (["agents", "resume", "ash"], AgentDrain(0, "ash", resume=True)),
    ],
)
def test_drains_are_asked_for_by_name(
    taskd: Taskd, client: FakeClient, words: list[str], message: QueueDrain | QueueWeigh | FairKeyWeigh | AgentDrain
) -> None:
    """One line says what holds now."""
    client.replies = [Done(0), QueuePage(0, [QueueView("web", 1, 0, 0, draining=True)])]
    ended = taskd(*words)
    assert (ended.code, ended.out.count("\n"), ended.err) == (0, 1, "")
    assert words[2] in ended.out
    assert client.asked[0] == message


@pytest.mark.parametrize(
    ("words", "document"),
    [
        (["queue", "drain", "web"], {"name": "web", "draining": True}),
        (["queue", "resume", "web"], {"name": "web", "draining": False, "paused": False}),
        (["queue", "weight", "web", "7"], {"name": "web", "weight": 7}),
        (["agents", "drain", "ash"], {"name": "ash", "drained": True}),
        (["agents", "resume", "ash"], {"name": "ash", "drained": False}),
    ],
)
def test_drains_tell_scripts_what_holds_now(
    taskd: Taskd, client: FakeClient, words: list[str], document: dict[str, object]
) -> None:
    client.replies = [Done(0), QueuePage(0, [QueueView("web", 1, 0, 0)])]
    assert json.loads(taskd(*words, "--json").out) == document


def test_a_queue_that_nobody_knows_is_drained_with_a_question(taskd: Taskd, client: FakeClient) -> None:
    """It may be about to be used; or it is a slip."""
    client.replies = [Done(0), QueuePage(0, [QueueView("wbe", 0, 0, 0, draining=True)]), AgentPage(0, [])]
    ended = taskd("queue", "drain", "wbe")
    assert ended.code == 0
    assert "no agent serves it" in ended.complaint


def test_nothing_is_an_empty_array(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [AgentPage(0, []), QueuePage(0, []), TokenPage(0, [])]
    assert [taskd(*words, "--json").out for words in (["agents", "ls"], ["queue", "ls"], ["token", "ls"])] == [
        "[]\n"
    ] * 3


def test_an_invitation_names_the_given_address_first(taskd: Taskd, client: FakeClient) -> None:
    """The code holds all that the other machine needs."""
    client.replies = [Invitation(0, "s3cret", b"\x07" * 32, ["10.0.0.5:7070", "tasks.example:7070"])]
    ended = taskd("agents", "invite", "--address", "tasks.example:7070", "--expires", "5")
    assert client.asked == [Invite(0, 300_000)]
    code = parse_join_code(ended.out)
    assert code.addresses == ("tasks.example:7070", "10.0.0.5:7070")
    assert (code.ca_sha256, code.secret) == (b"\x07" * 32, "s3cret")
    assert "taskd agent --join" in ended.complaint
    assert "s3cret" not in ended.err


def test_an_invitation_to_loopback_is_warned_of(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [Invitation(0, "s", b"\x07" * 32, ["127.0.0.1:7070"])]
    assert "--listen 0.0.0.0:PORT" in taskd("agents", "invite").err


def test_token_create_prints_the_token_alone(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [TokenCreated(0, TOKEN)]
    ended = taskd("token", "create", "--role", "client", "--expires", "2", "--label", "ci")
    assert (ended.out, ended.err) == (f"{TOKEN}\n", "")
    assert client.asked == [TokenCreate(0, "client", "ci", 2 * 86_400_000)]


@pytest.mark.parametrize(("text", "expected_ms"), [("90d", 90 * 86_400_000), ("12h", 43_200_000), ("1.5s", 1_500)])
def test_token_expiry_takes_units(text: str, expected_ms: int, taskd: Taskd, client: FakeClient) -> None:
    client.replies = [TokenCreated(0, TOKEN)]
    taskd("token", "create", "--role", "agent", "--expires", text)
    assert client.asked == [TokenCreate(0, "agent", "", expected_ms)]


def test_tokens_are_listed_without_secrets(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [TokenPage(0, [TokenView("abcdefghijkl", "viewer", "", 0, 86_400_000, revoked=True)])] * 2
    assert taskd("token", "ls").out.splitlines()[1].split() == ["abcdefghijkl", "viewer", "-", "1970-01-02", "yes"]
    assert json.loads(taskd("token", "ls", "--json").out) == [
        {
            "key_id": "abcdefghijkl",
            "role": "viewer",
            "label": "",
            "created_at": "1970-01-01T00:00:00.000Z",
            "expires_at": "1970-01-02T00:00:00.000Z",
            "revoked": True,
        }
    ]


@pytest.mark.parametrize("word", ["abcdefghijkl", TOKEN])
def test_revoke_takes_the_key_id_or_the_token(word: str, taskd: Taskd, client: FakeClient) -> None:
    """The secret part stays here."""
    client.replies = [Done(0)]
    ended = taskd("token", "revoke", word)
    assert (ended.code, ended.out) == (0, "")
    assert client.asked == [TokenRevoke(0, "abcdefghijkl")]


def test_a_role_that_may_not_is_five(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [RoleRefused("a viewer may not make tokens; ask an admin")]
    assert taskd("token", "create", "--role", "admin").code == 5


def test_certificate_shown_and_renewed(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [CERTIFICATE, CERTIFICATE]
    shown = json.loads(taskd("cert", "show", "--json").out)
    assert shown["not_after"] == "1970-01-02T00:00:00.000Z"
    assert shown["sha256"] == "01" * 32
    assert "localhost, 127.0.0.1" in taskd("cert", "renew", "--host-name", "tasks.example").out
    assert client.asked == [CertQuery(0), CertRenew(0, ["tasks.example"])]
