"""Claims: that of one piece of work there is one task at a time, for as long as its submit asked.

Which work it is says the task's name with its arguments, or with a key of the user's.
Claims of different modes know nothing of each other. A claim begins with the submit,
and ends by its mode:

- ``queued``: with the first lease, or the end before it. A task that goes back to line has
  none: what was submitted since is another one's, and stands.
- ``running``: with the task's end, whatever attempts come before it.
- ``window``: so long after the submit, whatever becomes of the task.

A task that is retried by hand after its end claims anew in the first two modes.

Invariants:
- A task whose claim holds (``is_held``) has its UNIQUE record; any other record there counts until an instant.
"""

import hashlib
from collections.abc import Mapping, Sequence

from taskd.core import lapses, records
from taskd.core.commands import Loaded, Now
from taskd.core.lifecycle import TERMINAL, State
from taskd.core.lines import Task
from taskd.core.records import Key, SpecRecord, UniqueRecord
from taskd.core.working import Working
from taskd_protocol.task import QUEUED, RUNNING, WINDOW, TaskSpec, Unique

_WAITS = frozenset({State.READY, State.SCHEDULED})


def claim_id(spec: TaskSpec, unique: Unique) -> bytes:
    """Return the UNIQUE id of a task's claim: the same for all that would do the same work."""
    digest = hashlib.blake2b(digest_size=16, person=unique.mode.encode())
    what = b"key" + unique.key.encode() if unique.key else b"arguments" + spec.payload
    for part in (spec.name.encode(), what):
        digest.update(len(part).to_bytes(4, "big"))
        digest.update(part)
    return digest.digest()


def is_held(unique: Unique, state: str, attempt: int, revived_attempt: int) -> bool:
    """Tell whether a task's claim holds by what the task is; one for a time holds by that alone.

    Args:
        unique: Of its spec.
        state: Its own.
        attempt: Leases granted so far.
        revived_attempt: Those before it was last retried after its end.
    """
    if unique.mode == QUEUED:
        return state in _WAITS and attempt == revived_attempt
    return unique.mode == RUNNING and state not in TERMINAL


def begin(w: Working, spec: TaskSpec, unique: Unique, now: Now) -> None:
    """Write the claim of a task that is submitted, or retried after its end; nobody else's holds."""
    until_ms = now.wall_ms + unique.window_ms if unique.mode == WINDOW else 0
    claim = claim_id(spec, unique)
    w.put(records.UNIQUE, claim, UniqueRecord(spec.id, until_ms))
    if until_ms:
        lapses.start(w, until_ms, records.UNIQUE, claim)


def note_grant(w: Working, task: Task, unique: Unique) -> None:
    """End the claim of a task that is about to be leased, if that ends it."""
    if unique.mode == QUEUED and task.attempt == task.revived_attempt:
        w.delete(records.UNIQUE, claim_id(task.spec, unique))


def note_end_waiting(w: Working, spec: TaskSpec, unique: Unique, attempt: int, revived_attempt: int) -> None:
    """End the claim of a task that waited until now and has ended, unless it had none any more."""
    if is_held(unique, State.READY, attempt, revived_attempt):
        w.delete(records.UNIQUE, claim_id(spec, unique))


def note_end_leased(w: Working, spec: TaskSpec, unique: Unique) -> None:
    """End the claim of a task that was leased until now and has ended."""
    if unique.mode == RUNNING:
        w.delete(records.UNIQUE, claim_id(spec, unique))


def to_claim_anew(specs: Sequence[SpecRecord]) -> dict[bytes, Key]:
    """Return the UNIQUE records that must be loaded before these tasks, which have ended, are retried; by task."""
    return {
        record.spec.id: (records.UNIQUE, claim_id(record.spec, unique))
        for record in specs
        if (unique := record.spec.rules.unique) is not None and unique.mode != WINDOW
    }


def holders(claims: Mapping[bytes, Key], loaded: Loaded) -> dict[bytes, bytes]:
    """Return those of the tasks that must not be retried since another does their work, with that other's id.

    Args:
        claims: Of ``to_claim_anew``.
        loaded: With the records of ``claims``.
    """
    held: dict[bytes, bytes] = {}
    taken: dict[Key, bytes] = {}
    for task_id, key in claims.items():
        record = loaded[key]
        holder = record.task_id if isinstance(record, UniqueRecord) else taken.setdefault(key, task_id)
        if holder != task_id:
            held[task_id] = holder
    return held
