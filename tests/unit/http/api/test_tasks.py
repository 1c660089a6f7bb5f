"""Tasks over HTTP: submitted, listed, shown, waited for, ended, given another chance."""

import json

import pytest
import trio

from harness.http import Browser
from harness.peer import Peer
from harness.server import Server, leased, report
from taskd.http.resources.jobs import COUNT_SECONDS
from taskd_protocol.agent_messages import Ack, LeaseCredit, Nack, Recorded
from taskd_protocol.ids import format_task_id
from taskd_protocol.payload import pack, unpack_arguments
from taskd_protocol.task import Failure, FailureReport, Grant

ABOVE = 2**53 + 1
PATCHY = [ABOVE, -(2**63), 2**64 - 1, 2**200, 1.5, "☃", None, {"deep": [True]}]
NONE = "0197c1a0-7d3c-7c4e-9f00-0123456789ab"


async def submit(browser: Browser, **fields: object) -> str:
    answer = await browser.post("/tasks", {"name": "m.f"} | fields, role="client")
    assert answer.status == 201, answer.body
    return str(answer.json["id"])


async def lease_one(agent: Peer) -> Grant:
    await agent.send(LeaseCredit(0, 1))
    return (await leased(agent, 1))[0]


async def succeed(agent: Peer, grant: Grant, result: object = None) -> None:
    await agent.send(Ack([report(grant, pack(result))]))
    await agent.take(Recorded)


async def fail(agent: Peer, grant: Grant, message: str = "no such page") -> None:
    failure = Failure("task.raised", message, "app.Bad", "Traceback: here")
    await agent.send(Nack([FailureReport(grant.token, grant.spec.id, grant.attempt, "failed", failure)]))
    await agent.take(Recorded)


async def test_a_task_is_submitted_run_and_shown(browser: Browser, server: Server) -> None:
    """Arguments and result come through with all digits, as values and as text."""
    agent = await server.agent()
    task_id = await submit(browser, args=PATCHY, kwargs={"size": ABOVE}, queue="images", priority=3)
    shown = (await browser.get(f"/tasks/{task_id}")).json
    assert (shown["state"], shown["queue"], shown["priority"], shown["attempts"]) == ("ready", "images", 3, [])
    assert json.loads(shown["arguments"]["text"]) == {"args": PATCHY, "kwargs": {"size": ABOVE}}
    assert shown["arguments"]["plain"] is True
    assert shown["waits_for"]
    grant = await lease_one(agent)
    assert unpack_arguments(grant.spec.payload) == (PATCHY, {"size": ABOVE})
    await succeed(agent, grant, {"rows": ABOVE, "more": 2**200})
    answer = await browser.get(f"/tasks/{task_id}")
    assert str(ABOVE).encode() in answer.body
    assert answer.json["result"] == {"rows": ABOVE, "more": 2**200}
    assert json.loads(answer.json["result_value"]["text"]) == answer.json["result"]
    assert [attempt["outcome"] for attempt in answer.json["attempts"]] == ["succeeded"]
    assert (await browser.get(f"/tasks/{task_id}/result")).json == {"rows": ABOVE, "more": 2**200}
    assert (await browser.get(f"/tasks/{task_id}/arguments")).json == {"args": PATCHY, "kwargs": {"size": ABOVE}}


async def test_everything_that_a_submit_can_say_arrives(browser: Browser, server: Server) -> None:
    """Under the names of the options, in milliseconds."""
    agent = await server.agent()
    said = {
        "retry": {"max_attempts": 7, "on": ["app.Bad"]},
        "timeout_ms": 60_000,
        "soft_timeout_ms": 50_000,
        "ttl_ms": 3_600_000,
        "deadline_ms": 7_200_000,
        "heartbeat_ms": 5_000,
        "exclusive": True,
        "at_most_once": True,
        "headers": {"a": "b"},
        "sticky": "model",
    }
    await submit(browser, **said, unique={"mode": "running", "key": "u"})
    spec = (await lease_one(agent)).spec
    rules = spec.rules
    assert spec.retry is not None
    assert (spec.retry.max_attempts, spec.retry.on) == (7, ["app.Bad"])
    for name in ("timeout_ms", "soft_timeout_ms", "ttl_ms", "deadline_ms", "heartbeat_ms", "exclusive", "at_most_once"):
        assert getattr(rules, name) == said[name]
    assert (rules.headers, rules.sticky) == ({"a": "b"}, "model")
    task_id = await submit(
        browser,
        limits=[{"limit": "api", "key": "a", "weight": 2}],
        fifo_key="f",
        resources={"cpu": 2, "memory": "1GiB", "gpu": "a100:2"},
        labels=["zone=a"],
        preemptible=True,
    )
    explained = (await browser.get(f"/tasks/{task_id}/explain")).json
    assert explained["agents"][0]["code"] == "agent.label"
    warned = (await browser.post("/tasks", {"name": "m.f", "labels": ["zone=b"]})).json
    assert "no agent that is connected could ever run m.f" in warned["warnings"][0]


async def test_the_trace_of_a_request_goes_on_in_its_task(browser: Browser) -> None:
    """What the body says counts first; else there is one all the same."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    answer = await browser.post("/tasks", {"name": "m.f"}, traceparent=trace)
    assert (await browser.get(f"/tasks/{answer.json['id']}")).json["traceparent"] == trace
    other = await submit(browser, traceparent=trace.replace("b7", "c8"))
    assert (await browser.get(f"/tasks/{other}")).json["traceparent"] == trace.replace("b7", "c8")
    assert len((await browser.get(f"/tasks/{await submit(browser)}")).json["trace_id"]) == 32


async def test_a_submit_can_be_sent_again(browser: Browser, server: Server) -> None:
    """Under the same id or key it finds the first task; with other content it is refused."""
    task_id = format_task_id(server.specs()[0].id)
    body = {"name": "m.f", "id": task_id, "args": [1]}
    answers = [(await browser.post("/tasks", body, role="client")).json for _ in range(2)]
    assert answers == [{"id": task_id, "existing": existing, "warnings": []} for existing in (False, True)]
    refused = await browser.post("/tasks", body | {"args": [2]}, role="client")
    assert refused.error[:2] == (409, "submit.conflict")
    first = await submit(browser, key="k")
    assert await submit(browser, key="k", args=[]) == first


async def test_many_are_submitted_together_or_not_at_all(browser: Browser) -> None:
    """Each is told with its id, in order."""
    answer = await browser.post("/tasks/batch", {"tasks": [{"name": "m.f", "key": "k"}, {"name": "m.g"}]})
    assert answer.status == 201
    first, second = answer.json["tasks"]
    assert first["id"] != second["id"]
    again = await browser.post("/tasks/batch", {"tasks": [{"name": "m.g"}, {"name": "m.f", "key": "k"}]})
    assert [task["existing"] for task in again.json["tasks"]] == [False, True]
    assert again.json["tasks"][1]["id"] == first["id"]
    refused = await browser.post("/tasks/batch", {"tasks": [{"name": "m.f"}, {"name": "m.f", "timeout_ms": -1}]})
    assert (refused.status, refused.json["error"]["path"]) == (400, "$.tasks[1].timeout_ms")
    assert len((await browser.get("/tasks")).json["tasks"]) == 3
    assert (await browser.post("/tasks/batch", {"tasks": []})).error[:2] == (400, "request.invalid")


@pytest.mark.parametrize(
    ("bad", "path"),
    [
        ({"name": "m.f", "resources": {"cpu": -1}}, "$.tasks[5].resources.cpu"),
        ({"name": "m.f", "resources": {"cpu": None}}, "$.tasks[5].resources.cpu"),
        ({"name": "m.f", "id": "zz"}, "$.tasks[5].id"),
        ({"name": "m\n"}, "$.tasks[5].name"),
        ({"name": "m.f", "labels": ["zone=a", "?"]}, "$.tasks[5].labels[1]"),
        ({"name": "m.f", "retry": {"factor": 1e9}}, "$.tasks[5]"),
    ],
)
async def test_of_many_the_bad_one_is_named(browser: Browser, bad: dict[str, object], path: str) -> None:
    answer = await browser.post(
        "/tasks/batch", {"tasks": [{"name": "m.f", "resources": {"cpu": 0, "gpu": 1}}] * 5 + [bad]}
    )
    assert answer.error[:2] == (400, "request.invalid")
    assert answer.json["error"]["path"] == path
    assert (await browser.get("/tasks")).json["tasks"] == []


def form(*parts: tuple[str, str | None, bytes]) -> bytes:
    """Return a form of fields and files."""
    told = b""
    for name, filename, content in parts:
        file = f'; filename="{filename}"' if filename else ""
        told += f'--XX\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + content + b"\r\n"
    return told + b"--XX--\r\n"


TASK = b'{"name": "m.f", "kwargs": {"size": 1}}'
FORM = {"content_type": "multipart/form-data; boundary=XX"}


async def test_files_become_arguments(browser: Browser, server: Server) -> None:
    """As they are, up to the payload limit."""
    agent = await server.agent()
    picture = bytes(range(256)) * 4_096
    task = json.dumps({"name": "m.f", "kwargs": {"size": ABOVE}}).encode()
    answer = await browser.post("/tasks", form(("task", None, task), ("image", "a.png", picture)), **FORM)
    assert answer.status == 201, answer.body
    grant = await lease_one(agent)
    assert unpack_arguments(grant.spec.payload) == ([], {"size": ABOVE, "image": picture})
    shown = (await browser.get(f"/tasks/{answer.json['id']}")).json["arguments"]
    assert (shown["plain"], shown["whole"], len(shown["text"])) == (False, False, 65_536)
    assert len((await browser.get(f"/tasks/{answer.json['id']}/arguments")).json["kwargs"]["image"]) > len(picture)


@pytest.mark.parametrize(
    ("body", "headers", "message"),
    [
        (form(("task", None, b"{")), FORM, "data was truncated"),
        (form(("image", "a", b"x")), FORM, "a form has a field 'task'"),
        (form(("task", "t.json", TASK)), FORM, "send its content: task=<FILE"),
        (form(("task", None, TASK), ("task", None, TASK)), FORM, "said twice"),
        (form(("task", None, TASK), ("other", None, b"x")), FORM, "a form has a field 'task'"),
        (form(("task", None, TASK), ("", "a", b"x")), FORM, "a file has no name"),
        (form(("other", None, b"x")), FORM, "a form has a field 'task'"),
        (
            form(("task", None, b'{"name": "m.f"}'), ("a", "1", b"x"), ("a", "2", b"y")),
            FORM,
            "two files are called 'a'",
        ),
        (
            form(("task", None, b'{"name": "m.f", "kwargs": {"a": 1}}'), ("a", "1", b"x")),
            FORM,
            "an argument and a file",
        ),
        (form(("task", None, b"{}")), {"content_type": "multipart/form-data"}, "cannot be read"),
        (b"nonsense", FORM, ""),
        (form(*[(f"f{n}", "x", b"") for n in range(65)]), FORM, "Too many files"),
    ],
)
async def test_a_bad_form_is_refused(browser: Browser, body: bytes, headers: dict[str, str], message: str) -> None:
    """With what is wrong with it."""
    status, code, told = (await browser.post("/tasks", body, **headers)).error
    assert (status, code) == (400, "request.invalid")
    assert message in told


async def test_a_body_above_the_payload_limit_is_refused(browser: Browser) -> None:
    """Before it is read, and where it would fit as JSON, by what it comes to."""
    long = form(("task", None, b'{"name": "m.f", "args": ["' + b"x" * 65_536 + b'"]}'))
    assert (await browser.post("/tasks", long, **FORM)).error[:2] == (413, "http.too_large")
    assert (await browser.post("/tasks", b"{}", content_length=str(1 << 30))).error[:2] == (413, "http.too_large")
    raw = b'{"name": "m.f", "args": ["' + b"x" * (16 << 20) + b'"]}'
    assert (await browser.post("/tasks", raw)).error[:2] == (413, "payload.too_large")


@pytest.mark.parametrize(
    ("body", "path", "message"),
    [
        ({}, "$", "missing required field `name`"),
        ({"name": ""}, "$.name", "length >= 1"),
        ({"name": "m.f", "args": {}}, "$.args", "expected `array`"),
        ({"name": "m.f", "priority": 101}, "$.priority", "<= 100"),
        ({"name": "m.f", "retry": {"max_attempts": 0}}, "$.retry.max_attempts", ">= 1"),
        ({"name": "m.f", "unique": {"mode": "often"}}, "$.unique.mode", "queued, running, window"),
        ({"name": "m.f", "nonsense": 1}, "$", "unknown field `nonsense`"),
        ({"name": "m.f", "id": "7"}, "$.id", "is not a task id"),
        ({"name": "m.f", "labels": ["?"]}, "$.labels[0]", "?"),
        ({"name": "m.f", "resources": {"gpu": 1, "cpu": "many"}}, "$.resources.cpu", "many"),
        ({"name": "m.f", "resources": {"cpu": True}}, "$.resources.cpu", "expected"),
        ({"name": "m.f", "headers": {"a": "1", "b": 2}}, "$.headers.b", "expected `str`"),
        ({"name": "m.f", "delay_ms": 1 << 47}, "$", "delay"),
        ({"name": "m.f", "traceparent": "yes"}, "$.traceparent", "traceparent"),
        ({"name": "m\n.f"}, "$.name", "printable"),
    ],
)
async def test_a_submit_that_cannot_be_is_refused(browser: Browser, body: object, path: str, message: str) -> None:
    """With its place, where that is known."""
    answer = await browser.post("/tasks", body)
    assert answer.status == 400, answer.body
    assert answer.json["error"].get("path", "") == path
    assert message in answer.error[2].lower()


async def test_tasks_are_listed_page_by_page_by_a_filter(browser: Browser) -> None:
    """Newest first; the cursor of each page goes on behind it."""
    ids = []
    for n in range(7):
        await trio.sleep(0.001)
        ids.append(await submit(browser, queue="q" if n % 2 else "r", args=[n]))
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await browser.get(f"/tasks?filter=queue:q%20state:ready&limit=2&cursor={cursor}")).json
        found += [task["id"] for task in page["tasks"]]
        cursor = page["cursor"]
    assert found == [task_id for n, task_id in enumerate(ids) if n % 2][::-1]
    assert (await browser.get("/tasks?filter=queue:none")).json == {"tasks": [], "cursor": None}


@pytest.mark.parametrize(
    ("query", "path", "message"),
    [
        ("filter=queue:q%20stat:dead", "$.filter", "column 9: 'stat' is no key; did you mean state?"),
        ("filter=thumb", "$.filter", "write name:*thumb*"),
        ("limit=100000", "$.limit", "<= 1000"),
        ("limit=0", "$.limit", ">= 1"),
        ("limit=ten", "$.limit", "expected `int`"),
        ("limit=1&limit=2", "$.limit", "expected `int`"),
        ("cursor=!!", "$.cursor", "no cursor"),
        ("cursor=" + "A" * 300, "$.cursor", "length <= 200"),
        ("cursor=%C3%A4", "$.cursor", "no cursor"),
        ("cursor=AaIoJvJJcYiAP4QN36pkzw", "$.cursor", "no cursor"),  # well-formed base64, and nobody's
        ("page=2", "$", "unknown field `page`"),
    ],
)
async def test_a_listing_that_cannot_be_is_refused(browser: Browser, query: str, path: str, message: str) -> None:
    """Huge pages, words that are not known, cursors that are none."""
    answer = await browser.get(f"/tasks?{query}")
    assert answer.error[:2] == (400, "request.invalid")
    assert answer.json["error"]["path"] == path
    assert message in answer.error[2]


@pytest.mark.parametrize("path", ["", "/wait?seconds=1", "/arguments", "/result", "/explain"])
async def test_what_is_not_stored_is_not_found(browser: Browser, path: str) -> None:
    """Also a task that was removed meanwhile."""
    assert (await browser.get(f"/tasks/{NONE}{path}")).error[:2] == (404, "task.unknown")
    assert (await browser.get(f"/tasks/7{path}")).error[:2] == (400, "request.invalid")
    for action in ("cancel", "retry"):
        assert (await browser.post(f"/tasks/{NONE}/{action}")).error[:2] == (404, "task.unknown")


async def test_a_result_that_only_its_module_knows_is_not_shown_as_another(browser: Browser, server: Server) -> None:
    """It is told that it cannot be."""
    agent = await server.agent()
    task_id = await submit(browser)
    grant = await lease_one(agent)
    assert (await browser.get(f"/tasks/{task_id}/result")).error[:2] == (404, "http.not_found")
    await agent.send(Ack([report(grant, b"\xc1")]))
    await agent.take(Recorded)
    assert (await browser.get(f"/tasks/{task_id}")).json["result_value"] == {
        "text": None,
        "bytes": 1,
        "plain": False,
        "whole": True,
    }
    assert (await browser.get(f"/tasks/{task_id}/result")).error[:2] == (404, "http.not_found")


async def test_an_end_is_waited_for(browser: Browser, server: Server) -> None:
    """As long as was said, and no longer."""
    agent = await server.agent()
    task_id = await submit(browser)
    began_s = trio.current_time()
    assert (await browser.get(f"/tasks/{task_id}/wait?seconds=2")).json["state"] == "ready"
    assert trio.current_time() - began_s == pytest.approx(2)
    states: list[str] = []

    async def wait() -> None:
        states.append((await browser.get(f"/tasks/{task_id}/wait")).json["state"])

    async with trio.open_nursery() as waiting:
        waiting.start_soon(wait)
        await succeed(agent, await lease_one(agent))
    assert states == ["succeeded"]
    assert (await browser.get(f"/tasks/{task_id}/wait?seconds=51")).error[:2] == (400, "request.invalid")
    assert not server.hub._waiters


async def test_tasks_are_cancelled_and_retried(browser: Browser, server: Server) -> None:
    """One by its page, or several by their ids."""
    ids = [await submit(browser) for _ in range(3)]
    assert (await browser.post(f"/tasks/{ids[0]}/cancel", role="client")).json == {"id": ids[0], "state": "cancelled"}
    assert (await browser.post(f"/tasks/{ids[0]}/retry")).json == {"id": ids[0], "state": "ready"}
    told = (await browser.post("/tasks/cancel", {"ids": [*ids, NONE]})).json["tasks"]
    assert [task["state"] for task in told] == ["cancelled", "cancelled", "cancelled", "unknown"]
    told = (await browser.post("/tasks/retry", {"ids": ids})).json["tasks"]
    assert [task["state"] for task in told] == ["ready"] * 3
    agent = await server.agent()
    grant = await lease_one(agent)
    task_id = format_task_id(grant.spec.id)
    assert (await browser.post(f"/tasks/{task_id}/cancel")).json["state"] == "cancelling"
    await agent.close()
    assert (await browser.post(f"/tasks/{task_id}/cancel", {"force": True})).json["state"] == "cancelled"


async def test_a_task_that_waits_for_a_time_is_run_now(browser: Browser, server: Server) -> None:
    """Whatever it waits for; one that waits for nothing is left as it is."""
    agent = await server.agent()
    task_id = await submit(browser, delay_ms=3_600_000, retry={"base_ms": 3_600_000, "max_ms": 3_600_000})
    for attempt in (1, 2):
        assert (await browser.get(f"/tasks/{task_id}")).json["state"] == "scheduled"
        assert (await browser.post(f"/tasks/{task_id}/run", role="client")).json == {"id": task_id, "state": "ready"}
        grant = await lease_one(agent)
        assert grant.attempt == attempt
        assert (await browser.post(f"/tasks/{task_id}/run")).json["state"] == "running"
        await fail(agent, grant)
    assert (await browser.post(f"/tasks/{NONE}/run")).error[:2] == (404, "task.unknown")


async def test_an_action_on_many_is_counted_then_started_then_watched(browser: Browser) -> None:
    """Under a filter, which is not empty by mistake."""
    for n in range(5):
        await submit(browser, queue="q" if n else "r")
    counted = (await browser.get("/tasks/count?filter=queue:q&action=cancel")).json
    assert counted == {"count": 4, "looked_at": 5, "cursor": None}
    started = await browser.post("/tasks/bulk", {"action": "cancel", "filter": "queue:q"})
    assert (started.status, started.json["action"]) == (202, "cancel")
    job = (await browser.get(f"/jobs/{started.json['id']}?beyond=0")).json
    while job["finished_at"] is None:
        job = (await browser.get(f"/jobs/{job['id']}?beyond={job['looked_at']}")).json
    assert (job["looked_at"], job["changed"]) == (5, 4)
    assert (await browser.get("/jobs")).json["jobs"] == [job]
    assert (await browser.get("/tasks/count?filter=queue:q&action=cancel")).json["count"] == 0
    refused = await browser.post("/tasks/bulk", {"action": "cancel", "filter": " "})
    assert refused.json["error"]["path"] == "$.filter"
    assert (await browser.post("/tasks/bulk", {"action": "cancel", "filter": "", "all": True})).status == 202
    assert (await browser.post("/tasks/bulk", {"action": "fly", "filter": "queue:q"})).status == 400
    assert (await browser.get(f"/jobs/{NONE}")).error[:2] == (404, "http.not_found")
    assert (await browser.get("/tasks/count?action=fly")).error[:2] == (400, "request.invalid")


async def test_a_long_count_is_told_in_parts(browser: Browser, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer takes much longer than is said; it is counted on from its cursor."""
    monkeypatch.setattr("taskd.server.questions.SCAN_ROWS_MAX", 2)
    for _ in range(5):
        await submit(browser)
    monkeypatch.setattr("taskd.http.resources.jobs.COUNT_SECONDS", 0)
    part = (await browser.get("/tasks/count")).json
    assert (part["count"], part["looked_at"]) == (2, 2)
    rest = (await browser.get(f"/tasks/count?cursor={part['cursor']}")).json
    assert rest["count"] == 2
    assert COUNT_SECONDS < 10
    await server.loop.until_durable()


async def test_dead_tasks_are_grouped_by_what_they_died_of(browser: Browser, server: Server) -> None:
    """A group is shown by the beginning of its name, and retried by its filter."""
    agent = await server.agent()
    ids = [await submit(browser, retry={"max_attempts": 1}) for _ in range(3)]
    for n in range(3):
        await trio.sleep(0.001)
        await fail(agent, await lease_one(agent), f"row {n} is bad" if n < 2 else "no column")
    page = (await browser.get("/dead")).json
    assert (page["groups_count"], page["tasks_count"], [group["count"] for group in page["groups"]]) == (2, 3, [1, 2])
    group = (await browser.get(f"/dead/{page['groups'][1]['group'][:6]}")).json
    assert {task["id"] for task in group["tasks"]} == set(ids[:2])
    assert (await browser.get("/dead/zz")).error[:2] == (404, "http.not_found")
    wanted = f"group:{group['group']}"
    assert (await browser.get(f"/tasks/count?filter={wanted}&action=retry")).json["count"] == 2
    started = (await browser.post("/tasks/bulk", {"action": "retry", "filter": wanted})).json
    await browser.get(f"/jobs/{started['id']}?beyond=1")
    assert (await browser.get("/tasks?filter=state:dead")).json["tasks"][0]["id"] == ids[2]
