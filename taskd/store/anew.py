"""Anew: a store that may lack what was acknowledged begins a history of its own.

After a restore, or when a damaged log was cut back, what the lost part held is not known:
attempts that it granted may still run, tokens that it gave may be shown, and peers may
have been told of commits that are not there.

Invariants of what comes out:
- Its lineage is new: no mark of the old history counts.
- No attempt number that the lost part can have given is given again, nor is a token.
- Every lease is of an attempt that no agent knows, so that agents drop theirs, and the task runs again.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from msgspec.structs import replace
from rocksdict import Rdict

from taskd.core import expiry
from taskd.core.attempts import attempt_id
from taskd.core.lifecycle import State
from taskd.core.records import ATTEMPT, LEASE, META, SPEC, STATE, TIMER, EpochRecord, Mutation, SpecRecord, StateRecord
from taskd.core.timers import timer_id
from taskd.store import engine
from taskd.store.codec import decode_as, encode
from taskd.store.keys import LINEAGE_KEY, make_key
from taskd.store.stored_tasks import StoredTask, read_tasks
from taskd_protocol.errors import TaskdError

ATTEMPTS_JUMP: Final = 1 << 20
"""Attempts that one task can have had in the lost part of the history, and will not."""

EPOCHS_JUMP: Final = 1 << 20
"""Starts that the lost part can have had, each at most one epoch above the clock: twelve days of a clock that was
ahead, too. 32 bits hold two thousand restores more."""

BATCH_TASKS: Final = 1_000
"""Changed by one batch: a few MB."""

_OVER: Final = frozenset({State.SUCCEEDED})
"""Any other task that has ended may have been given another chance since."""


def begin_anew(
    database: Rdict, path: Path, *, lineage: bytes, now_ms: int, progress: Callable[[int], None] = lambda _: None
) -> None:
    """Make a store of today's format, which nobody has served yet, one of its own lineage; durable at the return.

    Cut short, it is neither: work on a copy.

    Args:
        database: Open, nobody else writes.
        path: Its folder, for messages.
        lineage: 16 random bytes.
        now_ms: UTC milliseconds.
        progress: Told now and then how many tasks were looked at.

    Raises:
        StoreCorrupt: A record is not what was written.
        StoreFailed: The disk refuses.
    """
    seen = 0
    tasks = read_tasks(database, (SPEC, STATE, LEASE))
    try:
        while chunk := list(islice(tasks, BATCH_TASKS)):
            database.write(engine.batch_of(encode([*_jumped(chunk), *_moved_attempts(database, chunk)])))
            seen += len(chunk)
            progress(seen)
        [stored] = engine.get_many(database, [make_key(META, b"epoch")])
        epoch = 0 if stored is None else decode_as(EpochRecord, META, b"epoch", stored).epoch
        begun = EpochRecord(max(epoch, now_ms // 1000) + EPOCHS_JUMP)
        database.write(engine.batch_of([*encode([(META, b"epoch", begun)]), (LINEAGE_KEY, lineage)]))
        database.flush()
    except TaskdError:
        raise
    except Exception as error:  # noqa: BLE001 - rocksdict has no narrower class
        raise engine.translate(error, path) from None


def _jumped(tasks: list[StoredTask]) -> Iterator[Mutation]:
    """Yield what becomes of the tasks that may be granted again."""
    for task in tasks:
        if task.lease is not None:
            yield LEASE, task.id, replace(task.lease, attempt=task.lease.attempt + ATTEMPTS_JUMP)
        elif task.last is not None and task.last.state not in _OVER:
            yield STATE, task.id, replace(task.last, attempt=task.last.attempt + ATTEMPTS_JUMP)
            if task.spec is not None and not task.last.attempt and not task.has_ended:
                yield from _begun(task.spec, task.last.revived_at_ms)
        elif task.last is None and task.spec is not None:  # it waits where its submit put it
            yield STATE, task.id, StateRecord(State.READY, ATTEMPTS_JUMP, 0, 0, "", 0)
            yield from _begun(task.spec, 0)


def _moved_attempts(database: Rdict, tasks: list[StoredTask]) -> Iterator[Mutation]:
    """Yield what is kept of the attempts of those tasks, under the numbers that go on to the next one."""
    kept = [(task.id, attempt) for task in tasks if task.state not in _OVER for attempt in task.attempts_kept]
    values = engine.get_many(database, [make_key(ATTEMPT, attempt_id(*which)) for which in kept])
    for (task_id, attempt), value in zip(kept, values, strict=True):
        yield ATTEMPT, attempt_id(task_id, attempt), None
        if value is not None:
            yield ATTEMPT, attempt_id(task_id, attempt + ATTEMPTS_JUMP), value


def _begun(spec: SpecRecord, revived_at_ms: int) -> Iterator[Mutation]:
    """Yield what changes of the limit of a task that may have begun since: what it had until then is over."""
    since_ms = revived_at_ms or spec.created_at_ms
    before, after = (expiry.limit_at_ms(spec.spec, since_ms, attempt) for attempt in (0, ATTEMPTS_JUMP))
    if before != after:
        yield TIMER, timer_id(before, spec.spec.id), None
        if after:
            yield TIMER, timer_id(after, spec.spec.id), (after - since_ms).to_bytes(8, "big")
