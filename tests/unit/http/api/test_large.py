"""Large values over HTTP: packed, and shown, by a process of their own, as small ones are by the server itself."""

import json

import pytest

from harness.http import Browser
from harness.server import Server, leased
from taskd.http.converting import APART_BYTES
from taskd.program import CONVERTER
from taskd_protocol.agent_messages import Ack, Recorded
from taskd_protocol.payload import pack, unpack_arguments
from taskd_protocol.task import Report

ROWS = [{"id": 2**63 + n, "name": f"row {n} é", "value": n / 7, "tags": ["a", None, True]} for n in range(12_000)]
assert len(json.dumps(ROWS)) > APART_BYTES


@pytest.fixture
def words(server: Server) -> list[list[str]]:
    """What was asked of processes."""
    asked: list[list[str]] = []
    inside = server.services.platform.apart

    async def apart(words: list[str], said: bytes) -> bytes:
        asked.append(words)
        return await inside(words, said)

    object.__setattr__(server.services.platform, "apart", apart)
    return asked


async def test_large_arguments_come_as_they_were_sent(browser: Browser, server: Server, words: list[list[str]]) -> None:
    """Of one task, and of several, each its own."""
    one = {"name": "m.f", "args": [ROWS], "kwargs": {"n": 1}, "priority": 3}
    assert (await browser.post("/tasks", one)).status == 201
    batch = {"tasks": [{"name": "m.f", "args": [n, ROWS[: 6_000 + n]]} for n in range(2)]}
    assert (await browser.post("/tasks/batch", batch)).status == 201
    assert words == [[CONVERTER, "task"], [CONVERTER, "batch"]]
    agent = await server.agent(credit=3)
    specs = [grant.spec for grant in await leased(agent, 3)]
    assert [unpack_arguments(spec.payload) for spec in specs] == [
        ([ROWS], {"n": 1}),
        ([0, ROWS[:6_000]], {}),
        ([1, ROWS[:6_001]], {}),
    ]
    assert specs[0].priority == 3


@pytest.mark.parametrize(
    ("change", "path"),
    [({"colour": 1}, "$"), ({"priority": "high"}, "$.priority"), ({"name": ""}, "$.name"), ({"args": 7}, "$.args")],
)
async def test_a_large_body_is_refused_as_a_small_one_is(
    browser: Browser, words: list[list[str]], change: dict[str, object], path: str
) -> None:
    """With the same words, and the place."""
    small = await browser.post("/tasks", {"name": "m.f", "args": [1], "kwargs": {"rows": []}} | change)
    large = await browser.post("/tasks", {"name": "m.f", "args": [1], "kwargs": {"rows": ROWS}} | change)
    assert large.error == small.error
    assert large.json["error"]["path"] == path
    assert words == [[CONVERTER, "task"]]


async def test_what_is_no_json_that_can_be_read_is_refused(browser: Browser, words: list[list[str]]) -> None:
    """Cut, or deeper than anything."""
    cut = json.dumps({"name": "m.f", "args": [ROWS]}).encode()[:-3]
    deep = b'{"name": "m.f", "args": ' + b"[" * APART_BYTES + b"]" * APART_BYTES + b"}"
    for body in (cut, deep):
        assert (await browser.post("/tasks", body)).error[:2] == (400, "request.invalid")
    assert len(words) == 2


async def test_large_values_are_shown(browser: Browser, server: Server, words: list[list[str]]) -> None:
    """The task with the first of them, pages of their own with all."""
    task_id = (await browser.post("/tasks", {"name": "m.f", "args": [ROWS]})).json["id"]
    agent = await server.agent(credit=1)
    [grant] = await leased(agent, 1)
    await agent.send(Ack([Report(grant.token, grant.spec.id, 1, pack(ROWS))]))
    await agent.take(Recorded)
    words.clear()
    shown = (await browser.get(f"/tasks/{task_id}")).json
    assert words == [[CONVERTER, "arguments", "65536"], [CONVERTER, "result", "65536"]]
    for value, whole in (("arguments", {"args": [ROWS], "kwargs": {}}), ("result_value", ROWS)):
        assert shown[value]["whole"] is False
        assert json.dumps(whole, ensure_ascii=False).startswith(shown[value]["text"])
    assert shown["result"] is None
    assert (await browser.get(f"/tasks/{task_id}/arguments")).json == {"args": [ROWS], "kwargs": {}}
    assert (await browser.get(f"/tasks/{task_id}/result")).json == ROWS


async def test_a_small_result_of_large_arguments_is_shown_whole(browser: Browser, server: Server) -> None:
    task_id = (await browser.post("/tasks", {"name": "m.f", "args": [ROWS]})).json["id"]
    agent = await server.agent(credit=1)
    [grant] = await leased(agent, 1)
    await agent.send(Ack([Report(grant.token, grant.spec.id, 1, pack({"n": 2**70 % 2**60}))]))
    await agent.take(Recorded)
    shown = (await browser.get(f"/tasks/{task_id}")).json
    assert shown["result"] == {"n": 2**70 % 2**60}
    assert shown["result_value"]["whole"] is True
