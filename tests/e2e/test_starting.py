"""Before a server serves: HTTP says so from the first moment on, at whatever address it is."""

import contextlib
import http.client
import json
import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.house import House, house, wait_until
from taskd.server.addresses import machine_addresses


@pytest.fixture
def home(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path / "home") as made:
        yield made


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def get(port: int, path: str, **headers: str) -> tuple[int, dict[str, str], str]:
    """Ask once; status 0: nobody listens."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        try:
            connection.request("GET", path, headers=headers)
        except ConnectionRefusedError:
            return 0, {}, ""
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read().decode()


def test_while_the_store_is_read_http_says_so_and_nobody_else_is_let_in(home: House) -> None:
    """A log of the store that cannot be read yet holds the start up: a pipe, which nobody has written to."""
    assert home.serve("--data-dir", "one").end() == 0
    pipe = home.work / "one" / "store" / "held.log"
    os.mkfifo(pipe)
    port, wire = free_port(), free_port()
    words = ("--data-dir", "one", "--http", f"127.0.0.1:{port}", "--listen", f"127.0.0.1:{wire}")
    server = home.start("server", *words, "--url-prefix", "/ops")
    wait_until(lambda: get(port, "/healthz")[0])

    assert get(port, "/healthz")[::2] == (200, "ok\n")
    for path in ("/readyz", "/ops/readyz"):
        assert get(port, path)[::2] == (503, "not ready: reading the store\n")
    for path in ("/ops/api/v1/tasks", "/ops/metrics", "/nothing"):
        status, headers, body = get(port, path)
        assert (status, headers["retry-after"], json.loads(body)["error"]["code"]) == (503, "1", "http.starting")
        assert headers["cache-control"] == "no-store"
    status, headers, body = get(port, "/ops/", accept="text/html")
    assert (status, headers["refresh"]) == (503, "1")
    assert "taskd is starting" in body
    assert get(port, "/readyz", host="evil.example")[0] == 400
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", wire), timeout=10)

    pipe.open("wb").close()  # it is empty
    assert server.read_line() == f"serving taskd://127.0.0.1:{wire} http://127.0.0.1:{port}"
    assert get(port, "/readyz")[::2] == (200, "ready\n")
    assert get(port, "/ops/api/v1/tasks")[0] == 401
    assert server.end() == 0
    assert get(port, "/healthz")[0] == 0


def test_a_start_that_fails_ends_http_too(home: House) -> None:
    """Whoever listens at the other port already stops it, after HTTP was there."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = home.run("server", "--data-dir", "one", "--http", "127.0.0.1:0", "--listen", f"127.0.0.1:{port}")
    assert ended.returncode == 2
    assert "the port is in use" in ended.stderr


def test_the_certificate_is_good_for_where_http_is(home: House) -> None:
    """Also when a server that was on loopback alone moves it: its certificate is issued anew, its CA stays."""
    assert home.serve("--data-dir", "one").end() == 0
    before = home.profile()["ca_pem"]
    at = next(address for address in machine_addresses() if ":" not in address)
    server = home.start("server", "--data-dir", "one", "--listen", "127.0.0.1:0", "--http", f"{at}:0")
    port = int(server.read_line().rpartition(":")[2])
    assert home.profile()["ca_pem"] == before
    context = ssl.create_default_context(cadata=before)
    with contextlib.closing(http.client.HTTPSConnection(at, port, timeout=30, context=context)) as connection:
        connection.request("GET", "/readyz")
        assert connection.getresponse().status == 200
    assert home.ask("doctor", "--json")
