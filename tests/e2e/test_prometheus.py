"""The monitoring that people have already: the real Prometheus, with the files that come with taskd."""

import json
import re
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.house import House, house, wait_until
from make_grafana import dashboard
from taskd.http.metrics import TEXTS

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
RULES = DEPLOY / "prometheus" / "taskd.rules.yml"
NAME = re.compile(r"\b(?:taskd_[a-z_]+|taskd:[a-z_0-9:]+)")
SUFFIXES = ("_total", "_bucket", "_sum", "_count")

MODULE = """
from taskd import App

app = App()

@app.task(queue="images")
def add(a, b=0):
    return a + b
"""

Json = dict[str, object]


def promtool(*words: str) -> None:
    ended = subprocess.run(["promtool", *words], cwd=RULES.parent, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def recorded() -> set[str]:
    return set(re.findall(r"record: (\S+)", RULES.read_text()))


def expressions() -> list[str]:
    """Return what the dashboard's panels ask for."""
    panels = json.loads((DEPLOY / "grafana" / "taskd.json").read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


def bare(name: str) -> str:
    """Return a metric's name without what says which of its series is meant."""
    for suffix in SUFFIXES:
        if name.removesuffix(suffix) in TEXTS:
            return name.removesuffix(suffix)
    return name


def test_the_rules_are_good_and_say_what_they_are_to_say() -> None:
    promtool("check", "rules", RULES.name)
    promtool("test", "rules", "taskd.tests.yml")
    promtool("check", "config", "--syntax-only", "prometheus.yml")


def test_every_rule_is_tested() -> None:
    tests = (RULES.parent / "taskd.tests.yml").read_text()
    named = set(re.findall(r"(?:alert|record): (\S+)", RULES.read_text()))
    assert len(named) > 15
    untested = {name for name in named if not re.search(rf"{re.escape(name)}\b", tests)}
    assert not untested - {"taskd:failed_attempts:ratio5m", "taskd:commit_seconds:p99_5m"}, (
        "those that alerts are made of"
    )


@pytest.mark.parametrize("file", ["prometheus/taskd.rules.yml", "prometheus/taskd.tests.yml", "grafana/taskd.json"])
def test_every_metric_that_is_named_exists(file: str) -> None:
    named = set(NAME.findall((DEPLOY / file).read_text()))
    assert named
    assert {bare(name) for name in named} <= TEXTS.keys() | recorded()


def test_the_dashboard_shows_every_metric_that_changes() -> None:
    """What is left out is what others tell as well."""
    shown = {bare(name) for expr in expressions() for name in NAME.findall(expr)}
    told_otherwise = {
        "taskd_build_info",
        "taskd_ready",
        "taskd_queue_paused",
        "taskd_attempts_started",
        "taskd_turns",
        "taskd_commits",
        "taskd_events",
        "taskd_undurable_batches",
        "taskd_finished_bytes",
        "taskd_http_seconds",
        "taskd_disk_bytes",
        "taskd_process_open_files",
    }
    assert shown - recorded() == TEXTS.keys() - told_otherwise


def test_the_dashboard_is_what_its_script_makes() -> None:
    assert json.loads((DEPLOY / "grafana" / "taskd.json").read_text()) == json.loads(json.dumps(dashboard()))


# -- the real one -------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> Iterator[House]:
    """A user who has a module, a server and an agent."""
    with house(tmp_path / "home") as made:
        (made.work / "shop.py").write_text(MODULE)
        made.serve()
        made.start("agent", "shop", "--name", "a1", "--processes", "1")
        wait_until(lambda: made.agents().get("a1", {}).get("state") == "live")
        yield made


class Prometheus:
    """One that runs with the files of ``deploy``, but for where the server is and how often it is asked."""

    def __init__(self, folder: Path, target: str, token: str) -> None:
        folder.mkdir()
        config = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
        config = config.replace("127.0.0.1:7071", target).replace("15s", "1s")
        (folder / "prometheus.yml").write_text(config)
        (folder / "taskd.token").write_text(token)
        (folder / RULES.name).write_text(RULES.read_text())
        self.log = folder / "log"
        words = ["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--web.listen-address=127.0.0.1:0"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(["prometheus", *words], cwd=folder, stdout=log, stderr=log)
        port = wait_until(self._port)
        self.url = f"http://127.0.0.1:{port}/api/v1"

    def _port(self) -> str:
        assert self.process.poll() is None, self.log.read_text()
        found = re.search(r"Listening on[^\n]*address=127\.0\.0\.1:(\d+)", self.log.read_text())
        return "" if found is None or "Server is ready" not in self.log.read_text() else found[1]

    def get(self, path: str, **query: str) -> Json:
        asked = f"{self.url}/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(asked, timeout=10) as answer:  # noqa: S310 - always http
            told = json.load(answer)
        assert told["status"] == "success"
        return dict(told["data"])

    def value(self, expr: str) -> float | None:
        """Return the sum of what an expression is now; None: it is nothing."""
        result = self.get("query", query=expr)["result"]
        assert isinstance(result, list)
        return sum(float(sample["value"][1]) for sample in result) if result else None

    def health(self) -> dict[str, str]:
        """Return of each rule whether it could be evaluated; unknown: it was not, yet."""
        groups = self.get("rules")["groups"]
        assert isinstance(groups, list)
        return {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture
def prometheus(home: House, tmp_path: Path) -> Iterator[Prometheus]:
    """The real one; it scrapes the server with a viewer's token."""
    token = home.ask("token", "create", "--role", "viewer")
    running = Prometheus(tmp_path / "prometheus", home.profile()["http"].partition("://")[2], token)
    yield running
    running.close()


def test_prometheus_scrapes_a_running_server(home: House, prometheus: Prometheus) -> None:
    """What it holds is what was done; no rule fails, and every panel's question is understood."""
    assert wait_until(lambda: prometheus.value('up{job="taskd"}')) == 1
    wait_until(lambda: prometheus.value("taskd_ready"))
    for number in range(3):
        home.ask("submit", "--queue", "images", "shop.add", f"[{number}]", "--wait")
    ended = 'taskd_tasks_ended_total{queue="images",state="succeeded"}'
    assert wait_until(lambda: prometheus.value(ended) == 3)
    assert prometheus.value('taskd_tasks_submitted_total{queue="images"}') == 3
    assert prometheus.value('taskd_agents{state="live"}') == 1
    assert prometheus.value('taskd_task_run_seconds_count{queue="images"}') == 3
    memory = prometheus.value('taskd_agent_memory_bytes{agent="a1"}')
    assert memory is not None
    assert memory > 1 << 28
    assert wait_until(lambda: prometheus.value("taskd:waiting") == 0)
    wait_until(lambda: "unknown" not in prometheus.health().values())
    health = prometheus.health()
    assert set(health.values()) == {"ok"}, health
    for expr in expressions():
        asked = expr.replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$queue", ".*")
        prometheus.get("query", query=asked)


def test_a_server_that_is_gone_is_seen_to_be(home: House, prometheus: Prometheus) -> None:
    wait_until(lambda: prometheus.value("taskd_ready") == 1)
    [server] = [process for process in home.processes() if "server" in process.cmdline()]
    server.terminate()
    assert wait_until(lambda: prometheus.value('up{job="taskd"}') == 0)
