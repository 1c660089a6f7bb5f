"""Who moves the bytes: a caller by himself while nothing is under way, the client's thread otherwise."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from taskd import App
from taskd.client.link import Link
from taskd.client.promise import Request
from taskd.client.pump import Pump
from taskd.client.session import Session
from taskd_protocol.connection import UnknownMessage
from taskd_protocol.messages import Submit, ToServer, Wait
from taskd_protocol.payload import pack
from taskd_protocol.task import Outcome
from unit.client.faces import Face, wait_until
from unit.client.fake_server import FakeServer, Peer


def echo(number: int) -> int:
    return number


@pytest.fixture(params=["server", "secure"])
def any_server(request: pytest.FixtureRequest) -> FakeServer:
    made = request.getfixturevalue(request.param)
    assert isinstance(made, FakeServer)
    return made


@pytest.fixture
def any_app(any_server: FakeServer) -> Iterator[App]:
    made = App(any_server.url, submit_timeout=10)
    yield made
    made.close()


def pump_of(app: App) -> Pump:
    link = app.client.link
    assert isinstance(link, Link)
    pump = link._pump
    assert isinstance(pump, Pump)
    return pump


def askers(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """Return a list to which the thread is added that hands a submit to the session."""
    asked: list[threading.Thread] = []
    ask = Session.ask

    def noted(session: Session, request: Request) -> None:
        if isinstance(request.message, Submit):
            asked.append(threading.current_thread())
        ask(session, request)

    monkeypatch.setattr(Session, "ask", noted)
    return asked


def test_who_asks_alone_writes_by_himself(any_app: App, face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    task = any_app.task(echo)
    assert task.submit(0).result(timeout=20) == 0  # connects
    pump = pump_of(any_app)

    async def scenario() -> None:
        for number in range(1, 4):
            wait_until(lambda: not pump._turn_lock.locked())  # the thread has told of what came, and may not be done
            handle = await face.call(task, "submit", number)
            assert await face.call(handle, "result", timeout=20) == number

    asked = askers(monkeypatch)
    face.run(scenario())
    assert asked == [threading.main_thread()] * 3


def test_those_who_ask_beside_others_leave_it_to_the_thread(
    any_server: FakeServer, any_app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Submits of many at a time go out together, as the thread finds them: also when all have been answered at once."""
    held: list[Callable[[], None]] = []

    def hold(peer: Peer, message: ToServer | UnknownMessage) -> bool:
        if isinstance(message, Submit):
            held.append(lambda: peer.send(any_server._accepted(message)))
        if len(held) == 2:  # both are there, unanswered
            for answer in held:
                answer()
        return isinstance(message, Submit)

    task = any_app.task(echo)
    task.submit(0)
    pump = pump_of(any_app)
    asked = askers(monkeypatch)
    with ThreadPoolExecutor(1) as other:
        any_server.intercept = hold
        first = other.submit(task.submit, 1)
        wait_until(lambda: bool(held))
        task.submit(2)
        first.result(20)
        any_server.intercept = lambda _peer, _message: False
    for number in (3, 4):
        wait_until(lambda: pump.session.idle and not pump._turn_lock.locked())
        task.submit(number)
    by_caller = [thread is not pump._thread for thread in asked]
    assert by_caller[1:] == [False, False, True]  # the third was answered alone


@pytest.mark.parametrize("bytes_out", [0, 5])
def test_who_is_interrupted_while_he_writes_takes_nothing_from_others(
    any_server: FakeServer, any_app: App, monkeypatch: pytest.MonkeyPatch, bytes_out: int
) -> None:
    """Ctrl-C in the midst of a frame: all that others wait for is asked again, on a connection that is whole."""
    any_server.run = lambda _spec: None
    task = any_app.task(echo)
    handle = task.submit(1)
    push = Pump._push

    def torn(pump: Pump) -> bool:
        if threading.current_thread() is not threading.main_thread():
            return push(pump)
        data = pump.session.data_to_send()
        if bytes_out:
            assert pump._socket is not None
            pump._socket.send(data[:bytes_out])
        raise KeyboardInterrupt

    with ThreadPoolExecutor(1) as other:
        result = other.submit(partial(handle.result, timeout=20))
        wait_until(lambda: any(isinstance(message, Wait) for message in list(any_server.received)))
        wait_until(lambda: pump_of(any_app).session.idle)
        with monkeypatch.context() as patch:
            patch.setattr(Pump, "_push", torn)
            with pytest.raises(KeyboardInterrupt):
                task.submit(2)
        last = task.submit(3)
        any_server.end(Outcome(handle.raw_id, "succeeded", 1, pack(1)))
        any_server.end(Outcome(last.raw_id, "succeeded", 1, pack(3)))
        assert result.result(20) == 1
    assert last.result(timeout=20) == 3


def test_who_is_interrupted_while_he_begins_to_wait_can_wait_again(
    any_app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = any_app.task(echo).submit(1)
    wait_until(lambda: not pump_of(any_app)._turn_lock.locked())

    def interrupted(_session: Session, _ids: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Session, "await_ends", interrupted)
        patch.setattr(Pump, "_wake", lambda _pump: None)  # the thread would meet it too
        with pytest.raises(KeyboardInterrupt):
            handle.result()
    assert handle.result(timeout=20) == 1


def test_a_signals_handler_waits_for_nobody_below_it(
    any_server: FakeServer, any_app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it interrupts may be in the midst of a write: what it submits goes another way."""
    task = any_app.task(echo)
    task.submit(1)
    pump, push = pump_of(any_app), Pump._push
    wait_until(lambda: not pump._turn_lock.locked())
    heard: list[int] = []

    def with_handler(writing: Pump) -> bool:
        if writing.is_held_here() and writing is pump and not heard:
            heard.append(task.submit(2).result(timeout=20))
        return push(writing)

    monkeypatch.setattr(Pump, "_push", with_handler)
    assert task.submit(3).result(timeout=20) == 3
    assert heard == [2]
    any_app.close()
    wait_until(lambda: not any_server.peers)
