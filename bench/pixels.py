"""How soon people see it: each page's first meaningful paint and weight, and from event to pixel, idle and under load.

    PYTHONPATH=tests python bench/pixels.py [--tries N] [--rate N] [--seconds N] [--json]

A server and two agents as shipped, and the distribution's Chromium without a screen. A paint is when a page first shows
what it is about, from the begin of its loading, with nothing kept in the browser. From event to pixel is from the
answer to what was asked of the API, which is durable then, to the mutation that has put it into the page. Under load a
client submits so many no-op tasks a second meanwhile, and agents do them.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from browser.conftest import Site, open_site
from browser.tab import Tab, chromium
from browser.test_live import WEIGHED, ms_to_see
from e2e.house import house

FLOOD = """
import sys, time
from shop import echo

rate, burst = int(sys.argv[1]), 250
due, handles = time.monotonic(), []
while True:
    handles = echo.options(queue="flood").map(range(burst))
    due += burst / rate
    time.sleep(max(0.0, due - time.monotonic()))
"""
FLOW = """
from shop import app, add, echo

with app.workflow("nightly") as wf:
    parts = [add.node(echo.node(n), n) for n in range(30)]
    add.node(*parts)
print(wf.submit().id)
"""
SETTLE_S = 3.0
HOUR_MS = 3_600_000

Figures = dict[str, list[float]]


def paints(site: Site, tries: int) -> tuple[Figures, dict[str, int]]:
    """Return when each page was drawn, in ms, and how many bytes it has loaded."""
    tab = site.tab
    paths = {name: f"/{name}" for name in ("", "tasks", "workflows", "queues", "agents", "schedules", "dead")}
    task = site.submit("shop.echo", 1)
    site.ended(task)
    paths |= {
        "a task": f"/tasks/{task}",
        "a workflow": f"/workflows/{site.python('flow.py')}",
        "an agent": "/agents/ash",
    }
    found: Figures = {}
    weights: dict[str, int] = {}
    for name, path in paths.items():
        for _ in range(tries):
            tab.command("Network.clearBrowserCache", {})
            tab.open(path)
            told = tab.wait(lambda: tab.run(WEIGHED))
            found.setdefault(name or "overview", []).append(told["paint"])
            weights[name or "overview"] = told["bytes"]
    return found, weights


def pixels(site: Site, tries: int) -> Figures:
    """Return how late each of three events was to be read, in ms."""
    tab = site.tab
    mark = str(time.time_ns())[-9:]

    def submitted(number: int) -> tuple[str, Callable[[], object]]:
        return f"n{mark}.{number}.", lambda: site.submit(f"n{mark}.{number}.", queue="seen")

    def ended(number: int) -> tuple[str, Callable[[], object]]:
        path = f"/tasks/{site.submit(f'elsewhere.n{number}', delay_ms=HOUR_MS)}"
        tab.open(path)
        tab.see("Scheduled", "Live")
        return "cancelled", lambda: site.ask("POST", f"/api/v1{path}/cancel", {})

    def queued(number: int) -> tuple[str, Callable[[], object]]:
        return f"q{mark}.{number}.", lambda: site.submit("elsewhere.it", queue=f"q{mark}.{number}.", priority=1)

    events = {
        "a task in a filtered list": ("/tasks?filter=queue:seen", submitted),
        "a task's end on its page": ("/", ended),
    }
    events["a queue in their list"] = ("/queues", queued)
    found: Figures = {}
    for name, (path, make) in events.items():
        tab.open(path)
        tab.see("Live")
        for number in range(tries):
            found.setdefault(name, []).append(ms_to_see(tab, *make(number)))
            time.sleep(0.1 + number % 7 / 20)  # at no fixed place of what is coalesced
    return found


@contextmanager
def flood(site: Site, rate: int) -> Iterator[None]:
    """Have so many tasks a second submitted meanwhile."""
    words = [sys.executable, "flood.py", str(rate)]
    with subprocess.Popen(words, env=site.home.env, cwd=site.home.work) as process:
        time.sleep(SETTLE_S)
        yield
        process.kill()


def line(name: str, values: Sequence[float]) -> str:
    """Return the half and the 95th of a hundred."""
    ordered = sorted(values)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))]
    return f"{name:<28} p50 {statistics.median(ordered):6.0f} ms  p95 {p95:6.0f} ms  of {len(ordered)}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Paints and pixels, measured.")
    parser.add_argument("--tries", type=int, default=30)
    parser.add_argument("--rate", type=int, default=5_000, help="tasks a second, under load")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    told: dict[str, Figures] = {}

    def note(stage: str, figures: Figures) -> None:
        told[stage] = figures
        for name, values in {} if options.json else figures.items():
            print(f"{stage}  {line(name, values)}", flush=True)

    with tempfile.TemporaryDirectory() as folder, chromium(Path(folder) / "chromium") as driver:  # noqa: SIM117 - in this order
        with house(Path(folder) / "home") as home:
            site = open_site(home, lambda at: Tab(driver, at), agents=("ash", "birch"))
            site.log_in()
            (home.work / "flood.py").write_text(FLOOD)
            (home.work / "flow.py").write_text(FLOW)
            note("pixel, idle", pixels(site, options.tries))
            figures, weights = paints(site, options.tries)
            note("paint, idle", figures)
            with flood(site, options.rate):
                note("pixel, busy", pixels(site, options.tries))
                note("paint, busy", paints(site, options.tries)[0])
                rate = done_a_second(site)
    if options.json:
        print(json.dumps({"weights": weights, "busy_tasks_per_s": rate, **told}))
        return
    print(f"busy: {rate:,.0f} tasks/s were done; no page loads more than {max(weights.values()):,} bytes")


def done_a_second(site: Site) -> float:
    """Return how many tasks were done a second, over the last minute."""
    told = site.ask("GET", "/api/v1/overview?range=1h")
    counts, spans = cast("list[int]", told["succeeded"])[-6:], cast("list[int]", told["span_ms"])[-6:]
    return 1_000 * sum(counts) / sum(spans)


if __name__ == "__main__":
    main()
