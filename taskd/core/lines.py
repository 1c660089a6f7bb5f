"""Lines: ready tasks in the order in which they are to run, of which a window is in memory.

A line holds the ready tasks of one queue and one task name that ask the same of an
agent, so that one that may run one may run all; placement looks at lines, never at
tasks.

Invariants:
- A line's window is an exact prefix of its order on disk, up to ``tail``; with
  ``complete``, it is all of it.
- ``ready`` counts the line's entries on disk, in the window or beyond it.
- What is not in the window is not in memory.
"""

import hashlib
from bisect import bisect_left, insort
from collections.abc import Sequence
from operator import attrgetter
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from taskd.core.commands import LineEntry
from taskd.core.records import LeaseRecord, Past, SpecRecord
from taskd_protocol.limits import PRIORITY_MAX
from taskd_protocol.resources import CPU, LEARNED, MEMORY, Granted, Need, Request, Where
from taskd_protocol.task import Failure, TaskSpec

if TYPE_CHECKING:
    from taskd.core.holdups import Holdups

WINDOW_TASKS_MAX = 32_768
"""In one line. Agents take thousands at a time; a refill is read beside the loop."""

WINDOW_LOW = 8_192
"""A refill is asked for below this, so that it comes back before the window is empty."""

WINDOW_BYTES_MAX = 64 * 1024 * 1024
"""Arguments in one window, one task's apart: tasks with large ones have a shorter window."""

WINDOW_BYTES_LOW = WINDOW_BYTES_MAX // 4
"""A refill is asked for below both this and ``WINDOW_LOW``."""

REFILL_TASKS = 16_384
"""Read by one refill."""

REFILL_BYTES = WINDOW_BYTES_MAX // 2
"""Arguments that one refill is to read, roughly."""

WINDOWS_TASKS_MAX = 262_144
"""In all windows, and in leases: some 250 MB. Beyond it each line's is short, as long as little is granted of it."""

LEAN_TASKS = 16
"""Then, of a line of which nothing was granted of late."""

PACE_MS = 20_000
"""What was granted of a line is counted over so long, and the same before it."""

AGENT_LABEL = "taskd.agent"
"""Every agent's name: no agent says another of itself."""

CLAMPED_LABEL = "taskd.clamped"
"""Marks an agent that offered what made no sense, of which something was cut down or left out."""

OWN_LABELS = frozenset({AGENT_LABEL, "taskd.host"})
"""Labels in which agents differ that are the same in all else."""

ORDER_BITS = 64
ORDER_MASK = (1 << ORDER_BITS) - 1
LINE_ID_BYTES = 16
RANK_BYTES = 16
"""Eight of place, eight of order."""

AGEING_MS = 60_000
"""After so long a wait a task is level with new ones of one priority more, unless the operator says otherwise."""


class Task(msgspec.Struct, gc=False):
    """A task in memory: in a window, or leased. A Struct because it is made in a tenth of a class's time."""

    spec: TaskSpec
    rank: int
    created_at_ms: int
    owner: str
    fresh: bool
    """It has no STATE record: it is where its submit put it."""
    attempt: int = 0
    failures: int = 0
    failure: Failure | None = None
    past: Past | None = None
    logs: int = 0
    log_bytes: int = 0
    log_bytes_before: int = 0
    token: int = 0
    """Of its lease; 0: it is in line."""
    agent: str = ""
    lease_number: int = 0
    """Of the LEASE that carried it; 0: carried by an earlier connection."""
    granted_at_ms: int = 0
    cancelling: bool = False
    started: bool = False
    """Its start is marked: see ``LeaseRecord.started``."""
    details: bytes = b""
    """What an attempt told last of how far it had come; empty: nothing."""
    revived_at_ms: int = 0
    """When it was retried after its end; 0: never."""
    revived_attempt: int = 0
    """As in ``StateRecord``."""
    granted: Granted | None = None
    """Of its lease: what it holds of its agent's resources; None: a slot."""
    pool: int = -1
    """Of its lease: its agent's pool, if the slots of that are CPUs; -1: they are not, or it has no lease."""
    ready_mono_ms: int = 0
    """When it was put into its line, roughly, by the clock that never steps; 0: by its submit."""
    gates: int = 0
    """As in ``StateRecord``; all of them, once it is in line."""
    preempted: bool = False
    """Of its lease: it is to be stopped for another task."""
    log_number: int = 0
    """As in ``LeaseRecord``."""

    @property
    def since_ms(self) -> int:
        """When its time limits began."""
        return self.revived_at_ms or self.created_at_ms


def lease_record(task: Task) -> LeaseRecord:
    """Return a leased task's record."""
    return LeaseRecord(
        task.token,
        task.attempt,
        task.failures,
        task.agent,
        task.granted_at_ms,
        task.cancelling,
        task.failure,
        task.logs,
        task.log_bytes,
        task.log_bytes_before,
        bool(task.details),
        task.revived_at_ms,
        task.past,
        task.started,
        task.granted,
        task.preempted,
        task.log_number,
    )


def rank_of(place: int, order: int) -> int:
    """Return what a line is sorted by: lower runs first; of one place, who was submitted first."""
    return place << ORDER_BITS | order


def place_of(enqueued_ms: int, spec: TaskSpec, ageing_ms: int) -> int:
    """Return the instant that a task's place in line is told by: so much later than its own for each priority less.

    It never changes, so nothing is sorted again as tasks age. A delayed task is placed as if it came when it is due.
    """
    return enqueued_ms + spec.delay_ms + (PRIORITY_MAX - spec.priority) * ageing_ms


def rank_in(record: SpecRecord) -> int:
    """Return the rank of a stored task."""
    place = record.place or place_of(record.created_at_ms, record.spec, AGEING_MS)
    return place << ORDER_BITS | record.order


def rank_before(record: SpecRecord) -> int:
    """Return the rank by which a stored task waits before its line: one with a fair key has a tag in line alone."""
    if not is_fair(record.spec):
        return rank_in(record)
    return place_of(record.created_at_ms, record.spec, AGEING_MS) << ORDER_BITS | record.order


def where_of(spec: TaskSpec, past: Past | None) -> bytes:
    """Return what a task asks of an agent, packed; empty: a slot.

    Args:
        spec: Of the task.
        past: Of its state or lease: an attempt that died for want of memory has it ask for more.
    """
    given = spec.given
    if given is None or given.where is None:
        return b""
    where = given.where
    if past is not None and past.memory:
        where = replace(where, requests=[_with_memory(request, past.memory) for request in where.requests])
    return _pack(where)


def _with_memory(request: Request, at_least: int) -> Request:
    return Request(
        [
            Need(MEMORY, max(need.amount, at_least)) if need.name == MEMORY and need.amount else need
            for need in request.needs
        ]
    )


def _with_learned(request: Request, amount: int) -> Request:
    return Request([Need(MEMORY, amount) if need.amount == LEARNED else need for need in request.needs])


def is_fair(spec: TaskSpec) -> bool:
    """Tell whether a task stands in a line of those that have fair keys."""
    return spec.given is not None and bool(spec.given.fair_key)


def line_id(queue: str, name: str, where: bytes = b"", *, fair: bool = False) -> bytes:
    """Return a line's id: a digest, so that the same line is found again without a directory."""
    digest = hashlib.blake2b(digest_size=LINE_ID_BYTES, person=b"fair" if fair else b"")
    for part in (queue.encode(), name.encode(), where) if where else (queue.encode(), name.encode()):
        digest.update(len(part).to_bytes(4, "big"))
        digest.update(part)
    return digest.digest()


def ready_id(line: bytes, rank: int) -> bytes:
    """Return the READY id of a place in a line."""
    return line + rank.to_bytes(RANK_BYTES, "big")


Entry = tuple[int, int, "Line"]
"""Where a line stands, see ``taskd.core.rows``: the rank of its first task, a number of the entry's own, the line."""

_rank = attrgetter("rank")
_pack = msgspec.msgpack.Encoder().encode
_unpack_where = msgspec.msgpack.Decoder(Where).decode


def _least(requests: Sequence[Request], name: str) -> int:
    amounts = [max([need.amount for need in request.needs if need.name == name], default=0) for request in requests]
    return max(min(amounts, default=0), 0)


def task_of(entry: LineEntry, rank: int) -> Task:
    """Return a task that was read, which waits."""
    task = Task(entry.spec.spec, rank, entry.spec.created_at_ms, entry.spec.owner, entry.state is None)
    if entry.state is not None:
        task.attempt, task.failures, task.failure = entry.state.attempt, entry.state.failures, entry.state.failure
        task.logs, task.log_bytes, task.details = entry.state.logs, entry.state.log_bytes, entry.details
        task.revived_at_ms, task.past = entry.state.revived_at_ms, entry.state.past
        task.revived_attempt, task.gates = entry.state.revived_attempt, entry.state.gates
    return task


class Line:
    """One line and its window.

    Attributes:
        ready: Entries on disk.
        complete: The window is the whole line.
        tail: Highest rank that the window may hold while it is not complete; -1: none.
        refilling: A refill is under way; what changes beyond the tail meanwhile is noted.
        window_bytes: Arguments in the window, and what earlier attempts told.
        where: What its tasks ask of an agent, packed; empty: a slot.
        fair: They have fair keys, and tags for places, see ``taskd.core.fair``.
        wants: The same, to be read; None: a slot.
        requests: The alternatives of ``wants``, with what was learned in its place.
        learns: It is asked for memory as it was learned.
        least: CPU and memory that each of the alternatives asks for at least.
        names_agents: It is asked which agent it is, so that no two are of a sort.
        shelf: On which it stands among the lines of its queue, see ``taskd.core.rows``.
        entry: Where; None: it does not, or it is being served.
        able: Of each sort of agent, by what it offers, or of each agent: whether it could run the tasks.
        stuck: ``growth`` of the agents' rooms when no agent had room for the first task; -1: it is to be looked at.
        stuck_rank: Of that task.
        stuck_since_ms: When that began, by the clock that never steps; 0: it is not so.
        keep_at_ms: When it is looked again for an agent to be kept free for it, as there was none; 0: as soon as due.
        holdups: What it has waited for, see ``taskd.core.holdups``; None: nothing, of late.
        seen_head: The rank of its first task when that was looked at last.
        paced_ms: When the count of what is granted began anew, by the same clock; 0: nothing has been granted.
        paced: Granted since.
        paced_before_ms: When the count before it began; 0: there is none.
        paced_before: Granted in it.
    """

    __slots__ = (
        "_head",
        "_late",
        "_removed",
        "_window",
        "able",
        "complete",
        "entry",
        "fair",
        "holdups",
        "id",
        "keep_at_ms",
        "learns",
        "least",
        "name",
        "names_agents",
        "paced",
        "paced_before",
        "paced_before_ms",
        "paced_ms",
        "queue",
        "ready",
        "refilling",
        "requests",
        "seen_head",
        "shelf",
        "stuck",
        "stuck_rank",
        "stuck_since_ms",
        "tail",
        "wants",
        "where",
        "window_bytes",
    )

    def __init__(self, queue: str, name: str, where: bytes = b"", *, fair: bool = False, ready: int = 0) -> None:
        self.queue = queue
        self.name = name
        self.where = where
        self.fair = fair
        self.wants = _unpack_where(where) if where else None
        self.requests = self.wants.requests if self.wants else []
        self.learns = any(need.amount == LEARNED for request in self.requests for need in request.needs)
        self.least = _least(self.requests, CPU), _least(self.requests, MEMORY)
        self.names_agents = any(rule.label in OWN_LABELS for rule in self.wants.labels) if self.wants else False
        self.shelf = -1
        self.entry: Entry | None = None
        self.able: dict[bytes, bool] = {}
        self.stuck = self.stuck_rank = -1
        self.stuck_since_ms = self.keep_at_ms = 0
        self.holdups: Holdups | None = None
        self.seen_head = -1
        self.paced_ms = self.paced = self.paced_before_ms = self.paced_before = 0
        self.id = line_id(queue, name, where, fair=fair)
        self.ready = ready
        self.complete = ready == 0
        self.tail = -1
        self.refilling = 0
        self._window: list[Task] = []
        self._head = 0
        self.window_bytes = 0
        self._late: dict[int, Task] = {}
        self._removed: set[int] = set()

    def ask_for_memory(self, amount: int) -> None:
        """Ask for so much memory where it is to be as was learned."""
        if self.wants is not None:
            self.requests = [_with_learned(request, amount) for request in self.wants.requests]
            self.least = _least(self.requests, CPU), _least(self.requests, MEMORY)
            self.able.clear()
            self.stuck = -1

    @property
    def window_count(self) -> int:
        """Tasks in the window."""
        return len(self._window) - self._head

    def wanted(self, *, lean: bool) -> int:
        """Return how many tasks are to be read, since the window runs low and the disk holds more; 0: none are.

        Args:
            lean: Windows hold enough together: so many as were granted of late, and no more.
        """
        if self.complete or self.refilling or self.window_bytes >= WINDOW_BYTES_LOW:
            return 0
        if not lean:
            return REFILL_TASKS if self.window_count < WINDOW_LOW else 0
        wanted = min(max(LEAN_TASKS, self.paced + self.paced_before), REFILL_TASKS)
        return wanted if self.window_count <= wanted // 2 else 0

    @property
    def overfull(self) -> bool:
        """Tasks that overtook those at the window's end have made it too large; never during a refill."""
        return not self.refilling and (
            len(self._window) - self._head > WINDOW_TASKS_MAX + WINDOW_TASKS_MAX // 4
            or self.window_bytes > WINDOW_BYTES_MAX + WINDOW_BYTES_MAX // 4
        )

    @property
    def flow(self) -> tuple[str, bool]:
        """Lines of one flow are served by rank; between flows ranks say nothing."""
        return self.queue, self.fair

    def head_rank(self) -> int:
        """Return the rank of the first task in the window; there must be one."""
        return self._window[self._head].rank

    def head(self) -> Task:
        """Return the first task in the window; there must be one."""
        return self._window[self._head]

    def window(self) -> list[Task]:
        """Return the tasks in the window, in order."""
        return self._window[self._head :]

    @property
    def first(self) -> Task:
        """The first task in the window; there must be one."""
        return self._window[self._head]

    @property
    def last_priority(self) -> int | None:
        """The priority of the last task in the window; None: it is empty."""
        return self._window[-1].spec.priority if self.window_count else None

    def index_of(self, rank: int) -> int | None:
        """Return how many tasks of the line are before one of the window; None: it is not there."""
        window = self._window
        index = bisect_left(window, rank, self._head, key=_rank)
        return index - self._head if index < len(window) and window[index].rank == rank else None

    def note_granted(self, count: int, mono_ms: int) -> None:
        """Count what was granted."""
        if mono_ms - self.paced_ms >= PACE_MS:
            self.paced_before_ms, self.paced_before = self.paced_ms, self.paced
            self.paced_ms, self.paced = mono_ms, 0
        self.paced += count

    def note_served(self) -> None:
        """Note that its first task was granted that may have been stuck."""
        self.stuck, self.stuck_since_ms, self.keep_at_ms = -1, 0, 0

    def granted_per_ms(self, mono_ms: int) -> float:
        """Return how fast the line has moved of late; 0: not at all, or that is not known yet."""
        if not self.paced_ms or mono_ms - self.paced_ms >= 2 * PACE_MS:
            return 0.0
        is_near = self.paced_before_ms and self.paced_ms - self.paced_before_ms < 2 * PACE_MS
        since_ms = self.paced_before_ms if is_near else self.paced_ms
        count = self.paced + (self.paced_before if is_near else 0)
        return count / (mono_ms - since_ms) if mono_ms > since_ms else 0.0

    def add(self, task: Task, *, lean: bool = False) -> bool:
        """Count a task that has become ready; return whether it is now in the window: for ``lean``, see ``wanted``."""
        self.ready += 1
        window = self._window
        rank = task.rank
        most = LEAN_TASKS if lean else WINDOW_TASKS_MAX
        if self.complete and (len(window) - self._head >= most or self.window_bytes >= WINDOW_BYTES_MAX):
            self.complete = False
            self.tail = window[-1].rank
        if self.complete or rank <= self.tail:
            self.window_bytes += len(task.spec.payload) + len(task.details)
            if not window or rank > window[-1].rank:
                window.append(task)
            else:
                insort(window, task, self._head, key=_rank)
            return True
        if self.refilling:
            self._late[rank] = task
            self._removed.discard(rank)
        return False

    def extend(self, tasks: list[Task], *, lean: bool = False) -> int:
        """Count tasks of rising rank that have become ready; return how many, from the first, are in the window."""
        window = self._window
        count = len(tasks)
        if (
            not self.complete
            or len(window) - self._head + count > (LEAN_TASKS if lean else WINDOW_TASKS_MAX)
            or self.window_bytes >= WINDOW_BYTES_MAX
            or (window and tasks[0].rank < window[-1].rank)
        ):
            return sum([self.add(task, lean=lean) for task in tasks])
        self.ready += count
        self.window_bytes += sum([len(task.spec.payload) for task in tasks])
        window += tasks
        return count

    def take(self, count: int, below: int) -> list[Task]:
        """Take the first tasks out, at most ``count``, all of a rank under ``below``."""
        window, head = self._window, self._head
        end = min(head + count, len(window))
        if end > head and window[end - 1].rank >= below:
            end = bisect_left(window, below, head, end, key=_rank)
        taken = window[head:end]
        self.ready -= len(taken)
        self.window_bytes -= sum([len(task.spec.payload) + len(task.details) for task in taken])
        self._head = end
        if end * 2 >= len(window):
            del window[:end]
            self._head = 0
        return taken

    def remove(self, rank: int) -> Task | None:
        """Count a task out that left the line from its middle; return it if it was in the window."""
        self.ready -= 1
        window = self._window
        index = bisect_left(window, rank, self._head, key=_rank)
        if index < len(window) and window[index].rank == rank:
            task = window.pop(index)
            self.window_bytes -= len(task.spec.payload) + len(task.details)
            return task
        if self.refilling:
            self._late.pop(rank, None)
            self._removed.add(rank)
        elif self.ready == len(window) - self._head:
            self.complete = True  # that was all there was beyond the window
        return None

    def spill(self) -> list[Task]:
        """Shorten an overfull window from its end; return the tasks that are on disk only from now on."""
        window, head = self._window, self._head
        end = min(len(window), head + WINDOW_TASKS_MAX)
        spilled_bytes = sum([len(task.spec.payload) + len(task.details) for task in window[end:]])
        while end > head + 1 and self.window_bytes - spilled_bytes > WINDOW_BYTES_MAX:
            end -= 1
            spilled_bytes += len(window[end].spec.payload) + len(window[end].details)
        spilled = window[end:]
        if spilled:
            del window[end:]
            self.window_bytes -= spilled_bytes
            self.complete = False
            self.tail = window[-1].rank
        return spilled

    def start_refill(self, count: int) -> None:
        """Note that the disk is being read beyond the tail, for so many tasks."""
        self.refilling = count

    def refill(self, tasks: list[Task], *, last: bool) -> list[Task]:
        """Take in what was read beyond the tail; return those that are now in the window.

        Args:
            tasks: In order.
            last: The line ended with these when it was read.
        """
        self.refilling = 0
        reach = tasks[-1].rank if tasks else self.tail
        found = {task.rank: task for task in tasks if task.rank not in self._removed}
        found |= {rank: task for rank, task in self._late.items() if last or rank <= reach}
        self._late.clear()
        self._removed.clear()
        added = [found[rank] for rank in sorted(found)]
        self.complete = last
        self.tail = reach
        self._window.extend(added)
        self.window_bytes += sum([len(task.spec.payload) + len(task.details) for task in added])
        return added
