"""A debug bundle of a server that knows secrets: none is in it, and what helps is."""

import base64
import gzip
import json
import tarfile
from pathlib import Path

import pytest

from e2e.house import House, wait_until

CANARY = "canary7Zq"
"""In everything that must not be in the bundle."""

MODULE = f"""
import logging, sys
from taskd import App, Retry

app = App()

@app.task
def echo(word):
    print("{CANARY}-print", word)
    print("{CANARY}-complain", word, file=sys.stderr)
    logging.getLogger("shop").error("{CANARY}-logged")
    return "{CANARY}-result"

@app.task(retry=Retry(max_attempts=1))
def fail(word):
    raise RuntimeError("{CANARY}-raised " + word)
"""

SETTINGS = f"""
[server]
heartbeat = "4s"
log_level = "info"

[agent]
labels = {{ owner = "{CANARY}-label" }}
"""

ENVIRONMENT = {
    "DATABASE_URL": f"postgres://ann:{CANARY}-url@db.example/shop",
    "HTTPS_PROXY": f"http://u:{CANARY}-proxy@proxy.example:3128",
    "AWS_SECRET_ACCESS_KEY": f"{CANARY}-aws",
    "SHOP_PASSWORD": f"{CANARY}-environment",
    "UNSUSPECTED": f"{CANARY}-unsuspected",
    "TASKD_SOMETHING": f"{CANARY}-setting",
}

FOREIGN = f"""{{"event": "attempt_failed", "error": "{CANARY}", "payload": "{CANARY}", "timestamp": "2026-11-29"}}
{{"event": "{CANARY}", "logger": "urllib3.connectionpool"}}
2026-11-29T16:00:00.0Z [error    ] worker_not_started             reason='KeyError: {CANARY}'
Traceback (most recent call last):
  File "/srv/shop.py", line 3, in charge
    connect(password="{CANARY}")
shop.AuthError: {CANARY}
Authorization: Bearer {CANARY}
-----BEGIN EC PRIVATE KEY-----
{CANARY}
-----END EC PRIVATE KEY-----
redis://:{CANARY}@cache.example/0
"""


@pytest.fixture
def home(tmp_path: Path) -> House:
    made = House(tmp_path / "home")
    (made.work / "shop.py").write_text(MODULE)
    (made.work / "taskd.toml").write_text(SETTINGS)
    return made


def test_no_secret_is_in_the_bundle(home: House, tmp_path: Path) -> None:
    server = home.serve("--data-dir", str(tmp_path / "data"), "--log-form", "json")
    agent = home.start("agent", "shop", "--name", "box", "--processes", "1", "--label", f"team={CANARY}-team")
    try:
        wait_until(lambda: "live" in home.ask("agents", "ls"))
        home.ask("submit", "shop.echo", f'["{CANARY}-payload"]', "--wait", "--key", f"{CANARY}-key")
        assert home.run("submit", "shop.fail", f'["{CANARY}-again"]', "--wait").returncode == 1
        wait_until(lambda: f"{CANARY}-raised" in agent.log.read_text())
        foreign = tmp_path / "foreign.log"
        foreign.write_text(FOREIGN)
        token = home.ask("token", "create", "--role", "operator")
        logs = [word for path in (server.log, agent.log, foreign) for word in ("--log", str(path))]
        env = {**ENVIRONMENT, "SHOP_TOKEN": token}
        told = home.run("debug-bundle", str(tmp_path / "b.tar.gz"), "--json", *logs, env=env)
        assert told.returncode == 0, told.stderr
    finally:
        agent.close()
        server.close()
    files = unpack(tmp_path / "b.tar.gz")
    assert sorted(files) == sorted(json.loads(told.stdout)["files"])
    for text in (gzip.decompress((tmp_path / "b.tar.gz").read_bytes()).decode(), told.stdout, told.stderr):
        assert CANARY not in text
        for secret in secrets_of(home, tmp_path / "data", token):
            assert secret not in text


def secrets_of(home: House, data: Path, token: str) -> list[str]:
    """What the server and its user keep secret, in the forms in which it could be written."""
    profile = json.loads((home.home / ".config/taskd/profiles/default.json").read_text())
    mark = (data / "mark.key").read_bytes()
    key = "".join((data / "ca.key").read_text().splitlines()[1:-1])
    tokens = [profile["token"], profile["agent_token"], token]
    return [each.split("_")[3] for each in tokens] + [mark.hex(), base64.b64encode(mark).decode(), key[:40], key[-40:]]


def test_what_helps_is_in_it(home: House, tmp_path: Path) -> None:
    server = home.serve("--data-dir", str(tmp_path / "data"))
    try:
        home.ask("submit", "shop.echo", "[1]", "--queue", "images")
        path = Path(home.ask("debug-bundle", "--log", str(server.log)))
        assert (home.work / path).stat().st_mode & 0o777 == 0o600
        files = unpack(home.work / path)
    finally:
        server.close()
    versions, config, machine = (json.loads(files[f"{name}.json"]) for name in ("versions", "config", "machine"))
    assert versions["packages"]["trio"]
    assert config["settings"]["server"] == {"heartbeat": "4s", "log_level": "info"}
    assert machine["taskd_processes"]
    doctor = {finding["name"]: finding["status"] for finding in json.loads(files["doctor.json"])}
    assert (doctor["server"], doctor["agents"]) == ("ok", "warn")
    counted = json.loads(files["server.json"])
    assert counted["tasks"]["ready"] == 1
    assert [queue["name"] for queue in counted["queues"]] == ["images"]
    assert any(kind.startswith("store/") for kind in json.loads(files["data_dir.json"])["files"])
    log = next(text for name, text in files.items() if name.startswith("logs/"))
    assert "serving" in log
    assert str(tmp_path / "data") in log


def test_without_a_server_it_tells_what_it_can(home: House, tmp_path: Path) -> None:
    bundle = tmp_path / "b.tar.gz"
    assert home.run("debug-bundle", str(bundle)).returncode == 0
    files = unpack(bundle)
    assert "no taskd server is known here" in json.loads(files["server.json"])["missing"]
    assert json.loads(files["machine.json"])["cpus"]
    again = home.run("debug-bundle", str(bundle))
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)


def unpack(path: Path) -> dict[str, str]:
    with tarfile.open(path) as archive:
        entries = [(entry, archive.extractfile(entry)) for entry in archive]
        return {entry.name.partition("/")[2]: file.read().decode() for entry, file in entries if file is not None}
