"""What an agent's session asks of the core, and how it is answered."""

from functools import partial

import structlog

from taskd.core.agent_commands import (
    AckAttempts,
    AddCredit,
    AgentAccepted,
    AppendLogs,
    BeatHeart,
    DrainAgent,
    HearAgent,
    KeepCheckpoints,
    LogsKept,
    LoseConnection,
    MarkStarted,
    NackAttempts,
    OfferAgent,
    ReportsRecorded,
    StartsRecorded,
)
from taskd.core.commands import Answer, Command
from taskd.core.workflow_commands import SpawnTasks
from taskd.server.session import Session, error_message
from taskd.server.workflow_role import read_input
from taskd_protocol.agent_messages import (
    Ack,
    Checkpoints,
    Drain,
    Heartbeat,
    HeartbeatSeen,
    HostStats,
    LeaseCredit,
    Logs,
    LogsRecorded,
    Nack,
    Offer,
    Offered,
    Recorded,
    Started,
    StartRecorded,
)
from taskd_protocol.connection_messages import Done, Hello
from taskd_protocol.errors import ServerBusy, TaskdError, UnexpectedMessage
from taskd_protocol.messages import ToServer
from taskd_protocol.task import Outcome
from taskd_protocol.workflow_messages import InputQuery, Spawn

MARKS_VERSION = 2
"""Of the protocol: agents mark starts from it on."""

INPUTS_MAX = 32
"""Read for one agent at the same time."""

HEARD_NS = 1_000_000_000
"""What comes from an agent is noted as a sign of life so often."""


SAID_CHARS = 300
"""Of what it says in its place, in the log."""

MEASURED_MAX = 1 << 53
"""Of amounts of a host: programs that read JSON tell no larger ones apart."""

log = structlog.get_logger("taskd.agents")


class AgentRole:
    """One agent's session."""

    def __init__(self, session: Session, hello: Hello) -> None:
        self._session = session
        self._services = session.services
        self._name = hello.name
        self._boot_id = hello.boot_id
        self._software = hello.software
        self._accepted = False
        self._inputs_count = 0
        self._next_sign_ns = 0
        self._is_implausible = False

    def heard(self, mono_ns: int) -> None:
        """See ``Role``: a result that takes minutes to come is life, too."""
        if self._accepted and mono_ns >= self._next_sign_ns:
            self._next_sign_ns = mono_ns + HEARD_NS
            self._services.loop.ask(HearAgent(self._name, self._session.connection))

    def receive(self, message: ToServer) -> None:  # noqa: C901, PLR0912 - one case a message: the table itself
        """See ``Role``."""
        name, connection = self._name, self._session.connection
        match message:
            case Heartbeat():
                self._beat(message)
            case Offer():
                self._ask(self._offer(message))
            case _ if not self._accepted:  # it may be another process that has the name, and is to be refused
                raise UnexpectedMessage(f"{type(message).__name__} before OFFERED; wait for it")
            case Ack():
                self._ask(AckAttempts(name, message.reports))
            case Nack():
                self._ask(NackAttempts(name, message.failures))
            case LeaseCredit():
                self._ask(AddCredit(name, connection, message.pool, message.leases))
            case Logs():
                self._ask(AppendLogs(name, message.pieces))
            case Checkpoints():
                self._ask(KeepCheckpoints(name, message.checkpoints))
            case Started():
                self._ask(MarkStarted(name, message.tokens))
            case InputQuery():
                self._read_input(message)
            case Spawn():
                command = SpawnTasks(name, message.token, message.first, message.tasks)
                self._services.loop.ask(command, partial(self._spawned, message.request_id))
            case Drain():
                self._ask(DrainAgent(name, connection))
            case _:
                raise UnexpectedMessage(f"{type(message).__name__} is no message of an agent")

    def tell_outcomes(self, outcomes: list[Outcome]) -> None:
        """See ``Role``: an agent waits for none."""

    def tell_logs(self, task_id: bytes) -> None:
        """See ``Role``: an agent follows none."""

    def sent(self) -> None:
        """See ``Role``."""

    def close(self) -> None:
        """See ``Role``."""
        self._services.hub.leave(self._session, set(), set())
        self._services.loop.ask(LoseConnection(self._name, self._session.connection))

    def _spawned(self, request_id: int, answer: Answer | TaskdError) -> None:
        told = error_message(request_id, answer) if isinstance(answer, TaskdError) else Done(request_id)
        self._session.send(told)

    def _read_input(self, message: InputQuery) -> None:
        assert self._session.nursery is not None
        if self._inputs_count >= INPUTS_MAX:
            raise ServerBusy(f"{INPUTS_MAX} inputs are being read already; ask again after an answer")
        self._inputs_count += 1
        self._session.nursery.start_soon(self._read_input_and_tell, message)

    async def _read_input_and_tell(self, message: InputQuery) -> None:
        try:
            page = await read_input(self._services, self._name, message)
            self._services.loop.after_durable(partial(self._session.send, page))
        except TaskdError as refusal:
            self._session.send(error_message(message.request_id, refusal))
        finally:
            self._inputs_count -= 1

    def _offer(self, message: Offer) -> OfferAgent:
        return OfferAgent(
            agent=self._name,
            boot_id=self._boot_id,
            connection=self._session.connection,
            pools=message.pools,
            queues=frozenset(message.queues),
            labels=message.labels,
            holding=message.holding,
            software=self._software,
            marks_starts=self._session.version >= MARKS_VERSION,
            supplies=message.supplies,
            resources=message.resources,
            life_ms=message.life_ms,
        )

    def _beat(self, message: Heartbeat) -> None:
        wall_ms = self._services.platform.clock.wall_ms()
        host = plausible(message.host)
        if host != message.host:
            self._note_implausible(message.host)
        self._services.hub.hosts[self._session.connection] = host
        self._session.send(HeartbeatSeen(message.number, wall_ms))
        if self._accepted:
            self._ask(
                BeatHeart(
                    self._name,
                    self._session.connection,
                    message.lease_number,
                    message.held,
                    host.cpu_outside,
                    host.memory_outside,
                )
            )

    def _note_implausible(self, said: HostStats) -> None:
        """Count it, and log it once: it may come with every heartbeat."""
        noted = self._services.loop.tally.noted
        noted["agent.implausible"] = noted.get("agent.implausible", 0) + 1
        if not self._is_implausible:
            self._is_implausible = True
            log.warning("agent measures what cannot be", agent=self._name, said=str(said)[:SAID_CHARS])

    def _ask(self, command: Command) -> None:
        self._services.loop.ask(command, self._answered)

    def _answered(self, answer: Answer | TaskdError) -> None:
        match answer:
            case ReportsRecorded():
                self._session.send(Recorded(answer.recorded, answer.stale, self._services.mark()))
            case AgentAccepted():
                self._accepted = True
                self._session.send(Offered(answer.stale))
            case StartsRecorded():
                self._session.send(StartRecorded(answer.recorded, answer.stale))
            case LogsKept():
                self._session.send(LogsRecorded(answer.data_bytes))
            case TaskdError():
                self._session.end(answer)
            case _:
                pass


def plausible(host: HostStats) -> HostStats:
    """Return what a host can have measured: what it says, as far as that can be."""
    return HostStats(
        _within(host.cpu_percent, 100.0),
        _within(host.load1, MEASURED_MAX),
        round(_within(host.memory_used, MEASURED_MAX)),
        round(_within(host.memory_total, MEASURED_MAX)),
        round(_within(host.cpu_outside, MEASURED_MAX)),
        round(_within(host.memory_outside, MEASURED_MAX)),
    )


def _within(amount: float, most: float) -> float:
    return min(amount, most) if amount >= 0 else 0  # what is no number is not above 0 either
