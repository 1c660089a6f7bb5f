"""Buckets: the tokens that rates have left, which are kept on disk over restarts, and over a limit's removal.

A bucket that is full is the same as none: so a record is written when a token is taken, and goes, by a LAPSE, when it
would be full again. Time is told by the store's age: how long its servers have run. It never steps, and stands still
while there is none, so that no clock that is set forward meanwhile fills anything.

A limit may change while nobody has a bucket in memory. So a record tells by what rate it fills, and a limit since when
it has its rate: before that the old one counts.

Invariants:
- A token is taken in the batch of the lease that takes it: a crash loses both, or neither.
- Each BUCKET has one LAPSE, at its ``until_ms``.
"""

from typing import Final

from taskd.core import lapses, records
from taskd.core.bounds import Bucket, Gate, Gauge
from taskd.core.commands import Now
from taskd.core.records import AgeRecord, BucketRecord
from taskd.core.working import Working
from taskd_protocol.limiting import Limit

MICRO: Final = 1_000_000
"""Levels are told in millionths of a token; what rounds, rounds to less."""

KEPT_MS: Final = 60_000
"""A record is looked at no sooner after it is written, to be taken away."""

_NAME_PREFIX: Final = bytes(17)
"""Longer than the id of a gate: what begins so is the bucket of a limit that has no keys."""


def bucket_id(name: str) -> bytes:
    """Return the BUCKET id of a limit of a queue or a task name; that of a key is its gate's."""
    return _NAME_PREFIX + name.encode()


def made(limit: Limit, level: int, mono_ms: int) -> Bucket:
    """Return a bucket that is not stored, which holds so much at an instant."""
    return Bucket(level, mono_ms, (limit.tokens, limit.period_ms, limit.burst_tokens))


def of_record(w: Working, record: BucketRecord) -> Bucket:
    """Return a bucket that was read."""
    at_mono_ms = record.at_age_ms - w.age_ahead_ms
    return Bucket(record.level, at_mono_ms, (record.tokens, record.period_ms, record.burst), record.until_ms)


def level_at(bucket: Bucket, mono_ms: int) -> int:
    """Return what it holds by its own rate."""
    gone_ms = max(0, mono_ms - bucket.at_mono_ms)
    return min(bucket.burst * MICRO, bucket.level + gone_ms * bucket.tokens * MICRO // bucket.period_ms)


def settle(bucket: Bucket | None, gauge: Gauge, mono_ms: int) -> Bucket:
    """Return a bucket as it is by the limit's rate; None: it was full, and no token is missing."""
    limit = gauge.limit
    if bucket is None:
        return made(limit, limit.burst_tokens * MICRO, mono_ms)
    if (bucket.tokens, bucket.period_ms, bucket.burst) != (limit.tokens, limit.period_ms, limit.burst_tokens):
        since_ms = max(bucket.at_mono_ms, min(gauge.since_mono_ms, mono_ms))
        bucket.level, bucket.at_mono_ms = level_at(bucket, since_ms), since_ms
        bucket.tokens, bucket.period_ms, bucket.burst = limit.tokens, limit.period_ms, limit.burst_tokens
    return bucket


def take(w: Working, gate: Gate, gauge: Gauge, tokens: int, mono_ms: int) -> None:
    """Take tokens out of a gate's bucket, for an attempt that begins; who passed the gate had them set aside.

    Of a gate that was not read since a start it is not known how many there are. There were as many as its tasks in
    line had passed for; no more are taken to be there than this one's, so that the rate holds.
    """
    if gate.bucket is None:
        gate.bucket = made(gauge.limit, tokens * MICRO, mono_ms)
    bucket = settle(gate.bucket, gauge, mono_ms)
    bucket.level, bucket.at_mono_ms = level_at(bucket, mono_ms) - tokens * MICRO, mono_ms
    w.spent[gate.id] = bucket


def wait_ms(bucket: Bucket, tokens: int, mono_ms: int) -> int:
    """Return how long it takes until it holds so many; 0: it does."""
    missing = tokens * MICRO - level_at(bucket, mono_ms)
    return 0 if missing <= 0 else -(-missing * bucket.period_ms // (bucket.tokens * MICRO))


def of_gauge(gauge: Gauge) -> Bucket:
    """Return a gauge's bucket."""
    limit = gauge.limit
    bucket = made(limit, gauge.level * MICRO // limit.period_ms, gauge.at_mono_ms)
    bucket.until_ms = gauge.until_ms
    return bucket


def fill(gauge: Gauge, bucket: Bucket, mono_ms: int) -> None:
    """Have a gauge begin with what a bucket holds that was kept."""
    level = level_at(bucket, mono_ms) * gauge.limit.period_ms // MICRO
    gauge.level, gauge.at_mono_ms, gauge.until_ms = min(gauge.full, level), mono_ms, bucket.until_ms


def write(w: Working, now: Now) -> None:
    """Have the turn write what tokens were taken of."""
    for record_id, spent in w.spent.items():
        bucket = of_gauge(spent) if isinstance(spent, Gauge) else spent
        if not bucket.until_ms:
            _keep_until(w, record_id, bucket, now)
            spent.until_ms = bucket.until_ms
        _put(w, record_id, bucket)
    w.spent.clear()
    w.put(records.META, b"age", AgeRecord(now.mono_ms + w.age_ahead_ms))


def lapse(w: Working, record_id: bytes, record: BucketRecord, now: Now) -> None:
    """Take a bucket away if it is full again; else have it looked at when it would be. Its LAPSE is gone."""
    gate = w.gates.known.get(record_id)
    gauge = w.limits.get(record_id.removeprefix(_NAME_PREFIX).decode()) if record_id.startswith(_NAME_PREFIX) else None
    live: Bucket | Gauge | None = gauge if gauge is not None and gauge.limit.tokens else None
    if gate is not None:
        if gate.bucket is None:
            gate.bucket = of_record(w, record)  # that is newer than what may be under way
        live = gate.bucket
    bucket = of_gauge(live) if isinstance(live, Gauge) else live or of_record(w, record)
    if level_at(bucket, now.mono_ms) >= bucket.burst * MICRO:
        w.delete(records.BUCKET, record_id)
        bucket.until_ms = 0
    else:
        _keep_until(w, record_id, bucket, now)
        _put(w, record_id, bucket)
    if live is not None:
        live.until_ms = bucket.until_ms


def _keep_until(w: Working, record_id: bytes, bucket: Bucket, now: Now) -> None:
    bucket.until_ms = now.wall_ms + max(KEPT_MS, wait_ms(bucket, bucket.burst, now.mono_ms))
    lapses.start(w, bucket.until_ms, records.BUCKET, record_id)


def _put(w: Working, record_id: bytes, bucket: Bucket) -> None:
    at_age_ms = bucket.at_mono_ms + w.age_ahead_ms
    record = BucketRecord(bucket.level, at_age_ms, bucket.tokens, bucket.period_ms, bucket.burst, bucket.until_ms)
    w.put(records.BUCKET, record_id, record)
