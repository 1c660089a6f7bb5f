"""S21: what is told of what happens is all that is stored of it, once, over every crash, and to each who looks on."""

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from simulation.checkers.checker import Checker
from simulation.journal import NOTHING, Standing
from simulation.tap import Conversation
from taskd.core.events import RUNNING, SUBMITTED, TASK, EventsRecord
from taskd.core.lifecycle import TRANSITIONS, State
from taskd.core.records import EVENTS, LeaseRecord
from taskd.core.workflow_records import WorkflowRecord
from taskd.store.keys import make_key
from taskd_protocol.event_messages import EventPage, EventsFollow
from taskd_protocol.messages import Message

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from simulation.world import World

Fact = tuple[int, str, str, int, tuple[bytes, ...]]
"""An event as it can be compared: number, what, name, attempt, ids."""

_QUIET_S = 5.0
"""Nothing has moved for so long: the history has a point that says so."""


class Told(Checker):
    """Holds the server's journal beside the ledger, batch by batch, and what readers are told beside the journal."""

    promise = "S21"

    def __init__(self, world: "World") -> None:
        super().__init__(world)
        self._audience = "audience" in world.plan.features
        self._facts: dict[int, list[Fact]] = {}  # of every record that ever was durable
        self._newest = 0
        self._of_life: Counter[str] = Counter()
        self._of_all: Counter[str] = Counter()
        self._lives = 0
        self._moved_s = 0.0
        self._places: WeakKeyDictionary[Conversation, dict[int, int]] = WeakKeyDictionary()
        self._begin_batch()

    def _begin_batch(self) -> None:
        self._moves: dict[bytes, tuple[Standing, Standing]] = {}
        self._leases: Counter[bytes] = Counter()
        self._flows: list[tuple[str, bytes]] = []
        self._record: EventsRecord | None = None

    # -- the batch and its record -----------------------------------------------------------

    def leased(self, task_id: bytes, lease: LeaseRecord, over: LeaseRecord | None) -> None:
        self._leases[task_id] += 1

    def moved(self, task_id: bytes, before: Standing, after: Standing) -> None:
        self._moves[task_id] = before, after

    def flow_moved(self, workflow: bytes, before: WorkflowRecord | None, after: WorkflowRecord | None) -> None:
        if after is not None and (before is None or before.state != after.state):
            self._flows.append((f"workflow.{after.state}", workflow))

    def journaled(self, number: int, record: EventsRecord | None) -> None:
        if record is None:
            return
        if number != self._newest + 1 or self._record is not None:
            self.broken(f"event record {number} became durable after {self._newest}")
        self._newest, self._record = number, record
        self._facts[number] = [(number, e.what, e.name, e.attempt, tuple(e.ids)) for e in record.moved]
        self._facts[number] += [(number, e.what, e.name, 0, (e.id,) if e.id else ()) for e in record.noted]
        happened = Counter({what: 0 for _, what, *_ in self._facts[number]})
        for event in record.moved:
            happened[event.what] += len(event.ids)
        self._of_life += happened
        self._of_all += happened

    def committed(self) -> None:
        if self._audience:
            self._compare()
        self._begin_batch()

    def _compare(self) -> None:
        told: dict[bytes, list[tuple[str, int]]] = {task_id: [] for task_id in self._moves}
        noted: list[tuple[str, bytes]] = []
        if self._record is not None:
            self._moved_s = self.world.server.clock.mono_ns() / 1e9
            noted = [(event.what, event.id) for event in self._record.noted]
            for event in self._record.moved:
                for task_id in event.ids:
                    told.setdefault(task_id, []).append((event.what, event.attempt))
        for task_id, events in told.items():
            self._compare_task(task_id, events)
        for change in self._flows:
            if noted.count(change) != 1:
                self.broken(f"{change[1].hex()} became {change[0]}, which was told {noted.count(change)} times")

    def _compare_task(self, task_id: bytes, events: "Sequence[tuple[str, int]]") -> None:
        before, after = self._moves.get(task_id) or (self.world.journal.find(task_id),) * 2
        if after == NOTHING and events:
            self.broken(f"{events} was told of {task_id.hex()}, which is not stored")
        begun = [attempt for what, attempt in events if what == RUNNING]
        if len(begun) != self._leases[task_id] or begun[-1:] not in ([], [after.attempt]):
            self.broken(f"{task_id.hex()} began {self._leases[task_id]} attempts, and was told to begin {begun}")
        ways = [before.name, *[what.removeprefix(TASK) for what, _ in events if what.startswith(TASK)]]
        if after != NOTHING and not _is_way(ways, after.name):
            self.broken(f"{task_id.hex()} went from {before.name!r} to {after.name!r}, told as {events}")

    # -- who looks on -----------------------------------------------------------------------

    def heard(self, conversation: Conversation, message: Message) -> None:
        if isinstance(message, EventsFollow):
            self._places.setdefault(conversation, {})[message.request_id] = message.after

    def said(self, conversation: Conversation, message: Message) -> None:
        if isinstance(message, EventPage):
            places = self._places[conversation]
            after = places[message.request_id]
            if message.missed:
                self._check_missed(after + 1)
            self._compare_page(after, message)
            places[message.request_id] = message.after

    def looked_on(self, after: int, page: EventPage) -> None:
        self._compare_page(after, page)

    def _compare_page(self, after: int, page: EventPage) -> None:
        """Compare what is told beyond a place with what is durable."""
        if page.after > self._newest:
            self.broken(f"event {page.after} was told, and {self._newest} is the last that is durable")
        told = [(each.number, each.what, each.name, each.attempt, tuple(each.ids)) for each in page.events]
        if page.missed:
            after = told[0][0] - 1 if told else page.after
        happened = [fact for number in range(after + 1, page.after + 1) for fact in self._facts.get(number, ())]
        if told != happened:
            wrong = {*told} ^ {*happened}
            self.broken(
                f"a reader was told {len(told)} events from {after} to {page.after}, of {len(happened)}: {wrong}"
            )

    def _check_missed(self, number: int) -> None:
        """Look whether a record that a reader is said to have missed is kept no longer, or about to go."""
        self.world.reach("a reader was told that it had missed some")
        if make_key(EVENTS, number.to_bytes(8, "big")) in self.world.server.disk._values:
            self.broken(f"a reader was told that it had missed event {number}, which is kept")

    # -- what is counted --------------------------------------------------------------------

    def recovered(self) -> None:
        self._of_life.clear()
        self._lives += 1

    def looked(self, calm_s: float) -> None:
        """Compare what is counted, and the history, with the ledger, once nothing has moved for some time."""
        serving = self.world.server.serving
        quiet_s = self.world.server.clock.mono_ns() / 1e9 - self._moved_s
        if not self._audience or serving is None or serving.services.watch is None:
            return
        if quiet_s < _QUIET_S or self.world.journal.staged_count:
            return
        moved = serving.services.loop.tally.all.moved
        if moved != {what: count for what, count in self._of_life.items() if count}:
            self.broken(f"{moved} was counted since the start, of {self._of_life}")
        points = serving.services.watch.history.points("15m")
        last = points[-1]
        stand = Counter(standing.name for standing in self.world.journal.tasks.values())
        held = stand[State.RUNNING] + stand[State.CANCELLING]
        shown = last.ready, last.scheduled, last.blocked, last.running
        if shown != (stand[State.READY], stand[State.SCHEDULED], stand[State.BLOCKED], held):
            self.broken(f"the history shows {shown} of {stand}")
        submitted = sum([point.submitted for point in points])
        if (
            "wall-clock" not in self.world.plan.faults
            and not moved.get(SUBMITTED, 0) <= submitted <= self._of_all[SUBMITTED]
        ):
            self.broken(f"the history shows {submitted} submits of {self._of_all[SUBMITTED]}")
        self.world.reach("the history agreed with the ledger when all was quiet")


def _is_way(states: "Iterable[str]", end: str) -> bool:
    """Tell whether each state follows from the one before by the table, up to the end."""
    states = list(states)
    if SUBMITTED.removeprefix(TASK) in states[1:]:
        rest = states[2:]
        states = [end if not rest else _first(rest[0]), *rest]
    steps = all(State(after) in TRANSITIONS[State(before) if before else None] for before, after in pairwise(states))
    return steps and states[-1] == end


def _first(after: str) -> str:
    """Return how a task was submitted that went there next."""
    return State.READY if State(after) in TRANSITIONS[State.READY] else State.SCHEDULED
