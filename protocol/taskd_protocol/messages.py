"""Messages: what peers say to each other, one frozen Struct each.

On the wire a message is one msgpack array ``[type, field, ...]``. The rules of
change: a new message takes an unused type number; a new field is appended with
a default; numbers and positions are never used again. Each change needs its
section in ``protocol/SPEC.md`` and its golden bytes in ``protocol/vectors/``.

Type numbers: 1-15 either side, 16-63 clients, 64-95 agents, 96-127 clients.
Those about workflows and schedules are in rooms of their own.
"""

import msgspec

from taskd_protocol import limits
from taskd_protocol.explanation import Explanation, Misfit
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
from taskd_protocol.resources import Supply
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
from taskd_protocol.task import (
    Checkpoint,
    Failure,
    FailureReport,
    Grant,
    Held,
    LogPiece,
    Outcome,
    Pool,
    Report,
    TaskFilter,
    TaskSpec,
)
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


class PeerLimits(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What the server allows; told once, in WELCOME."""

    payload_bytes_max: int = limits.PAYLOAD_BYTES_MAX
    submit_tasks_max: int = limits.SUBMIT_TASKS_MAX
    heartbeat_ms: int = limits.HEARTBEAT_MS
    heartbeats_missed: int = limits.HEARTBEATS_MISSED
    outcome_credit: int = limits.OUTCOME_CREDIT


# -- either side ------------------------------------------------------------------------


class Hello(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """First message of a connection, from the peer. Once."""

    version_min: int
    version_max: int
    role: str
    """``client`` (any token but an agent's) or ``agent``, or ``join`` with a one-time secret."""
    token: str
    """``taskd_<role>_<keyid>_<secret>_<crc>``, or the one-time secret of an invitation."""
    name: str = ""
    """The agent's name; for clients a label for people."""
    boot_id: bytes = b""
    """16 random bytes of this process's life; a second live boot of one agent name is refused."""
    session: bytes | None = None
    """The session to resume: what the last WELCOME said; None: a new one."""
    mark: Mark | None = None
    """The newest commit mark seen; None: none yet."""
    software: str = ""
    """Name and version, for people."""


class Welcome(msgspec.Struct, array_like=True, frozen=True, tag=2):
    """The server knows the peer; messages of its role are allowed from here on."""

    version: int
    """The highest version that both know."""
    session: bytes
    """16 bytes; the one asked for, if the server still knew it, else a new one."""
    epoch: int
    """Rises with every start of the server."""
    server_time_ms: int
    """Wall clock, UTC: task ids are made from it."""
    limits: PeerLimits
    mark: Mark
    role: str = ""
    """The token's role."""
    software: str = ""


class Error(msgspec.Struct, array_like=True, frozen=True, tag=3):
    """A refused request, or with request id 0 the end of the connection and why."""

    request_id: int
    code: str
    message: str
    retryable: bool = False
    retry_after_ms: int = 0


class Chunk(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=4):
    """A piece of a message whose encoding does not fit one frame.

    The pieces of one stream, put together in order, are the message. Control
    messages may pass between two pieces. A chunk never carries a chunk.
    """

    stream: int
    """Chosen by the sender; free for use again after the last piece."""
    last: bool
    data: bytes


class Ping(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=5):
    """Are you there? Answered at once with PONG."""

    nonce: int


class Pong(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=6):
    """The answer to PING."""

    nonce: int
    server_time_ms: int = 0
    """Wall clock of the answering server; 0 from a peer."""


class Done(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=7):
    """The request with that id was carried out, durably where it changed something."""

    request_id: int


class CaRequest(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=8):
    """Asked before HELLO by an agent that holds a join code: show me your CA. No secret has been said yet."""


class Ca(msgspec.Struct, array_like=True, frozen=True, tag=9):
    """The server's CA certificate; the asker compares its SHA-256 with the join code's, then connects anew."""

    pem: str


class Joined(msgspec.Struct, array_like=True, frozen=True, tag=10):
    """The invitation was good: a token of the role agent, told this once. The connection ends."""

    token: str


# -- clients ----------------------------------------------------------------------------


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


class QueueView(msgspec.Struct, array_like=True, frozen=True):
    """One queue's counts."""

    name: str
    ready: int
    scheduled: int
    running: int
    paused: bool = False
    """Nothing of it is leased."""
    draining: bool = False
    """It takes no new tasks."""
    weight: int = 1
    """Its share of the room that agents have, beside other queues."""


class QueueList(msgspec.Struct, array_like=True, frozen=True, tag=27):
    """Show me the queues."""

    request_id: int


class QueuePage(msgspec.Struct, array_like=True, frozen=True, tag=28):
    """Every queue that holds a task that has not ended, or of which something was ordered."""

    request_id: int
    queues: list[QueueView]


class HostStats(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What an agent measures of its host, with each heartbeat. What others use of it lowers what is granted there."""

    cpu_percent: float = 0.0
    """0 to 100, over all cores, since the last heartbeat."""
    load1: float = 0.0
    memory_used: int = 0
    """Bytes, of the host or the agent's cgroup."""
    memory_total: int = 0
    cpu_outside: int = 0
    """Thousandths of a CPU, of those that the agent may use, that others than its tasks are using."""
    memory_outside: int = 0
    """Bytes that others than its tasks use."""


class StockView(msgspec.Struct, array_like=True, frozen=True):
    """What an agent has of one resource, and has left."""

    name: str
    total: int
    """Amounts as in ``Supply``."""
    free: int
    """Not held by a lease."""
    items: dict[str, int] = {}
    """What is free of each that can be told apart."""


class AgentView(msgspec.Struct, array_like=True, frozen=True):
    """One agent."""

    name: str
    boot_id: bytes
    state: str
    """``live``, ``draining``, ``drained``, ``quarantined`` (the last two also of one that is not connected), ``lost``
    (silent, leases not yet given away)."""
    slots: int
    running: int
    host: HostStats
    labels: dict[str, str]
    task_names: list[str]
    queues: list[str]
    software: str
    seen_at_ms: int
    """0: not since the server's start, or since it was forgotten."""
    stock: list[StockView] = []
    """What it has that tasks may ask for."""
    pressed: bool = False
    """Others keep its machine busy: it gets no more tasks that ask for CPUs."""


class AgentList(msgspec.Struct, array_like=True, frozen=True, tag=29):
    """Show me the agents."""

    request_id: int


class AgentPage(msgspec.Struct, array_like=True, frozen=True, tag=30):
    """Every agent that is connected, or still holds leases."""

    request_id: int
    agents: list[AgentView]


class MemoryList(msgspec.Struct, array_like=True, frozen=True, tag=48):
    """Show me how much memory tasks have come to need."""

    request_id: int


class MemoryView(msgspec.Struct, array_like=True, frozen=True):
    """How much memory attempts of a task name held at most."""

    name: str
    attempts: int
    """That reported it; the older count for less."""
    highest: int
    """Bytes, of all."""
    proposal: int
    """What a task gets that asks for what was learned."""


class MemoryPage(msgspec.Struct, array_like=True, frozen=True, tag=49):
    """Of each task name that asks for memory, by name."""

    request_id: int
    names: list[MemoryView]


class Follow(msgspec.Struct, array_like=True, frozen=True, tag=31):
    """Send me the task's output, from the given entry on, until the task has ended and all is sent."""

    request_id: int
    id: bytes
    sequence: int = 0
    """Entries before it were read already."""


class LogEntry(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One piece of an attempt's output."""

    sequence: int
    """Position in the task's log, from 0."""
    attempt: int
    stream: int
    """1 standard output, 2 standard error, 3 the Python stacks of an attempt that took too long."""
    at_ms: int
    data: bytes


class LogPage(msgspec.Struct, array_like=True, frozen=True, tag=32):
    """Pushed under FOLLOW's request id; answered by FOLLOW_MORE."""

    request_id: int
    entries: list[LogEntry]
    end: bool = False
    """The task has ended and this was all."""


class FollowMore(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=33):
    """The last LOG_PAGE was taken: credit for the next one."""

    request_id: int


class TokenCreate(msgspec.Struct, array_like=True, frozen=True, tag=34):
    """Make a token."""

    request_id: int
    role: str
    label: str = ""
    expires_in_ms: int = 90 * 24 * 3600 * 1000


class TokenCreated(msgspec.Struct, array_like=True, frozen=True, tag=35):
    """The secret, told this once."""

    request_id: int
    token: str


class TokenView(msgspec.Struct, array_like=True, frozen=True):
    """What is known of a token; never its secret."""

    key_id: str
    role: str
    label: str
    created_at_ms: int
    expires_at_ms: int
    revoked: bool


class TokenList(msgspec.Struct, array_like=True, frozen=True, tag=36):
    """Show me the tokens."""

    request_id: int


class TokenPage(msgspec.Struct, array_like=True, frozen=True, tag=37):
    """All tokens, revoked and expired ones too."""

    request_id: int
    tokens: list[TokenView]


class TokenRevoke(msgspec.Struct, array_like=True, frozen=True, tag=38):
    """Refuse this token from now on; its live sessions end within a second. Answered DONE."""

    request_id: int
    key_id: str


class Invite(msgspec.Struct, array_like=True, frozen=True, tag=39):
    """Make a one-time code with which an agent on another machine joins."""

    request_id: int
    expires_in_ms: int = 10 * 60 * 1000


class Invitation(msgspec.Struct, array_like=True, frozen=True, tag=40):
    """The one-time secret and the pin; the inviting program adds the address that the agent can reach."""

    request_id: int
    secret: str
    ca_sha256: bytes
    """32 bytes, of the CA certificate in DER."""
    addresses: list[str]
    """``host:port`` as the server listens, best first."""


class CertRenew(msgspec.Struct, array_like=True, frozen=True, tag=41):
    """Issue a new server certificate from the same CA; open connections live on."""

    request_id: int
    host_names: list[str] = []
    """Added to those it had."""


class CertView(msgspec.Struct, array_like=True, frozen=True, tag=42):
    """The certificate in use."""

    request_id: int
    host_names: list[str]
    not_before_ms: int
    not_after_ms: int
    sha256: bytes
    ca_sha256: bytes


class CertQuery(msgspec.Struct, array_like=True, frozen=True, tag=43):
    """Show me the certificate in use."""

    request_id: int


class StatsQuery(msgspec.Struct, array_like=True, frozen=True, tag=44):
    """Show me what the server has counted since its start."""

    request_id: int


class Stats(msgspec.Struct, array_like=True, frozen=True, tag=45):
    """Counts and costs since the server's start, for benchmarks and people."""

    request_id: int
    tasks: dict[str, int]
    """Stored tasks by state."""
    stages_ns: dict[str, int]
    """The loop's own time by stage: decode, decide, encode, stage, send."""
    counts: dict[str, int]
    """turns, flushes, submitted, leased, completed, bytes_in, bytes_out."""
    cpu_ns: int
    """CPU time of the server process, all threads."""


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


class QueueDrain(msgspec.Struct, array_like=True, frozen=True, tag=59):
    """Take no new tasks into this queue: what is there runs. Durable. Answered DONE."""

    request_id: int
    queue: str
    resume: bool = False
    """Take tasks again instead, and lease them: it ends a pause, too."""


class QueueWeigh(msgspec.Struct, array_like=True, frozen=True, tag=140):
    """Give this queue its share: beside others it is granted tasks by its weight. Durable. Answered DONE."""

    request_id: int
    queue: str
    weight: int
    """1 to ``QUEUE_WEIGHT_MAX``; 1 if nobody has said otherwise."""


class AgentDrain(msgspec.Struct, array_like=True, frozen=True, tag=60):
    """Have this agent finish what it runs and stay idle. Durable. Answered DONE."""

    request_id: int
    agent: str
    resume: bool = False
    """Grant to it again instead, also after a quarantine."""


class Backup(msgspec.Struct, array_like=True, frozen=True, tag=62):
    """Copy the store into a new folder on the server's machine; under an id that was used: how far is it?"""

    request_id: int
    id: bytes
    """16 random bytes of the asker's."""
    path: str
    """The folder, with its whole path; its parent must be there, and the folder must not."""
    without_keys: bool = False
    """The CA, its key and the server's certificate stay out of it."""


class BackupView(msgspec.Struct, array_like=True, frozen=True, tag=63):
    """How far it is: told at once when it has ended, else at its next stage or after a second."""

    request_id: int
    stage: str
    """``copying``, ``checking``, ``done`` or ``failed``."""
    copied_bytes: int = 0
    total_bytes: int = 0
    """0: not known yet."""
    sequence: int = 0
    """The last commit that is in it, when it is done."""
    tasks: dict[str, int] = {}
    """Tasks in it by state, when it is done."""
    code: str = ""
    """Of the error, when it has failed."""
    message: str = ""


# -- agents -----------------------------------------------------------------------------


class Offer(msgspec.Struct, array_like=True, frozen=True, tag=64):
    """What an agent has; first message after WELCOME, and again when it changes. Answered OFFERED."""

    pools: list[Pool]
    queues: list[str] = []
    """Only these; empty: all."""
    labels: dict[str, str] = {}
    resources: dict[str, float] = {}
    holding: list[Held] = []
    """Every lease of earlier connections that is not recorded: they are taken up again. In the first OFFER only."""
    supplies: list[Supply] = []
    """What it has that tasks may ask for. Empty: what ``resources`` says, and nothing else."""
    life_ms: int = 0
    """Its machine is there for so long from now; 0: no end is known."""


class Offered(msgspec.Struct, array_like=True, frozen=True, tag=65):
    """The offer stands, all credit is 0; of what the agent holds, these are no longer its own: kill and forget them."""

    stale: list[int] = []
    """Fencing tokens."""


class LeaseCredit(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=66):
    """The agent's pool can take so many more leases. Sent after OFFERED: a control message may overtake an OFFER."""

    pool: int
    """Index in the OFFER's pools."""
    leases: int
    """0, from version 2 on: the pool takes all its credit back."""


class Lease(msgspec.Struct, array_like=True, frozen=True, tag=67):
    """Pushed under credit: run these."""

    number: int
    """1, 2, 3, ... on a connection; echoed in heartbeats."""
    pool: int
    grants: list[Grant]


class Ack(msgspec.Struct, array_like=True, frozen=True, tag=68):
    """These attempts succeeded. Answered RECORDED; resent until then."""

    reports: list[Report]


class Nack(msgspec.Struct, array_like=True, frozen=True, tag=69):
    """These attempts ended without success. Answered RECORDED; resent until then."""

    failures: list[FailureReport]


class Recorded(msgspec.Struct, array_like=True, frozen=True, tag=70):
    """These reports are durable, or were already, or change nothing: none needs to be sent again."""

    tokens: list[int]
    stale: list[int] = []
    """Of those reported: not what is stored (``lease.stale``)."""
    mark: Mark | None = None


class Heartbeat(msgspec.Struct, array_like=True, frozen=True, tag=71):
    """I am alive, and this is what I hold."""

    number: int
    lease_number: int
    """Highest LEASE received on this connection; 0: none yet."""
    held: list[int]
    """Fencing tokens: waiting, running, or finished and not yet recorded."""
    host: HostStats = HostStats()


class HeartbeatSeen(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=72):
    """The answer to HEARTBEAT, at once and without a flush."""

    number: int
    server_time_ms: int


class Revoke(msgspec.Struct, array_like=True, frozen=True, tag=73):
    """Kill these attempts; report each as ``cancelled`` when every process of it is gone."""

    tokens: list[int]


class Drain(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=74):
    """From an agent: grant me nothing more. From a server: finish, accept nothing new, and go."""

    reason: str = ""
    stay: bool = False
    """From a server: give back what has not started, and stay; nothing is granted until a person says so."""


class Logs(msgspec.Struct, array_like=True, frozen=True, tag=75):
    """Keep this output. Answered LOGS_RECORDED."""

    pieces: list[LogPiece]


class LogsRecorded(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=76):
    """So many bytes of output are durable, or dropped as stale: credit for as many more."""

    data_bytes: int


class Checkpoints(msgspec.Struct, array_like=True, frozen=True, tag=77):
    """Keep these for the next attempts. Not answered: the newest are sent again on a new connection."""

    checkpoints: list[Checkpoint]


class Started(msgspec.Struct, array_like=True, frozen=True, tag=78):
    """These leases, granted with ``mark_start``, are about to start. Answered START_RECORDED."""

    tokens: list[int]


class StartRecorded(msgspec.Struct, array_like=True, frozen=True, tag=79):
    """That is durable: start them."""

    tokens: list[int]
    stale: list[int] = []
    """Of those asked: no longer the agent's own; forget them."""


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
    | TaskCount
    | JobStart
    | JobList
    | DeadList
    | QueueDrain
    | QueueWeigh
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
)
"""What a client or an agent may receive."""

Message = ToServer | ToPeer
