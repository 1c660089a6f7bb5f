"""Whatever way the bytes are cut up, and wherever connections break: each submit is acknowledged once, none is lost."""

from collections import Counter
from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from taskd.client.events import Answered, Ended, HangUp
from taskd.client.promise import Request
from taskd.client.session import Session
from taskd_protocol.connection import Connection, server_side
from taskd_protocol.connection_messages import Done, Error, Hello, PeerLimits, Ping, Pong, Welcome
from taskd_protocol.errors import ConnectionLost
from taskd_protocol.mark import Mark
from taskd_protocol.messages import Accepted, OutcomeCredit, Outcomes, Submit, ToServer, Wait
from taskd_protocol.task import Outcome, TaskSpec

CREDIT = 4

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.integers(1, 3)),
        st.tuples(st.just("up"), st.integers(1, 400)),
        st.tuples(st.just("down"), st.integers(1, 400)),
        st.tuples(st.just("both"), st.integers(50, 2000)),
        st.tuples(st.just("cut"), st.just(0)),
        st.tuples(st.just("busy"), st.integers(1, 2)),
        st.tuples(st.just("time"), st.integers(1, 3000)),
    ),
    min_size=10,
    max_size=60,
)


class Net:
    """A session, a server with a memory that outlives connections, and the bytes between them."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.session = Session(token="t", name="", boot_id=bytes(16), chance=lambda: 0.5)
        self.server: Connection[ToServer] | None = None
        self.up = bytearray()
        self.down = bytearray()
        self.busy = 0
        self.credit = 0
        self.waiting: list[bytes] = []
        self.stored: Counter[bytes] = Counter()
        self.numbers = count(1)
        self.asked: dict[int, list[bytes]] = {}
        self.requests: list[Request] = []
        self.answers: Counter[int] = Counter()
        self.ends: Counter[bytes] = Counter()

    def submit(self, tasks: int) -> None:
        ids = [next(self.numbers).to_bytes(16, "big") for _ in range(tasks)]
        request = Request(Submit(0, [TaskSpec(task_id, "m.f") for task_id in ids]))
        self.session.ask(request)
        self.asked[request.number] = ids
        self.requests.append(request)

    def step(self) -> None:
        """Do what the session wants, and take what it tells."""
        self.session.tick(self.now_s)
        self.tell()
        if self.session.wants_connection(self.now_s):
            self.server = server_side()
            self.credit = CREDIT
            self.waiting = []
            self.session.connected(self.now_s)
        while data := self.session.data_to_send():
            self.up += data
        self.tell()

    def tell(self) -> None:
        for event in self.session.take_events():
            if isinstance(event, Answered):
                assert event.request.error is None, event.request.error
                self.answers[event.request.number] += 1
                # as users do: who was told that it is stored waits for its end
                self.session.await_ends(self.asked[event.request.number])
            elif isinstance(event, HangUp):
                self.server = None
                self.up.clear()
                self.down.clear()
            elif isinstance(event, Ended):
                self.ends.update(outcome.id for outcome in event.outcomes)

    def move_up(self, size: int) -> None:
        data, self.up = bytes(self.up[:size]), self.up[size:]
        if self.server is not None:
            for message in self.server.receive(data):
                assert not isinstance(message, Error)
                self.take(message)
            while out := self.server.data_to_send():
                self.down += out

    def move_down(self, size: int) -> None:
        data, self.down = bytes(self.down[:size]), self.down[size:]
        if data and self.server is not None:
            self.session.receive(data, self.now_s)

    def cut(self) -> None:
        self.up.clear()
        self.down.clear()
        if self.server is not None:
            self.server = None
            self.session.lose(ConnectionLost("cut"), self.now_s)
            self.tell()

    def take(self, message: object) -> None:
        assert self.server is not None
        mark = Mark(bytes(16), sum(self.stored.values()), bytes(32))
        match message:
            case Hello():
                self.server.trust()
                self.server.send(Welcome(1, bytes(16), 1, 1, PeerLimits(outcome_credit=CREDIT), mark))
            case Submit() if self.busy:
                self.busy -= 1
                self.server.send(Error(message.request_id, "server.busy", "", retryable=True, retry_after_ms=50))
            case Submit():
                known = [(at, spec.id) for at, spec in enumerate(message.tasks) if spec.id in self.stored]
                self.stored.update({spec.id for spec in message.tasks} - {task_id for _, task_id in known})
                self.server.send(Accepted(message.request_id, mark, known))
            case Wait():
                self.server.send(Done(message.request_id))
                self.waiting += message.ids
                self.push()
            case OutcomeCredit():
                self.credit += message.outcomes
                self.push()
            case Ping():
                self.server.send(Pong(message.nonce))
            case _:
                raise AssertionError(message)

    def push(self) -> None:
        assert self.server is not None
        ready, self.waiting = self.waiting[: self.credit], self.waiting[self.credit :]
        self.credit -= len(ready)
        if ready:
            self.server.send(Outcomes([Outcome(task_id, "succeeded") for task_id in ready]))

    def heal(self) -> None:
        """Let everything through, for as long as anything moves."""
        for _ in range(200):
            self.now_s += 1.0
            self.step()
            self.move_up(1 << 20)
            self.move_down(1 << 20)


@given(STEPS)
def test_each_submit_is_acknowledged_once_and_none_is_lost(steps: list[tuple[str, int]]) -> None:
    net = Net()
    net.submit(1)
    net.step()
    net.move_up(1 << 20)  # the first WELCOME: before it a failure is rightly told at once
    net.move_down(1 << 20)
    for kind, size in steps:
        match kind:
            case "submit":
                net.submit(size)
            case "up":
                net.move_up(size)
            case "down":
                net.move_down(size)
            case "both":
                net.move_up(size)
                net.move_down(size)
            case "cut":
                net.cut()
            case "busy":
                net.busy += size
            case _:
                net.now_s += size / 1000
        net.step()
    net.heal()
    assert net.answers == Counter({request.number: 1 for request in net.requests})
    assert net.stored == Counter({task_id: 1 for ids in net.asked.values() for task_id in ids})
    assert net.ends == net.stored
