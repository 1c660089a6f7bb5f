"""Inner sessions: a peer within this process, such as HTTP, is answered as one on the wire is.

Invariants:
- What is asked are the messages that a client would send, under the role of a token, checked by the same table and
  answered by the same code: nothing is told that is not durable, nothing changes but by commands.
- A session ends with its token: when that is revoked or expires, whoever still waits is told so.

Knows no HTTP.
"""

from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final, NamedTuple, TypeVar

import trio
from msgspec.structs import replace

from taskd.core.access import is_good
from taskd.server import tokens
from taskd.server.client_role import ClientRole
from taskd.server.services import Services
from taskd_protocol.connection_messages import Error
from taskd_protocol.errors import TaskdError, error_from_code
from taskd_protocol.handshake import HELLO_CLIENT, HELLO_JOIN, check_allowed, check_role
from taskd_protocol.limits import PROTOCOL_VERSION_MAX
from taskd_protocol.messages import Message, ToPeer, ToServer
from taskd_protocol.task import Outcome

ReplyT = TypeVar("ReplyT", bound=ToPeer)

PUSHED: Final = 0
"""Where a session's messages wait that answer no request: OUTCOMES."""


class Who(NamedTuple):
    """Whose session it is."""

    key_id: str
    role: str
    expires_at_ms: int


def who_shows(services: Services, text: str) -> Who:
    """Return who shows this token.

    Raises:
        AuthRefused: It is not good.
        RoleRefused: It is an agent's.
    """
    shown = tokens.parse(text)
    record = services.working.tokens.get(shown.key_id)
    if not tokens.secret_matches(shown, None if record is None else record.secret_sha256):
        raise tokens.refusal()
    return who_has(services, shown.key_id)


def who_has(services: Services, key_id: str) -> Who:
    """Return whose token it is, once it was shown to be theirs.

    Raises:
        AuthRefused: It has expired, or was revoked.
        RoleRefused: It is an agent's.
    """
    record = services.working.tokens.get(key_id)
    if record is None or record.role == HELLO_JOIN or not is_good(record, services.loop.now()):
        raise tokens.refusal()
    check_role(HELLO_CLIENT, record.role)
    return Who(key_id, record.role, record.expires_at_ms)


class Answers:
    """What is said under one request id, in order."""

    def __init__(self) -> None:
        self._said: deque[Message] = deque()
        self._news = trio.Event()
        self._ended: TaskdError | None = None

    def put(self, message: Message) -> None:
        """Add a message."""
        self._said.append(message)
        self._news.set()

    def end(self, why: TaskdError) -> None:
        """Nothing more is said, for this reason."""
        self._ended = why
        self._news.set()

    async def take(self, kind: type[ReplyT]) -> ReplyT:
        """Return the next message, which is of this kind.

        Raises:
            TaskdError: The request was refused, or the session has ended.
        """
        while not self._said:
            if self._ended is not None:
                raise self._ended
            self._news = trio.Event()
            await self._news.wait()
        said = self._said.popleft()
        if isinstance(said, Error):
            raise error_from_code(said.code, said.message, retryable=said.retryable, retry_after_ms=said.retry_after_ms)
        assert isinstance(said, kind), said
        return said


class InnerSession:
    """One session.

    Attributes:
        pushed: What the server says unasked.
    """

    def __init__(self, services: Services, who: Who, nursery: trio.Nursery) -> None:
        self.services = services
        self.connection = services.hub.next_connection()
        self.key_id = who.key_id
        self.version = PROTOCOL_VERSION_MAX
        self.outbox_bytes = 0  # whoever asks takes what was asked for; what is pushed goes by credit
        self.nursery: trio.Nursery | None = nursery
        self.pushed = Answers()
        self.role_name = who.role
        self._lines = {PUSHED: self.pushed}
        self._last_id = PUSHED
        self._ended: TaskdError | None = None
        self._role = ClientRole(self)

    async def ask(self, message: ToServer, reply: type[ReplyT]) -> ReplyT:
        """Ask what is answered by one message; its request id is set here.

        Raises:
            TaskdError: It is refused.
        """
        with self.open(message) as answers:
            return await answers.take(reply)

    @contextmanager
    def open(self, message: ToServer) -> Iterator[Answers]:
        """Ask what is answered by any number of messages, while the body takes them.

        Raises:
            TaskdError: It is refused.
        """
        self._last_id += 1
        request_id, answers = self._last_id, Answers()
        self._lines[request_id] = answers
        try:
            self.tell(replace(message, request_id=request_id))
            yield answers
        finally:
            del self._lines[request_id]

    def tell(self, message: ToServer) -> None:
        """Say something that has its request id, or needs none.

        Raises:
            TaskdError: It is refused.
        """
        if self._ended is not None:
            raise self._ended
        check_allowed(self.role_name, message)
        self._role.receive(message)

    def close(self) -> None:
        """Forget all that is asked."""
        self._role.close()

    # -- what the role and the hub do with it -----------------------------------------------

    def send(self, message: Message) -> None:
        """Say this to whoever waits for it; nobody may."""
        answers = self._lines.get(getattr(message, "request_id", PUSHED))
        if answers is not None:
            answers.put(message)

    def send_in_turn(self, message: Message) -> None:
        """See ``Talk``: nothing waits for room here."""
        self.send(message)

    def end(self, why: TaskdError) -> None:
        """Answer nothing more."""
        self._ended = self._ended or why
        for answers in self._lines.values():
            answers.end(why)

    def end_in_turn(self, why: TaskdError) -> None:
        """See ``Talk``: what was said is there to be taken."""
        self.end(why)

    def tell_outcomes(self, outcomes: list[Outcome]) -> None:
        """See ``Role``."""
        self._role.tell_outcomes(outcomes)

    def tell_logs(self, task_id: bytes) -> None:
        """See ``Role``."""
        self._role.tell_logs(task_id)


@asynccontextmanager
async def open_inner(services: Services, who: Who) -> AsyncIterator[InnerSession]:
    """Open a session while the body runs; reads that it asked for end with it.

    Raises:
        ServerStopping: No session is opened any more.
    """
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        session = InnerSession(services, who, nursery)
        left_s = (who.expires_at_ms - services.platform.clock.wall_ms()) / 1_000
        try:
            services.hub.join(session)
            nursery.start_soon(_end_with_token, session, left_s)
            yield session
        except Exception as why:  # noqa: BLE001 - raised again below, not in the nursery's group
            failure = why
        finally:
            session.close()
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _end_with_token(session: InnerSession, left_s: float) -> None:
    await trio.sleep(max(0.0, left_s))
    session.end(tokens.refusal())
