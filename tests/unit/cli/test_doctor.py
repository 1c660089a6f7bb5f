import json
from pathlib import Path

import pytest

from taskd.cli import checks
from taskd.client.profile import Profile, save
from unit.cli.fake_client import TOKEN, Taskd

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
