"""What the page shows is what has happened: compared with what a client and its tasks have written down."""

import json
import signal
import sys
from bisect import bisect_right
from pathlib import Path
from typing import NamedTuple, cast

import pytest

from browser.conftest import Site
from browser.tab import Tab
from e2e.house import Running, wait_until

ROUNDS_MIN = 3
"""Stretches of two seconds that are compared, while work is submitted all of the time."""

BURST = 250
"""Tasks that are submitted at once; beside each, one that dies and one that is not due for long."""

# A client of its own process: 5,000 tasks a second are too many to be told one by one by this test. Each task says when
# it ran. So there is a bound to both sides, at each instant, of what the server has counted: what it was asked for and
# what it has acknowledged; what has run and what it has told the result of.
FLOOD = f"""
import json, threading, time
from pathlib import Path
from shop import refuse, stamp

PER_SECOND, SECONDS, BURST = 5_000, 10, {BURST}
asked, accepted, handles = [], [], []
ran, told = [], []

def collect():
    for number in range(PER_SECOND * SECONDS):
        while len(handles) <= number:
            time.sleep(0.01)
        ran.append(handles[number].result(timeout=60))
        told.append(time.time())

reader = threading.Thread(target=collect)
reader.start()
begun = time.monotonic()
for number in range(PER_SECOND * SECONDS // BURST):
    asked += [time.time()] * BURST
    handles += stamp.options(queue="flood").map(range(BURST))
    accepted += [time.time()] * BURST
    refuse.options(queue="flood").submit()
    stamp.options(queue="flood", delay=3600).submit(0)
    if number * BURST == 2 * PER_SECOND:
        print("now", flush=True)
    time.sleep(max(0.0, begun + (number + 1) * BURST / PER_SECOND - time.monotonic()))
reader.join()
Path("ledger.json").write_text(json.dumps(dict(asked=asked, accepted=accepted, ran=sorted(ran), told=told)))
print("ended", flush=True)
"""

_KEEP = """
    const number = (text) => Number(text.replace(/[,/s]/g, '').replace(/(.*)k$/, (_, thousands) => thousands * 1000));
    window.__kept = [];
    setInterval(() => {
      const [newest, before] = document.querySelectorAll('details.twin tbody tr');
      if (!newest || !before) return;
      const [end, start] = [newest, before].map((row) => Date.parse(row.querySelector('time').dateTime) / 1000);
      const figure = number(document.querySelector('[data-figure=Finished]').textContent);
      const last = window.__kept.at(-1);
      if (last?.[1] === end) {
        last[4] = figure; // it is drawn a frame after the row
        return;
      }
      const texts = [...newest.querySelectorAll('td')].map((cell) => cell.textContent);
      window.__kept.push([start, end, ...[texts[0], texts[1]].map(number), figure]);
    }, 50);
"""
"""Has the page keep its throughput's newest row and its figure, each time they have changed."""


class Shown(NamedTuple):
    """What the page has shown of a stretch of time; rates are a second's."""

    start_s: float
    end_s: float
    submitted: float
    succeeded: float
    figure: float


class Ledger:
    """When each task was at which point, for a client."""

    def __init__(self, path: Path) -> None:
        self.times: dict[str, list[float]] = json.loads(path.read_text())

    def until(self, point: str, at_s: float) -> int:
        """Return how many had come to a point by then."""
        return bisect_right(self.times[point], at_s)

    def rates(self, before: str, after: str, shown: Shown) -> tuple[float, float]:
        """Return between which rates it must have been at what lies between two points."""
        least = self.until(after, shown.end_s) - self.until(before, shown.start_s)
        most = self.until(before, shown.end_s) - self.until(after, shown.start_s)
        return tuple(count / (shown.end_s - shown.start_s) for count in (least, most))  # type: ignore[return-value]


def test_figures_agree_with_a_ledger_under_load(site: Site) -> None:
    """Five thousand tasks a second, an agent killed on the way: rates within a twentieth, exact when it is quiet."""
    tab, home = site.tab, site.home
    (home.work / "flood.py").write_text(FLOOD)
    tab.open("/")
    tab.see("Throughput", "Live")
    quiet_ms = wait_until(lambda: at_rest(site))
    before = {
        name: int(figure(tab, name).replace(",", "")) for name in ("Ready", "Running", "Scheduled", "Dead letters")
    }
    tab.run(_KEEP)
    flood = Running([sys.executable], ["flood.py"], home.env, home.work)
    try:
        assert flood.read_line(120) == "now"
        site.agents["birch"].end(signal.SIGKILL)
        assert flood.read_line(120) == "ended"
    finally:
        flood.close()
        site.start_agent("birch")
    ledger = Ledger(home.work / "ledger.json")
    compare(ledger, [Shown(*each) for each in tab.run("return window.__kept")])
    total = len(ledger.times["told"])
    beside = total // BURST
    wait_until(lambda: submitted_since(site, quiet_ms) == total + 2 * beside)
    assert site.count("queue:flood state:succeeded") == total
    after = {"Ready": 0, "Running": -before["Running"], "Scheduled": beside, "Dead letters": beside}
    expected = {name: f"{before[name] + more:,}" for name, more in after.items()}
    tab.wait(lambda: {name: figure(tab, name) for name in expected} == expected, str(expected))
    tab.open("/dead")
    tab.see("nobody wants it", f"{beside}")
    wait_until(lambda: site.live() >= {"ash", "birch"})
    assert tab.said_wrong() == []


def compare(ledger: Ledger, shown: list[Shown]) -> None:
    """Check what was shown while work was submitted."""
    first_s, last_s = ledger.times["asked"][0], ledger.times["accepted"][-1]
    during = [each for each in shown if first_s < each.start_s and each.end_s < last_s]
    assert len(during) >= ROUNDS_MIN
    for each in during:
        for rate, before, after in ((each.submitted, "asked", "accepted"), (each.succeeded, "ran", "told")):
            least, most = ledger.rates(before, after, each)
            assert 0.95 * least <= rate <= 1.05 * most, (each, before, least, most)
        assert each.figure == pytest.approx(each.succeeded, rel=0.01)


def points(site: Site) -> dict[str, list[int]]:
    return cast("dict[str, list[int]]", site.ask("GET", "/api/v1/overview?range=15m"))


def at_rest(site: Site) -> int:
    """Return of when the last point is, if nothing was submitted in it."""
    told = points(site)
    return told["at_ms"][-1] if told["submitted"] and not told["submitted"][-1] else 0


def submitted_since(site: Site, at_ms: int) -> int:
    told = points(site)
    return sum(count for count, at in zip(told["submitted"], told["at_ms"], strict=True) if at > at_ms)


def figure(tab: Tab, name: str) -> str:
    return str(tab.run('return document.querySelector(`[data-figure="${arguments[0]}"]`)?.textContent', name))
