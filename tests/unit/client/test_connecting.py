"""Making connections, losing them, and saying why there is none."""

import socket
import threading
from itertools import count
from pathlib import Path

import pytest

from taskd import App
from taskd.client import dial, patience, session
from taskd.client.client import Client
from taskd.client.profile import Profile
from taskd.server.certificates import Certificates, open_certificates
from taskd.server.clock import SystemClock
from taskd_protocol.access_messages import TokenCreate, TokenCreated
from taskd_protocol.connection import UnknownMessage
from taskd_protocol.connection_messages import Error, Hello
from taskd_protocol.errors import (
    AuthRefused,
    CannotConnect,
    CertificateRefused,
    ConfigInvalid,
    ConnectionLost,
    TaskdError,
    TimedOut,
)
from taskd_protocol.house_messages import QueueList, QueuePage
from taskd_protocol.messages import Submit, ToServer, Wait
from taskd_protocol.payload import pack
from taskd_protocol.task import Outcome, TaskSpec
from unit.client.faces import Face, wait_until
from unit.client.fake_server import TOKEN, FakeServer, Peer


def double(number: int) -> int:
    return 2 * number


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def refused(profile: Profile) -> TaskdError:
    """Connect in vain; return what was said, which is one line."""
    client = Client(profile)
    with pytest.raises(TaskdError) as caught:
        client.connect(timeout=20)
    client.close()
    assert "\n" not in caught.value.message
    return caught.value


def test_over_tls_all_goes_as_without(secure: FakeServer, face: Face) -> None:
    app = App(secure.url)
    task = app.task(name="t")(lambda data: data)
    data = bytes(range(256)) * 2000  # larger than a frame, both ways

    async def scenario() -> None:
        handles = await face.call(task, "map", [data] * 5)
        assert isinstance(handles, list)
        assert [await face.call(handle, "result", timeout=20) for handle in handles] == [data] * 5

    face.run(scenario())
    app.close()


def test_another_ca_is_refused(secure: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = open_certificates(tmp_path / "other", ["127.0.0.1"], SystemClock().wall_ms())
    error = refused(Profile(address=secure.address, token=TOKEN, ca_pem=other.ca_pem))
    assert isinstance(error, CertificateRefused)
    assert secure.address in error.message
    assert "ca.pem" in error.message


def test_a_certificate_for_another_host_is_refused(tmp_path: Path) -> None:
    made = open_certificates(tmp_path, ["elsewhere.example"], SystemClock().wall_ms())
    server = FakeServer(made.context)
    error = refused(Profile(address=server.address, token=TOKEN, ca_pem=made.ca_pem))
    assert isinstance(error, CertificateRefused)
    assert "--host-name" in error.message
    server.stop()


def test_a_ca_that_is_none_is_refused_before_anything_is_sent(server: FakeServer) -> None:
    with pytest.raises(ConfigInvalid, match="PEM"):
        Client(Profile(address=server.address, token=TOKEN, ca_pem="hello"))


def test_a_wrong_token_is_told_at_once(server: FakeServer, face: Face) -> None:
    app = App(server.url.replace(TOKEN, "wrong"))
    task = app.task(double)

    async def scenario() -> None:
        with pytest.raises(AuthRefused):
            await face.call(task, "submit", 1)

    face.run(scenario())
    assert len([message for message in server.received if isinstance(message, Hello)]) == 1
    app.close()


def test_where_nobody_listens_it_is_told_at_once(face: Face) -> None:
    port = free_port()
    task = App(f"taskd+tcp://t@127.0.0.1:{port}").task(double)

    async def scenario() -> None:
        with pytest.raises(CannotConnect, match=rf"127\.0\.0\.1:{port}.*taskd server"):
            await face.call(task, "submit", 1)

    face.run(scenario())


def test_a_host_that_is_not_known_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_args: object, **_kwargs: object) -> socket.socket:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", unknown)
    error = refused(Profile(address="typo.example:7000", token="t"))
    assert isinstance(error, CannotConnect)
    assert "'typo.example'" in error.message


def test_tls_to_a_plain_server_says_so(server: FakeServer, certificates: Certificates) -> None:
    error = refused(Profile(address=server.address, token=TOKEN, ca_pem=certificates.ca_pem))
    assert isinstance(error, CannotConnect)
    assert "TLS" in error.message


def test_plain_tcp_to_a_tls_server_says_so(secure: FakeServer) -> None:
    error = refused(Profile(address=secure.address, token=TOKEN, tls=False))
    assert isinstance(error, CannotConnect)
    assert "TLS" in error.message


@pytest.mark.parametrize("tls", [True, False])
def test_a_listener_that_says_nothing_is_given_up(
    monkeypatch: pytest.MonkeyPatch, certificates: Certificates, *, tls: bool
) -> None:
    monkeypatch.setattr(dial, "TLS_WITHIN_S", 0.05)
    monkeypatch.setattr(patience, "WELCOME_WITHIN_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        error = refused(Profile(address=address, token=TOKEN, ca_pem=certificates.ca_pem, tls=tls))
    assert isinstance(error, CannotConnect)


def test_a_submit_whose_answer_was_lost_makes_no_second_task(server: FakeServer, app: App, face: Face) -> None:
    """The connection breaks between the server's commit and its answer: the same ids come again."""
    task = app.task(double)
    cuts = iter([True, True])

    def cut_before_answer(peer: Peer, message: ToServer | UnknownMessage) -> bool:
        if isinstance(message, Submit) and next(cuts, False):
            server._accepted(message)
            peer.hang_up()
            return True
        return False

    server.intercept = cut_before_answer

    async def scenario() -> None:
        handle = await face.call(task, "submit", 7)
        assert await face.call(handle, "result", timeout=10) == 7

    face.run(scenario())
    submits = server.submits()
    assert len(submits) == 3
    assert len({submit.tasks[0].id for submit in submits}) == 1
    assert len(server.tasks) == 1


def test_what_is_waited_for_is_found_after_the_server_came_back(server: FakeServer, app: App, face: Face) -> None:
    server.run = lambda _spec: None
    task = app.task(double)

    async def scenario() -> None:
        handle = await face.call(task, "submit", 1)
        assert not isinstance(handle, Exception)
        with pytest.raises(TimedOut):
            await face.call(handle, "result", timeout=0.01)
        server.stop()
        [task_id] = server.tasks
        server.outcomes[task_id] = Outcome(task_id, "succeeded", 1, pack("done"))
        server.start()
        assert await face.call(handle, "result", timeout=20) == "done"

    face.run(scenario())


def test_a_map_survives_connections_that_break_all_the_time(server: FakeServer, app: App) -> None:
    """Every task is there once, every result comes, whatever was cut where."""
    messages = 0

    def cut_now_and_then(peer: Peer, message: ToServer | UnknownMessage) -> bool:
        nonlocal messages
        messages += isinstance(message, Submit | Wait)
        if messages % 3 == 2 and isinstance(message, Submit | Wait):
            if messages % 2 and isinstance(message, Submit):
                server._accepted(message)
            peer.hang_up()
            return True
        return False

    app.task(double).submit(0)
    server.intercept = cut_now_and_then
    handles = app.task(double).map(range(5000))
    assert [handle.result(timeout=30) for handle in handles] == list(range(5000))
    assert len(server.tasks) == 5001


def test_a_busy_server_is_asked_again(server: FakeServer, app: App, face: Face) -> None:
    refusals = iter(range(3))

    def busy(peer: Peer, message: ToServer | UnknownMessage) -> bool:
        if isinstance(message, Submit) and next(refusals, None) is not None:
            peer.send(Error(message.request_id, "server.busy", "full", retryable=True, retry_after_ms=5))
            return True
        return False

    server.intercept = busy
    task = app.task(double)

    async def scenario() -> None:
        await face.call(task, "submit", 1)

    face.run(scenario())
    assert len(server.submits()) == 4
    assert len({submit.tasks[0].id for submit in server.submits()}) == 1


def test_a_server_that_stays_busy_is_told_of_in_the_end(server: FakeServer) -> None:
    def busy(peer: Peer, message: ToServer | UnknownMessage) -> bool:
        if isinstance(message, Submit):
            peer.send(Error(message.request_id, "server.busy", "its queue is full", retryable=True))
        return isinstance(message, Submit)

    server.intercept = busy
    app = App(server.url, submit_timeout=0.05)
    with pytest.raises(TimedOut, match="its queue is full"):
        app.task(double).submit(1)
    app.close()


def test_a_server_that_stays_away_is_told_of_in_the_end(server: FakeServer) -> None:
    app = App(server.url, submit_timeout=0.2)
    task = app.task(double)
    task.submit(1)
    server.stop()
    with pytest.raises(CannotConnect, match=rf"{server.address} within 0\.2 s"):
        task.submit(2)
    server.start()
    wait_until(lambda: submitted(task.submit, 3))
    app.close()


def test_a_map_to_a_server_that_went_away_fails_after_one_timeout(server: FakeServer) -> None:
    """Not after one for each of its pieces."""
    app = App(server.url, submit_timeout=0.2)
    task = app.task(double)
    task.submit(1)
    server.stop()
    numbers = count()
    with pytest.raises(CannotConnect, match=r"within 0\.2 s"):
        task.map(numbers)
    assert next(numbers) < 5000
    app.close()


def submitted(submit: object, number: int) -> bool:
    assert callable(submit)
    try:
        submit(number)
    except CannotConnect:
        return False
    return True


def test_a_submit_that_was_given_up_is_not_sent_later(server: FakeServer) -> None:
    """Who was told that it failed does not want it to happen after all."""
    app = App(server.url, submit_timeout=0.5)
    task = app.task(double)
    task.submit(1)
    server.stop()
    with pytest.raises(CannotConnect):
        task.submit(2)
    server.start()
    Client(Profile(address=server.address, token=TOKEN, tls=False)).call(QueueList(0), QueuePage)
    wait_until(lambda: submitted(task.submit, 3))
    assert len(server.tasks) == 2
    app.close()


def test_a_token_that_is_revoked_ends_the_waiting(server: FakeServer, app: App) -> None:
    server.run = lambda _spec: None
    handle = app.task(double).submit(1)
    caught: list[TaskdError] = []

    def wait() -> None:
        try:
            handle.result(timeout=20)
        except TaskdError as error:
            caught.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    wait_until(lambda: any(isinstance(message, Wait) for message in server.received))
    with server.lock:
        for peer in server.peers:
            peer.send(Error(0, "auth.refused", "the token was revoked"))
            peer.flush()
            peer.hang_up()
    waiter.join(20)
    assert [type(error) for error in caught] == [AuthRefused]
    server.end(Outcome(handle.raw_id, "succeeded", 1, pack(2)))
    assert handle.result(timeout=20) == 2


def test_what_must_not_happen_twice_is_not_asked_twice(server: FakeServer) -> None:
    asked = 0

    def cut(peer: Peer, message: ToServer | UnknownMessage) -> bool:
        nonlocal asked
        if isinstance(message, TokenCreate):
            asked += 1
            peer.hang_up()
        return isinstance(message, TokenCreate)

    client = Client(Profile(address=server.address, token=TOKEN, tls=False))
    client.connect()
    server.intercept = cut
    with pytest.raises(ConnectionLost):
        client.call(TokenCreate(0, "client"), TokenCreated, timeout=20)
    client.call(QueueList(0), QueuePage, timeout=20)
    assert asked == 1
    client.close()


def test_a_large_submit_waits_for_a_server_that_reads_slowly(server: FakeServer, app: App) -> None:
    """What the kernel does not take waits in the client, and goes on when there is room."""
    gate = threading.Event()

    def slow(_spec: TaskSpec) -> Outcome | None:
        gate.wait(20)
        return None

    server.run = slow
    task = app.task(name="t")(len)
    done: list[int] = []
    sender = threading.Thread(target=lambda: done.append(len(task.map([bytes(1_000_000)] * 20))))
    sender.start()
    wait_until(lambda: any(isinstance(message, Submit) for message in list(server.received)))
    assert not done
    gate.set()
    sender.join(20)
    assert done == [20]
    assert len(server.tasks) == 20


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_in_the_clients_thread_hangs_nobody(
    server: FakeServer, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits is told, and the next use starts anew."""
    before = set(threading.enumerate())
    task = app.task(double)
    task.submit(1)
    (client,) = [thread for thread in threading.enumerate() if thread not in before and thread.name == "taskd-client"]

    def broken(_session: session.Session, _message: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(session.Session, "_outcomes", broken)
        with pytest.raises(ConnectionLost, match="ZeroDivisionError"):
            task.submit(2).result(timeout=20)
    client.join(20)  # its last word is heard within this test, where it is expected
    assert not client.is_alive()
    assert task.submit(3).result(timeout=20) == 3
    assert len(server.tasks) == 3
