"""What holds for every route: who may ask, from where, how often, and how it is refused."""

import msgspec
import pytest
import trio
import trio.testing

from harness.http import Browser
from harness.server import Server
from taskd.http.bodies import BODY_BYTES_MAX
from taskd.http.errors import STATUS
from taskd.http.guard import SECURITY
from taskd.http.rates import Rate, Rates
from taskd.http.resources import ROUTES
from taskd.http.routes import AnyRoute
from taskd_protocol.errors import error_codes
from taskd_protocol.handshake import TOKEN_ROLES

PATHS = [(route.method, route.path.replace(":path}", "}").replace("{", "").replace("}", "")) for route in ROUTES]
EVERY_METHOD = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"]


async def test_a_token_in_the_header_is_the_way_in(browser: Browser) -> None:
    """In any spelling of the scheme; as a word of the URL it is nothing."""
    token = browser.server.tokens["viewer"]
    assert (await browser.get("/queues")).json == {"queues": []}
    assert (await browser.get("/queues", role=None, authorization=f"bearer {token}")).status == 200
    assert (await browser.get(f"/queues?token={token}", role=None)).status == 401


@pytest.mark.parametrize("shown", ["", "Bearer", "Bearer nonsense", "Basic YTpi", "taskd_viewer_a_b_c"])
@pytest.mark.parametrize("path", PATHS)
async def test_strangers_are_refused_alike_everywhere(browser: Browser, path: tuple[str, str], shown: str) -> None:
    """Before anything of what they ask is looked at."""
    headers = {"authorization": shown} if shown else {}
    answer = await browser.ask(path[0], f"/api/v1{path[1]}?nonsense=1", b"{", role=None, **headers)
    assert answer.error[:2] == (401, "auth.refused")
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("route", ROUTES, ids=[f"{route.method} {route.path}" for route in ROUTES])
async def test_each_role_may_ask_what_it_may_on_the_wire(browser: Browser, route: AnyRoute) -> None:
    """A role that may not is refused before its body is read; an agent's token is for agents."""
    path = route.path.replace(":path}", "}").replace("{", "").replace("}", "")
    assert route.roles
    for role in TOKEN_ROLES:
        if role not in route.roles:
            answer = await browser.ask(route.method, f"/api/v1{path}", b"{", role=role)
            assert answer.error[:2] == (403, "auth.role")


async def test_a_revoked_token_and_an_old_one_are_refused(browser: Browser) -> None:
    """From the next request on."""
    await browser.server.mint("viewer", key="short", lasts_ms=60_000)
    assert (await browser.get("/queues", role="short")).status == 200
    await trio.sleep(61)
    assert (await browser.get("/queues", role="short")).error[:2] == (401, "auth.refused")


@pytest.mark.parametrize("path", sorted({path for _, path in PATHS} | {"/nothing", "/openapi.json"}))
async def test_foreign_hosts_are_refused_on_every_route_and_method(browser: Browser, path: str) -> None:
    """Whoever asks, and whatever for."""
    for method in EVERY_METHOD:
        answer = await browser.ask(method, f"/api/v1{path}", role="admin", host="evil.example")
        assert answer.error[:2] == (400, "http.host")


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:9999"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "cross-site", "origin": "http://localhost:7071"},
    ],
)
async def test_pages_of_other_sites_change_nothing(browser: Browser, headers: dict[str, str]) -> None:
    """A browser says whose page asks; reads are answered, and cannot be read across sites."""
    assert (await browser.post("/queues/q/pause", **headers)).error[:2] == (403, "http.origin")
    assert (await browser.get("/queues", **headers)).json == {"queues": []}


@pytest.mark.parametrize(
    "headers", [{"origin": "http://localhost:7071", "sec_fetch_site": "same-origin"}, {"sec_fetch_site": "none"}]
)
async def test_our_own_pages_may_change_things(browser: Browser, headers: dict[str, str]) -> None:
    """So may programs, which say nothing."""
    assert (await browser.post("/queues/q/pause", **headers)).json["paused"] is True


async def test_a_length_told_twice_is_refused(browser: Browser) -> None:
    """And nothing more is read from such a connection."""
    answer = await browser.post("/queues/q/pause", {}, transfer_encoding="chunked", content_length="2")
    assert answer.error[:2] == (400, "http.framing")
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(
    ("body", "path", "message"),
    [
        (b"{", "$", "data was truncated"),
        (b'{"weight": 1} x', "$", "malformed"),
        (b"[]", "$", "expected `object`, got `array`"),
        (b"{}", "$", "missing required field `weight`"),
        (b'{"weight": "1"}', "$.weight", "expected `int`, got `str`"),
        (b'{"weight": 0}', "$.weight", "expected `int` >= 1"),
        (b'{"weight": 1, "wieght": 2}', "$", "unknown field `wieght`"),
        (b'{"weight": NaN}', "$", "malformed"),
        (b'{"weight": ' + b"[" * 5_000, "$", ""),
        (b'{"weight": "\xff"}', "$", ""),
    ],
)
async def test_a_bad_body_is_refused_with_its_place(browser: Browser, body: bytes, path: str, message: str) -> None:
    """What is wrong, and where."""
    answer = await browser.post("/queues/q/weight", body)
    status, code, told = answer.error
    assert (status, code) == (400, "request.invalid")
    assert message in told.lower()
    assert not told.startswith("jS")
    assert "\n" not in told
    assert answer.json["error"]["path"].startswith(path)


@pytest.mark.parametrize("said", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_another_content_type_is_refused(browser: Browser, said: str) -> None:
    """Those that a form of another site could send are among them."""
    assert (await browser.post("/queues/q/weight", {"weight": 2}, content_type=said)).error[:2] == (
        415,
        "http.media_type",
    )
    assert (await browser.post("/queues/q/weight", {"weight": 2}, content_type="application/json; charset=utf-8")).json


async def test_a_long_body_is_refused(browser: Browser) -> None:
    """By what its length says, and by what comes."""
    long = b" " * (BODY_BYTES_MAX + 1)
    assert (await browser.post("/queues/q/weight", long)).error[:2] == (413, "http.too_large")
    assert (await browser.post("/queues/q/weight", b"{}", content_length="999999")).error[:2] == (413, "http.too_large")
    assert (await browser.post("/queues/q/weight", b"{}", content_length="-1")).error[:2] == (400, "request.invalid")


async def test_a_long_head_is_refused(browser: Browser) -> None:
    """Whether it is the query that is long, or a header, or many of them."""
    for query, headers in (
        ("x" * 16_384, {}),
        ("", {"x_long": "a" * 16_384}),
        ("", {f"x{n}": "a" * 99 for n in range(200)}),
    ):
        assert (await browser.get(f"/queues?{query}", **headers)).error[:2] == (431, "http.head_too_large")


async def test_a_body_that_does_not_come_is_waited_for_so_long(browser: Browser) -> None:
    """Ten seconds, and more where a payload may come."""
    browser.is_silent = True
    for path, seconds in (("/queues/q/weight", 10), ("/tasks", 170)):
        began_s = trio.current_time()
        answer = await browser.post(path, {})
        assert answer.error[:2] == (408, "http.timeout")
        assert trio.current_time() - began_s == pytest.approx(seconds)


async def test_unknown_words_of_the_query_are_refused(browser: Browser) -> None:
    """A mistyped one would be passed over, and more be shown, or done, than was asked for."""
    assert "unknown field `limt`" in (await browser.get("/queues?limt=1")).error[2]


async def test_unknown_pages_and_methods_are_told(browser: Browser) -> None:
    """As JSON, with the methods that there are."""
    assert (await browser.get("/nothing")).error[:2] == (404, "http.not_found")
    answer = await browser.ask("DELETE", "/api/v1/queues", role="admin")
    assert answer.error[:2] == (405, "http.method")
    assert answer.headers["allow"] == "GET"


async def test_every_answer_has_the_headers_of_safety(browser: Browser) -> None:
    """Good ones, refusals and probes."""
    for path in ("/api/v1/queues", "/api/v1/nothing", "/healthz", "/api/v1/openapi.json"):
        answer = await browser.ask("GET", path, role="viewer")
        assert SECURITY.items() <= dict(answer.headers).items()
        assert "access-control-allow-origin" not in answer.headers


async def test_who_asks_too_often_is_told_when_to_come_back(server: Server) -> None:
    """By its token, and by its address; others are answered meanwhile."""
    browser = Browser(server, rates=Rates(Rate(1, 3), Rate(100, 100)))
    assert [(await browser.get("/queues")).status for _ in range(4)] == [200, 200, 200, 429]
    answer = await browser.get("/queues")
    assert answer.error[:2] == (429, "http.rate")
    assert answer.headers["retry-after"] == "1"
    assert (await browser.get("/queues", role="client")).status == 200
    await trio.sleep(1)
    assert (await browser.get("/queues")).status == 200


async def test_guessing_costs_more(server: Server) -> None:
    """An address without a good token is soon told to wait, whatever it asks."""
    browser = Browser(server, rates=Rates(Rate(100, 100), Rate(1, 50)))
    statuses = [(await browser.get("/queues", role=None)).status for _ in range(4)]
    assert statuses == [401, 401, 401, 429]


async def test_guesses_starve_neither_tokens_nor_probes(server: Server) -> None:
    """What an address has asked for in vain is charged to whoever shows no token there."""
    browser = Browser(server, rates=Rates(Rate(100, 100), Rate(1, 50)))
    for _ in range(4):
        answer = await browser.get("/queues", role=None, authorization="Bearer nonsense")
    assert answer.status == 429
    assert (await browser.ask("GET", "/api/v1/openapi.json", role=None)).status == 429
    for _ in range(60):
        assert (await browser.ask("GET", "/healthz", role=None)).status == 200
        assert (await browser.ask("GET", "/readyz", role=None)).status == 200
    assert [(await browser.get("/queues")).status for _ in range(100)] == [200] * 100


async def test_nothing_is_answered_before_it_is_durable(browser: Browser) -> None:
    """A server that has not flushed does not answer; neither a change nor a read that could have seen it."""
    answers: list[int] = []

    async def ask(path: str) -> None:
        answer = await (browser.post(path) if path.endswith("pause") else browser.get(path))
        answers.append(answer.status)

    async with trio.open_nursery() as asking:
        with browser.server.disk.held():
            asking.start_soon(ask, "/queues/q/pause")
            await trio.testing.wait_all_tasks_blocked()
            asking.start_soon(ask, "/queues")
            await trio.testing.wait_all_tasks_blocked()
            assert answers == []
    assert answers == [200, 200]


async def test_all_is_below_the_prefix(server: Server) -> None:
    """But the probes, which are there and without it."""
    browser = Browser(server, prefix="/taskd/")
    assert (await browser.ask("GET", "/taskd/api/v1/queues", role="viewer")).json == {"queues": []}
    assert (await browser.ask("GET", "/api/v1/queues", role="viewer")).status == 404
    assert [(await browser.ask("GET", path, role=None)).status for path in ("/readyz", "/taskd/readyz")] == [200, 200]
    described = await browser.ask("GET", "/taskd/api/v1/openapi.json", role=None)
    assert described.json["servers"] == [{"url": "/taskd/api/v1"}]


async def test_every_route_is_described(browser: Browser) -> None:
    """With a summary, its parameters, and types that are there."""
    document = (await browser.ask("GET", "/api/v1/openapi.json", role=None)).json
    assert document["openapi"] == "3.1.0"
    for route in ROUTES:
        told = document["paths"][route.path.replace(":path}", "}")][route.method.lower()]
        assert told["summary"], route
        in_path = {word["name"] for word in told["parameters"] if word["in"] == "path"}
        assert all(f"{{{name}}}" in route.path.replace(":path}", "}") for name in in_path)
    operations = [told["operationId"] for page in document["paths"].values() for told in page.values()]
    assert len(set(operations)) == len(operations)
    text = msgspec.json.encode(document).decode()
    for name in document["components"]["schemas"].keys() - {"Nothing"}:
        assert f"#/components/schemas/{name}" in text


def test_each_status_is_of_a_code_that_there_is() -> None:
    """So a code that is renamed is missed here."""
    assert set(STATUS) <= set(error_codes())
