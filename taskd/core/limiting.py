"""Limiting: how many tasks of a queue, or of a name, are leased at a time, and how many begin in a time.

A line is of one queue and one name, so a pass asks once a line, and takes no more out of it than is left. What is
at its limit is passed over, and costs others nothing.

A rate is a bucket of tokens, one for each lease, that fills as the clock runs which never steps. It is counted in
whole numbers, a token as ``period_ms`` of them, so that nothing is lost by rounding.

Invariants:
- ``running`` of a gauge counts the leases of its queue or name; a lease counts until its agent has it no more.
- No pass takes more than is left: a limit is never exceeded, whatever else ends or fails. One that is lowered below
  what runs holds for what comes.
- What is left in a bucket is kept (``buckets``), over a restart, and while its limit is removed: so the rate holds.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from msgspec.structs import replace

from taskd.core import buckets, gates, records
from taskd.core.bounds import Gauge
from taskd.core.commands import LimitsChanged, Loaded, Now, RemoveLimit, SetLimit, SyncLimits
from taskd.core.lines import Task
from taskd.core.records import BucketRecord, Key, LimitRecord
from taskd.core.working import Working
from taskd_protocol.errors import BadRequest, LimitsFull, LimitUnknown
from taskd_protocol.explanation import Reason, Reasons
from taskd_protocol.limiting import QUEUE_PREFIX, TASK_PREFIX, Limit, check_limit
from taskd_protocol.limits import LIMITS_MAX
from taskd_protocol.task import check_name

UNBOUNDED: Final = 1 << 62
"""More than any line holds."""


def set_limit(w: Working, command: SetLimit, now: Now, loaded: Loaded) -> None:
    """Have a limit hold, as a person says.

    Raises:
        BadRequest: It is out of range.
        LimitsFull: There are too many.
        NeedRecords: What is left of its rate is to be looked up.
    """
    limit = replace(command.limit, source="")
    check_limit(limit)
    _check_room(w, [limit])
    w.need(_buckets_of(w, [limit]), loaded)
    _keep(w, limit, now, loaded)


def remove(w: Working, command: RemoveLimit) -> None:
    """Forget a limit.

    Raises:
        LimitUnknown: There is none of that name.
    """
    if command.name not in w.limits:
        raise LimitUnknown(f"no limit is named {command.name[:64]!r}; `taskd limit ls` lists them")
    _forget(w, command.name)


def sync(w: Working, command: SyncLimits, now: Now, loaded: Loaded) -> LimitsChanged:
    """Have the limits hold that a module's code says; what others have said of the same stays.

    Raises:
        BadRequest: One is out of range, or told twice.
        LimitsFull: There are too many.
        NeedRecords: What is left of their rates is to be looked up.
    """
    check_name("source", command.source)
    wanted = {limit.name: replace(limit, source=command.source) for limit in command.limits}
    if len(wanted) < len(command.limits):
        raise BadRequest(f"module {command.source[:64]!r} says two limits of one name")
    for limit in wanted.values():
        check_limit(limit)
    others = {name for name in wanted if (known := w.limits.get(name)) and known.limit.source != command.source}
    _check_room(w, [limit for name, limit in wanted.items() if name not in others])
    own = {name for name, gauge in w.limits.items() if gauge.limit.source == command.source}
    changed = [
        name
        for name, limit in wanted.items()
        if name not in others and ((known := w.limits.get(name)) is None or known.limit != limit)
    ]
    w.need(_buckets_of(w, [wanted[name] for name in changed]), loaded)
    for name in changed:
        _keep(w, wanted[name], now, loaded)
    removed = sorted(own - wanted.keys())
    for name in removed:
        _forget(w, name)
    return LimitsChanged(sorted(changed), removed, sorted(others))


def restore(w: Working, limits: Iterable[LimitRecord], kept: Mapping[bytes, BucketRecord], now: Now) -> None:
    """Take up what holds, with what is kept of buckets; leases are there already."""
    for record in limits:
        limit = record.limit
        gauge = w.limits[limit.name] = Gauge(limit, now.mono_ms)
        gauge.since_mono_ms = record.since_age_ms - w.age_ahead_ms
        bucket = kept.get(buckets.bucket_id(limit.name))
        if bucket is not None and limit.tokens:
            buckets.fill(gauge, buckets.of_record(w, bucket), now.mono_ms)
        elif limit.tokens and record.since_age_ms:  # else it is of a release that kept none: it begins empty
            gauge.level = gauge.full
    if w.limits:
        note_leased(w, (task for agent in w.agents.values() for task in agent.leases.values()))


def left(w: Working, queue: str, name: str, now: Now) -> int:
    """Return how many more tasks of a line may be leased now; if none, note when one may, should time tell that."""
    if w.is_paused(queue):
        return 0
    room = UNBOUNDED
    if w.limits:
        for limited in (QUEUE_PREFIX + queue, TASK_PREFIX + name):
            gauge = w.limits.get(limited)
            if gauge is not None:
                room = min(room, _left(w, gauge, now))
    return room


def take(w: Working, queue: str, name: str, count: int) -> None:
    """Count tasks of a line that are about to be leased; there was as much left."""
    for limited in (QUEUE_PREFIX + queue, TASK_PREFIX + name):
        gauge = w.limits.get(limited)
        if gauge is not None:
            gauge.running += count
            if gauge.limit.tokens:
                gauge.level -= count * gauge.limit.period_ms
                w.spent[buckets.bucket_id(limited)] = gauge


def note_leased(w: Working, tasks: Iterable[Task]) -> None:
    """Count leases that are there already."""
    for task in tasks:
        for limited in (QUEUE_PREFIX + task.spec.queue, TASK_PREFIX + task.spec.name):
            gauge = w.limits.get(limited)
            if gauge is not None:
                gauge.running += 1


def holds_back(w: Working, queue: str, name: str, now: Now) -> Reason | None:
    """Return what keeps a line back, whatever agents have, in the order in which the pass asks; None: nothing."""
    if w.is_paused(queue):
        return Reason(Reasons.PAUSED, queue)
    for limited in (QUEUE_PREFIX + queue, TASK_PREFIX + name):
        gauge = w.limits.get(limited)
        if gauge is None:
            continue
        if gauge.slots_left <= 0:
            return Reason(Reasons.CONCURRENCY, limited, count=gauge.running)
        wait_ms = _wait_ms(gauge, now)
        if wait_ms:
            return Reason(Reasons.RATE, limited, until_ms=now.wall_ms + wait_ms)
    return None


def rate_of(w: Working, queue: str, name: str, now: Now) -> tuple[float, int]:
    """Return how many of a line may begin in a ms, and in how many ms the first may; 0: no rate holds for it."""
    rates = [
        (gauge.limit.tokens / gauge.limit.period_ms, _wait_ms(gauge, now))
        for limited in (QUEUE_PREFIX + queue, TASK_PREFIX + name)
        if (gauge := w.limits.get(limited)) is not None and gauge.limit.tokens
    ]
    return (min(rate for rate, _ in rates), max(wait_ms for _, wait_ms in rates)) if rates else (0.0, 0)


def _left(w: Working, gauge: Gauge, now: Now) -> int:
    room = gauge.slots_left
    limit = gauge.limit
    if limit.tokens:
        gauge.level, gauge.at_mono_ms = gauge.level_at(now.mono_ms), now.mono_ms
        room = min(room, gauge.level // limit.period_ms)
        wait_ms = _wait_ms(gauge, now)
        if wait_ms:
            w.limits_wake_mono_ms = min(w.limits_wake_mono_ms, now.mono_ms + wait_ms)
    return max(0, room)


def _wait_ms(gauge: Gauge, now: Now) -> int:
    """Return how long it takes until there is a token; 0: there is one, or none is needed."""
    limit = gauge.limit
    if not limit.tokens:
        return 0
    return max(0, -((gauge.level_at(now.mono_ms) - limit.period_ms) // limit.tokens))


def _check_room(w: Working, limits: list[Limit]) -> None:
    if len(w.limits.keys() | {limit.name for limit in limits}) > LIMITS_MAX:
        raise LimitsFull(f"{len(w.limits):,} limits are kept, and no more than {LIMITS_MAX:,} can be; remove some")


def _buckets_of(w: Working, limits: Iterable[Limit]) -> list[Key]:
    """Return where it is told what is left of rates that are new: a limit that was removed had some, too."""
    new = [limit.name for limit in limits if limit.tokens and not limit.is_by_key]
    return [
        (records.BUCKET, buckets.bucket_id(name))
        for name in new
        if (known := w.limits.get(name)) is None or not known.limit.tokens
    ]


def _keep(w: Working, limit: Limit, now: Now, loaded: Loaded) -> None:
    known = w.limits.get(limit.name)
    gauge = w.limits[limit.name] = Gauge(limit, now.mono_ms)
    if known is not None and _rate_of(known.limit) == _rate_of(limit):
        gauge.since_mono_ms = known.since_mono_ms
    kept = loaded.get((records.BUCKET, buckets.bucket_id(limit.name)))
    if isinstance(kept, BucketRecord):
        buckets.fill(gauge, buckets.of_record(w, kept), now.mono_ms)
    elif known is None:
        gauge.level = gauge.full
    if known is None:
        note = (task for agent in w.agents.values() for task in agent.leases.values())
        gauge.running = sum(limit.name in (QUEUE_PREFIX + t.spec.queue, TASK_PREFIX + t.spec.name) for t in note)
    else:
        gauge.running = known.running
        was = known.limit  # a change fills no bucket
        if was.tokens:
            gauge.level = min(gauge.full, known.level_at(now.mono_ms) * limit.period_ms // was.period_ms)
            gauge.until_ms = known.until_ms
        elif not isinstance(kept, BucketRecord):
            gauge.level = gauge.full
    if limit.tokens and not limit.is_by_key:
        w.spent[buckets.bucket_id(limit.name)] = gauge
    since_age_ms = max(1, gauge.since_mono_ms + w.age_ahead_ms)
    w.put(records.LIMIT, limit.name.encode(), LimitRecord(limit, since_age_ms))
    gates.walk(w)


def _rate_of(limit: Limit) -> tuple[int, int, int]:
    return limit.tokens, limit.period_ms, limit.burst_tokens


def _forget(w: Working, name: str) -> None:
    del w.limits[name]
    w.delete(records.LIMIT, name.encode())
    gates.walk(w)
