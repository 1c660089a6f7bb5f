import datetime as dt
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from taskd.cli import checks, server_checks
from taskd.cli.finding import Finding
from taskd.client.profile import Profile, save
from taskd.server.issuing import make_ca
from taskd_protocol.explanation import AgentReason, Explanation, Obstacle, Reason
from taskd_protocol.house_messages import QueuePage, QueueView
from taskd_protocol.messages import TaskExplained, TaskPage, TaskView
from unit.cli.fake_client import TOKEN, FakeClient, Taskd

if TYPE_CHECKING:
    from taskd.client.client import Client

URL = f"taskd://{TOKEN}@127.0.0.1:1"


def findings(taskd: Taskd, *words: str) -> tuple[int, dict[str, dict[str, str]]]:
    ended = taskd("doctor", "--json", *words)
    report = json.loads(ended.out)
    assert report["ok"] == (ended.code == 0)
    return ended.code, {check["name"]: check for check in report["checks"]}


def test_no_server_known_is_two(taskd: Taskd) -> None:
    """What this machine is like is told all the same."""
    code, found = findings(taskd)
    assert code == 2
    assert (found["python"]["status"], found["profile"]["status"]) == ("ok", "fail")
    assert "taskd dev" in found["profile"]["message"]


def test_no_server_there_is_three(taskd: Taskd) -> None:
    code, found = findings(taskd, "--url", URL)
    assert code == 3
    assert found["server"]["status"] == "fail"
    assert "127.0.0.1:1" in found["server"]["message"]


def test_the_data_directory_is_looked_at(taskd: Taskd, tmp_path: Path) -> None:
    """And left as it was."""
    save(Profile(address="127.0.0.1:1", token=TOKEN, data_dir=str(tmp_path / "data")))
    (tmp_path / "data").mkdir()
    _, found = findings(taskd)
    assert found["data"]["status"] == "ok"
    assert " ms, the median of " in found["fsync"]["message"]
    assert not list((tmp_path / "data").iterdir())


def test_a_data_directory_that_is_gone_is_warned_of(taskd: Taskd, tmp_path: Path) -> None:
    save(Profile(address="127.0.0.1:1", token=TOKEN, data_dir=str(tmp_path / "gone")))
    _, found = findings(taskd)
    assert found["data"]["status"] == "warn"
    assert "fsync" not in found


def test_a_profile_that_others_may_read_is_warned_of(taskd: Taskd, home: Path) -> None:
    save(Profile(address="127.0.0.1:1", token=TOKEN))
    path = home / "config/taskd/profiles/default.json"
    path.chmod(0o644)
    _, found = findings(taskd)
    assert found["profile"]["status"] == "warn"
    assert found["profile"]["advice"] == f"others may read its token: chmod 600 {path}"


def test_a_slow_disk_is_warned_of(taskd: Taskd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(Profile(address="127.0.0.1:1", token=TOKEN, data_dir=str(tmp_path)))
    monkeypatch.setattr(checks, "_fsync_ms", lambda _: 25.0)
    _, found = findings(taskd)
    assert (found["fsync"]["status"], found["fsync"]["message"]) == ("warn", "25.00 ms, the median of 20")


def test_a_full_disk_is_a_failure(taskd: Taskd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(Profile(address="127.0.0.1:1", token=TOKEN, data_dir=str(tmp_path)))
    monkeypatch.setattr(checks, "FREE_BYTES_MIN", 1 << 60)
    monkeypatch.setattr(checks, "FREE_SHARE_MIN", 1.0)
    code, found = findings(taskd)
    assert code == 2
    assert found["data"]["status"] == "fail"


def test_lines_for_people_say_what_to_do(taskd: Taskd) -> None:
    shown = taskd("doctor", "--url", URL).out.splitlines()
    assert shown[0].startswith("ok    python")
    assert shown[-1].startswith("FAIL  server")


@pytest.mark.parametrize(("kind", "status"), [("nfs4", "fail"), ("tmpfs", "warn"), ("ext4", "ok")])
def test_a_filesystem_that_keeps_nothing_safe_is_told(
    taskd: Taskd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, status: str
) -> None:
    save(Profile(address="127.0.0.1:1", token=TOKEN, data_dir=str(tmp_path)))
    monkeypatch.setattr(checks, "filesystem_of", lambda _: kind)
    _, found = findings(taskd)
    assert found["data"]["status"] == status
    assert f" on {kind}, " in found["data"]["message"]


def test_few_processes_are_warned_of(taskd: Taskd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskd.agent.cgroup.Cgroups.processes", lambda _: 100)
    _, found = findings(taskd)
    assert (found["processes"]["status"], found["processes"]["message"]) == ("warn", "100 allowed, with threads")


def asked(check: str, *replies: QueuePage | TaskPage | TaskExplained) -> Finding:
    """What one of the checks gives when the server answers so."""
    fake = FakeClient(replies=list(replies))
    finding: Finding = getattr(server_checks, check)(cast("Client", fake))
    assert not fake.replies
    return finding


def test_a_paused_queue_is_named_with_what_waits_in_it() -> None:
    page = QueuePage(0, [QueueView("images", 12, 0, 0, paused=True), QueueView("default", 3, 0, 0)])
    assert asked("_queues", page) == Finding(
        "queues", "warn", "paused: images (12 wait)", "go on with: taskd queue resume NAME"
    )
    assert asked("_queues", QueuePage(0, [QueueView("default", 3, 0, 0)])).message == "3 tasks are ready"


def ready(number: int, name: str) -> TaskView:
    rest = (0, 0, 0, 3, "", 0, None, None, None, b"", None, None, "", "", "")
    return TaskView(bytes([number]) * 16, name, "default", "ready", *rest)


def test_names_that_no_agent_has_are_told_and_one_task_of_each_is_asked_for() -> None:
    reason = AgentReason("box", Reason(Obstacle.NAME, "shop.gone"), never=True)
    lost = Explanation(bytes([1]) * 16, "shop.gone", "default", "ready", 0, agents=[reason], impossible=True)
    fine = Explanation(bytes([2]) * 16, "shop.add", "default", "ready", 0)
    page = TaskPage(0, [ready(3, "shop.gone"), ready(2, "shop.add"), ready(1, "shop.gone")], b"")
    finding = asked("_waiting", page, TaskExplained(0, lost), TaskExplained(0, fine))
    assert (finding.status, finding.message) == (
        "warn",
        "no agent can run: shop.gone (box has no task named shop.gone)",
    )
    assert asked("_waiting", TaskPage(0, [], b"")).status == "ok"


@pytest.mark.parametrize(("days", "status"), [(400, "ok"), (10, "warn")])
def test_the_end_of_the_ca_is_told(days: int, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ca, _ = make_ca(dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
    ends_ms = round(ca.not_valid_after_utc.timestamp() * 1000)
    monkeypatch.setattr("taskd.server.clock.SystemClock.wall_ms", lambda _: ends_ms - days * 24 * 3600 * 1000)
    pem = ca.public_bytes(Encoding.PEM).decode()
    finding = server_checks._authority(Profile(address="a:1", token=TOKEN, ca_pem=pem))
    assert (finding.name, finding.status, finding.message) == ("CA", status, f"good for {days} days")


class Health(http.server.BaseHTTPRequestHandler):
    """Alive; ready if ``ready``."""

    ready = True

    def do_GET(self) -> None:
        status = 200 if self.path == "/healthz" or (self.path == "/readyz" and self.ready) else 503
        self.send_response(status)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is called
        """Say nothing."""


@pytest.fixture
def web() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), Health) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()
        thread.join()


def test_http_is_asked_for_its_health(web: str, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = Profile(address="a:1", token=TOKEN, http=web)
    assert server_checks.reach_http(profile) == Finding("http", "ok", f"{web} is ready")
    monkeypatch.setattr(Health, "ready", False)
    assert server_checks.reach_http(profile).message == f"{web} is alive and not ready"
    nowhere = Profile(address="a:1", token=TOKEN, http="http://127.0.0.1:1")
    assert server_checks.reach_http(nowhere).status == "warn"
