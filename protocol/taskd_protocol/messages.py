"""Messages: what peers say to each other, one frozen Struct each.

On the wire a message is one msgpack array ``[type, field, ...]``. The rules of
change: a new message takes an unused type number; a new field is appended with
a default; numbers and positions are never used again. Each change needs its
section in ``protocol/SPEC.md`` and its golden bytes in ``protocol/vectors/``.

Type numbers: 1-15 either side, 16-63 clients, 64-95 agents, 96-127 clients.
Here are those about tasks, and the unions of all; what connections, agents, access, the house, limits, workflows and
schedules say lies beside it, in ``*_messages.py``.
"""

import msgspec

from taskd_protocol.access_messages import (
    Ca,
    CaRequest,
    CertQuery,
    CertRenew,
    CertView,
    Invitation,
    Invite,
    Joined,
    TokenCreate,
    TokenCreated,
    TokenList,
    TokenPage,
    TokenRevoke,
)
from taskd_protocol.agent_messages import (
    Ack,
    Checkpoints,
    Drain,
    Heartbeat,
    HeartbeatSeen,
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
from taskd_protocol.connection_messages import Chunk, Done, Error, Hello, Ping, Pong, Welcome
from taskd_protocol.event_messages import (
    EventPage,
    EventsFollow,
    EventsMore,
    OverviewPage,
    OverviewQuery,
    WebhookList,
    WebhookMade,
    WebhookOrder,
    WebhookPage,
    WebhookSet,
)
from taskd_protocol.explanation import Explanation, Misfit
from taskd_protocol.filtering import TaskFilter
from taskd_protocol.house_messages import (
    AgentDrain,
    AgentList,
    AgentPage,
    Backup,
    BackupView,
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
from taskd_protocol.limit_messages import (
    LimitChanges,
    LimitList,
    LimitPage,
    LimitRemove,
    LimitSet,
    LimitSync,
    QueuePause,
)
from taskd_protocol.mark import Mark
from taskd_protocol.schedule_messages import (
    FiringPage,
    PreviewPage,
    ScheduleBackfill,
    ScheduleBackfilled,
    ScheduleChanges,
    ScheduleHistory,
    ScheduleList,
    ScheduleOrder,
    SchedulePage,
    SchedulePreview,
    ScheduleSet,
    ScheduleSync,
    ScheduleTrigger,
    ScheduleTriggered,
)
from taskd_protocol.task import Failure, Outcome, TaskSpec
from taskd_protocol.workflow_messages import (
    ChildrenPage,
    ChildrenQuery,
    InputPage,
    InputQuery,
    Spawn,
    WorkflowAccepted,
    WorkflowList,
    WorkflowNodes,
    WorkflowOrder,
    WorkflowPage,
    WorkflowQuery,
    WorkflowSignal,
    WorkflowSubmit,
)


class Submit(msgspec.Struct, array_like=True, frozen=True, tag=16):
    """Keep these tasks: all of them or, refused, none."""

    request_id: int
    tasks: list[TaskSpec]
    """1 to ``submit_tasks_max``. Resent under the same ids until answered."""


class Accepted(msgspec.Struct, array_like=True, frozen=True, tag=17):
    """Every task of the SUBMIT is on the server's disk."""

    request_id: int
    mark: Mark
    existing: list[tuple[int, bytes]] = []
    """(index, id) of those that were known before, by id or by key; the id is the first task's."""
    warnings: list[Misfit] = []
    """What was accepted all the same, and waits for other agents; each kind of request once."""


class Wait(msgspec.Struct, array_like=True, frozen=True, tag=18):
    """Tell me the outcome of these when they end; answered DONE at once, then OUTCOMES under credit."""

    request_id: int
    ids: list[bytes]


class Outcomes(msgspec.Struct, array_like=True, frozen=True, tag=19):
    """Pushed: tasks waited for have ended. Costs one credit for each outcome."""

    outcomes: list[Outcome]


class OutcomeCredit(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=20):
    """The client can take so many more outcomes."""

    outcomes: int


class Cancel(msgspec.Struct, array_like=True, frozen=True, tag=21):
    """End these: queued ones at once, running ones when their work is proven dead."""

    request_id: int
    ids: list[bytes]
    force: bool = False
    """A person knows that what runs on agents which are not connected is gone: it is ``cancelled`` at once."""


class Cancelled(msgspec.Struct, array_like=True, frozen=True, tag=22):
    """The states after the CANCEL, in its order; ``unknown`` for an id that is not stored."""

    request_id: int
    states: list[str]


class AttemptView(msgspec.Struct, array_like=True, frozen=True):
    """An attempt that has ended."""

    attempt: int
    agent: str
    started_at_ms: int
    """When its agent said that it started, or else when it was granted."""
    ended_at_ms: int
    outcome: str
    """``succeeded``, ``failed``, ``crashed``, ``cancelled``, ``released``, ``preempted``, ``lost`` with its agent."""
    failure: Failure | None = None


class TaskView(msgspec.Struct, array_like=True, frozen=True):
    """A task as people and programs see it. Instants are UTC milliseconds, None: not yet."""

    id: bytes
    name: str
    queue: str
    state: str
    priority: int
    attempt: int
    """Leases granted so far."""
    failures: int
    """Attempts charged to ``max_attempts``."""
    max_attempts: int
    agent: str
    """Who runs it or ran it last; empty: nobody yet."""
    created_at_ms: int
    due_at_ms: int | None
    """When a scheduled task may start."""
    started_at_ms: int | None
    finished_at_ms: int | None
    payload: bytes
    result: bytes | None
    failure: Failure | None
    key: str
    traceparent: str
    waits_for: str
    """Why it is not running, in words; empty when it is, or has ended."""
    crashes: int = 0
    """Attempts charged to the crash limit."""
    attempts: list[AttemptView] = []
    """The newest that have ended, oldest first; in TASK_VIEWS only."""
    crash_limit: int = 0
    """Crashes at which it is dead; 0: an older server does not say."""


class TaskQuery(msgspec.Struct, array_like=True, frozen=True, tag=23):
    """Show me these tasks."""

    request_id: int
    ids: list[bytes]


class TaskViews(msgspec.Struct, array_like=True, frozen=True, tag=24):
    """In the order asked; None for an id that is not stored."""

    request_id: int
    views: list[TaskView | None]


class TaskList(msgspec.Struct, array_like=True, frozen=True, tag=25):
    """A page of tasks, newest first. Payloads and results are left out."""

    request_id: int
    state: str = ""
    """Only those; empty: all."""
    queue: str = ""
    name: str = ""
    limit: int = 100
    cursor: bytes = b""
    """Of the page before; empty: the first page."""
    filter: TaskFilter = TaskFilter()
    """Which tasks; where ``state``, ``queue`` or ``name`` is told too, that counts as well."""


class TaskPage(msgspec.Struct, array_like=True, frozen=True, tag=26):
    """A page; it may be short of ``limit`` and still have a cursor, when the scan's budget was spent."""

    request_id: int
    views: list[TaskView]
    cursor: bytes
    """For the next page; empty: there is none."""


class Follow(msgspec.Struct, array_like=True, frozen=True, tag=31):
    """Send me the task's output, from the given entry on, until the task has ended and all is sent."""

    request_id: int
    id: bytes
    sequence: int = 0
    """Entries before it were read already."""
    attempt: int = 0
    """Only of this attempt; 0: of any."""
    since_ms: int = 0
    """Only from then on, UTC; 0: from the beginning."""
    streams: list[int] = []
    """Only of these; empty: of all."""
    stored: bool = False
    """Only what is stored now."""


class LogEntry(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One piece of an attempt's output."""

    sequence: int
    """Position in the task's log, from 0."""
    attempt: int
    stream: int
    """See ``taskd_protocol.streams``."""
    at_ms: int
    data: bytes


class LogPage(msgspec.Struct, array_like=True, frozen=True, tag=32):
    """Pushed under FOLLOW's request id; answered by FOLLOW_MORE."""

    request_id: int
    entries: list[LogEntry]
    end: bool = False
    """The task has ended and this was all."""
    next_sequence: int = 0
    """Where to go on: entries before it are here, were sent, or are not wanted; 0: an older server does not say."""


class FollowMore(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=33):
    """The last LOG_PAGE was taken: credit for the next one."""

    request_id: int


class FollowStop(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=150):
    """Send no more of that task's output: not answered."""

    request_id: int


class TaskExplain(msgspec.Struct, array_like=True, frozen=True, tag=46):
    """Tell me why this task, or node of a workflow, is where it is."""

    request_id: int
    id: bytes


class TaskExplained(msgspec.Struct, array_like=True, frozen=True, tag=47):
    """Why it is."""

    request_id: int
    explanation: Explanation | None
    """None: it is not stored."""


class TaskRetry(msgspec.Struct, array_like=True, frozen=True, tag=50):
    """Give these another chance: those that ended without success go back to their places in line."""

    request_id: int
    ids: list[bytes]


class TaskHasten(msgspec.Struct, array_like=True, frozen=True, tag=190):
    """Have these run now that wait for a time: they go to their places in line."""

    request_id: int
    ids: list[bytes]


class TaskHastened(msgspec.Struct, array_like=True, frozen=True, tag=191):
    """The states after the TASK_HASTEN, in its order; ``unknown`` for an id that is not stored."""

    request_id: int
    states: list[str]


class TaskRetried(msgspec.Struct, array_like=True, frozen=True, tag=51):
    """The states after the TASK_RETRY, in its order; ``unknown`` for an id that is not stored."""

    request_id: int
    states: list[str]


class TaskCount(msgspec.Struct, array_like=True, frozen=True, tag=52):
    """How many tasks would this concern? Counted in steps: ask on with the cursor, and add up."""

    request_id: int
    action: str = ""
    """As in JOB_START: only those that it would change; empty: all."""
    filter: TaskFilter = TaskFilter()
    cursor: bytes = b""
    """Of the answer before; empty: from the start."""


class TaskCounted(msgspec.Struct, array_like=True, frozen=True, tag=53):
    """One step of the count."""

    request_id: int
    count: int
    looked_at: int
    """Tasks that this step went through."""
    cursor: bytes
    """To ask on with; empty: that was all."""


class JobStart(msgspec.Struct, array_like=True, frozen=True, tag=54):
    """Do this to all tasks that fit: a durable job that goes on over restarts. Answered JOB_PAGE."""

    request_id: int
    id: bytes
    """16 bytes, UUIDv7, by the client; the same again finds the job that it started."""
    action: str
    """``cancel``, ``retry`` or ``purge``."""
    filter: TaskFilter


class JobList(msgspec.Struct, array_like=True, frozen=True, tag=55):
    """Show me bulk jobs. Answered JOB_PAGE."""

    request_id: int
    ids: list[bytes] = []
    """Only these; empty: all that are known."""
    beyond: int = -1
    """Answer when one of ``ids`` has looked at more tasks than so many, or has ended; -1: at once."""


class JobView(msgspec.Struct, array_like=True, frozen=True):
    """One bulk job."""

    id: bytes
    action: str
    filter: TaskFilter
    created_at_ms: int
    looked_at: int
    """Tasks that it went through."""
    changed: int
    """Tasks that it cancelled, retried or purged."""
    finished_at_ms: int | None
    """None: it goes on."""


class JobPage(msgspec.Struct, array_like=True, frozen=True, tag=56):
    """Newest first."""

    request_id: int
    jobs: list[JobView]


class DeadList(msgspec.Struct, array_like=True, frozen=True, tag=57):
    """Show me what dead tasks died of. Those of one group are listed by TASK_LIST."""

    request_id: int
    limit: int = 100


class DeadGroupView(msgspec.Struct, array_like=True, frozen=True):
    """Dead tasks that died of the same."""

    fingerprint: bytes
    """16 bytes."""
    type: str
    """Exception type, or the code where nothing was raised."""
    place: str
    """Of the user's code, ``file:function``; empty: nothing was raised."""
    message: str
    """Of the first of them."""
    count: int
    first_at_ms: int
    last_at_ms: int


class DeadPage(msgspec.Struct, array_like=True, frozen=True, tag=58):
    """Those in which a task died last come first."""

    request_id: int
    groups: list[DeadGroupView]
    groups_count: int
    """All that there are."""
    tasks_count: int
    """Dead tasks in all of them."""


ToServer = (
    Hello
    | CaRequest
    | Chunk
    | Ping
    | Pong
    | Submit
    | Wait
    | OutcomeCredit
    | Cancel
    | TaskQuery
    | TaskList
    | QueueList
    | AgentList
    | MemoryList
    | Follow
    | FollowMore
    | FollowStop
    | TokenCreate
    | TokenList
    | TokenRevoke
    | Invite
    | CertRenew
    | CertQuery
    | StatsQuery
    | Backup
    | TaskExplain
    | TaskRetry
    | TaskHasten
    | TaskCount
    | JobStart
    | JobList
    | DeadList
    | QueueDrain
    | QueueWeigh
    | FairKeyWeigh
    | QueuePause
    | LimitSet
    | LimitSync
    | LimitRemove
    | LimitList
    | AgentDrain
    | ScheduleSet
    | ScheduleSync
    | ScheduleList
    | ScheduleOrder
    | ScheduleTrigger
    | ScheduleBackfill
    | ScheduleHistory
    | SchedulePreview
    | Offer
    | LeaseCredit
    | Ack
    | Nack
    | Heartbeat
    | Drain
    | Logs
    | Checkpoints
    | Started
    | InputQuery
    | Spawn
    | WorkflowSubmit
    | WorkflowOrder
    | WorkflowSignal
    | WorkflowList
    | WorkflowQuery
    | ChildrenQuery
    | EventsFollow
    | EventsMore
    | OverviewQuery
    | WebhookSet
    | WebhookList
    | WebhookOrder
)
"""What a server may receive."""

ToPeer = (
    Welcome
    | Error
    | Chunk
    | Ping
    | Pong
    | Done
    | Ca
    | Joined
    | Accepted
    | Outcomes
    | Cancelled
    | TaskViews
    | TaskPage
    | QueuePage
    | LimitChanges
    | LimitPage
    | AgentPage
    | MemoryPage
    | LogPage
    | TokenCreated
    | TokenPage
    | Invitation
    | CertView
    | Stats
    | BackupView
    | TaskExplained
    | TaskRetried
    | TaskHastened
    | TaskCounted
    | JobPage
    | DeadPage
    | ScheduleChanges
    | SchedulePage
    | ScheduleTriggered
    | ScheduleBackfilled
    | FiringPage
    | PreviewPage
    | Offered
    | Lease
    | Recorded
    | HeartbeatSeen
    | Revoke
    | Drain
    | LogsRecorded
    | StartRecorded
    | InputPage
    | WorkflowAccepted
    | WorkflowPage
    | WorkflowNodes
    | ChildrenPage
    | EventPage
    | OverviewPage
    | WebhookMade
    | WebhookPage
)
"""What a client or an agent may receive."""

Message = ToServer | ToPeer
