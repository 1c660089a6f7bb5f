"""The session's decisions, one at a time, against a server that is a few lines of script."""

from collections.abc import Sequence

import pytest

from taskd.client.events import Abandoned, Answered, Ended, Event, HangUp
from taskd.client.patience import (
    BUSY_MAX_S,
    PING_AFTER_S,
    PONG_WITHIN_S,
    RECONNECT_FIRST_S,
    RECONNECT_MAX_S,
    WELCOME_WITHIN_S,
)
from taskd.client.promise import Following, Request
from taskd.client.session import Session
from taskd_protocol import limits
from taskd_protocol.access_messages import Joined, TokenCreate
from taskd_protocol.connection import Connection, UnknownMessage, server_side
from taskd_protocol.connection_messages import Done, Error, Hello, PeerLimits, Ping, Pong, Welcome
from taskd_protocol.errors import (
    AuthRefused,
    BadRequest,
    CannotConnect,
    CertificateRefused,
    ConnectionLost,
    RoleRefused,
    ServerBusy,
    ServerTooOld,
    SubmitTooNew,
    TaskdError,
    UnexpectedMessage,
    UnknownKind,
    VersionUnsupported,
)
from taskd_protocol.filtering import TaskFilter
from taskd_protocol.house_messages import QueueList, QueuePage
from taskd_protocol.mark import Mark
from taskd_protocol.messages import (
    Accepted,
    Follow,
    FollowMore,
    JobStart,
    LogEntry,
    LogPage,
    OutcomeCredit,
    Outcomes,
    Submit,
    TaskList,
    ToPeer,
    ToServer,
    Wait,
)
from taskd_protocol.task import Outcome, Retry, Rules, TaskSpec, Unique

LINEAGE = b"a" * 16
ID = bytes(range(16))


def mark(sequence: int, lineage: bytes = LINEAGE) -> Mark:
    return Mark(lineage, sequence, bytes(32))


def welcome(
    sequence: int = 0,
    *,
    server_time_ms: int = 1_000_000,
    credit: int = 100,
    version: int = limits.PROTOCOL_VERSION_MAX,
) -> Welcome:
    return Welcome(version, b"s" * 16, 1, server_time_ms, PeerLimits(outcome_credit=credit), mark(sequence))


class Wire:
    """A session with its server's end, a clock and dice in hand."""

    def __init__(self, dice: float = 0.5) -> None:
        self.now_s = 100.0
        self.dice = dice
        self.session = Session(token="t", name="n", boot_id=b"b" * 16, chance=lambda: self.dice)
        self.server: Connection[ToServer] = server_side()

    def connect(self) -> list[ToServer | UnknownMessage]:
        """Make a transport; return what the client says on it before WELCOME."""
        assert self.session.wants_connection(self.now_s)
        self.server = server_side()
        self.server.trust()
        self.session.connected(self.now_s)
        return self.heard()

    def welcomed(self, sequence: int = 0, *, credit: int = 100) -> list[ToServer | UnknownMessage]:
        """Make a transport and welcome the client; return what it says after that."""
        self.connect()
        return self.tell(welcome(sequence, credit=credit))

    def tell(self, *messages: ToPeer) -> list[ToServer | UnknownMessage]:
        """Have the server say something; return what the client answers."""
        for message in messages:
            self.server.send(message)
        while data := self.server.data_to_send():
            self.session.receive(data, self.now_s)
        return self.heard()

    def heard(self) -> list[ToServer | UnknownMessage]:
        messages: list[ToServer | UnknownMessage] = []
        while data := self.session.data_to_send():
            messages += self.server.receive(data)
        return messages

    def lose(self, error: TaskdError | None = None) -> list[Event]:
        self.session.lose(error or ConnectionLost("cut"), self.now_s)
        return self.session.take_events()

    def later(self, seconds: float) -> list[ToServer | UnknownMessage]:
        self.now_s += seconds
        self.session.tick(self.now_s)
        return self.heard()


def live_wire() -> Wire:
    """A wire whose client was welcomed and has nothing to do."""
    wire = Wire()
    wire.session.ask(Request(None))
    wire.welcomed()
    wire.session.take_events()
    return wire


def a_submit() -> Request:
    return Request(Submit(0, [TaskSpec(ID, "m.f")]))


def answered(events: Sequence[Event]) -> list[Request]:
    return [event.request for event in events if isinstance(event, Answered)]


def test_hello_goes_first_and_requests_wait_for_welcome() -> None:
    """Nothing but HELLO is said to a server that has not welcomed us."""
    wire = Wire()
    request = a_submit()
    wire.session.ask(request)
    [hello] = wire.connect()
    assert isinstance(hello, Hello)
    assert (hello.role, hello.token, hello.name, hello.session, hello.mark) == ("client", "t", "n", None, None)
    [submit] = wire.tell(welcome())
    assert submit == Submit(request.number, [TaskSpec(ID, "m.f")])


def test_who_asks_for_a_connection_gets_the_welcome_now_or_later() -> None:
    wire = Wire()
    early, late = Request(None), Request(None)
    wire.session.ask(early)
    wire.welcomed()
    wire.session.ask(late)
    assert answered(wire.session.take_events()) == [early, late]
    assert early.reply == late.reply == welcome()


def test_answers_find_their_requests_in_any_order() -> None:
    wire = live_wire()
    first, second = Request(QueueList(0)), a_submit()
    wire.session.ask(first)
    wire.session.ask(second)
    wire.tell(Accepted(second.number, mark(1)), QueuePage(first.number, []))
    assert answered(wire.session.take_events()) == [second, first]
    assert isinstance(first.reply, QueuePage)
    assert isinstance(second.reply, Accepted)


def test_without_anything_to_do_it_does_not_connect() -> None:
    wire = live_wire()
    wire.lose()
    assert not wire.session.wants_connection(wire.now_s + 1000)
    assert wire.session.deadline_s() is None


def test_a_request_is_sent_again_unchanged_after_a_lost_connection() -> None:
    wire = live_wire()
    request = a_submit()
    wire.session.ask(request)
    [sent] = wire.heard()
    assert [type(event) for event in wire.lose()] == [HangUp]
    wire.now_s += RECONNECT_FIRST_S
    assert wire.welcomed() == [sent]
    wire.tell(Accepted(request.number, mark(1)))
    assert answered(wire.session.take_events()) == [request]


def test_what_must_not_happen_twice_fails_once_it_was_sent() -> None:
    """A TOKEN_CREATE whose answer was lost is not sent again; one that was not sent yet is sent."""
    wire = live_wire()
    sent = Request(TokenCreate(0, "agent"), repeatable=False)
    wire.session.ask(sent)
    wire.heard()
    assert answered(wire.lose()) == [sent]
    assert isinstance(sent.error, ConnectionLost)
    unsent = Request(TokenCreate(0, "agent"), repeatable=False)
    wire.session.ask(unsent)
    wire.now_s += RECONNECT_FIRST_S
    assert wire.welcomed() == [TokenCreate(unsent.number, "agent")]


def test_an_answer_that_nobody_waits_for_is_dropped() -> None:
    wire = live_wire()
    request = a_submit()
    wire.session.ask(request)
    wire.heard()
    wire.session.give_up(request)
    wire.tell(Accepted(request.number, mark(1)))
    assert wire.session.take_events() == []


@pytest.mark.parametrize(
    "error", [CannotConnect("nobody there"), CertificateRefused("another CA"), ConnectionLost("cut")]
)
def test_before_the_first_welcome_a_failure_is_told_at_once(error: TaskdError) -> None:
    wire = Wire()
    request = a_submit()
    wire.session.ask(request)
    wire.connect()
    events = wire.lose(error)
    assert answered(events) == [request]
    assert type(request.error) is type(error)
    assert not wire.session.wants_connection(wire.now_s + 1000)


def test_a_refused_token_is_told_at_once() -> None:
    wire = Wire()
    request = a_submit()
    wire.session.ask(request)
    wire.connect()
    wire.tell(Error(0, "auth.refused", "no such token"))
    events = wire.session.take_events()
    assert answered(events) == [request]
    assert isinstance(request.error, AuthRefused)
    assert isinstance(events[-1], HangUp)


def test_a_stopping_server_is_tried_again_even_at_first() -> None:
    wire = Wire()
    wire.session.ask(a_submit())
    wire.connect()
    wire.tell(Error(0, "server.stopping", "going down", retryable=True))
    assert answered(wire.session.take_events()) == []
    wire.now_s += RECONNECT_FIRST_S
    assert wire.session.wants_connection(wire.now_s)


def test_a_revoked_token_ends_all_that_waits() -> None:
    """After a WELCOME too, what no patience can mend is told at once."""
    wire = live_wire()
    request = a_submit()
    wire.session.ask(request)
    wire.session.await_ends([ID])
    wire.tell(Error(0, "auth.refused", "revoked"))
    events = wire.session.take_events()
    assert answered(events) == [request]
    assert any(isinstance(event, Abandoned) and isinstance(event.error, AuthRefused) for event in events)
    assert not wire.session.wants_connection(wire.now_s + 1000)


@pytest.mark.parametrize("dice", [0.0, 0.25, 0.999])
def test_reconnects_come_within_half_a_second_and_then_ever_later(dice: float) -> None:
    wire = live_wire()
    wire.dice = dice
    wire.session.ask(a_submit())
    wire.lose()
    widest_s = RECONNECT_FIRST_S
    for _ in range(8):
        due_s = wire.session.deadline_s()
        assert due_s is not None
        assert due_s == pytest.approx(wire.now_s + dice * widest_s)
        wire.now_s = due_s
        assert wire.session.wants_connection(wire.now_s)
        wire.session.lose(CannotConnect("still down"), wire.now_s)
        assert answered(wire.session.take_events()) == []
        widest_s = min(RECONNECT_MAX_S, 2 * widest_s)


def test_a_welcome_makes_the_next_reconnect_quick_again() -> None:
    wire = live_wire()
    wire.dice = 1.0
    wire.session.ask(a_submit())
    for _ in range(5):
        wire.lose(CannotConnect("down"))
    wire.now_s += RECONNECT_MAX_S
    wire.welcomed()
    wire.lose()
    assert wire.session.deadline_s() == wire.now_s + RECONNECT_FIRST_S


def test_a_request_that_was_put_off_is_sent_again_when_the_server_asked_for_it() -> None:
    """Never before ``retry_after_ms``, and under the same ids."""
    wire = live_wire()
    request = a_submit()
    wire.session.ask(request)
    [sent] = wire.heard()
    wire.tell(Error(request.number, "server.busy", "full", retryable=True, retry_after_ms=800))
    assert wire.session.take_events() == []
    assert isinstance(request.refusal, ServerBusy)
    due_s = wire.session.deadline_s()
    assert due_s is not None
    assert wire.now_s + 0.8 <= due_s <= wire.now_s + 1.2
    assert wire.later(0.79) == []
    assert wire.later(0.41) == [sent]
    wire.tell(Accepted(request.number, mark(1)))
    assert answered(wire.session.take_events()) == [request]


def test_what_must_not_happen_twice_may_be_put_off() -> None:
    """A busy server refuses before anything moved, so asking again does it once."""
    wire = live_wire()
    request = Request(TokenCreate(0, "agent"), repeatable=False)
    wire.session.ask(request)
    [sent] = wire.heard()
    wire.tell(Error(request.number, "server.busy", "full", retryable=True, retry_after_ms=100))
    assert wire.lose() == [HangUp(error=wire.session.trouble)]  # type: ignore[arg-type]  # it is there after a loss
    wire.now_s += RECONNECT_FIRST_S
    assert wire.welcomed() == [sent]


def test_the_waits_of_a_busy_server_that_names_none_grow_and_are_bounded() -> None:
    wire = live_wire()
    wire.dice = 0.0
    request = a_submit()
    wire.session.ask(request)
    waits_s = []
    for _ in range(12):
        wire.heard()
        wire.tell(Error(request.number, "server.busy", "full", retryable=True))
        due_s = wire.session.deadline_s()
        assert due_s is not None
        waits_s.append(due_s - wire.now_s)
        assert len(wire.later(waits_s[-1])) == 1
        wire.tell(Pong(0))
    assert waits_s[0] < waits_s[1] < waits_s[2]
    assert max(waits_s) == pytest.approx(BUSY_MAX_S)


def test_a_refusal_that_will_not_change_fails_the_request() -> None:
    wire = live_wire()
    request = a_submit()
    wire.session.ask(request)
    wire.tell(Error(request.number, "auth.role", "a viewer may not"))
    assert answered(wire.session.take_events()) == [request]
    assert isinstance(request.error, RoleRefused)


def test_what_is_still_waited_for_is_waited_for_again_after_a_reconnect() -> None:
    wire = live_wire()
    ended, open_ = b"1" * 16, b"2" * 16
    wire.session.await_ends([ended, open_])
    [wait] = wire.heard()
    assert isinstance(wait, Wait)
    assert wait.ids == [ended, open_]
    wire.tell(Done(wait.request_id), Outcomes([Outcome(ended, "succeeded")]))
    assert wire.session.take_events() == [Ended([Outcome(ended, "succeeded")])]
    wire.lose()
    wire.now_s += RECONNECT_FIRST_S
    [wait] = wire.welcomed()
    assert isinstance(wait, Wait)
    assert wait.ids == [open_]


def test_what_is_waited_for_is_asked_once() -> None:
    wire = live_wire()
    wire.session.await_ends([ID])
    assert len(wire.heard()) == 1
    wire.session.await_ends([ID])
    assert wire.heard() == []


def test_waiting_for_very_many_is_cut_into_messages_of_the_allowed_size() -> None:
    wire = live_wire()
    ids = [index.to_bytes(16, "big") for index in range(limits.WAIT_IDS_MAX + 1)]
    wire.session.await_ends(ids)
    waits = [message for message in wire.heard() if isinstance(message, Wait)]
    assert [len(wait.ids) for wait in waits] == [limits.WAIT_IDS_MAX, 1]
    assert [task_id for wait in waits for task_id in wait.ids] == ids


def test_a_refused_wait_tells_of_each_task_why() -> None:
    wire = live_wire()
    wire.session.await_ends([ID])
    [wait] = wire.heard()
    assert isinstance(wait, Wait)
    wire.tell(Error(wait.request_id, "auth.role", "not for you"))
    [event] = wire.session.take_events()
    assert isinstance(event, Ended)
    [outcome] = event.outcomes
    assert (outcome.id, outcome.state) == (ID, "unknown")
    assert outcome.failure is not None
    assert outcome.failure.code == "auth.role"


def test_a_wait_that_was_put_off_is_sent_again() -> None:
    wire = live_wire()
    wire.session.await_ends([ID])
    [wait] = wire.heard()
    assert isinstance(wait, Wait)
    wire.tell(Error(wait.request_id, "server.busy", "full", retryable=True, retry_after_ms=100))
    assert wire.later(1.0) == [wait]


def test_credit_for_outcomes_is_given_back_as_they_come() -> None:
    """Before a quarter is spent nothing is said, then all that was spent is given back."""
    wire = live_wire()
    ids = [index.to_bytes(16, "big") for index in range(60)]
    wire.session.await_ends(ids)
    wire.heard()
    outcomes = [Outcome(task_id, "succeeded") for task_id in ids]
    assert wire.tell(Outcomes(outcomes[:24])) == []
    assert wire.tell(Outcomes(outcomes[24:50])) == [OutcomeCredit(50)]
    assert wire.tell(Outcomes(outcomes[50:])) == []


def test_the_newest_mark_is_shown_in_the_next_hello() -> None:
    wire = live_wire()
    request = a_submit()
    wire.session.ask(request)
    wire.tell(Accepted(request.number, mark(7)))
    wire.session.ask(Request(QueueList(0)))
    wire.lose()
    wire.now_s += RECONNECT_FIRST_S
    [hello] = wire.connect()
    assert isinstance(hello, Hello)
    assert hello.mark == mark(7)
    assert hello.session == b"s" * 16
    wire.tell(welcome(5))  # an older answer of the same lineage proves nothing new
    wire.lose()
    wire.now_s += RECONNECT_FIRST_S
    [hello] = wire.connect()
    assert isinstance(hello, Hello)
    assert hello.mark == mark(7)


def test_another_lineage_replaces_the_mark() -> None:
    """A server that was restored begins anew, and says so by its lineage."""
    wire = live_wire()
    wire.session.ask(Request(QueueList(0)))
    wire.lose()
    wire.now_s += RECONNECT_FIRST_S
    wire.connect()
    restored = Welcome(1, b"s" * 16, 1, 1, PeerLimits(), mark(3, b"z" * 16))
    wire.tell(restored)
    wire.lose()
    wire.now_s += RECONNECT_FIRST_S
    [hello] = wire.connect()
    assert isinstance(hello, Hello)
    assert hello.mark == mark(3, b"z" * 16)


def test_a_silent_server_is_asked_and_then_given_up() -> None:
    wire = live_wire()
    wire.session.ask(Request(QueueList(0)))
    wire.heard()
    assert wire.session.deadline_s() == wire.now_s + PING_AFTER_S
    [ping] = wire.later(PING_AFTER_S)
    assert isinstance(ping, Ping)
    assert wire.later(PONG_WITHIN_S - 0.1) == []
    wire.later(0.1)
    [event] = wire.session.take_events()
    assert isinstance(event, HangUp)
    assert isinstance(event.error, ConnectionLost)


def test_any_sign_of_life_puts_the_end_off() -> None:
    wire = live_wire()
    [ping] = wire.later(PING_AFTER_S)
    assert isinstance(ping, Ping)
    wire.now_s += PONG_WITHIN_S / 2
    wire.tell(Pong(ping.nonce, 5))
    assert wire.session.deadline_s() == wire.now_s + PING_AFTER_S


def test_a_ping_is_answered() -> None:
    assert live_wire().tell(Ping(42)) == [Pong(42)]


def test_a_server_that_never_welcomes_is_given_up() -> None:
    wire = Wire()
    request = a_submit()
    wire.session.ask(request)
    wire.connect()
    wire.later(WELCOME_WITHIN_S)
    assert isinstance(request.error, CannotConnect)


def test_the_servers_clock_is_kept_as_an_offset_of_the_local_one() -> None:
    wire = Wire()
    wire.session.ask(Request(None))
    wire.connect()
    wire.tell(welcome(server_time_ms=5_000_000))
    assert wire.session.clock_offset_ms == 5_000_000 - 100.0 * 1000
    wire.now_s += 1
    wire.tell(Pong(1, 5_001_500))
    assert wire.session.clock_offset_ms == 5_001_500 - 101.0 * 1000


def test_a_server_whose_clock_was_put_back_is_asked_for_the_time() -> None:
    """By whoever is told so: else every id would be ahead of it until the connection is lost."""
    wire = live_wire()
    request = a_submit()
    wire.session.ask(request)
    wire.heard()
    [ping] = wire.tell(Error(request.number, "submit.too_new", "an id lies in the future"))
    assert isinstance(request.error, SubmitTooNew)
    assert isinstance(ping, Ping)
    wire.tell(Pong(ping.nonce, 7_000))
    assert wire.session.clock_offset_ms == 7_000 - wire.now_s * 1000


@pytest.mark.parametrize(
    ("option", "spec"),
    [
        ("timeout", TaskSpec(ID, "m.f", given=Rules(timeout_ms=1))),
        ("soft_timeout", TaskSpec(ID, "m.f", given=Rules(soft_timeout_ms=1))),
        ("ttl", TaskSpec(ID, "m.f", given=Rules(ttl_ms=1))),
        ("deadline", TaskSpec(ID, "m.f", given=Rules(deadline_ms=1))),
        ("exclusive and heartbeat", TaskSpec(ID, "m.f", given=Rules(exclusive=True, heartbeat_ms=500))),
        ("at_most_once", TaskSpec(ID, "m.f", given=Rules(at_most_once=True))),
        ("headers", TaskSpec(ID, "m.f", given=Rules(headers={"a": "b"}))),
        ("unique", TaskSpec(ID, "m.f", given=Rules(unique=Unique("queued")))),
        ("retry on", TaskSpec(ID, "m.f", retry=Retry(on=["builtins.OSError"]))),
        ("retry not_on", TaskSpec(ID, "m.f", retry=Retry(not_on=["builtins.OSError"]))),
        ("crash_limit", TaskSpec(ID, "m.f", retry=Retry(crash_limit=1))),
    ],
)
def test_an_older_server_is_not_asked_for_what_it_would_leave_out(option: str, spec: TaskSpec) -> None:
    """It would take the task and run it without; the option is named, and what is to be done."""
    wire = Wire()
    plain, newer = Request(Submit(0, [TaskSpec(ID, "m.f", retry=Retry(5))])), Request(Submit(0, [spec]))
    wire.session.ask(plain)
    wire.session.ask(newer)
    wire.connect()
    assert wire.tell(welcome(version=1)) == [plain.message]
    assert answered(wire.session.take_events()) == [newer]
    assert isinstance(newer.error, ServerTooOld)
    assert f" {option} of 'm.f': upgrade the server" in newer.error.message
    wire.lose()
    wire.session.ask(newer := Request(Submit(0, [spec])))
    wire.later(RECONNECT_MAX_S)
    wire.connect()
    assert wire.tell(welcome()) == [plain.message, newer.message], "it was upgraded meanwhile"


def test_an_older_server_is_not_asked_to_pass_over_words_of_a_filter() -> None:
    """It would show, or do, more than was asked for."""
    wire = Wire()
    plain = Request(TaskList(0, filter=TaskFilter("dead", "q")))
    newer = Request(JobStart(0, ID, "cancel", TaskFilter("ready", before_ms=9, priority_min=5)))
    wire.session.ask(plain)
    wire.session.ask(newer)
    wire.connect()
    assert wire.tell(welcome(version=1)) == [plain.message]
    assert answered(wire.session.take_events()) == [newer]
    assert isinstance(newer.error, ServerTooOld)
    assert "before_ms and priority_min of the filter: upgrade the server" in newer.error.message


def test_a_version_that_is_not_known_here_is_refused() -> None:
    wire = Wire()
    request = a_submit()
    wire.session.ask(request)
    wire.connect()
    wire.tell(Welcome(99, b"s" * 16, 1, 1, PeerLimits(), mark(0)))
    assert isinstance(request.error, VersionUnsupported)


def test_plain_garbage_instead_of_welcome_says_what_it_may_be() -> None:
    """A TLS server answers a plain HELLO with an alert: the message speaks of TLS."""
    wire = Wire()
    request = a_submit()
    wire.session.ask(request)
    wire.connect()
    wire.session.receive(b"\x15\x03\x01\x00\x02\x02\x46", wire.now_s)
    assert isinstance(request.error, CannotConnect)
    assert "TLS" in request.error.message


@pytest.mark.parametrize("message", [Joined("secret"), welcome()])
def test_a_message_that_no_client_is_told_ends_the_connection(message: ToPeer) -> None:
    wire = live_wire()
    wire.tell(message)
    assert isinstance(wire.session.take_events()[-1], HangUp)


def test_a_server_that_does_not_begin_with_welcome_is_refused() -> None:
    wire = Wire()
    request = a_submit()
    wire.session.ask(request)
    wire.connect()
    wire.tell(Done(1))
    assert isinstance(request.error, UnexpectedMessage)


def test_an_answer_of_an_unknown_kind_fails_its_request_alone() -> None:
    wire = live_wire()
    request, other = Request(QueueList(0)), Request(QueueList(0))
    wire.session.ask(request)
    wire.session.ask(other)
    body = bytes([0x92, 0x7F, request.number])  # [127, request id]
    wire.session.receive(len(body).to_bytes(4, "big") + body, wire.now_s)
    assert answered(wire.session.take_events()) == [request]
    assert isinstance(request.error, UnknownKind)
    assert wire.session.live


def test_a_request_that_cannot_be_encoded_is_answered_with_the_reason() -> None:
    wire = live_wire()
    request = Request(Submit(0, [TaskSpec(ID, "m.f", priority=1 << 80)]))
    wire.session.ask(request)
    assert answered(wire.session.take_events()) == [request]
    assert isinstance(request.error, BadRequest)


def test_following_goes_on_after_a_reconnect_where_it_was() -> None:
    wire = live_wire()
    following = Following(Follow(0, ID, 0))
    wire.session.ask(following)
    assert wire.heard() == [Follow(following.number, ID, 0)]
    page = [LogEntry(0, 1, 1, 0, b"a"), LogEntry(1, 1, 1, 0, b"b")]
    wire.tell(LogPage(following.number, page))
    wire.session.take_more(following)
    assert wire.heard() == [FollowMore(following.number)]
    wire.lose()
    wire.now_s += RECONNECT_FIRST_S
    assert wire.welcomed() == [Follow(following.number, ID, 2)]
    wire.tell(LogPage(following.number, [], end=True))
    assert list(following.pages) == [page, []]
    assert following.ended


def test_closing_fails_all_that_is_open() -> None:
    wire = live_wire()
    request = a_submit()
    wire.session.ask(request)
    wire.session.end(ConnectionLost("closed"))
    events = wire.session.take_events()
    assert answered(events) == [request]
    assert isinstance(events[-1], Abandoned)
