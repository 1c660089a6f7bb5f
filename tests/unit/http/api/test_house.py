"""The rest of the house over HTTP: agents, limits, schedules, workflows, access."""

import pytest
import trio

from harness.http import Browser
from harness.server import Server, leased
from harness.workflows import Graph
from taskd_protocol.ids import format_task_id
from taskd_protocol.payload import pack, unpack_arguments
from taskd_protocol.workflow import WorkflowSpec, make_workflow_id, member_id
from taskd_protocol.workflow_messages import WorkflowAccepted, WorkflowSubmit

WORKFLOW = make_workflow_id(1_763_760_000_000, b"\x01\x02\x03\x04\x05")
RUN = format_task_id(WORKFLOW)


async def test_agents_are_shown_drained_and_resumed(browser: Browser, server: Server) -> None:
    """By their names; of one that is not here it is told so."""
    await server.agent("ash/1")
    assert [agent["name"] for agent in (await browser.get("/agents")).json["agents"]] == ["ash/1"]
    assert (await browser.get("/agents/ash%2F1")).json["state"] == "live"
    assert (await browser.post("/agents/ash%2F1/drain", role="operator")).json["state"] == "drained"
    assert (await browser.post("/agents/ash%2F1/resume", role="operator")).json["state"] == "live"
    assert (await browser.get("/agents/oak")).error[:2] == (404, "agent.unknown")
    assert (await browser.get("/memory")).json == {"names": []}
    invited = await browser.post("/invitations", {"addresses": ["box:7070"]})
    assert invited.json["addresses"] == ["box:7070", "127.0.0.1:7070"]
    assert (await browser.post("/invitations", {"expires_in_ms": 600_001})).json["error"]["path"] == "$.expires_in_ms"


async def test_limits_are_set_listed_and_removed(browser: Browser) -> None:
    """As the command line says them."""
    told = await browser.post("/limits/queue:mail%2Fout/set", {"concurrency": 3, "rate": "10/m"}, role="operator")
    assert told.json["name"] == "queue:mail/out"
    assert (told.json["concurrency"], told.json["rate"], told.json["running"]) == (3, "10/m", 0)
    assert (await browser.get("/limits")).json == {"limits": [told.json]}
    assert (await browser.post("/limits/queue:mail%2Fout/remove")).json == {"name": "queue:mail/out", "removed": True}
    assert (await browser.post("/limits/queue:mail%2Fout/remove")).error[:2] == (404, "limit.unknown")
    for body in ({"rate": "often"}, {}, {"concurrency": -1}):
        assert (await browser.post("/limits/queue:q/set", body)).error[:2] == (400, "request.invalid")


async def test_queues_are_steered(browser: Browser) -> None:
    """What is said of one is there until it is said otherwise."""
    assert (await browser.post("/queues/a%2Fb/pause", role="operator")).json["paused"] is True
    assert (await browser.post("/queues/a%2Fb/drain")).json["draining"] is True
    assert (await browser.post("/queues/a%2Fb/weight", {"weight": 5})).json["weight"] == 5
    assert [queue["name"] for queue in (await browser.get("/queues")).json["queues"]] == ["a/b"]
    refused = await browser.post("/tasks", {"name": "m.f", "queue": "a/b"})
    assert refused.error[:2] == (409, "queue.draining")
    resumed = (await browser.post("/queues/a%2Fb/resume")).json
    assert (resumed["paused"], resumed["draining"]) == (False, False)


NIGHTLY = {"name": "nightly", "timing": {"cron": ["0 3 * * *"], "tz": "Europe/Oslo"}, "task": {"name": "app.report"}}


async def test_schedules_are_made_shown_and_steered(browser: Browser) -> None:
    """With the next firings, and what was decided of those before."""
    made = await browser.post("/schedules", NIGHTLY | {"overlap": "queue_one"}, role="client")
    assert made.status == 201, made.body
    assert (made.json["state"], made.json["task"], made.json["overlap"]) == ("active", "app.report", "queue_one")
    shown = (await browser.get("/schedules/nightly")).json
    assert shown["upcoming"][0]["at"] == made.json["next_at"]
    assert len(shown["upcoming"]) == 5
    assert (await browser.post("/schedules", NIGHTLY)).error[:2] == (409, "schedule.exists")
    assert (await browser.post("/schedules", NIGHTLY | {"replace": True})).json["overlap"] == "skip"
    assert (await browser.post("/schedules/nightly/pause")).json["state"] == "paused"
    assert (await browser.post("/schedules/nightly/resume")).json["state"] == "active"
    triggered = (await browser.post("/schedules/nightly/trigger")).json
    assert (await browser.get(f"/tasks/{triggered['task']}")).json["name"] == "app.report"
    history = (await browser.get("/schedules/nightly/history?limit=1")).json
    assert [firing["outcome"] for firing in history["firings"]] == ["triggered"]
    assert [schedule["name"] for schedule in (await browser.get("/schedules")).json["schedules"]] == ["nightly"]
    span = {"first": "2025-11-01", "last": "2025-11-03T12:00"}
    filled = await browser.post("/schedules/nightly/backfill", span | {"dry_run": True})
    assert filled.json["times"] == [f"2025-11-0{day}T02:00:00.000Z" for day in (1, 2, 3)]
    assert (await browser.post("/schedules/nightly/remove")).json == {"name": "nightly", "removed": True}
    assert (await browser.get("/schedules/nightly")).error[:2] == (404, "schedule.unknown")
    assert (await browser.post("/schedules/nightly/pause")).error[:2] == (404, "schedule.unknown")


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"timing": {"cron": ["0 0 1--100000000 * *"]}}, ""),
        ({"timing": {"cron": ["* * * * *"] * 100}}, ""),
        ({"timing": {}}, ""),
        ({"timing": {"every_ms": -1}}, "$.timing.every_ms"),
        ({"timing": {"at": ["2026-01-01", "soon"]}}, "$.timing.at[1]"),
        ({"timing": {"at": ["2026-01-01"], "tz": "Mars/Base"}}, "$.timing.at[0]"),
        ({"timing": {"cron": ["@daily"], "tz": "../etc"}}, ""),
        ({"timing": {"cron": ["@daily"], "gap": "jump"}}, "$.timing.gap"),
        ({"task": {"name": "m.f", "key": "k"}}, "$.task"),
        ({"overlap": "often"}, "$.overlap"),
        ({"name": ""}, "$.name"),
    ],
)
async def test_a_schedule_that_cannot_be_is_refused(browser: Browser, change: dict[str, object], path: str) -> None:
    """Within no time, whatever the cron line names."""
    answer = await browser.post("/schedules", NIGHTLY | change)
    assert answer.error[:2] == (400, "request.invalid")
    assert answer.json["error"].get("path", "") == path


async def test_a_timing_is_previewed(browser: Browser) -> None:
    """A viewer may: it changes nothing."""
    body = {"timing": {"cron": ["30 2 * * *"], "tz": "Europe/Oslo"}, "first": "2026-03-28", "count": 2}
    told = (await browser.post("/preview", body, role="viewer")).json
    assert told["tz"] == "Europe/Oslo"
    assert [time["at"] for time in told["upcoming"]] == ["2026-03-28T01:30:00.000Z", "2026-03-29T01:00:00.000Z"]
    assert told["upcoming"][1]["note"]


async def start(server: Server) -> None:
    """Submit a workflow of two nodes, of which the first waits for a signal."""
    graph = Graph().add("go", kind="signal", signal="yes").add("work", after=["go"])
    client = await server.client()
    spec = WorkflowSpec(WORKFLOW, "report", len(graph.nodes))
    await client.ask(WorkflowSubmit(client.number(), spec, 0, graph.nodes), WorkflowAccepted)


async def test_workflows_are_shown_and_steered(browser: Browser, server: Server) -> None:
    """With their nodes by name."""
    await start(server)
    listed = (await browser.get("/workflows?state=running&name=rep*")).json
    assert [workflow["id"] for workflow in listed["workflows"]] == [RUN]
    shown = (await browser.get(f"/workflows/{RUN}")).json
    assert [(node["name"], node["state"], node["after"]) for node in shown["nodes"]] == [
        ("go", "waiting", []),
        ("work", "blocked", ["go"]),
    ]
    assert shown["nodes"][1]["id"] == format_task_id(member_id(WORKFLOW, 1))
    assert (await browser.post(f"/workflows/{RUN}/signal", {"name": "yes", "value": [1]})).json["state"] == "running"
    await trio.sleep(1)
    assert (await browser.get(f"/workflows/{RUN}")).json["nodes"][0]["state"] == "succeeded"
    assert (await browser.get(f"/workflows/{RUN}/wait?seconds=1")).json["state"] == "running"
    assert (await browser.post(f"/workflows/{RUN}/cancel")).json["state"] in {"cancelling", "cancelled"}
    assert (await browser.get(f"/workflows/{RUN}/wait?seconds=5")).json["state"] == "cancelled"
    assert (await browser.post(f"/workflows/{RUN}/rerun", {"node": "none"})).status in {400, 404, 409}
    assert (await browser.get(f"/workflows/{RUN[:-1]}7")).status in {400, 404}
    none = format_task_id(make_workflow_id(1, b"\x09" * 5))
    for path in ("", "/wait?seconds=1"):
        assert (await browser.get(f"/workflows/{none}{path}")).error[:2] == (404, "workflow.unknown")
    assert (await browser.post(f"/workflows/{none}/resume")).error[:2] == (404, "workflow.unknown")
    assert (await browser.get("/workflows/0197c1a0-7d3c-7c4e-9f00-0123456789ab")).error[:2] == (400, "request.invalid")


FLOW = {
    "name": "report",
    "nodes": {"fetch": {"task": "m.f", "args": [2**53 + 1]}, "total": {"task": "m.g", "args": [{"node": "fetch"}]}},
}


async def test_a_workflow_is_submitted_as_a_file_has_it(browser: Browser, server: Server) -> None:
    """Once for each id; with a schedule that is kept, unless it is to start now."""
    agent = await server.agent(credit=1)
    answer = await browser.post("/workflows", FLOW, role="client")
    assert answer.status == 201, answer.body
    made = answer.json["workflow"]
    assert (made["name"], made["node_count"], made["state"]) == ("report", 2, "running")
    [grant] = await leased(agent, 1)
    assert unpack_arguments(grant.spec.payload) == ([2**53 + 1], {})
    again = await browser.post(f"/workflows?id={made['id']}", FLOW, role="client")
    assert again.json["workflow"]["id"] == made["id"]
    other = await browser.post(f"/workflows?id={made['id']}", FLOW | {"name": "other"}, role="client")
    assert other.error[:2] == (409, "submit.conflict")
    timed = FLOW | {"schedule": {"cron": "0 3 * * *"}}
    kept = (await browser.post("/workflows", timed)).json
    assert (kept["workflow"], kept["schedule"]["workflow"], kept["schedule"]["name"]) == (None, "report", "report")
    assert (await browser.post("/workflows?now=true", timed)).json["workflow"]["name"] == "report"
    assert len((await browser.get("/workflows")).json["workflows"]) == 2


@pytest.mark.parametrize(
    ("flow", "message"),
    [
        ({}, "name"),
        ({"name": "r", "nodes": {"a": {"task": "m.f", "args": [{"node": "b"}]}}}, "node 'a'"),
        ({"name": "r", "nodes": {"a": {"task": "m.f", "nonsense": 1}}}, "nonsense"),
        ({"name": "r", "nodes": {"a": {"task": "m.f", "after": ["a"]}}}, "a"),
        ({"name": "r", "nodes": []}, "nodes"),
        ({"name": "r", "nodes": {"a": 7}}, "it is no table"),
        (FLOW | {"schedule": {"cron": "0 0 1--100000000 * *"}}, "schedule"),
    ],
)
async def test_a_workflow_that_cannot_be_is_refused(browser: Browser, flow: object, message: str) -> None:
    """With the node, and what is wrong with it."""
    answer = await browser.post("/workflows", flow)
    assert answer.error[:2] == (400, "request.invalid")
    assert message in answer.error[2]


async def test_the_server_tells_what_it_has_done(browser: Browser) -> None:
    """What it counted; a copy of its store is refused where there is none on disk."""
    await browser.post("/tasks", {"name": "m.f"})
    stats = (await browser.get("/stats")).json
    assert (stats["tasks"], stats["counts"]["submitted"]) == ({"ready": 1}, 1)
    assert (await browser.post("/backups", {"path": "/nowhere/copy"}, role="operator")).status == 400
    assert (await browser.post("/backups", {"path": ""})).json["error"]["path"] == "$.path"


async def test_children_of_a_node_that_maps_are_shown(browser: Browser, server: Server) -> None:
    """With their states."""
    graph = Graph().add("items", kind="value", packed=pack([1, 2])).add("each", "items", kind="map", over=0)
    client = await server.client()
    spec = WorkflowSpec(WORKFLOW, "report", len(graph.nodes))
    await client.ask(WorkflowSubmit(client.number(), spec, 0, graph.nodes), WorkflowAccepted)
    await trio.sleep(1)
    node = format_task_id(member_id(WORKFLOW, 1))
    told = (await browser.get(f"/nodes/{node}/children?limit=1")).json
    assert (told["total"], [child["state"] for child in told["children"]]) == (2, ["running"])


async def test_tokens_are_made_and_revoked_by_an_admin(browser: Browser, server: Server) -> None:
    """A new one is good at once, and a revoked one no longer."""
    made = await browser.post("/tokens", {"role": "viewer", "label": "wall"})
    assert made.status == 201
    server.tokens["wall"] = made.json["token"]
    who = (await browser.get("/whoami", role="wall")).json
    assert who["role"] == "viewer"
    assert made.json["key_id"] == who["key_id"]
    listed = (await browser.get("/tokens", role="admin")).json["tokens"]
    assert next(token for token in listed if token["key_id"] == who["key_id"])["label"] == "wall"
    assert made.json["token"].encode() not in (await browser.get("/tokens", role="admin")).body
    assert (await browser.post(f"/tokens/{who['key_id']}/revoke")).json == {"key_id": who["key_id"], "revoked": True}
    assert (await browser.get("/whoami", role="wall")).error[:2] == (401, "auth.refused")
    assert (await browser.post("/tokens/none/revoke")).error[:2] == (404, "token.unknown")
    for label in ("wall\n", "\x1b[31m", "a\tb", "\u202e"):
        assert (await browser.post("/tokens", {"role": "viewer", "label": label})).error[:2] == (400, "request.invalid")
    assert (await browser.post("/tokens", {"role": "king"})).json["error"]["path"] == "$.role"


async def test_the_certificate_is_shown_and_renewed(browser: Browser) -> None:
    """With the names that it is good for."""
    assert "localhost" in (await browser.get("/certificate")).json["host_names"]
    assert (await browser.post("/certificate/renew", {"host_names": [""]})).status == 400
