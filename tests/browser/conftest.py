"""What the tests in the browser share: a real server with real agents, and a tab that has logged in."""

import json
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import quote

import pytest

from browser.tab import DESKTOP, Tab, chromium
from e2e.house import House, Running, house, wait_until

MODULE = r"""
import logging
import os
import time
from taskd import App, Cron, Retry, current

app = App()

@app.task(queue="images")
def thumbnail(path, size=256):
    return f"{path} at {size}"

@app.task(queue="mail", retry=Retry(max_attempts=1))
def send(to):
    raise ConnectionError(f"smtp.example.net refused the connection")

@app.task
def nap(seconds=30):
    for number in range(int(seconds * 10)):
        print(f"still asleep, {number}", flush=True)
        time.sleep(0.1)
    return "awake"

@app.task
def talk(heard):
    # until the file is there
    number = 0
    while not os.path.exists(heard):
        print(f"\x1b[31mline {number} in red\x1b[0m")
        logging.getLogger("shop").warning("line %d", number)
        number += 1
        time.sleep(0.1)
    print("line of the end")
    current().emit({"heard": True})

@app.task
def echo(value):
    return value

@app.task
def stamp(_):
    return time.time()

@app.task(name="a." + "long" * 50, queue="long", retry=Retry(max_attempts=1))
def overflow(word):
    raise type(word * 30, (Exception,), {})(word * 100)

@app.task(retry=Retry(max_attempts=1))
def refuse():
    raise ValueError("nobody wants it")

@app.task
def add(*numbers):
    return sum(numbers)

@app.task(schedule=Cron("30 6 * * mon-fri", tz="Europe/Oslo"))
def report():
    return "done"
"""


class Site:
    """A server, two agents, and a tab in which an operator has logged in."""

    def __init__(self, home: House, server: Running, tab: Tab, agents: dict[str, Running]) -> None:
        self.home = home
        self.server = server
        self.tab = tab
        self.agents = agents

    @property
    def at(self) -> str:
        """Where HTTP is."""
        return self.home.profile()["http"]

    def ask(self, method: str, path: str, body: object = None, token: str = "") -> dict[str, object]:
        """Ask the API as a program does."""
        said = {"authorization": f"Bearer {token or self.home.profile()['token']}", "content-type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.at + path, data, said, method=method)  # noqa: S310 - our own server
        context = ssl.create_default_context(cadata=self.home.profile()["ca_pem"])
        with urllib.request.urlopen(request, context=context) as answer:  # noqa: S310 - likewise
            return dict(json.load(answer))

    def submit(self, name: str, *args: object, **more: object) -> str:
        """Submit a task; return its id."""
        return str(self.ask("POST", "/api/v1/tasks", {"name": name, "args": args, **more})["id"])

    def ended(self, task_id: str) -> dict[str, object]:
        """Wait for a task's end; return it."""
        return self.ask("GET", f"/api/v1/tasks/{task_id}/wait?seconds=30")

    def python(self, script: str) -> str:
        """Run a program of a user's to its end; return what it printed."""
        words = [sys.executable, script]
        ended = subprocess.run(
            words, env=self.home.env, cwd=self.home.work, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.strip()

    def link(self, role: str = "admin") -> str:
        """Return the path of a link that logs in once."""
        token = "" if role == "admin" else self.home.ask("token", "create", "--role", role)
        return f"/login#{self.ask('POST', '/login/link', token=token)['code']}"

    def log_in(self, role: str = "admin") -> None:
        """Log the tab in, as whoever it was before no more."""
        self.tab.driver.delete_all_cookies()
        self.tab.follow(self.link(role))
        self.tab.see("Overview", role)

    def start_agent(self, name: str) -> None:
        """Have an agent more."""
        words = ("shop", "--name", name, "--processes", "2", "--label", "zone=a")
        self.agents[name] = self.home.start("agent", *words)

    def live(self) -> set[str]:
        """Return the names of the agents that are there."""
        agents = self.ask("GET", "/api/v1/agents")["agents"]
        assert isinstance(agents, list)
        return {agent["name"] for agent in agents if agent["state"] == "live"}

    def count(self, words: str) -> int:
        """Return how many tasks fit a filter."""
        counted, cursor = 0, ""
        while True:
            told = self.ask("GET", f"/api/v1/tasks/count?filter={quote(words)}&cursor={cursor}")
            counted += int(str(told["count"]))
            if told["cursor"] is None:
                return counted
            cursor = str(told["cursor"])

    def waiting(self) -> int:
        """Return how many tasks are ready."""
        queues = self.ask("GET", "/api/v1/queues")["queues"]
        assert isinstance(queues, list)
        return sum(int(queue["ready"]) for queue in queues)


def open_site(home: House, tab: Callable[[str], Tab], *words: str, agents: Sequence[str] = ("ash",)) -> Site:
    """Start everything, the server with these words more."""
    (home.work / "shop.py").write_text(MODULE)
    site = Site(home, home.serve(*words), tab(home.profile()["http"]), {})
    for name in agents:
        site.start_agent(name)
    site.tab.size(DESKTOP)
    wait_until(lambda: site.live() >= set(agents))
    return site


@pytest.fixture(scope="package")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Tab]]:
    """One Chromium for all tests."""
    with chromium(tmp_path_factory.mktemp("chromium")) as driver:
        yield lambda at: Tab(driver, at)


@pytest.fixture(scope="package")
def shared(tmp_path_factory: pytest.TempPathFactory, browser: Callable[[str], Tab]) -> Iterator[Site]:
    """A server and two agents for all tests: each leaves them at work; what it has stored stays."""
    with house(tmp_path_factory.mktemp("site")) as home:
        yield open_site(home, browser, agents=("ash", "birch"))


@pytest.fixture(scope="module")
def site(shared: Site) -> Site:
    """That server, with an admin before the screen."""
    shared.tab.size(DESKTOP)
    shared.log_in()
    return shared
