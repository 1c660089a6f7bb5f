"""What the sessions of clients, viewers, operators and admins ask, and how they are answered.

Changes go to the core as commands. Reads take what is in memory and on disk, and
are answered once everything that they saw is durable.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from taskd.core.commands import (
    Answer,
    CancelStates,
    CancelTasks,
    HastenStates,
    HastenTasks,
    JobStarted,
    OrderAgent,
    OrderQueue,
    RetryStates,
    RetryTasks,
    RevokeToken,
    StartJob,
    StoreToken,
    SubmitTasks,
    Submitted,
    WeighFairKey,
    WeighQueue,
)
from taskd.core.records import TokenRecord
from taskd.server import questions, tokens
from taskd.server.explaining import explain
from taskd.server.following import Following
from taskd.server.limit_role import Limiting
from taskd.server.listing import list_tasks
from taskd.server.outcomes import Outcomes as OutcomePusher
from taskd.server.schedule_role import Scheduling
from taskd.server.session import Talk, error_message
from taskd.server.views import (
    WaitTexts,
    agent_views,
    attempt_keys,
    memory_views,
    queue_views,
    task_counts,
    task_keys,
    task_view,
    with_attempts,
)
from taskd.server.watching import Watching
from taskd.server.webhook_role import WebhookRole
from taskd.server.workflow_role import WorkflowRole, list_workflows, show_children, show_workflow
from taskd_protocol import limit_messages as lm
from taskd_protocol import limits
from taskd_protocol import messages as m
from taskd_protocol import schedule_messages as sm
from taskd_protocol import workflow_messages as wm
from taskd_protocol.access_messages import (
    CertQuery,
    CertRenew,
    CertView,
    Invitation,
    Invite,
    TokenCreate,
    TokenCreated,
    TokenList,
    TokenPage,
    TokenRevoke,
    TokenView,
)
from taskd_protocol.connection_messages import Done
from taskd_protocol.errors import BadRequest, FrameTooLarge, ServerBusy, TaskdError, UnexpectedMessage
from taskd_protocol.event_messages import EventsFollow, EventsMore, OverviewQuery, WebhookList, WebhookOrder, WebhookSet
from taskd_protocol.handshake import HELLO_AGENT, HELLO_JOIN
from taskd_protocol.house_messages import (
    AgentDrain,
    AgentList,
    AgentPage,
    Backup,
    FairKeyWeigh,
    MemoryList,
    MemoryPage,
    QueueDrain,
    QueueList,
    QueuePage,
    QueueWeigh,
    Stats,
    StatsQuery,
)
from taskd_protocol.task import Outcome

SHOWN_READ = 16
"""Tasks read at once with arguments and results, each of which may be large."""

READS_MAX = 100
"""Of one connection, under way at the same time."""

PATH_CHARS_MAX = 4_000

TOKEN_ROLES = ("client", HELLO_AGENT, "viewer", "operator", "admin")
TOKEN_MS_MAX = 10 * 366 * 24 * 3600 * 1000
INVITATION_MS_MAX = 10 * 60 * 1000


class ClientRole:
    """One session of a peer that is no agent."""

    def __init__(self, session: Talk) -> None:
        self._session = session
        self._services = session.services
        self._outcomes = OutcomePusher(session)
        self._following = Following(session)
        self._workflows = WorkflowRole(session)
        self._watching = Watching(session)
        self._webhooks = WebhookRole(session)
        self._limiting = Limiting(session, session.services)
        self._scheduling = Scheduling(session, session.services, self._read)
        self._reads_count = 0

    def heard(self, mono_ns: int) -> None:
        """See ``Role``: clients are not given up."""

    def receive(self, message: m.ToServer) -> None:  # noqa: C901, PLR0912, PLR0915 - one case a message: the table itself
        """See ``Role``."""
        match message:
            case m.Submit():
                self._submit(message)
            case m.Wait():
                _check_ids(message.ids)
                self._outcomes.wait(message.ids)
                self._session.send(Done(message.request_id))
            case m.OutcomeCredit():
                self._outcomes.add_credit(message.outcomes)
            case m.Cancel():
                self._cancel(message)
            case m.TaskRetry():
                _check_ids(message.ids)
                self._services.loop.ask(RetryTasks(message.ids), partial(self._retried, message.request_id))
            case m.TaskHasten():
                _check_ids(message.ids)
                self._services.loop.ask(HastenTasks(message.ids), partial(self._hastened, message.request_id))
            case m.TaskQuery():
                _check_ids(message.ids)
                self._read(message.request_id, partial(self._show, message))
            case m.TaskExplain():
                self._read(message.request_id, partial(explain, self._services, message))
            case m.TaskList():
                self._read(message.request_id, partial(list_tasks, self._services, message))
            case m.TaskCount():
                self._read(message.request_id, partial(questions.count_tasks, self._services, message))
            case m.JobStart():
                self._start_job(message)
            case m.JobList():
                self._read(message.request_id, partial(questions.list_jobs, self._services, message))
            case m.DeadList():
                self._tell(questions.dead_page(self._services.working, message))
            case QueueList():
                self._tell(QueuePage(message.request_id, queue_views(self._services.working)))
            case AgentList():
                views = agent_views(self._services.working, self._services.hub.hosts, self._services.loop.now())
                self._tell(AgentPage(message.request_id, views))
            case MemoryList():
                self._tell(MemoryPage(message.request_id, memory_views(self._services.working)))
            case m.Follow():
                _check_ids([message.id])
                self._following.follow(message)
            case m.FollowMore():
                self._following.more(message.request_id)
            case m.FollowStop():
                self._following.stop(message.request_id)
            case QueueDrain():
                command = OrderQueue(message.queue, drain=not message.resume)
                self._services.loop.ask(command, partial(self._answer, message.request_id, _done))
            case QueueWeigh():
                weigh = WeighQueue(message.queue, message.weight)
                self._services.loop.ask(weigh, partial(self._answer, message.request_id, _done))
            case FairKeyWeigh():
                weigh_key = WeighFairKey(message.queue, message.fair_key, message.weight)
                self._services.loop.ask(weigh_key, partial(self._answer, message.request_id, _done))
            case lm.QueuePause() | lm.LimitSet() | lm.LimitSync() | lm.LimitRemove() | lm.LimitList():
                self._limiting.receive(message)
            case AgentDrain():
                order = OrderAgent(message.agent, drain=not message.resume)
                self._services.loop.ask(order, partial(self._answer, message.request_id, _done))
            case TokenCreate():
                self._create_token(message)
            case TokenList():
                self._tell(TokenPage(message.request_id, self._token_views()))
            case TokenRevoke():
                self._services.loop.ask(RevokeToken(message.key_id), partial(self._answer, message.request_id, _done))
            case Invite():
                self._invite(message)
            case CertRenew():
                self._read(message.request_id, partial(self._renew, message))
            case CertQuery():
                self._tell(self._certificate(message.request_id))
            case Backup():
                self._read(message.request_id, partial(self._back_up, message))
            case StatsQuery():
                self._tell(self._stats(message.request_id))
            case wm.WorkflowSubmit():
                self._workflows.submit(message)
            case wm.WorkflowOrder():
                self._workflows.order(message)
            case wm.WorkflowSignal():
                self._workflows.signal(message)
            case wm.WorkflowList():
                self._read(message.request_id, partial(list_workflows, self._services, message))
            case wm.WorkflowQuery():
                self._read(message.request_id, partial(show_workflow, self._services, message))
            case wm.ChildrenQuery():
                self._read(message.request_id, partial(show_children, self._services, message))
            case (
                sm.ScheduleSet()
                | sm.ScheduleSync()
                | sm.ScheduleList()
                | sm.ScheduleOrder()
                | sm.ScheduleTrigger()
                | sm.ScheduleBackfill()
                | sm.ScheduleHistory()
                | sm.SchedulePreview()
            ):
                self._scheduling.receive(message)
            case EventsFollow() | EventsMore() | OverviewQuery():
                self._watching.receive(message)
            case WebhookSet() | WebhookList() | WebhookOrder():
                self._webhooks.receive(message)
            case _:
                raise UnexpectedMessage(f"{type(message).__name__} is no message of a client")

    def tell_outcomes(self, outcomes: list[Outcome]) -> None:
        """See ``Role``."""
        self._outcomes.tell(outcomes)

    def tell_logs(self, task_id: bytes) -> None:
        """See ``Role``."""
        self._following.tell(task_id)

    def sent(self) -> None:
        """See ``Role``."""
        self._outcomes.push()

    def close(self) -> None:
        """See ``Role``."""
        self._following.close()
        self._services.hub.leave(self._session, self._outcomes.known_to_hub, self._following.followed)

    # -- changes ------------------------------------------------------------------------

    def _submit(self, message: m.Submit) -> None:
        most = self._services.limits.submit_tasks_max
        if not 0 < len(message.tasks) <= most:
            raise BadRequest(f"a submit holds 1 to {most} tasks, not {len(message.tasks)}; send several")
        full = self._services.room_on_disk()
        if full is not None:
            raise full
        command = SubmitTasks(self._session.key_id, message.tasks)
        self._services.loop.ask(command, partial(self._submitted, message.request_id))

    def _submitted(self, request_id: int, answer: Answer | TaskdError) -> None:
        if isinstance(answer, Submitted):
            self._session.send(m.Accepted(request_id, self._services.mark(), answer.existing, list(answer.warnings)))
        elif isinstance(answer, TaskdError):
            self._session.send(error_message(request_id, answer))

    def _cancel(self, message: m.Cancel) -> None:
        _check_ids(message.ids)
        self._services.loop.ask(CancelTasks(message.ids, message.force), partial(self._cancelled, message.request_id))

    def _cancelled(self, request_id: int, answer: Answer | TaskdError) -> None:
        if isinstance(answer, CancelStates):
            self._session.send(m.Cancelled(request_id, answer.states))
        elif isinstance(answer, TaskdError):
            self._session.send(error_message(request_id, answer))

    def _retried(self, request_id: int, answer: Answer | TaskdError) -> None:
        if isinstance(answer, RetryStates):
            self._session.send(m.TaskRetried(request_id, answer.states))
        elif isinstance(answer, TaskdError):
            self._session.send(error_message(request_id, answer))

    def _hastened(self, request_id: int, answer: Answer | TaskdError) -> None:
        if isinstance(answer, HastenStates):
            self._session.send(m.TaskHastened(request_id, answer.states))
        elif isinstance(answer, TaskdError):
            self._session.send(error_message(request_id, answer))

    def _start_job(self, message: m.JobStart) -> None:
        command = StartJob(self._session.key_id, message.id, message.action, message.filter)
        self._services.loop.ask(command, partial(self._job_started, message.request_id))

    def _job_started(self, request_id: int, answer: Answer | TaskdError) -> None:
        if isinstance(answer, JobStarted):
            self._session.send(questions.job_page(self._services.working, m.JobList(request_id, [answer.id])))
        elif isinstance(answer, TaskdError):
            self._session.send(error_message(request_id, answer))

    def _answer(self, request_id: int, make: Callable[[int], m.Message], answer: Answer | TaskdError) -> None:
        """Answer a request whose command has no answer of its own."""
        if isinstance(answer, TaskdError):
            self._session.send(error_message(request_id, answer))
        else:
            self._session.send(make(request_id))

    # -- access -------------------------------------------------------------------------

    def _create_token(self, message: TokenCreate) -> None:
        if message.role not in TOKEN_ROLES:
            raise BadRequest(f"role {message.role[:32]!r} is unknown; use one of {', '.join(TOKEN_ROLES)}")
        if not 0 < message.expires_in_ms <= TOKEN_MS_MAX:
            raise BadRequest("a token is good for more than nothing and at most ten years")
        text, command = self._mint(message.role, message.label, message.expires_in_ms)
        make = partial(_token_created, text)
        self._services.loop.ask(command, partial(self._answer, message.request_id, make))

    def _invite(self, message: Invite) -> None:
        if not 0 < message.expires_in_ms <= INVITATION_MS_MAX:
            raise BadRequest("an invitation is good for at most ten minutes")
        text, command = self._mint(HELLO_JOIN, "invitation", message.expires_in_ms)
        services = self._services
        make = partial(_invitation, text, services.certificates.ca_sha256, services.addresses)
        services.loop.ask(command, partial(self._answer, message.request_id, make))

    def _mint(self, role: str, label: str, expires_in_ms: int) -> tuple[str, StoreToken]:
        platform = self._services.platform
        minted = tokens.mint(role, platform.token_bytes(tokens.ENTROPY_BYTES))
        now_ms = platform.clock.wall_ms()
        record = TokenRecord(role, minted.secret_sha256, label, now_ms, now_ms + expires_in_ms)
        return minted.text, StoreToken(minted.key_id, record)

    def _token_views(self) -> list[TokenView]:
        return [
            TokenView(key_id, r.role, r.label, r.created_at_ms, r.expires_at_ms, r.revoked)
            for key_id, r in self._services.working.tokens.items()
            if r.role != HELLO_JOIN
        ]

    async def _renew(self, message: CertRenew) -> m.Message:
        platform = self._services.platform
        await self._services.certificates.renew(message.host_names, platform.clock.wall_ms(), platform.offload)
        return self._certificate(message.request_id)

    def _certificate(self, request_id: int) -> CertView:
        facts = self._services.certificates.facts()
        return CertView(
            request_id, list(facts.host_names), facts.not_before_ms, facts.not_after_ms, facts.sha256, facts.ca_sha256
        )

    async def _back_up(self, message: Backup) -> m.Message:
        backups = self._services.backups
        if backups is None:
            raise BadRequest("this server keeps its store in memory: there is nothing to make a backup of")
        if len(message.id) != 16 or len(message.path) > PATH_CHARS_MAX or "\0" in message.path:  # noqa: PLR2004 - as an id
            raise BadRequest(f"a backup has an id of 16 bytes, and a path of up to {PATH_CHARS_MAX} characters")
        return await backups.tell(message)

    # -- reads --------------------------------------------------------------------------

    async def _show(self, message: m.TaskQuery) -> m.Message:
        views: list[m.TaskView | None] = []
        texts = WaitTexts(self._services.loop.now())
        views_bytes = 0
        for start in range(0, len(message.ids), SHOWN_READ):
            some = message.ids[start : start + SHOWN_READ]
            found = await self._services.reader.read_now([key for task_id in some for key in task_keys(task_id)])
            shown = [task_view(self._services.working, task_id, found, texts, whole=True) for task_id in some]
            keys = {task_id: attempt_keys(self._services.working, task_id, found) for task_id in some}
            ended = await self._services.reader.read([key for task_id in some for key in keys[task_id]])
            for task_id, bare in zip(some, shown, strict=True):
                view = None if bare is None else with_attempts(bare, keys[task_id], ended)
                views_bytes += 0 if view is None else _size(view)
                views.append(view)
            if views_bytes > limits.MESSAGE_BYTES_MAX:
                raise FrameTooLarge(
                    "these tasks' arguments, results and attempts fit no message together; ask for fewer at once"
                )
        return m.TaskViews(message.request_id, views)

    def _stats(self, request_id: int) -> Stats:
        stages = self._services.loop.stages
        cpu_ns = self._services.platform.clock.cpu_ns()
        return Stats(request_id, task_counts(self._services.working), dict(stages.ns), dict(stages.counts), cpu_ns)

    def _tell(self, message: m.Message) -> None:
        """Send an answer that shows the state, once what it shows is durable."""
        self._services.loop.after_durable(partial(self._session.send, message))

    def _read(self, request_id: int, work: Callable[[], Awaitable[m.Message]]) -> None:
        assert self._session.nursery is not None
        if self._reads_count >= READS_MAX:
            raise ServerBusy(f"{READS_MAX} questions are being answered already; ask again after an answer")
        self._reads_count += 1
        self._session.nursery.start_soon(self._read_and_tell, request_id, work)

    async def _read_and_tell(self, request_id: int, work: Callable[[], Awaitable[m.Message]]) -> None:
        try:
            self._tell(await work())
        except TaskdError as refusal:
            self._session.send(error_message(request_id, refusal))
        finally:
            self._reads_count -= 1


def _check_ids(ids: Sequence[bytes]) -> None:
    if len(ids) > limits.WAIT_IDS_MAX or any(len(task_id) != 16 for task_id in ids):  # noqa: PLR2004 - a UUID's bytes
        raise BadRequest(f"at most {limits.WAIT_IDS_MAX} task ids of 16 bytes in one request")


def _size(view: m.TaskView) -> int:
    """Return what a view weighs, roughly."""
    failures = [attempt.failure for attempt in view.attempts if attempt.failure is not None]
    texts = sum([len(failure.message) + len(failure.traceback) for failure in failures])
    return len(view.payload) + len(view.result or b"") + texts


def _done(request_id: int) -> m.Message:
    return Done(request_id)


def _token_created(text: str, request_id: int) -> m.Message:
    return TokenCreated(request_id, text)


def _invitation(secret: str, ca_sha256: bytes, addresses: list[str], request_id: int) -> m.Message:
    return Invitation(request_id, secret, ca_sha256, addresses)
