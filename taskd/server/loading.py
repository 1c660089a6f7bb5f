"""Loading: records that the core asks for, as they stand when it gets them.

A read takes time, and turns go on meanwhile. Whatever is staged or decided between
the read's start and the moment at which the core gets the records is laid over
what was read, so that the core always sees its own newest word.
"""

from collections.abc import Iterable, Mapping, Sequence

import structlog

from taskd.core import lapses, records
from taskd.core.commands import (
    DropLapsed,
    LineEntry,
    Loaded,
    RefillTimers,
    RefillWindow,
    StepJob,
    SweepFair,
    TakeGate,
    TakeGates,
)
from taskd.core.effects import WantFair, WantFinished, WantGate, WantGates, WantLapsed, WantLine, WantTasks, WantTimers
from taskd.core.gates import GATE_BYTES
from taskd.core.lines import RANK_BYTES, ready_id
from taskd.core.records import (
    BucketRecord,
    Damaged,
    FairRecord,
    Key,
    Kind,
    Mutation,
    Record,
    SpecRecord,
    StateRecord,
    Value,
)
from taskd.core.working import Working
from taskd.server.selecting import count_to_read, select
from taskd.store import codec
from taskd.store.interface import Store
from taskd_protocol.errors import StoreCorrupt
from taskd_protocol.ids import TASK_ID_BYTES

log = structlog.get_logger("taskd.server")

BARE = frozenset(
    {
        records.READY,
        records.TIMER,
        records.RESULT,
        records.DEAD,
        records.DETAILS,
        records.LAPSE,
        records.OPEN,
        records.SIGNAL,
        records.PARKED,
        records.HELD,
    }
)
"""Kinds whose values are bytes, not records."""

SET_ASIDE = frozenset({records.WORKFLOW, records.NODES, records.NODE, records.SCHEDULE})
"""Kinds of which a record that cannot be read stops what it belongs to, and nothing else."""

PAGE = 5_000
"""Entries read at once of what a gate holds."""

PASSED_OVER_MAX = 100_000
"""Entries looked at for one answer: some tenths of a second, in a thread."""

TOLD_MAX = 1_000
"""Of these records, that are told in the log once."""

Found = Mapping[Key, Value]
"""What was read, as it stood then."""


class Loader:
    """Reads for the core, and for sessions."""

    def __init__(self, store: Store, working: Working) -> None:
        self._store = store
        self._working = working
        self._wanted: dict[Key, int] = {}  # by how many open reads
        self._decided: dict[Key, Value] = {}  # of those, what was decided since the first of them opened
        self._unstaged: dict[Key, Value] = {}
        self._told: dict[Key, None] = {}
        self._noted = 0

    @property
    def reading(self) -> bool:
        """A read is open."""
        return bool(self._wanted)

    def begin_turn(self) -> None:
        """Begin to note a turn's mutations."""
        self._noted = 0

    def open(self, keys: Sequence[Key]) -> None:
        """Begin a read whose records will be taken: of what is decided from here on, nothing will be missed."""
        wanted = self._wanted
        for key in dict.fromkeys(keys):
            wanted[key] = wanted.get(key, 0) + 1
            if key in self._unstaged:
                self._decided[key] = self._unstaged[key]
        self._noted = 0  # what this turn decided before is not in the store yet

    def note(self, mutations: Sequence[Mutation]) -> None:
        """Remember what this turn has decided so far, of what is being read."""
        wanted = self._wanted
        if wanted:
            for kind, record_id, value in mutations[self._noted :]:
                if (kind, record_id) in wanted:
                    self._decided[kind, record_id] = value
        self._noted = len(mutations)

    def hold(self, mutations: Sequence[Mutation]) -> None:
        """Remember all that was decided and cannot be staged yet: reads that open meanwhile do not find it."""
        self._unstaged = {(kind, record_id): value for kind, record_id, value in mutations}

    def let_go(self) -> None:
        """What was held is in the store now."""
        self._unstaged = {}

    def take(self, found: Found) -> Loaded:
        """End a read: return its records as they stand now."""
        self.note(self._working.mutations)
        decided = self._decided
        taken = {key: decided.get(key, value) for key, value in found.items()}
        self.close(found)
        return taken

    def close(self, keys: Iterable[Key]) -> None:
        """End a read."""
        wanted = self._wanted
        for key in dict.fromkeys(keys):
            if wanted[key] > 1:
                wanted[key] -= 1
            else:
                del wanted[key]
                self._decided.pop(key, None)

    async def read_now(self, keys: Sequence[Key]) -> Loaded:
        """Read records as they stand when this returns: beside what is in memory then, they contradict nothing.

        Raises:
            StoreCorrupt: A value is not what was written.
        """
        self.open(keys)
        try:
            found = await self.read(keys)
        except BaseException:
            self.close(keys)
            raise
        return self.take(found)

    async def read(self, keys: Sequence[Key]) -> dict[Key, Value]:
        """Read records by key.

        Raises:
            StoreCorrupt: A value is not what was written; ``SET_ASIDE`` are ``Damaged`` then.
        """
        values = await self._store.load(keys)
        return {
            key: value if value is None or key[0] in BARE else self.decode(*key, value)
            for key, value in zip(keys, values, strict=True)
        }

    def decode(self, kind: Kind, record_id: bytes, value: bytes) -> Record | Damaged:
        """Read one record; of those that may be set aside, one that cannot be read is told in the log.

        Raises:
            StoreCorrupt: It is none of these, and not what was written.
        """
        try:
            return codec.decode(kind, record_id, value)
        except StoreCorrupt as error:
            if kind not in SET_ASIDE:
                raise
            if (kind, record_id) not in self._told and len(self._told) < TOLD_MAX:
                self._told[kind, record_id] = None
                log.error("record cannot be read", reason=error.message)  # noqa: TRY400 - the reason says all
            return Damaged(error.message)

    async def read_line(self, want: WantLine) -> RefillWindow:
        """Read a line beyond its window."""
        found = await self._store.scan(
            records.READY,
            want.line,
            after=ready_id(want.line, want.after) if want.after >= 0 else b"",
            limit=want.limit,
        )
        entries, is_all = await self._read_up_to(found, want.bytes_max)
        return RefillWindow(want.line, entries, last=is_all and len(found) < want.limit)

    async def _read_entries(self, found: Sequence[tuple[bytes, bytes]]) -> list[LineEntry]:
        """Read the tasks of READY entries."""
        ids = [task_id for _, task_id in found]
        loaded = await self.read([(kind, task_id) for task_id in ids for kind in (records.SPEC, records.STATE)])
        telling = [key[1] for key, state in loaded.items() if isinstance(state, StateRecord) and state.has_details]
        details = await self.read([(records.DETAILS, task_id) for task_id in telling])
        entries = []
        for ready, task_id in found:
            spec, state = loaded[records.SPEC, task_id], loaded[records.STATE, task_id]
            if isinstance(spec, SpecRecord):
                rank = int.from_bytes(ready[-RANK_BYTES:], "big")
                told = details.get((records.DETAILS, task_id))
                entries.append(
                    LineEntry(
                        rank,
                        spec,
                        state if isinstance(state, StateRecord) else None,
                        told if isinstance(told, bytes) else b"",
                    )
                )
        return entries

    async def read_gate(self, want: WantGate) -> TakeGate:
        """Read who is parked at a gate, and, unless that is counted, who holds it."""
        held: list[tuple[bytes, int]] = []
        if want.held_after is not None:
            page = await self._store.scan(records.HELD, want.gate, after=want.held_after, limit=PAGE)
            held = [(record_id[GATE_BYTES:], int.from_bytes(places, "big")) for record_id, places in page]
            if len(page) == PAGE:
                return TakeGate(gate=want.gate, held=held, counted=False, entries=(), last=False)
        found, over, reached, is_end = await self._scan_parked(want)
        bucket = (await self.read([(records.BUCKET, want.gate)]))[records.BUCKET, want.gate]
        entries, is_all = await self._read_up_to(found, want.bytes_max)
        if not is_all:
            reached = entries[-1].rank if entries else -1
        return TakeGate(
            gate=want.gate,
            held=held,
            counted=True,
            entries=entries,
            last=is_all and is_end,
            reached=reached,
            over=list(over),
            bucket=bucket if isinstance(bucket, BucketRecord) else None,
        )

    async def _scan_parked(self, want: WantGate) -> tuple[list[tuple[bytes, bytes]], dict[bytes, None], int, bool]:
        """Return who is parked, but those to be passed over; the lines of these; how far that goes; if it is all."""
        found: list[tuple[bytes, bytes]] = []
        over: dict[bytes, None] = {}
        after, looked_at, limit = want.after, 0, want.limit
        passed_over = frozenset(want.over)
        while True:
            page = await self._store.scan(records.PARKED, want.gate, after=after, limit=limit)
            for parked, value in page:
                after = parked
                line = value[TASK_ID_BYTES:]
                if line in passed_over:
                    over[line] = None
                    continue
                found.append((parked, value[:TASK_ID_BYTES]))
                if len(found) == want.limit:
                    break
            looked_at += len(page)
            is_end = len(page) < limit and (not page or after == page[-1][0])
            if is_end or len(found) == want.limit or looked_at >= PASSED_OVER_MAX:
                reached = int.from_bytes(after[-RANK_BYTES:], "big") if looked_at else -1
                return found, over, reached, is_end
            limit = PAGE  # many of one line may stand here one after another

    async def _read_up_to(self, found: Sequence[tuple[bytes, bytes]], bytes_max: int) -> tuple[list[LineEntry], bool]:
        """Read the tasks of READY entries until there are so many bytes; return whether those are all."""
        entries: list[LineEntry] = []
        read = read_bytes = 0
        while read < len(found) and read_bytes < bytes_max:
            count = count_to_read(read, read_bytes, bytes_max)
            for entry in await self._read_entries(found[read : read + count]):
                entries.append(entry)
                read_bytes += len(entry.spec.spec.payload) + len(entry.details)
            read += count
        return entries, read >= len(found)

    async def read_gates(self, want: WantGates) -> TakeGates:
        """Find the next gates at which something is parked."""
        gates: list[bytes] = []
        after = want.after
        while len(gates) < want.limit:
            beyond = after + b"\xff" * RANK_BYTES if after else b""
            found = await self._store.scan(records.PARKED, after=beyond, limit=1)
            if not found:
                return TakeGates(walk=want.walk, gates=gates, last=True)
            after = found[0][0][:GATE_BYTES]
            gates.append(after)
        return TakeGates(walk=want.walk, gates=gates, last=False)

    async def read_timers(self, want: WantTimers) -> RefillTimers:
        """Read timers beyond the cursor."""
        found = await self._store.scan(records.TIMER, after=want.after, limit=want.limit)
        within = [(timer, int.from_bytes(length, "big")) for timer, length in found if timer <= want.until]
        return RefillTimers(within, last=len(within) < want.limit)

    async def read_finished(self, want: WantFinished) -> list[bytes]:
        """Read the oldest FINISHED ids that are from before the instant."""
        found = await self._store.scan(records.FINISHED, after=want.after, limit=want.limit)
        return [finished for finished, _ in found if int.from_bytes(finished[:8], "big") < want.before_ms]

    async def read_lapsed(self, want: WantLapsed) -> DropLapsed:
        """Read the oldest LAPSE ids that are of no later than the instant."""
        found = await self._store.scan(records.LAPSE, limit=want.limit)
        return DropLapsed([lapse for lapse, _ in found if lapses.record_of(lapse)[0] <= want.until_ms])

    async def read_fair(self, want: WantFair) -> SweepFair:
        """Read some ends of fair keys."""
        found = await self._store.scan(records.FAIR, after=want.after, limit=want.limit)
        ends = [(end_id, codec.decode_as(FairRecord, records.FAIR, end_id, value)) for end_id, value in found]
        return SweepFair(ends, last=len(found) < want.limit)

    async def read_tasks(self, want: WantTasks) -> StepJob:
        """Read the next tasks that a bulk job is to look at."""
        piece = await select(
            self._store, want.filter, want.after, want.limit, bytes_max=want.bytes_max, until_ms=want.until_ms
        )
        return StepJob(
            job=want.job,
            after=want.after,
            found=[(candidate.cursor, candidate.id) for candidate in piece.found],
            looked_at=piece.looked_at,
            cursor=piece.cursor,
            last=piece.last,
        )
