"""The server as a program: what it survives, what it keeps, and whom it turns away."""

import json
import random
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from e2e.house import House, Running, house, wait_until
from e2e.peers import connected, profile
from harness.peer import hello
from harness.waiting import until
from taskd.client.profile import Profile
from taskd.net.tls_stream import TlsStream
from taskd.server.clock import SystemClock
from taskd_protocol import limits
from taskd_protocol import messages as m
from taskd_protocol.access_messages import TokenCreate, TokenCreated, TokenRevoke
from taskd_protocol.connection import encode
from taskd_protocol.connection_messages import Done, Error, Welcome
from taskd_protocol.framing import frame
from taskd_protocol.ids import make_task_ids
from taskd_protocol.task import TaskSpec

MODULE = """
import time
from pathlib import Path
from taskd import App, current

app = App()

@app.task
def add(a, b=0):
    return a + b

@app.task
def wait_for(name):
    Path(f"{name}.started").touch()
    while not Path(name).exists():
        time.sleep(0.02)
    return [name, current().attempt]
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[House]:
    """A user who has a module."""
    with house(tmp_path / "home") as made:
        (made.work / "shop.py").write_text(MODULE)
        yield made


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        assert isinstance(port, int)
        return port


def serve(home: House, port: int, *words: str) -> Running:
    """Start a server on a port that a later one takes again."""
    running = home.start(
        "server", "--data-dir", "data", "--listen", f"127.0.0.1:{port}", "--http", "127.0.0.1:0", *words
    )
    assert running.read_line().startswith(f"serving taskd://127.0.0.1:{port} ")
    return running


def specs(count: int) -> list[TaskSpec]:
    """Make new tasks that no agent has."""
    ids = make_task_ids(count, SystemClock().wall_ms(), random.randbytes(10 * count))
    return [TaskSpec(task_id, "nobody.has_it", b"args") for task_id in ids]


# -- what it survives ---------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term"])
def test_a_task_goes_on_while_the_server_is_away(home: House, number: signal.Signals) -> None:
    """Its agent works on and hands the result in when there is a server again: one attempt, one result."""
    port = free_port()
    server = serve(home, port)
    home.start("agent", "shop", "--name", "ash", "--processes", "1")
    task_id = home.ask("submit", "shop.wait_for", '["done"]')
    wait_until((home.work / "done.started").exists)
    assert home.task(task_id)["state"] == "running"
    assert server.end(number) == (0 if number == signal.SIGTERM else -number)
    (home.work / "done").touch()
    serve(home, port)
    assert home.ask("task", "wait", task_id) == '["done", 1]'
    shown = home.task(task_id)
    assert (shown["state"], shown["attempt"], shown["agent"]) == ("succeeded", 1, "ash")


def test_everything_is_there_after_a_kill(home: House) -> None:
    """Queued, delayed, finished, cancelled: by number and by name; tokens and certificate too."""
    port = free_port()
    server = serve(home, port)
    agent = home.start("agent", "shop", "--processes", "1")
    done = [home.ask("submit", "shop.add", f"[{number}]", "--wait") for number in range(3)]
    assert done == ["0", "1", "2"]
    agent.end()
    ids = [home.ask("submit", "shop.add", f"[{n}]", "--priority", str(n), "--queue", f"q{n % 2}") for n in range(6)]
    delayed = home.ask("submit", "shop.add", "[9]", "--delay", "1h")
    home.ask("task", "cancel", ids[0])
    known = ["token ls", "cert show", "queue ls", "task ls"]
    before = {words: json.loads(home.ask(*words.split(), "--json")) for words in known}
    assert server.end(signal.SIGKILL) == -signal.SIGKILL
    server = serve(home, port)
    assert {words: json.loads(home.ask(*words.split(), "--json")) for words in known} == before
    assert home.task(delayed)["state"] == "scheduled"
    server.end(signal.SIGTERM)
    home.ask("fsck", "--data-dir", "data")
    serve(home, port)
    home.start("agent", "shop", "--processes", "1")
    results = [home.ask("task", "wait", task_id) for task_id in ids[1:]]
    assert results == ["1", "2", "3", "4", "5"]


def test_killed_again_and_again_while_it_starts(home: House) -> None:
    """A start that is cut short anywhere leaves a directory that the next one takes up."""
    port = free_port()
    for tenths in range(2, 12):
        starting = home.start("server", "--data-dir", "data", "--listen", f"127.0.0.1:{port}", "--http", "127.0.0.1:0")
        with suppress(subprocess.TimeoutExpired):
            starting.process.wait(tenths / 10)
        assert starting.end(signal.SIGKILL) == -signal.SIGKILL
    server = serve(home, port)
    assert home.ask("queue", "ls", "--json") == "[]"
    server.end()
    home.ask("fsck", "--data-dir", "data")


async def test_an_orderly_end_says_goodbye(home: House) -> None:
    """Peers are told to come back; the answers that they are owed come before."""
    server = home.serve("--data-dir", "data")
    async with connected(home) as peer:
        await peer.take(Welcome)
        await peer.send(m.Submit(1, specs(500)))
        server.process.send_signal(signal.SIGTERM)
        await peer.over.wait()
        told = peer.inbox
    code = await trio.to_thread.run_sync(server.process.wait, 10)
    assert code == 0
    last = told[-1]
    assert isinstance(last, Error)
    assert (last.request_id, last.code, last.retryable) == (0, "server.stopping", True)
    answer = next(message for message in told if getattr(message, "request_id", 0) == 1)
    assert isinstance(answer, m.Accepted) or (isinstance(answer, Error) and answer.code == "server.stopping")


# -- whom it turns away -------------------------------------------------------------------------


async def test_plain_text_at_the_tls_port(home: House) -> None:
    """The clear protocol, HTTP, garbage: closed on, and everybody else is served; nothing of it fills the log."""
    server = home.serve("--data-dir", "data")
    known = profile(home)
    clear = frame(encode(hello("client", known.token)))
    for data in (clear, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x00" * 5_000, b"\x16\x03\x01" + b"\xff" * 600):
        stream = await trio.open_tcp_stream(known.host, known.port)
        await stream.send_all(data)
        with suppress(trio.BrokenResourceError), trio.fail_after(limits.TLS_HANDSHAKE_SECONDS + 5):
            while await stream.receive_some():
                pass
        await stream.aclose()
    async with connected(home) as peer:
        await peer.take(Welcome)
    assert "Traceback" not in server.log.read_text()
    plain = await trio.to_thread.run_sync(
        home.run, "queue", "ls", "--url", f"taskd+tcp://{known.token}@{known.address}"
    )
    assert (plain.returncode, plain.stderr.count("\n")) == (3, 1)
    assert "TLS" in plain.stderr


async def test_what_comes_over_tls_is_checked_too(home: House) -> None:
    """Before HELLO and after it: a coded error, then the end."""
    server = home.serve("--data-dir", "data")
    for before in (True, False):
        for data, code in (
            (b"\xff\xff\xff\xff", "protocol.too_large"),
            (b"\x00\x00\x00\x00", "protocol.violation"),
            (frame(b"\xc1" * 50), "protocol.violation"),
        ):
            async with connected(home, token="" if not before else "not a token") as peer:
                if before:
                    assert (await peer.end()).code == "auth.refused"
                else:
                    await peer.take(Welcome)
                    await peer.send_bytes(data)
                    assert (await peer.end()).code == code
    assert "Traceback" not in server.log.read_text()


async def test_a_wrong_ca_is_found_out_by_the_peer(home: House, tmp_path: Path) -> None:
    """Before a token was said."""
    home.serve("--data-dir", "data")
    with house(tmp_path / "other") as other:
        other.serve("--data-dir", "data")
        foreign = profile(other).ca_pem
    known = profile(home)
    context = ssl.create_default_context(cadata=foreign)
    below = await trio.open_tcp_stream(known.host, known.port)
    stream = TlsStream(below, context, server_hostname="localhost")
    with pytest.raises(trio.BrokenResourceError) as broken:
        await stream.do_handshake()
    assert isinstance(broken.value.__cause__, ssl.SSLCertVerificationError)
    await stream.aclose()


async def test_added_host_names_are_good(home: House) -> None:
    """For the certificate of the first start, and of a later one that adds more."""
    server = home.serve("--data-dir", "data", "--host-name", "tasks.example", "--host-name", "10.1.2.3")
    for name in ("tasks.example", "10.1.2.3", "127.0.0.1"):
        async with connected(home, server_name=name) as peer:
            await peer.take(Welcome)
    with pytest.RaisesGroup(trio.BrokenResourceError, flatten_subgroups=True):
        async with connected(home, server_name="other.example"):
            pass
    server.end()
    home.serve("--data-dir", "data", "--host-name", "other.example")
    for name in ("tasks.example", "other.example"):
        async with connected(home, server_name=name) as peer:
            await peer.take(Welcome)


async def test_a_revoked_token_ends_its_sessions_within_a_second(home: House) -> None:
    """Counted at the peer."""
    home.serve("--data-dir", "data")
    async with connected(home) as admin:
        await admin.take(Welcome)
        created = await admin.ask(TokenCreate(1, "client"), TokenCreated)
        async with connected(home, created.token) as peer:
            await peer.take(Welcome)
            await admin.send(TokenRevoke(2, created.token.split("_")[2]))
            with trio.fail_after(1):
                assert (await peer.end()).code == "auth.refused"
            await admin.take(Done)
        async with connected(home, created.token) as peer:
            assert (await peer.end()).code == "auth.refused"


async def test_strangers_do_not_crowd_out_those_who_are_known(home: House) -> None:
    """As many idle connections as an address may have, and more: sessions go on, and once they are gone, new ones."""
    home.serve("--data-dir", "data")
    known = profile(home)
    async with connected(home) as peer:
        await peer.take(Welcome)
        idle = [
            await trio.open_tcp_stream(known.host, known.port)
            for _ in range(limits.PREAUTH_CONNECTIONS_PER_ADDRESS_MAX + 20)
        ]
        for number in range(1, 20):
            with trio.fail_after(5):
                await peer.ask(m.Submit(number, specs(10)), m.Accepted)
        with trio.fail_after(5):  # the last of them were closed at once
            assert await idle[-1].receive_some() == b""
        for stream in idle:
            await stream.aclose()
    await until(lambda: _free(known), 10)
    async with connected(home) as peer:
        await peer.take(Welcome)


def _free(known: Profile) -> bool:
    """Tell whether the server lets a stranger stay."""
    with socket.create_connection((known.host, known.port), timeout=0.2) as sock:
        try:
            return sock.recv(1) != b""
        except TimeoutError:
            return True
