"""The page that Prometheus reads: for tokens that may look on, and counted itself."""

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from harness.http import Browser
from taskd.http.app import make_app


@pytest.fixture
def browser(browser: Browser, tmp_path: Path) -> Browser:
    browser.app = make_app(ready=lambda: True, hosts=["localhost"], services=browser.server.services, data_dir=tmp_path)
    return browser


def samples(text: str, name: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


@pytest.mark.parametrize("role", ["viewer", "client", "operator", "admin"])
async def test_who_may_look_on_may_scrape(browser: Browser, role: str) -> None:
    answer = await browser.ask("GET", "/metrics", role=role)
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert samples(answer.body.decode(), "taskd_ready") == {(): 1}


async def test_strangers_and_agents_are_refused(browser: Browser) -> None:
    assert (await browser.ask("GET", "/metrics", role=None)).error[:2] == (401, "auth.refused")
    assert (await browser.ask("GET", "/metrics", role="agent")).error[:2] == (403, "auth.role")


async def test_requests_are_told_by_route_and_status(browser: Browser) -> None:
    await browser.get("/queues")
    await browser.post("/queues/images/pause", role="viewer")
    await browser.ask("GET", "/metrics", role=None)
    text = (await browser.ask("GET", "/metrics", role="viewer")).body.decode()
    assert samples(text, "taskd_http_requests_total") == {
        ("GET", "/queues", "200"): 1,
        ("POST", "/queues/{name:path}/pause", "403"): 1,
        ("GET", "/metrics", "401"): 1,
    }
