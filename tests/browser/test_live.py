"""How quick the page is, how light, and what it does when the server goes away."""

import signal
import time
from collections.abc import Callable
from functools import partial
from typing import cast

import pytest

from browser.conftest import Site
from browser.tab import Tab

PAINT_MS_MAX = 1_000
PIXEL_MS_MAX = 500
TRIES = 10
"""One is enough: what else this machine does is not the page's."""
WEIGHT_BYTES_MAX = 250_000

_LOOK_FOR = """
    const [words] = arguments;
    window.__seen = null;
    const look = () => { if (!window.__seen && document.body.innerText.includes(words)) window.__seen = Date.now(); };
    new MutationObserver(look).observe(document.body, {subtree: true, childList: true, characterData: true});
"""
WEIGHED = """
    const paint = performance.getEntriesByType('paint').map((e) => e.startTime);
    if (!paint.length || !window.__drawn) return null;
    const files = performance.getEntriesByType('resource').filter((e) => !e.name.includes('/api/'));
    const bytes = [...files, ...performance.getEntriesByType('navigation')].map((e) => e.decodedBodySize);
    return {paint: Math.max(...paint, window.__drawn), bytes: bytes.reduce((sum, each) => sum + each, 0)};
"""
_TIMES = """
    const table = document.querySelector('details.twin tbody');
    return [...table.querySelectorAll('time')].map((each) => Date.parse(each.dateTime));
"""


def ms_to_see(tab: Tab, words: str, act: Callable[[], object]) -> float:
    """Return how long after the end of an act it is to be read, in the browser's own time."""
    tab.run(_LOOK_FOR, words)
    act()
    at_ms = time.time() * 1_000  # noqa: TID251 - compared with the browser's clock
    seen = tab.wait(lambda: tab.run("return window.__seen"), words)
    return float(seen) - at_ms


def is_seen(tab: Tab, makes: Callable[[int], tuple[str, Callable[[], object]]]) -> bool:
    """Whether what happens is once to be read in time; each try is of a thing of its own."""
    return any(ms_to_see(tab, *makes(number)) <= PIXEL_MS_MAX for number in range(TRIES))


def test_what_happens_is_seen_within_half_a_second(site: Site) -> None:
    """From the moment on at which it is durable: on the list, on the task's page, on the overview."""
    tab = site.tab

    def submitted(number: int) -> tuple[str, Callable[[], object]]:
        return f"elsewhere.n{number}", partial(site.submit, f"elsewhere.n{number}", queue="seen")

    def cancelled(_: int) -> tuple[str, Callable[[], object]]:
        path = f"/tasks/{site.submit('elsewhere.other', queue='seen')}"
        tab.open(path)
        tab.see("Waits", "Live")
        return "cancelled", partial(site.ask, "POST", f"/api/v1{path}/cancel", {})

    def queued(number: int) -> tuple[str, Callable[[], object]]:
        return f"seen-too-{number}", partial(site.submit, "elsewhere.it", queue=f"seen-too-{number}")

    tab.open("/tasks?filter=queue:seen")
    tab.see("fits.", "Live")
    assert is_seen(tab, submitted)
    assert is_seen(tab, cancelled)
    tab.open("/queues")
    tab.see("Live", "seen")
    assert is_seen(tab, queued)


_LATE_STREAMS = """
    const [Stream, repeat] = [window.EventSource, window.setInterval];
    window.setInterval = (work, ms) => ms < 10000 ? repeat(work, ms) : 0;
    window.EventSource = class {
      constructor(url) {
        window.__open = () => {
          this.real = new Stream(url);
          for (const name of ['onopen', 'onerror', 'onmessage']) this.real[name] = (event) => this[name]?.(event);
        };
      }
      addEventListener() {}
      close() { this.real?.close(); }
    };
"""
"""No page asks again by itself, and each stream of news begins when this test says so."""


def test_what_happens_before_news_are_followed_is_seen(site: Site) -> None:
    """Between what a page has asked for and the begin of its stream there is no gap."""
    tab = site.tab
    task_id = site.submit("elsewhere.gap", queue="gap", delay_ms=3_600_000)
    tab.open("/tasks?filter=queue:gap")
    tab.see("elsewhere.gap", "scheduled", "Live")
    tab.run(_LATE_STREAMS)
    tab.click("elsewhere.gap")
    tab.see("Timeline", "Scheduled")
    tab.wait(lambda: tab.run("return Boolean(window.__open)"))
    site.ask("POST", f"/api/v1/tasks/{task_id}/cancel", {})
    tab.run("window.__open()")
    tab.wait(lambda: [chip.text for chip in tab.find(".head .chip")] == ["cancelled"])


@pytest.mark.parametrize("path", ["/", "/tasks", "/workflows", "/dead"])
def test_a_page_is_there_within_a_second_and_light(site: Site, path: str) -> None:
    """With nothing kept in the browser: its first meaningful paint, and all that it loads."""
    tab = site.tab

    def paint_ms() -> float:
        tab.command("Network.clearBrowserCache", {})
        tab.open(path)
        tab.wait(lambda: tab.find("#main h1"))
        tab.see("Live")
        told = tab.wait(lambda: tab.run(WEIGHED))
        assert 50_000 < told["bytes"] <= WEIGHT_BYTES_MAX
        return float(told["paint"])

    assert any(0 < paint_ms() <= PAINT_MS_MAX for _ in range(TRIES))


def test_a_lost_server_is_told_and_found_again(site: Site) -> None:
    """Killed, and started again: the page that was open goes on by itself, logged in, with its history."""
    tab, home = site.tab, site.home
    site.ended(site.submit("shop.echo", 1))
    tab.open("/")
    tab.see("Throughput", "Live")
    tab.wait(lambda: len(times(tab)) > 8, within_s=40)
    tab.run("window.__same = true")
    address, http = home.profile()["address"], home.profile()["http"].removeprefix("http://")
    before = times(tab)
    site.server.end(signal.SIGKILL)
    tab.see("Connection lost")
    site.server = home.start("server", "--listen", address, "--http", http)
    assert site.server.read_line().startswith("serving")
    tab.not_see("Connection lost")
    tab.see("Live", "all live")
    tab.wait(lambda: times(tab)[0] > before[0], within_s=40)
    kept = set(before[5:15])  # the last ten seconds of the finest are not kept, and a table has an end
    assert kept <= set(times(tab))
    assert kept <= set(cast("list[int]", site.ask("GET", "/api/v1/overview")["at_ms"]))
    assert tab.run("return window.__same")
    tab.open("/tasks")
    tab.see("shop.echo")


def times(tab: Tab) -> list[int]:
    """Return of when the first chart's points are, the newest first."""
    return [int(each) for each in tab.run(_TIMES)]
