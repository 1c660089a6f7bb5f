"""Logging in, being known by a cookie, and logging out; what a browser does unasked is refused."""

import json
import re
from http.cookies import SimpleCookie

import pytest
import trio

from harness.http import Answer, Browser
from harness.server import Server
from taskd.http.guard import SECURITY
from taskd.http.rates import Rate, Rates
from taskd_dashboard.assets import load_assets
from taskd_dashboard.pages import SCREENS, Dashboard
from taskd_dashboard.sessions import IDLE_MS
from taskd_protocol.access_messages import TokenRevoke
from taskd_protocol.connection_messages import Done

FOREIGN = [{"origin": "https://evil.example"}, {"origin": "null"}, {"sec_fetch_site": "cross-site"}]
OURS = {"origin": "http://localhost:7071", "sec_fetch_site": "same-origin"}


@pytest.fixture
def page(server: Server) -> Browser:
    """A browser that nobody has logged in with."""
    return Browser(server, open_site=Dashboard)


async def post(page: Browser, path: str, body: object = None, **headers: str) -> Answer:
    """Send what our own page would send."""
    raw = json.dumps({} if body is None else body).encode()
    said = {"content_type": "application/json"} | OURS | headers
    return await page.ask("POST", path, raw, role=None, **{name: text for name, text in said.items() if text})


def cookie_of(answer: Answer) -> str:
    """Return what the browser says from now on."""
    [(name, morsel)] = SimpleCookie(answer.headers["set-cookie"]).items()
    return f"{name}={morsel.value}"


async def log_in(page: Browser, role: str = "operator") -> dict[str, str]:
    """Log in; return the headers of a change."""
    answer = await post(page, "/login", {"token": page.server.tokens[role]})
    assert answer.status == 200
    assert answer.json["role"] == role
    return {"cookie": cookie_of(answer), "x_csrf_token": answer.json["csrf"]}


async def test_a_token_opens_a_session_that_reads_and_changes(page: Browser) -> None:
    """By a cookie that scripts cannot read and other sites cannot have sent; the token is in no answer."""
    answer = await post(page, "/login", {"token": page.server.tokens["operator"]})
    said = answer.headers["set-cookie"].lower()
    assert "httponly" in said
    assert "samesite=strict" in said
    assert "path=/" in said
    assert page.server.tokens["operator"] not in str(answer.headers) + answer.body.decode()
    known = {"cookie": cookie_of(answer)}
    assert (await page.get("/queues", role=None, **known)).status == 200
    assert (await page.ask("GET", "/session", b"", role=None, **known)).json["role"] == "operator"
    changed = await post(page, "/api/v1/queues/a/pause", **known, x_csrf_token=answer.json["csrf"])
    assert changed.json["paused"] is True


async def test_where_tls_is_spoken_the_cookie_is_the_hosts_alone(server: Server) -> None:
    """``__Host-`` and Secure: no plain connection, and no other host, sets or reads it."""
    page = Browser(server, open_site=Dashboard, scheme="https")
    answer = await post(page, "/login", {"token": server.tokens["viewer"]}, origin="https://localhost:7071")
    assert answer.headers["set-cookie"].startswith("__Host-taskd-")
    assert "secure" in answer.headers["set-cookie"].lower()
    assert (await page.get("/queues", role=None, cookie=cookie_of(answer))).status == 200


@pytest.mark.parametrize("said", ["", "wrong"])
async def test_a_change_without_the_csrf_token_changes_nothing(page: Browser, said: str) -> None:
    """A form of another site has the cookie, at worst; what our page knows it has not."""
    known = await log_in(page)
    refused = await post(page, "/api/v1/queues/a/pause", cookie=known["cookie"], x_csrf_token=said)
    assert refused.error[:2] == (403, "http.csrf")
    assert (await page.get("/queues")).json == {"queues": []}


async def test_the_csrf_token_of_another_session_is_none(page: Browser) -> None:
    """Also of the same token."""
    first, second = await log_in(page), await log_in(page)
    refused = await post(page, "/api/v1/queues/a/pause", cookie=first["cookie"], x_csrf_token=second["x_csrf_token"])
    assert refused.error[:2] == (403, "http.csrf")


@pytest.mark.parametrize("path", ["/login", "/logout", "/login/link", "/api/v1/queues/a/pause"])
@pytest.mark.parametrize(
    "foreign", [{"origin": "https://evil.example"}, {"origin": "null"}, {"sec_fetch_site": "cross-site"}]
)
async def test_a_change_for_another_site_is_refused(page: Browser, path: str, foreign: dict[str, str]) -> None:
    """Even with all that our page would say."""
    known = await log_in(page)
    refused = await post(page, path, {"token": page.server.tokens["admin"]}, **(known | foreign))
    assert refused.error[:2] == (403, "http.origin")
    assert "set-cookie" not in refused.headers


async def test_the_role_is_the_tokens_action_by_action(page: Browser) -> None:
    """A viewer's session looks on; the server says so, whatever the page offers."""
    known = await log_in(page, "viewer")
    assert (await page.get("/queues", role=None, cookie=known["cookie"])).status == 200
    for path in ("queues/a/pause", "queues/a/weight", "agents/a/drain", "tasks/bulk", "schedules/a/trigger", "tokens"):
        refused = await post(page, f"/api/v1/{path}", **known)
        assert refused.status in {403, 404, 405}, path
    assert (await page.get("/queues")).json == {"queues": []}


async def test_a_session_ends_with_its_token(page: Browser) -> None:
    """Revoked is revoked, at the next request."""
    known = await log_in(page)
    admin = await page.server.client("admin")
    await admin.ask(TokenRevoke(1, page.server.tokens["operator"].split("_")[2]), Done)
    assert (await page.get("/queues", role=None, cookie=known["cookie"])).status == 401
    assert (await page.ask("GET", "/session", role=None, cookie=known["cookie"])).status == 401


async def test_a_session_ends_when_nobody_uses_it(page: Browser) -> None:
    """What uses it is the page that is open."""
    known = await log_in(page)
    await trio.sleep(IDLE_MS / 1_000)
    assert (await page.ask("GET", "/session", role=None, cookie=known["cookie"])).status == 401


async def test_logging_out_ends_it_for_whoever_has_the_cookie(page: Browser) -> None:
    """And takes the cookie out of the browser."""
    known = await log_in(page)
    assert (await post(page, "/logout", cookie=known["cookie"])).error[:2] == (403, "http.csrf")
    gone = await post(page, "/logout", **known)
    assert "max-age=0" in gone.headers["set-cookie"].lower()
    assert (await page.get("/queues", role=None, cookie=known["cookie"])).status == 401


async def test_a_session_that_was_logged_out_stays_so_over_a_restart(page: Browser) -> None:
    """Also of a server that was killed the moment it answered; a session that goes on does."""
    known, other = await log_in(page), await log_in(page)
    assert (await post(page, "/logout", **known)).status == 200
    after = Browser(await page.server.crash(), open_site=Dashboard)
    assert (await after.get("/queues", role=None, cookie=known["cookie"])).status == 401
    assert (await after.ask("GET", "/session", role=None, cookie=known["cookie"])).status == 401
    assert (await post(after, "/logout", **known)).status == 200
    assert (await after.get("/queues", role=None, cookie=other["cookie"])).status == 200


async def test_logging_in_again_is_another_session(page: Browser) -> None:
    """The one before is over: whoever set its cookie gains nothing."""
    first = await log_in(page)
    again = await post(page, "/login", {"token": page.server.tokens["operator"]}, cookie=first["cookie"])
    assert cookie_of(again) != first["cookie"]
    assert (await page.get("/queues", role=None, cookie=first["cookie"])).status == 401


@pytest.mark.parametrize("body", [{}, {"token": ""}, {"token": "nonsense"}, {"code": "nonsense"}])
async def test_what_is_no_token_opens_nothing(page: Browser, body: dict[str, str]) -> None:
    """All are refused alike, and none gets a cookie."""
    refused = await post(page, "/login", body)
    assert refused.error[:2] == (401, "auth.refused")
    assert "set-cookie" not in refused.headers


@pytest.mark.parametrize("body", [[], {"token": 1}, {"user": "me"}])
async def test_a_login_that_is_none_is_pointed_at(page: Browser, body: object) -> None:
    """With the place of the fault."""
    assert (await post(page, "/login", body)).status == 400
    assert (await post(page, "/login", {"token": "x"}, content_type="text/plain")).error[1] == "http.media_type"


async def test_an_agents_token_opens_nothing(page: Browser) -> None:
    """It is for machines."""
    assert (await post(page, "/login", {"token": page.server.tokens["agent"]})).status == 403


async def test_guesses_are_dear(server: Server) -> None:
    """Twenty requests' worth each, of whoever makes them."""
    page = Browser(server, open_site=Dashboard, rates=Rates(address=Rate(0.01, 41)))
    statuses = [(await post(page, "/login", {"token": "x"})).status for _ in range(3)]
    assert statuses == [401, 401, 429]


async def test_a_login_link_works_once(page: Browser) -> None:
    """It is made by whoever shows a token, and opens what that token may."""
    made = await page.ask("POST", "/login/link", role="client")
    code = made.json["code"]
    assert (await post(page, "/login", {"code": code})).json["role"] == "client"
    assert (await post(page, "/login", {"code": code})).error[:2] == (401, "auth.refused")
    assert (await page.ask("POST", "/login/link", role=None)).status == 401
    known = await log_in(page, "viewer")
    assert (await post(page, "/login/link", **known)).error[:2] == (401, "auth.refused")


async def test_the_page_is_there_for_anybody_and_says_nothing(page: Browser) -> None:
    """The same document on each of its paths, with the headers that keep it from doing more."""
    for path in ("/", *(f"/{screen}" for screen in SCREENS), "/tasks/some-id", "/agents/a/b"):
        answer = await page.ask("GET", path, role=None)
        assert answer.status == 200, path
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.headers["content-security-policy"] == SECURITY["content-security-policy"]
        again = await page.ask("GET", path, role=None, if_none_match=answer.headers["etag"])
        assert (again.status, again.body) == (304, b"")
    assert (await page.ask("GET", "/elsewhere", role=None)).status == 404
    assert (await page.ask("GET", "/favicon.ico", role=None)).status == 307


async def test_its_files_are_kept_for_ever_under_their_digest(page: Browser) -> None:
    """And under no other; nor is there a way out of their folder."""
    digest = load_assets().digest
    for path, asset in load_assets().by_path.items():
        answer = await page.ask("GET", f"/static/{digest}/{path}", role=None)
        assert (answer.status, answer.body) == (200, asset.content)
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    nowhere = ["0000/app.css", *(f"{digest}/{path}" for path in ("index.html", "../pages.py", "%2e%2e/pages.py"))]
    for path in (*nowhere, f"{digest}/vendor/README.md"):
        assert (await page.ask("GET", f"/static/{path}", role=None)).status == 404, path


async def test_below_a_prefix_everything_is(server: Server) -> None:
    """The document asks for its files there, and the cookie is good there alone."""
    page = Browser(server, open_site=Dashboard, prefix="/ops/taskd")
    document = await page.ask("GET", "/ops/taskd/tasks", role=None)
    for src in re.findall(r'(?:src|href)="([^"]+)"', document.body.decode()):
        assert src.startswith("/ops/taskd/static/")
        assert (await page.ask("GET", src, role=None)).status == 200
    answer = await post(page, "/ops/taskd/login", {"token": server.tokens["viewer"]})
    assert "path=/ops/taskd;" in answer.headers["set-cookie"].lower()
    assert (await page.ask("GET", "/ops/taskd/api/v1/queues", role=None, cookie=cookie_of(answer))).status == 200
    assert (await page.ask("GET", "/tasks", role=None)).status == 404


async def test_a_foreign_host_is_told_nothing(page: Browser) -> None:
    """Neither the page nor a login."""
    for method, path in (("GET", "/"), ("GET", "/session"), ("POST", "/login"), ("POST", "/logout")):
        assert (await page.ask(method, path, b"{}", role=None, host="evil.example")).status == 400


async def test_who_reads_is_shown_that_there_is_no_such_page(page: Browser) -> None:
    """By the page's own document, which leads home; programs, and whoever asks below the API, are told in JSON."""
    shown = await page.ask("GET", "/nope/at/all", role=None, accept="text/html,application/xhtml+xml,*/*;q=0.8")
    home = await page.ask("GET", "/", role=None)
    assert (shown.status, home.status) == (404, 200)
    assert shown.body == home.body
    assert shown.headers["content-type"] == home.headers["content-type"]
    assert shown.headers["cache-control"] == "no-store"
    again = await page.ask("GET", "/nope/at/all", role=None, accept="text/html", if_none_match=home.headers["etag"])
    assert again.status == 404
    for path, accept in [("/nope", "*/*"), ("/nope", "application/json"), ("/api/v1/nope", "text/html")]:
        told = await page.ask("GET", path, role=None, accept=accept)
        assert told.error[:2] == (404, "http.not_found")
    posted = await page.ask("POST", "/nope", b"", role=None, accept="text/html", **OURS)
    assert posted.error[:2] == (404, "http.not_found")


async def test_without_a_page_everybody_is_told_in_json(server: Server) -> None:
    bare = Browser(server)
    assert (await bare.ask("GET", "/nope", role=None, accept="text/html")).error[:2] == (404, "http.not_found")
