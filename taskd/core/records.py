"""Records: what is kept of each thing, one versioned Struct each.

A record's tag is its version. To change one: append a field with a default, or
make a new class with the next tag, keep the old one readable in ``READERS``,
and add golden bytes. What lies where is told by a ``Kind``: the store sorts by
shard, then kind, then id.

Of a task there are, at any time:
- its spec, from the submit until it is purged;
- if it is leased: a lease record, and no state record;
- else a state record, unless it still waits where its submit put it (then the
  spec alone says all there is to say);
- if it is ready, its entry in a line; if it is scheduled, its timer; if it waits
  and has a limit to that, a timer, too;
- what its attempts that did not succeed left: how each ended, and their output.

Those of workflows are in ``workflow_records``, those of schedules in ``schedule_records``.
"""

from typing import NewType

import msgspec

from taskd.core.events import EventsHeadRecord, EventsRecord
from taskd.core.points import HistoryRecord
from taskd.core.schedule_records import FiringRecord, RemovedRecord, ScheduleRecord, StandingRecord
from taskd.core.webhook_records import LetterRecord, WebhookRecord
from taskd.core.workflow_records import NodeRecord, NodesRecord, WorkflowRecord
from taskd_protocol.explanation import Waited
from taskd_protocol.filtering import TaskFilter
from taskd_protocol.limiting import Limit
from taskd_protocol.resources import Granted
from taskd_protocol.task import Failure, TaskSpec

Kind = NewType("Kind", bytes)
"""One byte; names a space of keys."""

META = Kind(b"m")
"""What there is one of: id is its name."""
SPEC = Kind(b"s")
"""id: task id."""
STATE = Kind(b"t")
"""id: task id. Tasks that are not leased and have left the line of their submit."""
LEASE = Kind(b"l")
"""id: task id. Leased tasks: all of them are read at a start."""
RESULT = Kind(b"v")
"""id: task id. Results too large to stand in the state record."""
LINE = Kind(b"n")
"""id: line id (16 bytes)."""
READY = Kind(b"r")
"""id: line id + place (8 bytes) + order (8 bytes); value: the task id. Sorted as they are to run."""
TIMER = Kind(b"d")
"""id: due instant (8 bytes, UTC ms) + task id; value: length in ms (8 bytes). When a task that waits is looked at: what
is due, its delay, its time to live or its deadline, shows then."""
KEY = Kind(b"k")
"""id: the idempotency key in UTF-8; or byte 255 and the id of a task that a person took away (``lapses.key_of_id``)."""
UNIQUE = Kind(b"u")
"""id: claim id (16 bytes), see ``taskd.core.claims``."""
LAPSE = Kind(b"p")
"""id: instant (8 bytes, UTC ms) + kind + id of a record that counts until then; value: empty."""
FINISHED = Kind(b"f")
"""id: instant (8 bytes, UTC ms) + order (8 bytes). What retention walks along, and takes away as it goes."""
TOKEN = Kind(b"a")
"""id: key id. Access tokens, and invitations until they are used."""
LOG = Kind(b"o")
"""id: task id + sequence (8 bytes)."""
DEAD = Kind(b"x")
"""id: fingerprint (16 bytes) + instant (8 bytes, UTC ms) + task id; value: empty. Dead tasks by what they died of."""
DEAD_GROUP = Kind(b"g")
"""id: fingerprint."""
DETAILS = Kind(b"c")
"""id: task id; value: packed. How far an attempt had come, until the task ends."""
ATTEMPT = Kind(b"e")
"""id: task id + attempt, counted without those that were passed over (4 bytes): so there is no gap. How attempts ended;
of one that succeeded the state record tells."""
QUEUE = Kind(b"q")
"""id: the queue's name in UTF-8. Queues of which something was ordered."""
COUNTS = Kind(b"Q")
"""id: the queue's name in UTF-8. Queues that have tasks which have not ended: all of them are read at a start."""
LIMIT = Kind(b"b")
"""id: the limit's name in UTF-8. All of them are read at a start."""
BUCKET = Kind(b"B")
"""id: gate (16 bytes), or 17 zeros and a limit's name in UTF-8. What is left of a rate, see ``taskd.core.buckets``."""
PARKED = Kind(b"P")
"""id: gate (16 bytes) + rank (16 bytes); value: the task id. Ready tasks that wait at a gate, in the order in which
they pass it."""
HELD = Kind(b"H")
"""id: gate (16 bytes) + task id; value: places (4 bytes). Which tasks have passed a gate and hold places of it."""
PACE = Kind(b"Y")
"""id: the queue's name in UTF-8. Queues whose tasks have had fair keys: all of them are read at a start."""
FAIR = Kind(b"F")
"""id: digest of queue and fair key (16 bytes), see ``taskd.core.fair``."""
AGENT = Kind(b"w")
"""id: the agent's name in UTF-8. Agents of which something was ordered."""
SCHEDULE = Kind(b"h")
"""id: the schedule's name in UTF-8. What it is."""
STANDING = Kind(b"i")
"""id: the schedule's name in UTF-8. Where it stands: all of them are read at a start."""
FIRING = Kind(b"z")
"""id: digest of the schedule's name (16 bytes) + sequence (8 bytes). What was decided of its times: the newest."""
REMOVED = Kind(b"Z")
"""id: digest of the name of a schedule that was removed (16 bytes). Decisions that are still there; read at a start."""
JOB = Kind(b"j")
"""id: job id (16 bytes). Bulk jobs: those under way, and the last that have ended."""

WORKFLOW = Kind(b"W")
"""id: workflow id."""
OPEN = Kind(b"O")
"""id: workflow id; value: empty. Workflows that have not ended."""
NODES = Kind(b"N")
"""id: workflow id + position of the first (4 bytes)."""
NODE = Kind(b"V")
"""id: the node's task id. Nodes that are no task of their own, and those that were skipped."""
SIGNAL = Kind(b"G")
"""id: workflow id + the signal's name in UTF-8; value: packed. Signals that came."""
PEAKS = Kind(b"M")
"""id: the task name in UTF-8. How much memory its attempts have come to hold."""

EVENTS = Kind(b"E")
"""id: number (8 bytes). What each turn has told, see ``taskd.core.events``: the newest, up to a size and an age."""
HISTORY = Kind(b"R")
"""id: level (1 byte) + place in its ring (4 bytes). How the server stood and what it did, and what its agents did, see
``taskd.core.points``."""

WEBHOOK = Kind(b"K")
"""id: the webhook's name in UTF-8. All of them are read at a start."""
LETTER = Kind(b"L")
"""id: the webhook's name + byte 0 + number of the last event (8 bytes). Events that could not be delivered."""

INLINE_RESULT_BYTES = 512
"""Results up to this stand in the state record and spare a second write; larger would slow listings."""


class SpecRecord(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=1):
    """A task as it was accepted. Written once."""

    order: int
    """Position among all submits of the store."""
    created_at_ms: int
    owner: str
    """Key id of the token that submitted it."""
    spec: TaskSpec
    place: int = 0
    """With the order, its place in line for good, see ``taskd.core.lines``; 0: that of its instant and priority."""


class Past(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What attempts that did not succeed have cost a task, beside the failures charged to it."""

    kept: int = 0
    """Attempts in ATTEMPT: the newest, up to the last that ended without success."""
    crashes: int = 0
    """Attempts charged to the crash limit."""
    losses: int = 0
    """Attempts lost with their agent, and not charged; from the first on each is granted alone, and marks its start."""
    refunds: int = 0
    """Times that an agent's quarantine gave some of its cost back."""
    passed_over: int = 0
    """Attempts that have a number, and no ATTEMPT: they came back before they had started, ended to wait, or had
    succeeded before an order to their workflow."""
    family: bytes = b""
    """The workflow of what it has spawned; empty: nothing."""
    memory: int = 0
    """Bytes that it asks for at least, since an attempt died for want of memory; 0: what its spec says."""
    waited: list[Waited] = []
    """What it had waited for before its last attempt, until that ends without success: then its ATTEMPT tells it."""
    preempted: int = 0
    """Attempts that were stopped for other tasks."""


class StateRecord(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=1):
    """Where a task that is not leased stands."""

    state: str
    attempt: int
    """Leases granted so far."""
    failures: int
    """Attempts charged to ``max_attempts``."""
    token: int
    """Fencing token of the last lease, 0 before the first: a report sent twice is known by it."""
    agent: str
    started_at_ms: int
    """Of the last attempt; 0: none yet."""
    finished_at_ms: int = 0
    """When it became terminal; 0: it is not."""
    due_at_ms: int = 0
    """Of a scheduled task."""
    result: bytes | None = None
    """Packed; None also when it lies in a RESULT of its own."""
    result_apart: bool = False
    failure: Failure | None = None
    """Of the last charged attempt."""
    logs: int = 0
    """Entries in LOG."""
    log_bytes: int = 0
    """What they weigh, with the entries in ATTEMPT."""
    end_order: int = 0
    """``next_order`` when it ended. A FINISHED entry of a lower order lists an end that a retry undid."""
    fingerprint: bytes = b""
    """Of a dead task: where it stands in DEAD; empty: it does not."""
    has_details: bool = False
    """DETAILS are stored: it waits for another attempt."""
    revived_at_ms: int = 0
    """When it was retried after its end: its time limits run from then; 0: from its acceptance."""
    past: Past | None = None
    """None: no attempt has ended without success."""
    revived_attempt: int = 0
    """``attempt`` when it was last retried after its end; 0 if it never was, or had not been leased."""
    gates: int = 0
    """Of its gates, in order, it has passed so many; a lease has passed them all."""
    logs_swept: int = 0
    """Its first entries in LOG that retention has taken away; in place of the last of them a mark says so."""


class LeaseRecord(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=1):
    """A leased task: running, or cancelling."""

    token: int
    attempt: int
    failures: int
    agent: str
    granted_at_ms: int
    cancelling: bool = False
    failure: Failure | None = None
    """Of the attempt before."""
    logs: int = 0
    """Entries in LOG."""
    log_bytes: int = 0
    log_bytes_before: int = 0
    """Of the attempts before."""
    has_details: bool = False
    """DETAILS are stored."""
    revived_at_ms: int = 0
    """As in ``StateRecord``."""
    past: Past | None = None
    started: bool = False
    """The agent was about to start it; only attempts that were granted with ``mark_start`` say so."""
    granted: Granted | None = None
    """What it holds of its agent's resources; None: a slot."""
    preempted: bool = False
    """It is to be stopped for another task."""
    log_number: int = 0
    """Of the last piece of output of the attempt that is in LOG, as its agent counts them: each is kept once."""


class LineRecord(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=1):
    """A line: ready tasks that any agent able to run one is able to run all of."""

    queue: str
    name: str
    ready: int
    """Entries in READY."""
    where: bytes = b""
    """Which agents may run them, packed; empty: any that has the name."""
    fair: bool = False
    """They have fair keys."""


class PeaksRecord(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=1):
    """How much memory attempts of a task name held at most."""

    counts: dict[int, int]
    """Attempts, by the step of ``taskd.core.learned`` that their peak was in; older ones count for less."""
    highest: int
    """Bytes, of all."""


class KeyRecord(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=1):
    """Whose idempotency key it is."""

    task_id: bytes
    digest: bytes
    """16 bytes over name, queue and payload: another content under the key is a conflict."""
    created_at_ms: int = 0
    """When its task was accepted."""
    until_ms: int = 0
    """From then on the key is free, whatever has become of the task."""


class UniqueRecord(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=1):
    """Which task is to be the only one of its work."""

    task_id: bytes
    until_ms: int = 0
    """From then on it counts no longer; 0: what becomes of the task takes it away."""


class FinishedRecord(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """The tasks that became terminal in one commit."""

    ids: list[bytes]
    stored_bytes: int
    """Of those that succeeded. Others may leave before their time; what they weigh shows in their records."""


class DeadGroupRecord(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """Dead tasks that died of the same."""

    kind: str
    """Exception type, or the code where nothing was raised."""
    place: str
    """``file:function``; empty: nothing was raised."""
    message: str
    """Of the first of them."""
    count: int
    first_at_ms: int
    """When the first of them died, of those since the group was last empty."""
    last_at_ms: int


class JobRecord(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """A bulk job: one action on all tasks that fit."""

    action: str
    filter: TaskFilter
    owner: str
    """Key id of the token that started it."""
    created_at_ms: int
    """What was submitted, or died, later is not looked at."""
    cursor: bytes = b""
    """How far it has come; empty: not begun."""
    looked_at: int = 0
    changed: int = 0
    finished_at_ms: int = 0
    """0: it goes on."""


class QueueRecord(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """What a person ordered of a queue."""

    draining: bool
    """It takes no new tasks."""
    weight: int = 1
    """Its share of the room that agents have, beside other queues."""
    paused: bool = False
    """Nothing of it is leased."""
    fair_weights: dict[str, int] = {}
    """Shares of fair keys within it; of those that are not named, 1."""


class LimitRecord(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """What holds for a queue, for a task name, or of each key."""

    limit: Limit
    since_age_ms: int = 0
    """When its rate became what it is, see ``AgeRecord``."""


class AgeRecord(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """How long servers have run on the store, all together, when a token was last taken of some rate."""

    age_ms: int


class BucketRecord(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=1):
    """What is left of a rate; none: it is full."""

    level: int
    """Millionths of a token, at ``at_age_ms``; below 0: more were taken than were known of."""
    at_age_ms: int
    """See ``AgeRecord``."""
    tokens: int
    """So many come in ``period_ms``, as the limit said then."""
    period_ms: int
    burst: int
    """Tokens that it holds at most."""
    until_ms: int
    """UTC: then it is looked at whether it is full."""


class PaceRecord(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """How far a queue has come with its tasks that have fair keys, see ``taskd.core.fair``."""

    at: int
    """Its time."""
    highest: int
    """The latest end in FAIR, of those that there ever were."""


class FairRecord(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=1):
    """Where a fair key ends: its next task begins there, unless the queue's time has passed that by."""

    queue: str
    ends: list[tuple[int, int]]
    """By priority, rising: of what it has of that priority and higher."""


class AgentRecord(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """What a person ordered of an agent."""

    drained: bool
    """It is granted nothing."""


class TokenRecord(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """A token, or an invitation (role ``join``). Its secret is not here, only the hash."""

    role: str
    secret_sha256: bytes
    label: str
    created_at_ms: int
    expires_at_ms: int
    revoked: bool = False
    logged_out: list[tuple[str, int]] = []
    """Sessions of browsers that were ended before their time: the id of each, and when its cookie is void by itself."""
    sessions_after_ms: int = 0
    """Sessions that were opened no later are over: there were more of those than are kept."""


class LogRecord(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=1):
    """A piece of an attempt's output, see ``taskd_protocol.streams``."""

    attempt: int
    stream: int
    at_ms: int
    data: bytes


class AttemptRecord(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=1):
    """How an attempt ended without success."""

    token: int
    agent: str
    started_at_ms: int
    """By its agent's report; without one, when it was granted."""
    ended_at_ms: int
    outcome: str
    """``failed``, ``crashed``, ``cancelled``, ``released``, ``lost`` or ``preempted``."""
    failure: Failure | None = None
    passed_over: int = 0
    """Attempts before it that have no ATTEMPT, which its id does not count."""
    waited: list[Waited] = []
    """What was waited for before it."""


class CountersRecord(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """META ``counters``: true as of the commit that carries it. A start trusts it, fsck proves it."""

    by_queue: dict[str, dict[str, int]]
    """Of queues, as they once were kept here; now they are in COUNTS."""
    ended: dict[str, int]
    """Tasks that have, by state."""
    next_order: int
    """The next submit's ``order``."""
    finished_bytes: int
    """What the finished tasks weigh, for retention by size: as FINISHED says, and each that did not succeed."""
    purged_to_ms: int = 0
    """No task that was purged had a younger id: an unknown id from before may have been one of them."""
    latest_wall_ms: int = 0
    """The latest time that the wall clock has shown when a task or a timer was stored, whatever it shows now."""
    parked: dict[str, int] = {}
    """As ``by_queue``."""
    logs_bytes: int = 0
    """What ended tasks have said, as their ``log_bytes`` tell: a part of ``finished_bytes``."""
    swept_to: bytes = b""
    """The last FINISHED id of which the tasks' output was taken away before them."""


class CountsRecord(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """How many tasks a queue has; true as ``CountersRecord`` is, and written when it has changed."""

    states: dict[str, int]
    """Tasks that have not ended, by state."""
    parked: int = 0
    """Ready tasks that are in no line, since they wait at a gate."""


class EpochRecord(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """META ``epoch``: durable before the first lease of a start, so that tokens rise over restarts."""

    epoch: int
    lives: list[tuple[int, int]] = []
    """The newest starts of the lineage, oldest first: epoch, and how many commits there were before its first."""


Record = (
    SpecRecord
    | StateRecord
    | LeaseRecord
    | LineRecord
    | PeaksRecord
    | KeyRecord
    | UniqueRecord
    | FinishedRecord
    | DeadGroupRecord
    | JobRecord
    | WorkflowRecord
    | NodesRecord
    | NodeRecord
    | ScheduleRecord
    | StandingRecord
    | FiringRecord
    | RemovedRecord
    | QueueRecord
    | CountsRecord
    | LimitRecord
    | AgeRecord
    | BucketRecord
    | PaceRecord
    | FairRecord
    | AgentRecord
    | TokenRecord
    | LogRecord
    | AttemptRecord
    | EventsRecord
    | HistoryRecord
    | WebhookRecord
    | LetterRecord
    | CountersRecord
    | EpochRecord
    | EventsHeadRecord
)

READERS: dict[Kind, type[Record]] = {
    SPEC: SpecRecord,
    STATE: StateRecord,
    LEASE: LeaseRecord,
    LINE: LineRecord,
    PEAKS: PeaksRecord,
    KEY: KeyRecord,
    UNIQUE: UniqueRecord,
    FINISHED: FinishedRecord,
    DEAD_GROUP: DeadGroupRecord,
    JOB: JobRecord,
    WORKFLOW: WorkflowRecord,
    NODES: NodesRecord,
    NODE: NodeRecord,
    SCHEDULE: ScheduleRecord,
    STANDING: StandingRecord,
    FIRING: FiringRecord,
    REMOVED: RemovedRecord,
    QUEUE: QueueRecord,
    COUNTS: CountsRecord,
    LIMIT: LimitRecord,
    BUCKET: BucketRecord,
    PACE: PaceRecord,
    FAIR: FairRecord,
    AGENT: AgentRecord,
    TOKEN: TokenRecord,
    LOG: LogRecord,
    ATTEMPT: AttemptRecord,
    EVENTS: EventsRecord,
    HISTORY: HistoryRecord,
    WEBHOOK: WebhookRecord,
    LETTER: LetterRecord,
}
"""How a value of a kind is read. READY, TIMER, RESULT, DEAD, DETAILS, LAPSE, OPEN, SIGNAL, PARKED and HELD hold bare
bytes; META is read by name."""

META_READERS: dict[bytes, type[Record]] = {
    b"counters": CountersRecord,
    b"epoch": EpochRecord,
    b"events": EventsHeadRecord,
    b"age": AgeRecord,
}


class Damaged(msgspec.Struct, frozen=True):
    """Stands where a record of a workflow or a schedule was read that is none. Never stored."""

    why: str


Key = tuple[Kind, bytes]
Value = Record | Damaged | bytes | None
"""What is read under a key; None: nothing is there."""
Mutation = tuple[Kind, bytes, Record | bytes | None]
"""Put (a record, or bare bytes) or delete (None) of the record of that kind and id."""
