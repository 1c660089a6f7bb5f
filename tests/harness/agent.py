"""An agent as the core sees one: what it was told, and the commands that its messages become."""

from collections.abc import Iterable, Mapping, Sequence

from harness.core import Shell
from taskd.core.agent_commands import (
    AckAttempts,
    AddCredit,
    AgentAccepted,
    AppendLogs,
    BeatHeart,
    DrainAgent,
    KeepCheckpoints,
    LoseConnection,
    MarkStarted,
    NackAttempts,
    OfferAgent,
)
from taskd.core.commands import Answer
from taskd.core.effects import SendLease, SendRevoke
from taskd.core.reports import TOLD
from taskd_protocol.resources import Supply
from taskd_protocol.task import Checkpoint, Failure, FailureReport, Grant, Held, LogPiece, Pool, Report

RAISED = Failure("task.raised", "boom", "builtins.ValueError", "Traceback", None)


PEAK = 100 << 20


class FakeAgent:
    """Holds leases and reports what it is told to report.

    Attributes:
        held: Leases by token: running, or finished and not recorded.
        revoked: Tokens that it was told to end.
        marks_starts: It heeds ``mark_start``; agents of 0.1 do not.
    """

    def __init__(
        self,
        shell: Shell,
        name: str = "a1",
        names: Sequence[str] = ("m.f",),
        *,
        queues: Iterable[str] = (),
        boot_id: bytes = b"boot-1",
        supplies: Sequence[Supply] = (),
        labels: Mapping[str, str] | None = None,
    ) -> None:
        self.shell = shell
        self.name = name
        self.pools = [Pool("process", 8, list(names))]
        self.queues = frozenset(queues)
        self.boot_id = boot_id
        self.supplies = supplies
        self.labels = labels or {}
        self.marks_starts = True
        self.connection = 0
        self.lease_number = 0
        self.held: dict[int, Grant] = {}
        self.revoked: set[int] = set()

    # -- commands -----------------------------------------------------------------------

    def offer(self) -> OfferAgent:
        """Begin a new connection."""
        self.shell.connections += 1
        self.connection = self.shell.connections
        self.lease_number = 0
        return OfferAgent(
            agent=self.name,
            boot_id=self.boot_id,
            connection=self.connection,
            pools=self.pools,
            queues=self.queues,
            holding=[Held(token, grant.spec.id, grant.attempt) for token, grant in self.held.items()],
            marks_starts=self.marks_starts,
            supplies=self.supplies,
            labels=self.labels,
        )

    def credit(self, leases: int, pool: int = 0) -> AddCredit:
        """Ask for leases."""
        return AddCredit(self.name, self.connection, pool, leases)

    def beat(self, *, cpu_outside: int = 0) -> BeatHeart:
        """Be alive."""
        return BeatHeart(self.name, self.connection, self.lease_number, list(self.held), cpu_outside)

    def lose(self) -> LoseConnection:
        """Lose the connection, as the server sees it."""
        return LoseConnection(self.name, self.connection)

    def drain(self) -> DrainAgent:
        """Ask for nothing more."""
        return DrainAgent(self.name, self.connection)

    def ack(self, *grants: Grant, result: bytes = b"\xc0") -> AckAttempts:
        """Report these as done."""
        return AckAttempts(
            self.name, [Report(g.token, g.spec.id, g.attempt, result, 1, PEAK if g.granted else 0) for g in grants]
        )

    def nack(
        self,
        *grants: Grant,
        outcome: str = "failed",
        failure: Failure | None = RAISED,
        final: bool = False,
        retry_after_ms: int | None = None,
    ) -> NackAttempts:
        """Report these as not done."""
        told = failure if outcome in TOLD else None
        reports = [
            FailureReport(g.token, g.spec.id, g.attempt, outcome, told, 1, final, retry_after_ms) for g in grants
        ]
        return NackAttempts(self.name, reports)

    def give_back(self, *grants: Grant) -> NackAttempts:
        """Report these as never started."""
        reports = [FailureReport(g.token, g.spec.id, g.attempt, "released", unstarted=True) for g in grants]
        return NackAttempts(self.name, reports)

    def start(self, *grants: Grant | int) -> MarkStarted:
        """Say that these, or tokens, are about to start."""
        return MarkStarted(self.name, [grant if isinstance(grant, int) else grant.token for grant in grants])

    def logs(self, grant: Grant, *data: bytes) -> AppendLogs:
        """Print."""
        return AppendLogs(self.name, [LogPiece(grant.token, grant.spec.id, 1, 7, piece) for piece in data])

    def checkpoint(self, grant: Grant, details: bytes) -> KeepCheckpoints:
        """Tell how far an attempt has come."""
        return KeepCheckpoints(self.name, [Checkpoint(grant.token, grant.spec.id, details)])

    # -- what it is told ----------------------------------------------------------------

    def receive(self) -> list[Grant]:
        """Take what was sent on its connection; return the new leases."""
        new: list[Grant] = []
        for lease in [e for e in self.shell.told if isinstance(e, SendLease) and e.agent == self.name]:
            self.shell.told.remove(lease)
            if lease.connection == self.connection:
                assert lease.number == self.lease_number + 1
                self.lease_number = lease.number
                new += lease.grants
                self.held.update({grant.token: grant for grant in lease.grants})
        for revoke in [e for e in self.shell.told if isinstance(e, SendRevoke) and e.agent == self.name]:
            self.shell.told.remove(revoke)
            if revoke.connection == self.connection:
                self.revoked.update(revoke.tokens)
        return new

    def forget(self, answer: Answer) -> None:
        """Let go of what an answer says is no longer its own."""
        if isinstance(answer, AgentAccepted):
            for token in answer.stale:
                self.held.pop(token, None)

    # -- at a stroke ---------------------------------------------------------------------

    def join(self, credit: int = 0) -> "FakeAgent":
        """Connect, and ask for leases."""
        self.forget(self.shell.do(self.offer()))
        if credit:
            self.shell.do(self.credit(credit))
        return self
