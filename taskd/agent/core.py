"""The agent's rules: what it holds, what it owes the server, what its executors are to end.

Invariants:
- A lease is with one pool from LEASE until it is reported, forgotten or given back; then its report, if any,
  is kept until RECORDED.
- What the server no longer counts as this agent's is never reported.

Pure: messages and ends of attempts come in, messages and kills go out; knows no sockets, processes or clocks.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import TYPE_CHECKING, Final, NamedTuple, assert_never

from msgspec import structs

from taskd.agent.footprints import Footprints
from taskd.agent.inputs import Inputs, refers
from taskd.agent.limits import How, Limits, is_limited
from taskd.agent.marks import Marks
from taskd.agent.older import in_version_1
from taskd.agent.progress import Progress
from taskd.agent.reports import Ended, Reports
from taskd.agent.share import Share
from taskd.agent.slots import Slots
from taskd.agent.spawns import Spawns
from taskd.agent.streams import BOUNDS, Bounds
from taskd.agent.wire import Raised, Returned
from taskd_protocol.agent_messages import (
    Ack,
    Checkpoints,
    Drain,
    Heartbeat,
    HostStats,
    Lease,
    LeaseCredit,
    Logs,
    LogsRecorded,
    Nack,
    Offer,
    Offered,
    Recorded,
    Revoke,
    Started,
    StartRecorded,
)
from taskd_protocol.connection_messages import Done, Error, Welcome
from taskd_protocol.errors import TaskCodes, UnexpectedMessage, UnknownKind
from taskd_protocol.handshake import newest_mark
from taskd_protocol.limits import KEPT_RESULT_BYTES_MIN, PAYLOAD_BYTES_MAX
from taskd_protocol.resources import CPU, MEMORY, ONE, Supply
from taskd_protocol.task import Checkpoint, Failure, FailureReport, Grant, Held, Pool, Report, TaskSpec
from taskd_protocol.workflow_messages import InputPage, InputQuery, Spawn

if TYPE_CHECKING:
    from taskd_protocol.mark import Mark

ENDED = Failure(TaskCodes.CANCELLED, "cancelled")
"""Of an attempt that was ended on an order, which says what is reported."""

_STOPPED = Failure(TaskCodes.WORKER_LOST, "its agent stopped it before it had ended")
"""Of an attempt that costs nothing, unless it must not run twice."""

_LOST = Failure(TaskCodes.WORKER_LOST, "its worker died, and of which of the coroutines there is not known")

Order = str | Failure
"""Why an attempt is to end: ``cancel``; ``release``, which goes back in line; ``forget``, which is not reported; or how
it failed."""

WITHDRAWS_VERSION = 2
"""Of the protocol: servers take credit back from it on."""

_SPAWNS_NOT = Failure(
    UnknownKind.code, "the server is of an older release, which keeps nothing that tasks spawn: upgrade it"
)

_TOUCH_MARGIN = 0.2
"""Of the silence after which a lease is given away: what a kill may take."""


ToSend = Ack | Nack | Logs | LeaseCredit | Started | Checkpoints | InputQuery | Spawn | Drain

FromServer = Lease | Recorded | LogsRecorded | Revoke | StartRecorded | Offered | InputPage | Done | Error
"""What the server says after WELCOME that changes what is held or owed; an ERROR, if it answers a request."""


class Kill(NamedTuple):
    """An order for a pool's executor: end these attempts, started or not."""

    pool: int
    tokens: list[int]
    how: How
    show: bool = False
    """Keep their stacks first."""


class AgentCore:
    """One agent's state, from its start to its end, over any number of connections.

    Attributes:
        pools: In the order of the OFFER.
        share: What leases hold, and leave for others.
        reports: What has ended and is not recorded.
        streams: What attempts say.
        limits: What runs and has limits.
        footprints: What was granted memory.
        progress: What attempts told of how far they have come.
        inputs: Results that leases wait for.
        spawns: What attempts have spawned, and the server has not made.
        mark: The newest commit mark seen.
        session: What the last WELCOME called it; None: there was none.
        clock_ahead_ms: The server's wall clock less this machine's.
        result_bytes_max: Largest result that the server takes.
    """

    def __init__(
        self,
        pools: Sequence[Pool],
        *,
        queues: Sequence[str] = (),
        labels: dict[str, str] | None = None,
        supplies: Sequence[Supply] = (),
        life_until_ms: int = 0,
        pinned: Sequence[int] = (),
        bounds: Bounds = BOUNDS,
    ) -> None:
        """Begin with nothing held.

        Args:
            pools: What runs attempts.
            queues: Only tasks of these; empty: of all.
            labels: Of the agent.
            supplies: What tasks may ask for.
            life_until_ms: Until when the machine is there, by a clock that never steps; 0: no end is known.
            pinned: Numbers of the CPUs to which attempts are pinned; none: they are not.
            bounds: How much one attempt may say.
        """
        self.share: Final = Share(sum([supply.amount for supply in supplies if supply.name == CPU]), pinned)
        self.pools: Final = [Slots(pool.slots, self.share, weighs=pool.kind != "async") for pool in pools]
        self.reports: Final = Reports(bounds)
        self.streams: Final = self.reports.streams
        self.limits: Final = Limits()
        self.footprints: Final = Footprints()
        self.progress: Final = Progress()
        numbers = count(1)
        self.inputs: Final = Inputs(self._is_held, numbers)
        self.spawns: Final = Spawns(lambda token: self._is_held(token) or token in self.reports.unrecorded, numbers)
        self.mark: Mark | None = None
        self.session: bytes | None = None
        self.clock_ahead_ms = 0
        self.result_bytes_max = PAYLOAD_BYTES_MAX
        resources = {supply.name: supply.amount / ONE for supply in supplies if supply.name not in {CPU, MEMORY}}
        self._offer: Final = Offer(list(pools), list(queues), labels or {}, resources, supplies=list(supplies))
        self._life_until_ms: Final = life_until_ms
        self._lease_number = 0
        self._heartbeats = 0
        self._ordered: dict[int, Order] = {}  # held leases with an order to end
        self._touch_ms = 0
        self._touch_until_ms = 0  # so long exclusive attempts may run
        self._alone_ms = 0
        self._alone_until_ms = 0  # and so long if this process is itself stopped
        self._version = 0  # of the protocol, spoken on this connection
        self._offered = False
        self._draining = False
        self._drain_said = False
        self._marks: Final = Marks()

    # -- the server ---------------------------------------------------------------------

    def welcome(self, welcome: Welcome, wall_ms: int, mono_ms: int = 0) -> Offer:
        """Begin a connection; return what to say first.

        Args:
            welcome: The server's.
            wall_ms: This machine's wall clock when it came.
            mono_ms: A clock that never steps.
        """
        self.session = welcome.session
        self._version = welcome.version
        self.clock_ahead_ms = welcome.server_time_ms - wall_ms
        self.result_bytes_max = welcome.limits.payload_bytes_max
        self._lease_number = 0  # none of this connection yet: what is in the OFFER needs no number
        silence_ms = welcome.limits.heartbeat_ms * welcome.limits.heartbeats_missed
        self._alone_ms = int(silence_ms * (1 - _TOUCH_MARGIN))
        self._touch_ms = self._alone_ms - welcome.limits.heartbeat_ms
        self.mark = newest_mark(self.mark, welcome.mark)
        self.progress.connect()
        self.reports.connect(self.result_bytes_max)
        self._marks.connect()
        self.inputs.connect()
        self.spawns.connect()
        for slots in self.pools:
            slots.disconnect()
        self._offered = self._drain_said = False
        holding = [Held(grant.token, grant.spec.id, grant.attempt) for s in self.pools for grant in s.held.values()]
        life_ms = max(1, self._life_until_ms - mono_ms) if self._life_until_ms else 0
        return structs.replace(self._offer, holding=holding + self.reports.holding(), life_ms=life_ms)

    def receive(self, message: FromServer) -> list[Kill]:
        """Take in what the server says; return what executors are to end.

        Raises:
            UnexpectedMessage: It makes no sense; close the connection.
        """
        match message:
            case Lease():
                self._lease(message)
            case Recorded():
                self._recorded(message)
            case LogsRecorded(data_bytes):
                self.streams.recorded(data_bytes)
            case Revoke(tokens):  # killed, then reported as cancelled; what has ended has been reported
                return self._order(tokens, "cancel", How.CANCEL)
            case StartRecorded(tokens, stale):
                self._marks.recorded(tokens)
                return self._order(stale, "forget", How.FORCE)
            case Offered(stale):
                return self._go_on(stale)
            case Done() | Error() if isinstance(message, Done) or self.spawns.asked(message.request_id):
                self.spawns.receive(message)
                self._take_spawns()
            case InputPage() | Error():
                self.inputs.receive(message)
                self._take_inputs()
            case _:
                assert_never(message)
        return []

    def _go_on(self, stale: Iterable[int]) -> list[Kill]:
        """Go on under the server's answer to OFFER; return what is to be killed without a report."""
        self._offered = True
        tokens = list(stale)
        self.reports.recorded(tokens)
        return self._order(tokens, "forget", How.FORCE)

    def _lease(self, lease: Lease) -> None:
        """Hold what was leased.

        Raises:
            UnexpectedMessage: For a pool that was not offered.
        """
        if not 0 <= lease.pool < len(self.pools):
            raise UnexpectedMessage(f"a lease for pool {lease.pool}; {len(self.pools)} were offered")
        self._lease_number = lease.number
        slots = self.pools[lease.pool]
        ruled = [grant for grant in lease.grants if grant.spec.given is not None or grant.spawned is not None]
        referring = [grant for grant in ruled if refers(grant)] if ruled else []
        slots.receive(lease.grants, [grant.token for grant in referring] if referring else ())
        if slots.weighs and slots.holding:
            for grant in lease.grants:
                if grant.granted is not None:
                    self.footprints.hold(grant)
        for grant in ruled:
            if is_limited(grant.spec.rules):
                self.limits.hold(lease.pool, grant)
        for grant in referring:
            self.inputs.hold(lease.pool, grant)
        if referring:
            self._take_inputs()
        if slots.closed:  # it crossed our DRAIN
            self.give_back(slots.drop_waiting())

    def _take_inputs(self) -> None:
        """Let leases wait for workers that have their inputs; report those that will never have them."""
        for pool, grant in self.inputs.take_ready():
            self.pools[pool].complete(grant)
        for pool, token, failure in self.inputs.take_failed():
            report = self._failure(pool, token, failure, 0)
            if report is not None:
                self._report(structs.replace(report, final=report.failure is failure))

    def _take_spawns(self) -> None:
        """Let reports go that waited for the server to make what their attempts have spawned."""
        for token in self.spawns.take_settled():
            self.reports.release(token, self.spawns.turn)

    def _recorded(self, recorded: Recorded) -> None:
        """Forget reports that are on the server's disk, or of no interest to it."""
        self.reports.recorded(recorded.tokens)
        if recorded.stale:
            self.reports.recorded(recorded.stale)
        if recorded.mark is not None:
            self.mark = newest_mark(self.mark, recorded.mark)

    # -- time -----------------------------------------------------------------------------

    @property
    def watches(self) -> bool:
        """Somebody should ``look`` several times a second."""
        return bool(self.limits) or bool(self.progress) or bool(self.footprints)

    def answered(self, sent_ms: int) -> None:
        """Take note that the server has answered what was sent then: it counts our leases from no earlier."""
        self._touch_until_ms = max(self._touch_until_ms, sent_ms + self._touch_ms)
        self._alone_until_ms = max(self._alone_until_ms, sent_ms + self._alone_ms)

    def live_until(self, grants: Iterable[Grant]) -> int:
        """Return until when a process with these attempts may live should this one be stopped; 0: for ever.

        A heartbeat later than by the rule that this process keeps itself, which can end an attempt and leave others.
        """
        tied = self.limits and any(grant.spec.rules.exclusive for grant in grants)
        return self._alone_until_ms if tied else 0

    def outlived(self, grant: Grant) -> None:
        """Take note that an attempt's process had no longer to live: an exclusive one is reported as if ended here."""
        if grant.spec.rules.exclusive:
            self._ordered.setdefault(grant.token, "release")

    def look(self, now_ms: int) -> list[Kill]:
        """Return what is to be ended because of the time; have progress sent."""
        kills: list[Kill] = []
        for pool, token, how, failure, show in self.limits.look(self._is_held, now_ms, self._touch_until_ms):
            self._note_order(token, "release" if failure is None else failure)
            kills.append(Kill(pool, [token], how, show))
        self.progress.look(self._is_held, self.reports.unrecorded)
        self.footprints.keep(self._is_held)
        return kills

    def measured(self, pool: int, token: int, memory_bytes: int) -> list[Kill]:
        """Take note of how much memory an attempt holds; return the order to end it if that is too much."""
        failure = self.footprints.note(token, memory_bytes)
        if failure is None or token in self._ordered:
            return []
        self._note_order(token, failure)
        return [Kill(pool, [token], How.KILL)]

    def started(self, token: int) -> None:
        """Take note that an attempt runs."""
        self.limits.started(token)

    def beat(self, pool: int, token: int, details: bytes) -> None:
        """Take note of a sign of an attempt's progress, and of how far it has come."""
        self.limits.beat(token)
        grant = self.pools[pool].held.get(token)
        if details and grant is not None:
            self.progress.tell(Checkpoint(token, grant.spec.id, details))

    @property
    def has_news(self) -> bool:
        """There may be something to send."""
        news = self.reports.has_news or self.progress.has_news or self._marks.has_news or self._draining
        news = news or self.inputs.has_news or self.spawns.has_news
        return news or any(slots.withdrawn or slots.credit_due() for slots in self.pools)

    def messages(self) -> list[ToSend]:
        """Take what is to be sent now; call again until there is nothing."""
        if not self._offered:
            return []
        messages: list[ToSend] = []
        if self._draining and not self._drain_said:
            self._drain_said = True
            messages.append(Drain("the agent is going"))
        if not self.reports.are_full:
            for index, slots in enumerate(self.pools):
                if slots.withdrawn:
                    slots.withdrawn = False
                    messages.append(LeaseCredit(index, 0))
                if due := slots.take_credit():
                    messages.append(LeaseCredit(index, due))
        if self._marks.has_news:
            messages.append(Started(self._marks.take_unsent()))
        messages += self.inputs.messages()
        if self._version == 1:
            self.spawns.refuse_all(_SPAWNS_NOT)
            self._take_spawns()
        messages += self.spawns.messages()
        messages += self.progress.messages()
        messages += self.reports.messages()
        return in_version_1(messages) if self._version == 1 else messages

    def heartbeat(self, host: HostStats) -> Heartbeat:
        """Return the next sign of life."""
        self._heartbeats += 1
        held = [token for slots in self.pools for token in slots.held]
        return Heartbeat(self._heartbeats, self._lease_number, [*held, *self.reports.unrecorded], host)

    @property
    def held(self) -> int:
        """Leases that wait or run."""
        return sum([len(slots.held) for slots in self.pools])

    # -- the executors ------------------------------------------------------------------

    def succeeded(self, pool: int, returned: Iterable[Returned]) -> None:
        """Report attempts that returned."""
        held, ordered, spoke = self.pools[pool].held, self._ordered, self.streams.attempts
        spawns = bool(self.spawns)
        reports: list[Ended] = []
        traces_all = self.reports.traces_all
        name, runs, sum_us = "", 0, 0.0  # of the latest that are of one name: mostly all
        for end in returned:
            token = end.token
            grant = held.pop(token, None)
            if grant is not None and grant.granted is not None:
                self.pools[pool].let_go(grant)
            if grant is None or (ordered and ordered.pop(token, "") == "forget"):
                continue
            spec = grant.spec
            if traces_all:
                self.reports.traces[token] = spec.trace_id
            peak_bytes = 0 if grant.granted is None else self.footprints.take_peak(token, end.peak_bytes)
            report = Report(token, spec.id, grant.attempt, end.result, end.started_at_ms, peak_bytes)
            if len(end.result) >= KEPT_RESULT_BYTES_MIN:
                self.inputs.keep_made(grant, end.result)
            if (spoke and token in spoke) or (spawns and token in self.spawns):
                self._report(report)
            else:
                reports.append(report)
            if spec.name != name:
                if runs:
                    self._learn(pool, name, runs, sum_us)
                name, runs, sum_us = spec.name, 0, 0.0
            runs += 1
            sum_us += end.run_us
        if runs:
            self._learn(pool, name, runs, sum_us)
            self.reports.add(reports)

    def may_start(self, grant: Grant, mono_ns: Callable[[], int]) -> bool:
        """Tell whether an attempt may start; if not now, executors are woken when it may.

        Args:
            grant: About to start.
            mono_ns: Tells the time, which matters to an exclusive one: this process may have been stopped till now.
        """
        if self._ordered and grant.token in self._ordered:
            return False  # what ends it is under way
        given = grant.spec.given
        if given is not None and given.exclusive and mono_ns() >= self._touch_until_ms * 1_000_000:
            return False
        return not grant.mark_start or self._marks.may_start(grant, self._is_held)

    def _is_held(self, token: int) -> bool:
        return any(token in slots.held for slots in self.pools)

    def failed(self, pool: int, end: Raised) -> None:
        """Report an attempt that failed, or waits; as cancelled, if that was asked for meanwhile."""
        grant = self.pools[pool].held.get(end.token)
        if grant is not None and end.released and end.token not in self._ordered:
            self.stopped(pool, grant)
            return
        if grant is not None:
            self._learn(pool, grant.spec.name, 1, end.run_us)
        outcome = "waiting" if end.waits else "failed"
        report = self._failure(pool, end.token, end.failure, end.started_at_ms, outcome, peak_bytes=end.peak_bytes)
        if report is not None:
            its_own = report.failure is end.failure  # and no limit that it was over
            if its_own and end.waits:
                report = structs.replace(report, failure=None)
            if its_own and (end.final or end.retry_after_ms is not None):
                report = structs.replace(report, final=end.final, retry_after_ms=end.retry_after_ms)
            self._report(report)

    def spawned(self, pool: int, token: int, first: int, tasks: list[TaskSpec]) -> None:
        """Have the server make what an attempt has spawned, so many having been before; nobody's, if it is not held."""
        if token in self.pools[pool].held:
            self.spawns.tell(token, first, tasks)

    def crashed(self, pool: int, token: int, failure: Failure) -> None:
        """Report an attempt that took its worker down; as cancelled, if that was asked for meanwhile."""
        report = self._failure(pool, token, failure, 0, outcome="crashed")
        if report is not None:
            self._report(report)

    def unstarted(self, pool: int, grant: Grant) -> None:
        """Give back a lease that an executor had taken, and that never started."""
        self.pools[pool].finish(grant.token)
        self.give_back([grant])

    def stopped(self, pool: int, grant: Grant) -> None:
        """Report an attempt that was killed for what is not its doing: uncharged, unless it must not run twice."""
        if grant.spec.rules.at_most_once:
            self.crashed(pool, grant.token, _STOPPED)
        else:
            self.pools[pool].finish(grant.token)
            self.give_back([grant], unstarted=False)

    def ended_with_output(
        self, pool: int, grant: Grant, end: bytes | Failure, started_at_ms: int, run_us: float, *, peak_bytes: int = 0
    ) -> None:
        """Report the end of an attempt, result or failure, after all output of it that was added before."""
        token = grant.token
        self._learn(pool, grant.spec.name, 1, run_us)
        order = self._ordered.get(token)
        if isinstance(end, Failure) or isinstance(order, str):
            failure = end if isinstance(end, Failure) else ENDED
            report: Ended | None = self._failure(pool, token, failure, started_at_ms, peak_bytes=peak_bytes)
        elif self.pools[pool].finish(token) is not None:
            self._ordered.pop(token, None)
            peak_bytes = self.footprints.take_peak(token, peak_bytes) if grant.granted is not None else 0
            report = Report(token, grant.spec.id, grant.attempt, end, started_at_ms, peak_bytes)
            self.inputs.keep_made(grant, end)
        else:
            report = None
        if report is not None:
            self.progress.hurry(token)
            self.reports.add_after_output(report)

    def is_ordered(self, token: int) -> bool:
        """Tell whether the attempt's end was ordered and has not come."""
        return token in self._ordered

    def _failure(
        self,
        pool: int,
        token: int,
        failure: Failure,
        started_at_ms: int,
        outcome: str = "failed",
        *,
        peak_bytes: int = 0,
    ) -> FailureReport | None:
        """Let go of an attempt that failed; return its report, None when there is nobody to tell."""
        grant = self.pools[pool].finish(token)
        order = self._ordered.pop(token, "")
        if grant is None or order == "forget":
            return None
        told: Failure | None = failure if grant.granted is None else self.footprints.told(token, failure)
        peak_bytes = self.footprints.take_peak(token, peak_bytes) if grant.granted is not None else 0
        if isinstance(order, str) and order:  # also of "release": it had begun, and may not pass for one that had not
            outcome, told = "cancelled", None
        elif isinstance(order, Failure):  # what was raised tells where it was
            told = Failure(order.code, order.message, failure.type, failure.traceback, failure.exit_code)
            if order.code != TaskCodes.WORKER_OUT_OF_MEMORY:  # which is told as when the kernel had done it
                outcome = "failed"
        self.reports.traces[token] = grant.spec.trace_id
        ids = token, grant.spec.id, grant.attempt
        return FailureReport(*ids, outcome, told, started_at_ms, peak_bytes=peak_bytes)

    def _report(self, report: Ended) -> None:
        """Send a report: after what the attempt printed, what it told, and what it has spawned."""
        token = report.token
        self.progress.hurry(token)
        if self.spawns.holds_up(token):
            self.reports.add_held_up(report)
            return
        self.reports.add_after_output(self.spawns.turn(report))

    def _learn(self, pool: int, name: str, runs: int, sum_us: float) -> None:
        """Take in how long some runs took together."""
        slots, mean_us = self.pools[pool], sum_us / runs
        slots.pace.add(mean_us, runs)
        slots.pace_of(name).add(mean_us, runs)

    def dropped(self, pool: int, token: int) -> None:
        """Let go of a lease that waited, on an order."""
        grant = self.pools[pool].drop(token)
        if grant is not None:
            self.give_back([grant])

    def waits_again(self, pool: int, grants: Iterable[Grant]) -> None:
        """Take note that leases which a worker had were not started; they wait, unless their end was ordered."""
        for grant in grants:
            if grant.token in self._ordered:
                self.dropped(pool, grant.token)
            elif self.limits:
                self.limits.waits(grant.token)

    def give_back(self, grants: Iterable[Grant], *, unstarted: bool = True) -> None:
        """Report leases, no longer held, that were not carried through: they cost the task nothing.

        Args:
            grants: Those.
            unstarted: It is certain that they never started.
        """
        for grant in grants:
            order = self._ordered.pop(grant.token, "")
            if order != "forget":
                outcome = "cancelled" if order == "cancel" else "released"
                if self.reports.traces_all:
                    self.reports.traces[grant.token] = grant.spec.trace_id
                self._report(FailureReport(grant.token, grant.spec.id, grant.attempt, outcome, unstarted=unstarted))

    def shed(self) -> None:
        """Give back what waits here and could run elsewhere; call about once a second."""
        for slots in self.pools:
            self.give_back(slots.look(may_withdraw=self._version >= WITHDRAWS_VERSION))
        self.inputs.look()
        self.spawns.look()

    def yield_waiting(self) -> None:
        """Give back what waits; what runs goes on."""
        for slots in self.pools:
            self.give_back(slots.drop_waiting())

    def drain(self) -> None:
        """Ask for nothing more, and give back what waits."""
        self._draining = True
        for slots in self.pools:
            slots.closed = True
        self.yield_waiting()

    def lost(self, pool: int, grant: Grant) -> None:
        """Report an attempt whose worker died of one of those in it, of which is not known."""
        report = self._failure(pool, grant.token, _LOST, 0, outcome="lost")
        if report is not None:
            self._report(report)

    def said(self, grant: Grant, stream: int, data: bytes, at_ms: int, now_ms: int, *, paced: bool = False) -> None:
        """Send what an attempt said; see ``Streams.add``. The times are this machine's."""
        at_ms += self.clock_ahead_ms
        self.streams.add(grant.token, grant.spec.id, stream, data, at_ms=at_ms, now_ms=now_ms, paced=paced)

    def gather(self) -> None:
        """Have sent what attempts said: see ``Streams.look``."""
        self.streams.look(lambda token: self._is_held(token) or token in self.reports.unrecorded)

    def _order(self, tokens: Iterable[int], order: Order, how: How) -> list[Kill]:
        """Order the end of those that are held; a lease that nobody counts as ours stays so, a cancelled one too."""
        wanted = list(tokens)
        kills: list[Kill] = []
        for index, slots in enumerate(self.pools):
            held = [token for token in wanted if token in slots.held]
            for token in held:
                self._note_order(token, order)
            if held:
                kills.append(Kill(index, held, how))
        return kills

    def _note_order(self, token: int, order: Order) -> None:
        if order == "forget" or self._ordered.get(token) not in {"forget", "cancel"}:
            self._ordered[token] = order
