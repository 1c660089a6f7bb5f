"""The programs that stay: server, agent, dev and demo, from their first start to their end, and what goes wrong."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from e2e.house import House, house, wait_until, words_of

MODULE = """
from taskd import App

app = App()

@app.task
def add(a, b=0):
    return a + b
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[House]:
    """A user who has a module, and never ran taskd before."""
    with house(tmp_path / "home") as made:
        (made.work / "shop.py").write_text(MODULE)
        yield made


def context(home: House, name: str = "default") -> dict[str, object]:
    """Return a server that is known in this home."""
    return next(known for known in json.loads(home.ask("context", "ls", "--json")) if known["name"] == name)


def test_a_server_comes_back_with_what_it_had(home: House) -> None:
    """Tasks, certificate and token outlast a stop in good order; the profile follows the port."""
    first = home.serve("--data-dir", "one")
    task_id = home.ask("submit", "shop.add", "[1]")
    before = (home.ask("cert", "show", "--json"), json.loads(home.ask("token", "ls", "--json")))
    assert first.end(signal.SIGTERM) == 0
    assert home.run("queue", "ls").returncode == 3
    home.serve("--data-dir", "one")
    assert home.task(task_id)["state"] == "ready"
    assert (home.ask("cert", "show", "--json"), json.loads(home.ask("token", "ls", "--json"))) == before


def test_a_server_that_was_killed_has_every_task(home: House) -> None:
    first = home.serve("--data-dir", "one")
    task_id = home.ask("submit", "shop.add", "[1]")
    assert first.end(signal.SIGKILL) == -9
    home.serve("--data-dir", "one")
    assert home.task(task_id)["state"] == "ready"
    assert home.ask("task", "cancel", task_id).endswith(" cancelled")


def test_a_second_server_does_not_take_the_profile(home: House) -> None:
    """It gets one of its own, to be chosen by name."""
    home.serve("--data-dir", "one")
    home.serve("--data-dir", "two")
    contexts = {known["name"]: known for known in json.loads(home.ask("context", "ls", "--json"))}
    assert {name: known["current"] for name, known in contexts.items()} == {"default": True, "two": False}
    task_id = home.ask("submit", "shop.add", "[1]", "--context", "two")
    assert home.run("task", "show", task_id).returncode == 2
    home.ask("context", "use", "two")
    assert home.task(task_id)["state"] == "ready"


def test_a_new_data_directory_in_an_old_place_gets_new_tokens(home: House) -> None:
    """The profile's token was another store's."""
    home.serve("--data-dir", "one").end(signal.SIGTERM)
    (home.work / "one").rename(home.work / "old")
    home.serve("--data-dir", "one")
    assert home.ask("queue", "ls", "--json") == "[]"


def test_a_data_directory_in_use_is_73(home: House) -> None:
    home.serve("--data-dir", "one")
    ended = home.run("server", "--data-dir", "one", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0")
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (73, "", 1)
    assert home.run("fsck", "--data-dir", "one").returncode == 73


@pytest.mark.parametrize("option", ["--listen", "--http"])
def test_a_port_in_use_is_two(option: str, home: House) -> None:
    """The line names the option and the port."""
    other = {"--listen": "--http", "--http": "--listen"}[option]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = home.run("server", "--data-dir", "one", option, f"127.0.0.1:{port}", other, "127.0.0.1:0")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"{option} 127.0.0.1:{port}" in ended.stderr.splitlines()[-1]


def test_plain_tcp_is_for_loopback_only(home: House) -> None:
    ended = home.run("server", "--data-dir", "one", "--no-tls", "--listen", "0.0.0.0:0", "--http", "127.0.0.1:0")
    assert ended.returncode == 2
    assert "TLS" in ended.stderr.splitlines()[-1]


@pytest.mark.parametrize("words", [["--payload-max", "1 light year"], ["--heartbeat", "1ms"], ["--log-level", "loud"]])
def test_a_wrong_setting_is_two(words: list[str], home: House) -> None:
    ended = home.run("server", "--data-dir", "one", *words)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert words[0] in ended.stderr
    assert not (home.work / "one").exists()


def test_settings_come_from_the_environment_and_from_a_file(home: House) -> None:
    """Flags over environment over file."""
    (home.work / "taskd.toml").write_text('[server]\ndata_dir = "from-file"\nlisten = "127.0.0.1:0"\n')
    server = home.start("server", env={"TASKD_HTTP": "127.0.0.1:0"})
    server.read_line()
    assert (home.work / "from-file/store").is_dir()


def test_roles_and_revocation(home: House) -> None:
    """A viewer sees and changes nothing; a token that was revoked opens nothing."""
    home.serve("--data-dir", "one")
    profile = json.loads((home.home / ".config/taskd/profiles/default.json").read_text())
    (home.work / "ca.pem").write_text(profile["ca_pem"])
    viewer, wrong = home.ask("token", "create", "--role", "viewer"), profile["token"][:-9] + "x" * 9
    url = f"taskd://{{}}@{profile['address']}?ca=ca.pem"
    assert home.ask("queue", "ls", "--json", "--url", url.format(viewer)) == "[]"
    assert home.run("submit", "shop.add", "--url", url.format(viewer)).returncode == 5
    assert home.run("queue", "ls", "--url", url.format(wrong)).returncode == 5
    home.ask("token", "revoke", viewer)
    ended = home.run("queue", "ls", env={"TASKD_URL": url.format(viewer)})
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (5, "", 1)
    assert viewer.split("_")[3] not in ended.stderr


def test_a_server_of_another_ca_is_not_talked_to(home: House) -> None:
    home.serve("--data-dir", "one")
    home.serve("--data-dir", "two")
    profiles = home.home / ".config/taskd/profiles"
    one, two = (json.loads((profiles / name).read_text()) for name in ("default.json", "two.json"))
    (home.work / "two.pem").write_text(two["ca_pem"])
    ended = home.run("queue", "ls", "--url", f"taskd://{one['token']}@{one['address']}?ca=two.pem")
    assert (ended.returncode, ended.stderr.count("\n")) == (3, 1)
    assert "certificate" in ended.stderr


def test_an_agent_joins_from_a_home_of_its_own(home: House, tmp_path: Path) -> None:
    """One code, one command; the second start with the same words comes back without it."""
    home.serve("--data-dir", "one")
    code = home.ask("agents", "invite")
    with house(tmp_path / "other") as other:
        (other.work / "shop.py").write_text(MODULE)
        agent = other.start("agent", "--join", code, "shop", "--name", "guest")
        assert home.ask("submit", "shop.add", "[2, 3]", "--wait", "--timeout", "30") == "5"
        assert agent.end(signal.SIGTERM) == 0
        other.start("agent", "--join", code, "shop", "--name", "guest")
        wait_until(lambda: home.agents().get("guest", {}).get("state") == "live")
        assert other.run("queue", "ls").returncode == 5  # an agent's token is no client's
        with house(tmp_path / "third") as third:
            assert third.run("agent", "--join", code).returncode == 5


def test_an_agent_that_cannot_work_says_why(home: House) -> None:
    """A module that is not there, one that fails, one without tasks, a wrong interpreter: two, and one line."""
    home.serve("--data-dir", "one")
    (home.work / "broken.py").write_text("import nosuchmodule\n")
    (home.work / "empty.py").write_text("")
    wrong = [["nothere"], ["broken"], ["empty"], ["shop", "--python", "/no/python"], ["shop", "--label", "x"]]
    for words in wrong:
        ended = home.run("agent", *words)
        assert (ended.returncode, ended.stdout) == (2, ""), words
        assert ended.stderr.splitlines()[-1].startswith("taskd: "), words


def test_two_agents_of_one_name_are_one_too_many(home: House) -> None:
    home.serve("--data-dir", "one")
    home.start("agent", "shop", "--name", "ash")
    wait_until(lambda: "ash" in home.agents())
    ended = home.run("agent", "shop", "--name", "ash")
    assert ended.returncode == 5
    assert "ash" in ended.stderr.splitlines()[-1]


def test_plain_tcp_at_the_tls_port_is_told_as_such(home: House) -> None:
    home.serve("--data-dir", "one")
    profile = home.profile()
    ended = home.run("queue", "ls", "--url", f"taskd+tcp://{profile['token']}@{profile['address']}")
    assert (ended.returncode, ended.stderr.count("\n")) == (3, 1)
    assert "TLS" in ended.stderr


def test_an_agent_that_is_killed_leaves_nothing_behind(home: House) -> None:
    """No worker, no command, and nothing that a command put into a group of its own."""
    home.serve("--data-dir", "one")
    agent = home.start("agent", "shop")
    assert home.ask("submit", "shop.add", "[1, 2]", "--wait") == "3"
    home.start("run", "--", "sh", "-c", "setsid sleep 1000 & sleep 1000")
    wait_until(lambda: sum(words_of(process)[:1] == ["sleep"] for process in agent.family()) == 2)
    assert agent.end(signal.SIGKILL) == -9
    wait_until(lambda: agent.family() == [])


def test_dev_is_everything_in_one_command(home: House) -> None:
    """The agent comes back when it is killed, and Ctrl-C leaves nothing behind."""
    dev = home.start("dev", "shop", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0")
    wait_until(lambda: home.run("agents", "ls", "--json").stdout.count('"live"') == 1)
    assert home.ask("submit", "shop.add", "[1, 2]", "--wait") == "3"
    assert context(home)["data_dir"] == str(home.home / ".local/state/taskd/dev")
    agent = next(process for process in dev.family() if "agent" in words_of(process))
    agent.kill()
    wait_until(lambda: any("agent" in words_of(p) and p.pid != agent.pid for p in dev.family()))
    assert home.ask("submit", "shop.add", "[1, 3]", "--wait", "--timeout", "40") == "4"
    assert dev.end(signal.SIGINT) == 0
    assert dev.family() == []


def test_dev_that_is_killed_leaves_nothing_behind(home: House) -> None:
    dev = home.start("dev", "shop", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0")
    wait_until(lambda: home.run("agents", "ls", "--json").stdout.count('"live"') == 1)
    assert len(dev.family()) >= 3
    assert dev.end(signal.SIGKILL) == -9
    wait_until(lambda: dev.family() == [])


def test_dev_with_a_module_that_fails_stops_at_once(home: House) -> None:
    ended = home.run("dev", "nothere", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0")
    assert ended.returncode == 2
    assert any(line.startswith("taskd: ") and "nothere" in line for line in ended.stderr.splitlines())


def test_demo_accounts_for_every_file(home: House, tmp_path: Path) -> None:
    """Through a pipe, whatever the user's own settings are, which it does not touch; and nothing of it is left."""
    (home.work / "taskd.toml").write_text('[server]\ntls = false\n[agent]\nqueues = ["mine"]\n')
    home.env["TASKD_QUEUES"] = "mine"
    library = tmp_path / "library"
    library.mkdir()
    for source in sorted(Path(os.__file__).parent.glob("*.py"))[:60]:
        (library / source.name).write_bytes(source.read_bytes())
    home.env["TMPDIR"] = str(tmp_path / "tmp")
    Path(home.env["TMPDIR"]).mkdir()
    before = {process.pid for process in psutil.process_iter()}
    ended = home.run("demo", "--directory", str(library))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    files = len(list(library.iterdir()))
    assert f"{files} files, " in ended.stdout
    assert "every file is accounted for, exactly once" in ended.stdout
    assert re.search(r"kill -9 \d+", ended.stdout)
    assert re.search(r"\d+ were run again because ash was killed", ended.stdout)
    assert not (home.home / ".config").exists()
    assert list(Path(home.env["TMPDIR"]).iterdir()) == []
    left = [p for p in psutil.process_iter() if p.pid not in before and str(tmp_path) in " ".join(words_of(p))]
    assert left == []


def test_the_http_side_tells_whether_it_is_ready(home: House) -> None:
    home.serve("--data-dir", "one")
    address = str(context(home)["http"]).removeprefix("http://")
    with contextlib.closing(http.client.HTTPConnection(address, timeout=10)) as connection:
        connection.request("GET", "/readyz")
        assert connection.getresponse().read() == b"ready\n"


def test_a_certificate_is_renewed_under_open_connections(home: House) -> None:
    """Who waits goes on waiting, and new connections see the new one."""
    home.serve("--data-dir", "one")
    before = json.loads(home.ask("cert", "show", "--json"))
    task_id = home.ask("submit", "shop.add", "[3, 4]")
    waiting = home.start("task", "wait", task_id)
    wait_until(lambda: _is_connected(waiting.pid))
    after = json.loads(home.ask("cert", "renew", "--host-name", "tasks.example", "--json"))
    assert after["sha256"] != before["sha256"]
    assert after["ca_sha256"] == before["ca_sha256"]
    assert set(after["host_names"]) == {*before["host_names"], "tasks.example"}
    home.start("agent", "shop")
    assert waiting.read_line() == "7"
    assert waiting.process.wait(10) == 0


def test_revoking_a_token_ends_who_uses_it(home: House) -> None:
    """Also one who is connected, and only waits."""
    home.serve("--data-dir", "one")
    profile = json.loads((home.home / ".config/taskd/profiles/default.json").read_text())
    (home.work / "ca.pem").write_text(profile["ca_pem"])
    token = home.ask("token", "create", "--role", "client")
    task_id = home.ask("submit", "shop.add", "[1]")
    url = f"taskd://{token}@{profile['address']}?ca={home.work}/ca.pem"
    waiting = home.start("task", "wait", task_id, env={"TASKD_URL": url})
    wait_until(lambda: _is_connected(waiting.pid))
    home.ask("token", "revoke", token)
    # The promise is a second; a program of Python's takes some of the rest to end on a busy machine.
    assert waiting.process.wait(3) == 5


def _is_connected(pid: int) -> bool:
    return any(
        connection.status == psutil.CONN_ESTABLISHED for connection in psutil.Process(pid).net_connections("tcp")
    )
