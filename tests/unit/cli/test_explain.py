"""`taskd task explain`: in words, and as a document of fixed fields."""

import json

import msgspec
import pytest

from taskd_protocol.explanation import (
    AgentReason,
    AttemptWaited,
    Explanation,
    Obstacle,
    Place,
    Reason,
    Reasons,
    Waited,
)
from taskd_protocol.ids import format_task_id, make_task_ids
from taskd_protocol.messages import TaskExplain, TaskExplained
from taskd_protocol.resources import Granted, Hold
from taskd_protocol.task import Failure
from taskd_protocol.words import amount_text, duration_text, obstacle_text, place_text, reason_text
from unit.cli.fake_client import FakeClient, Taskd

GIB = 1024**3
[ONE] = make_task_ids(1, 1_800_000_000_000, bytes(range(10)))
ID = format_task_id(ONE)
MEMORY = Reason("agent.resource", "memory", 8 * GIB, round(2.1 * GIB), 16 * GIB)
READY = Explanation(
    ONE,
    "app.train",
    "web",
    "ready",
    0,
    MEMORY,
    Place(2, 40, ahead_min=2, lines_before=1),
    [
        AgentReason("ash", MEMORY),
        AgentReason("elm", Reason("agent.label", "zone = a"), never=True),
    ],
    {"agent.busy": 7},
    kept_free="ash",
    starts_in_ms=90_000,
    per_minute=2.0,
    rather="elm",
    rather_for="sticky",
)
RAN = Explanation(
    ONE,
    "app.train",
    "web",
    "running",
    2,
    agent="ash",
    started_at_ms=1_795_305_600_000,
    holds=Granted([Hold("memory", 8 * GIB), Hold("gpu", 1_000, ["0"])]),
    failure=Failure("task.raised", "no such page", "builtins.LookupError"),
    waited=[
        AttemptWaited(
            1,
            [
                Waited("agent.resource", "memory", 22_000),
                Waited("agent.too_small", "memory", 18_000),
                Waited("agent.busy", "", 3_000),
            ],
        ),
        AttemptWaited(2, [Waited("agents.none", "", 150_000)]),
    ],
)


def test_what_waits_in_line(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [TaskExplained(0, READY)]
    assert taskd("task", "explain", ID).out.splitlines() == [
        f"id         {ID}",
        "name       app.train",
        "queue      web",
        "state      ready",
        "waits for  memory: needs 8 GiB, 2.1 GiB free of 16 GiB",
        "place      2 of 40 tasks in its line come first; 1 other line may come before",
        "starts     in about 90 s, as 2 a minute of its line were granted of late",
        "kept free  agent ash is kept free for it",
        "rather on  agent elm: the last task of its sticky word ran there",
        "",
        "AGENT  WHY NOT",
        "ash    memory: needs 8 GiB, 2.1 GiB free of 16 GiB",
        "elm    does not have the label zone = a",
        "and 7 more: is busy",
    ]
    assert client.asked == [TaskExplain(0, ONE)]


def test_what_runs(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [TaskExplained(0, RAN)]
    assert taskd("task", "explain", ID).out.splitlines()[3:] == [
        "state      running",
        "holds      memory 8 GiB, gpu 1 (0)",
        "attempt 1  waited 40 s for memory, 3 s for a slot",
        "attempt 2  waited 2 min for an agent to connect",
        "error      builtins.LookupError: no such page (task.raised)",
        "agent      ash",
        "started    2026-11-22T00:00:00.000Z",
    ]


def test_what_could_never_run(taskd: Taskd, client: FakeClient) -> None:
    told = msgspec.structs.replace(READY, impossible=True, starts_in_ms=-1)
    client.replies = [TaskExplained(0, told)]
    shown = taskd("task", "explain", ID).out
    assert "warning    no agent that is connected could ever run it\n" in shown
    assert "starts" not in shown


def test_the_document_has_fixed_fields(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [TaskExplained(0, READY), TaskExplained(0, RAN)]
    waiting = json.loads(taskd("task", "explain", ID, "--json").out)
    reason = {
        "code": "agent.resource",
        "subject": "memory",
        "text": "memory: needs 8 GiB, 2.1 GiB free of 16 GiB",
        "wants": 8 * GIB,
        "free": round(2.1 * GIB),
        "total": 16 * GIB,
        "count": None,
        "until": None,
        "named": [],
    }
    assert waiting == {
        "id": ID,
        "name": "app.train",
        "queue": "web",
        "state": "ready",
        "attempt": 0,
        "waits_for": reason,
        "place": {"ahead": 2, "exact": True, "ahead_at_least": 2, "ready": 40, "lines_before": 1},
        "starts_in_s": 90.0,
        "granted_per_minute": 2.0,
        "impossible": False,
        "kept_free": "ash",
        "rather": {"agent": "elm", "for": "sticky"},
        "agents": [
            {"agent": "ash", "never": False, **reason},
            {
                **dict.fromkeys(reason),
                "agent": "elm",
                "never": True,
                "code": "agent.label",
                "subject": "zone = a",
                "text": "does not have the label zone = a",
                "named": [],
            },
        ],
        "other_agents": {"agent.busy": 7},
        "agent": None,
        "holds": None,
        "started_at": None,
        "finished_at": None,
        "error": None,
        "waited": [],
    }
    ran = json.loads(taskd("task", "explain", ID, "--json").out)
    assert list(ran) == list(waiting)
    assert ran["holds"][1] == {"name": "gpu", "amount": 1_000, "items": ["0"]}
    assert ran["waited"][1] == {"attempt": 2, "for": [{"code": "agents.none", "subject": None, "ms": 150_000}]}


def test_what_is_not_stored(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [TaskExplained(0, None)]
    ended = taskd("task", "explain", ID)
    assert ended.code == 2
    assert "no task or node" in ended.complaint


@pytest.mark.parametrize("code", [*map(str, Obstacle), *(v for k, v in vars(Reasons).items() if k.isupper())])
def test_each_reason_has_words(code: str) -> None:
    """Of the task, and of an agent; none is the code itself, and what it is about stands in it where it has that."""
    reason = Reason(code, "memory", 2 * GIB, GIB, 4 * GIB, 3, 1_795_305_600_000, ["one"])
    for text in (reason_text(reason), obstacle_text(reason), reason_text(Reason(code))):
        assert text
        assert code not in text
        assert "{" not in text


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        (Reason("agent.too_small", "gpu", 1_000), "gpu: needs 1, there is none"),
        (Reason("agent.too_small", "memory", 8 * GIB, 1, 4 * GIB), "memory: needs 8 GiB, there is 4 GiB"),
        (
            Reason("agent.too_small", "gpu", 1_000, 2_000, 2_000),
            "gpu: needs 1, there is 2, not enough of that kind or name",
        ),
        (Reason("agent.resource", "cpu", 0, 500, 4_000), "cpu: needs all of it, 0.5 free of 4"),
        (
            Reason("agent.resource", "gpu", 800, 800, 2_000),
            "gpu: needs 0.8, 0.8 free of 2, in parts or of a kind that do not fit",
        ),
        (
            Reason("agent.pressure", "cpu", 4_000, 1_000, 8_000),
            "cpu: needs 4, 1 free of 8: others use its machine",
        ),
        (Reason("dependency.nodes", total=9, count=3, named=["a", "b"]), "3 of the 9 nodes before it: a, b and 1 more"),
        (Reason("limit.held", "db"), "limit.held db"),
    ],
)
def test_words(reason: Reason, text: str) -> None:
    assert reason_text(reason) == text


def test_places_amounts_and_lengths() -> None:
    assert place_text(Place(0, 1)) == "the only one in its line"
    assert place_text(Place(0, 12)) == "the first of 12 in its line"
    assert place_text(Place(50_000, 90_000, is_exact=False, ahead_min=32_768)) == (
        "about 50,000 of 90,000 tasks in its line come first"
        " (32,768 at least; beyond them, as if submits had come evenly)"
    )
    assert [amount_text("memory", n) for n in (1, 1024, 1536, GIB - 1, 5 * GIB)] == [
        "1 bytes",
        "1 KiB",
        "1.5 KiB",
        "1024 MiB",
        "5 GiB",
    ]
    texts = [duration_text(ms) for ms in (1_240, 40_000, 600_000, 5 * 3_600_000, 80 * 3_600_000)]
    assert texts == ["1.2 s", "40 s", "10 min", "5 h", "3 days"]
