"""Takes the pictures of the dashboard in `docs/images`: `PYTHONPATH=tests .venv/bin/python scripts/screenshots.py`.

A server and two agents of its own do some work meanwhile; the browser is the distribution's.
"""

import base64
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from browser.tab import PHONE, Tab, chromium
from e2e.house import House, house, wait_until

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
DESKTOP = (1280, 860)
ON_PHONES = {"overview", "tasks", "task", "workflow", "agents", "dead"}
WARM_UP_S = 60.0  # for charts that show something

WORK = """
import logging, random, time
from taskd import App, Cron, Retry, current

app = App()
log = logging.getLogger("shop")

@app.task(queue="images", retry=Retry(max_attempts=2, base=0.5))
def thumbnail(path, size=256):
    time.sleep(random.uniform(0.02, 0.3))
    if random.random() < 0.12:
        raise OSError(f"{path.split('-')[0]} cannot be read: truncated file")
    return f"{path} at {size}"

@app.task(queue="mail", retry=Retry(max_attempts=1))
def send_receipt(order):
    time.sleep(0.05)
    if order % 9 == 0:
        raise ConnectionError("smtp.example.net refused the connection")
    return {"order": order, "sent": True}

@app.task(queue="imports")
def import_orders(path, rows):
    for number in range(rows):
        if number % 4 == 0:
            log.info("row %d of %s", number, path, extra={"customer": f"c-{number % 7}"})
        print(f"order {10_000 + number} kept")
        current().progress(number + 1, rows, "imported")
        time.sleep(0.25)
    return {"rows": rows}

@app.task(queue="reports")
def fetch(day):
    time.sleep(0.4)
    return list(range(8))

@app.task(queue="reports")
def parse(rows, part):
    time.sleep(random.uniform(0.3, 1.2))
    return part

@app.task(queue="reports")
def total(*parts):
    time.sleep(0.5)
    return sum(parts)

@app.task(schedule=Cron("0 3 * * mon-fri", tz="Europe/Oslo"))
def nightly_backup():
    return "done"

@app.task(schedule=Cron("*/10 * * * *"))
def refresh_rates():
    return 17
"""

FEED = """
import random, time
from shop import app, fetch, import_orders, parse, send_receipt, thumbnail, total

def flow():
    with app.workflow("daily report") as wf:
        rows = fetch.node("2026-11-29")
        parts = [parse.node(rows, number) for number in range(6)]
        sums = [total.node(*parts[:3]), total.node(*parts[3:])]
        total.node(*sums, after=wf.signal("approve"))
    return wf.submit()

flow()
import_orders.submit("orders.csv", 2_000)
thumbnail.options(delay=3600).submit("later.png")
until = time.monotonic() + float(__import__("sys").argv[1])
number = 0
while time.monotonic() < until:
    wave = random.randint(2, 9)
    thumbnail.map([f"album{random.randint(1, 5)}-{number + n}.png" for n in range(wave)])
    if number % 3 == 0:
        send_receipt.map(list(range(number, number + 3)))
    number += wave
    if number % 97 < 5:
        flow()
    time.sleep(0.5)
"""


def ask(home: House, method: str, path: str) -> dict[str, list[dict[str, object]]]:
    """Ask the API."""
    profile = home.profile()
    request = urllib.request.Request(  # noqa: S310 - our own server
        profile["http"] + path, method=method, headers={"authorization": f"Bearer {profile['token']}"}
    )
    with urllib.request.urlopen(request) as answer:  # noqa: S310 - likewise
        return dict(json.load(answer))


@contextmanager
def busy_site() -> Iterator[House]:
    """A server that has been busy for a while."""
    with tempfile.TemporaryDirectory(prefix="taskd-pictures-") as folder, house(Path(folder) / "home") as home:
        (home.work / "shop.py").write_text(WORK)
        (home.work / "feed.py").write_text(FEED)
        home.serve()
        for name in ("ash", "birch"):
            home.start("agent", "shop", "--name", name, "--processes", "2", "--label", f"zone={name[0]}")
        wait_until(lambda: len(home.agents()) == len(("ash", "birch")))
        with subprocess.Popen([sys.executable, "feed.py", str(2 * WARM_UP_S)], env=home.env, cwd=home.work) as feed:
            time.sleep(WARM_UP_S)
            yield home
            feed.kill()


def paths(home: House) -> dict[str, str]:
    """Return what is pictured, by the name of its picture."""
    running = ask(home, "GET", "/api/v1/tasks?filter=name:shop.import_orders")["tasks"][0]["id"]
    workflow = ask(home, "GET", "/api/v1/workflows")["workflows"][0]["id"]
    return {
        "overview": "/",
        "tasks": "/tasks",
        "task": f"/tasks/{running}",
        "workflow": f"/workflows/{workflow}",
        "queues": "/queues",
        "agents": "/agents",
        "schedule": "/schedules/shop.nightly_backup",
        "dead": "/dead",
    }


def sizes(name: str) -> list[tuple[tuple[int, int], str]]:
    """Return at which sizes a page is pictured, with what is added to its name."""
    return [(DESKTOP, ""), *([(PHONE, "-phone")] if name in ON_PHONES else [])]


def picture(tab: Tab, name: str) -> None:
    """Keep what the tab shows."""
    told = tab.command("Page.captureScreenshot", {"format": "png", "optimizeForSpeed": False})
    path = IMAGES / f"{name}.png"
    path.write_bytes(base64.b64decode(told["data"]))
    print(f"{path.name}: {path.stat().st_size:,} bytes")


def main() -> None:
    """Take all of them."""
    IMAGES.mkdir(exist_ok=True)
    with busy_site() as home, tempfile.TemporaryDirectory() as profile, chromium(Path(profile)) as driver:
        tab = Tab(driver, home.profile()["http"])
        tab.size(DESKTOP)
        tab.driver.get(home.ask("dashboard"))
        tab.see("Throughput")
        for name, path in paths(home).items():
            for size, suffix in sizes(name):
                tab.size(size)
                tab.open(path)
                tab.see("Live")
                tab.wait(lambda: not tab.find(".skeleton"))
                time.sleep(2.5)
                picture(tab, name + suffix)
        tab.size(DESKTOP)
        tab.run("localStorage.setItem('taskd.theme', 'dark')")
        tab.open("/")
        tab.see("Live")
        time.sleep(2.5)
        picture(tab, "overview-dark")


if __name__ == "__main__":
    main()
