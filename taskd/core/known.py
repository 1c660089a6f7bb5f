"""Known: which tasks of a submit are there already, so that work that is sent again is not done again.

A resend is known by its id; another submit of the same work by its key, or by the
claim to be the only one. Nothing is changed here: what must be read first is noted,
and what a new task displaces. Within one submit the first of a key or claim counts,
so that the submit comes to the same when it is sent again.
"""

import hashlib
from typing import Final

from taskd.core import lapses, records
from taskd.core.claims import claim_id
from taskd.core.commands import Loaded, Now
from taskd.core.lapses import key_of_id
from taskd.core.lifecycle import State
from taskd.core.records import Key, KeyRecord, Kind, SpecRecord, StateRecord, UniqueRecord
from taskd.core.working import Working
from taskd_protocol.errors import SubmitConflict, SubmitTooOld
from taskd_protocol.ids import TaskId, format_task_id, task_id_unix_ms
from taskd_protocol.task import TaskSpec, Unique


class Known:
    """What one look at one submit has come to; as long as ``needed`` is not all loaded, it is a guess.

    Attributes:
        needed: What must be loaded.
        keys: Of this submit: whose each is, with its digest.
        lapsed: Records that a new task replaces, with the instants of their LAPSE entries.
        displaced: Tasks that wait, and are to be cancelled for a new one.
    """

    def __init__(self, w: Working, owner: str, now: Now, loaded: Loaded) -> None:
        self.needed: Final[list[Key]] = []
        self.keys: Final[dict[str, tuple[bytes, bytes]]] = {}
        self.lapsed: Final[list[tuple[int, Kind, bytes]]] = []
        self.displaced: Final[list[bytes]] = []
        self._claims: dict[bytes, bytes] = {}
        self._w = w
        self._owner = owner
        self._now = now
        self._loaded = loaded

    def first_of(self, spec: TaskSpec, *, may_be_stored: bool) -> bytes | None:
        """Return the id of the task that this one turns out to be; None: it is new.

        Args:
            spec: A task of the submit.
            may_be_stored: Its id does not show that it is new.

        Raises:
            SubmitConflict: The id or key belongs to a task with other content.
            SubmitTooOld: The task may have been purged: whether it ran cannot be told.
        """
        start = len(self.needed)
        unique = spec.rules.unique
        if may_be_stored:
            self.needed.append((records.SPEC, spec.id))
            if self._is_resend(spec):
                if spec.key:
                    self.keys.setdefault(spec.key, (spec.id, digest_of(spec)))
                if unique is not None:
                    self._claims.setdefault(claim_id(spec, unique), spec.id)
                return spec.id
            if self._was_taken_away(spec):
                return spec.id
        if spec.key:
            first = self._of_key(spec)
            if first is not None:
                return first
        if may_be_stored and all(key in self._loaded for key in self.needed[start:]):
            self._refuse_purged(spec)
        return None if unique is None else self._of_claim(spec, unique)

    def _is_resend(self, spec: TaskSpec) -> bool:
        stored = self._loaded.get((records.SPEC, spec.id))
        if not isinstance(stored, SpecRecord):
            return False
        if stored.spec == spec and stored.owner == self._owner:
            return True
        raise SubmitConflict(f"task id {format_task_id(spec.id)} belongs to another task; make a new id for new work")

    def _was_taken_away(self, spec: TaskSpec) -> bool:
        if (records.SPEC, spec.id) not in self._loaded:
            return False  # first look whether it is there: mostly it is, and was sent again
        key = (records.KEY, key_of_id(spec.id))
        self.needed.append(key)
        stored = self._loaded.get(key)
        if not isinstance(stored, KeyRecord):
            return False
        if self._now.wall_ms >= stored.until_ms:
            raise _too_old()
        if stored.digest == digest_of(spec):
            return True
        raise SubmitConflict(f"task id {format_task_id(spec.id)} belonged to another task; make a new id for new work")

    def _refuse_purged(self, spec: TaskSpec) -> None:
        if task_id_unix_ms(TaskId(spec.id)) <= self._w.counters.purged_to_ms:
            raise _too_old()

    def _of_key(self, spec: TaskSpec) -> bytes | None:
        name = spec.key.encode()
        self.needed.append((records.KEY, name))
        digest = digest_of(spec)
        first = self.keys.get(spec.key)
        stored = self._loaded.get((records.KEY, name))
        if first is None and isinstance(stored, KeyRecord):
            if self._now.wall_ms < stored.until_ms:
                first = (stored.task_id, stored.digest)
            else:
                self.lapsed.append((stored.until_ms, records.KEY, name))
        if first is None:
            self.keys[spec.key] = (spec.id, digest)
            return None
        if first[1] != digest:
            raise SubmitConflict(f"key {spec.key[:64]!r} belongs to another task; the same key means the same work")
        return first[0]

    def _of_claim(self, spec: TaskSpec, unique: Unique) -> bytes | None:
        claim = claim_id(spec, unique)
        first = self._claims.get(claim)
        if first is not None:
            return first
        key = (records.UNIQUE, claim)
        self.needed.append(key)
        stored = self._loaded.get(key)
        if isinstance(stored, UniqueRecord):
            if not stored.until_ms or self._now.wall_ms < stored.until_ms:
                if not (unique.replace and self._waits(stored.task_id)):
                    return stored.task_id
                self.displaced.append(stored.task_id)
            if stored.until_ms:
                self.lapsed.append((stored.until_ms, *key))
        self._claims[claim] = spec.id
        return None

    def _waits(self, task_id: bytes) -> bool:
        if self._w.tells_all_of(task_id):
            return not self._w.tasks[task_id].token
        keys: list[Key] = [(records.SPEC, task_id), (records.STATE, task_id)]
        self.needed.extend(keys)
        spec, state = (self._loaded.get(key) for key in keys)
        if not isinstance(spec, SpecRecord):
            return False
        return not isinstance(state, StateRecord) or state.state in {State.READY, State.SCHEDULED}


def keep_id(w: Working, spec: TaskSpec, now: Now) -> None:
    """Keep the id of a task that a person has taken away as long as a key: so long it may be sent again.

    That ids up to it are old, as after the retention's time, would refuse new tasks.
    """
    if task_id_unix_ms(TaskId(spec.id)) > w.counters.purged_to_ms:
        key, until_ms = key_of_id(spec.id), now.wall_ms + w.settings.key_retention_ms
        w.put(records.KEY, key, KeyRecord(spec.id, digest_of(spec), now.wall_ms, until_ms))
        lapses.start(w, until_ms, records.KEY, key)


def _too_old() -> SubmitTooOld:
    return SubmitTooOld("the id is older than what is kept, so it may have run already; submit it under a new id")


def digest_of(spec: TaskSpec) -> bytes:
    """Return the 16 bytes that a key stands for: the work, not how it is to be run."""
    digest = hashlib.blake2b(digest_size=16)
    for part in (spec.name.encode(), spec.queue.encode(), spec.payload):
        digest.update(len(part).to_bytes(4, "big"))
        digest.update(part)
    return digest.digest()
