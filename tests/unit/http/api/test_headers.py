"""Headers: whatever stands in them, a request is answered or refused, and it is no fault of the server's."""

from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.http import Browser
from harness.server import Server
from harness.virtual import on_virtual_time
from taskd.http.app import make_app
from taskd.server.certificates import Certificates
from taskd_dashboard.pages import Dashboard

Request = tuple[tuple[str, str], dict[str, str], str | None, bytes]

PARSED = [
    *("accept", "authorization", "content-encoding", "content-length", "content-type", "cookie", "forwarded", "host"),
    *("if-none-match", "last-event-id", "origin", "range", "referer", "sec-fetch-site", "traceparent", "tracestate"),
    *("transfer-encoding", "x-csrf-token", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"),
]
ODD = [
    *("", " ", ",", ";", "=", "http://[::1", "http://[", "//", "null", "9" * 5_000, "-1", "1e9", "0x1", "\xb2", "\xff"),
    *("Bearer", "Bearer ", "taskd_a_b_c_d", "Basic Og==", "multipart/form-data; boundary=", "bytes=-", "gzip, br"),
    *("multipart/form-data; boundary=\xff", "application/json; charset=\xff", "text/html;q=x", "*/*;q=", 'a="'),
    *("application/openmetrics-text; version=x", "application/openmetrics-text; version=\xff", "[::1", "localhost:x"),
    *("multipart/form-data; boundary=X", "text/event-stream", "application/json", "localhost", "00-" + "0" * 52),
]
VALUES = st.one_of(
    st.sampled_from(ODD),
    st.text(st.characters(max_codepoint=255, exclude_categories=["Cc"]), max_size=60),
    st.builds(lambda first, then: first + then, st.sampled_from(ODD), st.text("[]:;=,-\"'/0f ", max_size=12)),
)
PAGES = [
    *[("GET", "/api/v1/tasks"), ("GET", "/api/v1/whoami"), ("GET", "/metrics"), ("GET", "/"), ("GET", "/session")],
    *[("POST", "/api/v1/tasks"), ("POST", "/api/v1/queues/q/pause"), ("POST", "/login"), ("POST", "/login/link")],
    *[("POST", "/logout"), ("HEAD", "/api/v1/events"), ("HEAD", "/api/v1/live?topics=overview"), ("GET", "/readyz")],
]


REQUESTS = st.tuples(
    st.sampled_from(PAGES),
    st.dictionaries(st.sampled_from(PARSED), VALUES, max_size=4),
    st.sampled_from(["admin", None]),
    st.sampled_from([b"", b"{}", b'{"name": "m.f"}', b"--X\r\n\r\nx\r\n--X--\r\n"]),
)


@given(requests=st.lists(REQUESTS, min_size=1, max_size=30))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_header_is_a_fault_of_the_server(ca: Certificates, tmp_path: Path, requests: list[Request]) -> None:
    async def ask_all() -> None:
        async with trio.open_nursery() as nursery:
            browser = Browser(server := await Server(nursery, ca).start())
            browser.app = make_app(
                ready=lambda: True,
                hosts=["localhost"],
                services=server.services,
                data_dir=tmp_path,
                open_site=Dashboard,
            )
            for page, said, role, body in requests:
                headers = {name.replace("-", "_"): text for name, text in said.items()}
                answer = await browser.ask(*page, body, role=role, **headers)
                assert answer.status < 500, (page, said, answer.body)
            nursery.cancel_scope.cancel()

    on_virtual_time(ask_all)


async def test_an_origin_that_is_none_is_nobodys(browser: Browser) -> None:
    for role in ("admin", None):
        answer = await browser.post("/queues/q/pause", role=role, origin="http://[::1")
        assert answer.error[:2] == (403, "http.origin")


@pytest.mark.parametrize("said", ["gzip", "GZIP", "identity, br", "zstd"])
async def test_a_body_that_is_packed_is_refused(browser: Browser, said: str) -> None:
    answer = await browser.post("/queues/q/weight", {"weight": 2}, content_encoding=said)
    assert answer.error[:2] == (415, "http.media_type")
    assert "Content-Encoding" in answer.error[2]
    assert (await browser.post("/queues/q/weight", {"weight": 2}, content_encoding="identity")).status == 200


@pytest.mark.parametrize("path", ["/events", "/live?topics=overview"])
async def test_a_head_of_a_stream_ends(nursery: trio.Nursery, ca: Certificates, path: str) -> None:
    browser = Browser(await Server(nursery, ca, watched=True).start())
    answer = await browser.ask("HEAD", f"/api/v1{path}", role="viewer")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["content-type"].startswith("text/event-stream")


TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("said", "goes_on"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"01-{TRACE}-{SPAN}-01", True),
        (f"cc-{TRACE}-{SPAN}-01-what-is-to-come", True),
        (f"00-{TRACE}-{SPAN}-01-more", False),
        (f"cc-{TRACE}-{SPAN}-01more", False),
        (f"ff-{TRACE}-{SPAN}-01", False),
        (f"00-{TRACE.upper()}-{SPAN}-01", False),
        (f"00-{'0' * 32}-{SPAN}-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        ("nonsense", False),
        ("", False),
    ],
)
async def test_a_trace_goes_on_or_begins_anew(browser: Browser, said: str, *, goes_on: bool) -> None:
    """As W3C has it: no header that cannot be read keeps a task from being submitted."""
    answer = await browser.post("/tasks", {"name": "m.f"}, traceparent=said)
    assert answer.status == 201, answer.body
    trace_id = (await browser.get(f"/tasks/{answer.json['id']}")).json["trace_id"]
    assert (trace_id == TRACE) == goes_on
    assert int(trace_id, 16)


@pytest.mark.parametrize(
    "said", [f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE.upper()}-{SPAN}-01"]
)
async def test_a_trace_that_a_submit_names_is_one(browser: Browser, said: str) -> None:
    answer = await browser.post("/tasks", {"name": "m.f", "traceparent": said})
    assert answer.error[:2] == (400, "request.invalid")
    assert "traceparent" in answer.error[2]
