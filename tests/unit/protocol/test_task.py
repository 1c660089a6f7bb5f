"""What a task may look like: every field's range, and the error that names it."""

import pytest

from harness.specs import changed
from taskd_protocol import limits
from taskd_protocol.errors import BadRequest, PayloadTooLarge
from taskd_protocol.task import Retry, TaskSpec, check_name, check_spec, check_specs

TASK_ID = bytes.fromhex("019aa8a95c007abc8def0123456789ab")
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
LONGEST = "n" * limits.NAME_CHARS_MAX


def spec(**fields: object) -> TaskSpec:
    return changed(TaskSpec(TASK_ID, "app.add"), **fields)


@pytest.mark.parametrize(
    "good",
    [
        spec(),
        spec(name=LONGEST, queue=LONGEST, key=LONGEST),
        spec(name="größe.messen ✓"),
        spec(payload=bytes(100)),
        spec(priority=limits.PRIORITY_MIN, delay_ms=limits.DELAY_MS_MAX),
        spec(priority=limits.PRIORITY_MAX, traceparent=TRACE),
        spec(headers={}),
        spec(headers={f"h{number}": "" for number in range(limits.HEADERS_MAX)}),
        spec(headers={"user": "ü" * (limits.HEADERS_CHARS_MAX - 4)}),
        spec(retry=Retry()),
        spec(retry=Retry(limits.MAX_ATTEMPTS_MAX, 0, 1000.0, 0, 0.0)),
        spec(retry=Retry(1, limits.DELAY_MS_MAX, 1.0, limits.DELAY_MS_MAX, 1.0)),
    ],
)
def test_good_specs(good: TaskSpec) -> None:
    """The ends of every range are inside it."""
    check_spec(good, payload_bytes_max=100)


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        (spec(id=b""), "id"),
        (spec(id=TASK_ID[:15]), "id"),
        (spec(id=TASK_ID + b"\0"), "id"),
        (spec(id=bytes(16)), "id"),
        (spec(name=""), "name"),
        (spec(name=LONGEST + "n"), "name"),
        (spec(name="a\nb"), "name"),
        (spec(name="a\x00b"), "name"),
        (spec(name="\u202eevil"), "name"),
        (spec(queue=""), "queue"),
        (spec(queue="\t"), "queue"),
        (spec(key=LONGEST + "n"), "key"),
        (spec(key="a\x1b[31m"), "key"),
        (spec(priority=limits.PRIORITY_MIN - 1), "priority"),
        (spec(priority=limits.PRIORITY_MAX + 1), "priority"),
        (spec(delay_ms=-1), "delay"),
        (spec(delay_ms=limits.DELAY_MS_MAX + 1), "delay"),
        (spec(timeout_ms=-1), "timeout"),
        (spec(ttl_ms=limits.DELAY_MS_MAX + 1), "ttl"),
        (spec(ttl_ms=5, delay_ms=5), "ttl"),
        (spec(deadline_ms=5, delay_ms=6), "deadline"),
        (spec(timeout_ms=5, soft_timeout_ms=5), "soft_timeout"),
        (spec(heartbeat_ms=limits.TASK_HEARTBEAT_MS_MIN - 1), "heartbeat"),
        (spec(traceparent="00-abc"), "traceparent"),
        (spec(traceparent=TRACE + "0"), "traceparent"),
        (spec(traceparent="ff" + TRACE[2:]), "traceparent"),
        (spec(traceparent="é" * 55), "traceparent"),
        (spec(headers={f"h{number}": "" for number in range(limits.HEADERS_MAX + 1)}), "headers"),
        (spec(headers={"user": "u" * (limits.HEADERS_CHARS_MAX - 3)}), "headers"),
        (spec(headers={"a\nb": ""}), "header name"),
        (spec(retry=Retry(0)), "max_attempts"),
        (spec(retry=Retry(limits.MAX_ATTEMPTS_MAX + 1)), "max_attempts"),
        (spec(retry=Retry(base_ms=-1)), "base"),
        (spec(retry=Retry(max_ms=limits.DELAY_MS_MAX + 1)), "max"),
        (spec(retry=Retry(factor=0.5)), "factor"),
        (spec(retry=Retry(factor=float("nan"))), "factor"),
        (spec(retry=Retry(factor=float("inf"))), "factor"),
        (spec(retry=Retry(jitter=-0.1)), "jitter"),
        (spec(retry=Retry(jitter=1.1)), "jitter"),
        (spec(retry=Retry(crash_limit=0)), "crash_limit"),
        (spec(retry=Retry(on=[""])), "exception type"),
        (spec(retry=Retry(on=["x" * 200] * 3, not_on=["y" * 200] * 3)), "1024 characters"),
        (spec(retry=Retry(jitter=float("nan"))), "jitter"),
    ],
)
def test_bad_specs(bad: TaskSpec, named: str) -> None:
    """A field out of its range is named, in one printable line."""
    with pytest.raises(BadRequest) as caught:
        check_spec(bad, payload_bytes_max=100)
    assert named in caught.value.message
    assert caught.value.message.isprintable()


def test_one_bad_spec_among_good_ones() -> None:
    """Specs that are checked together are refused if one is out of range, wherever it stands and whatever it lacks."""
    good = spec()
    check_specs([good, good], payload_bytes_max=100)
    for bad, named in [(spec(name=""), "task name"), (spec(queue=""), "queue"), (spec(priority=101), "priority")]:
        for specs in ([bad, good, good], [good, bad, good], [good, good, bad]):
            with pytest.raises(BadRequest, match=named):
                check_specs(specs, payload_bytes_max=100)


def test_large_payload() -> None:
    """A payload over the limit is its own error, and says what to do instead."""
    with pytest.raises(PayloadTooLarge, match=r"101 bytes; the limit is 100.*pass a reference"):
        check_spec(spec(payload=bytes(101)), payload_bytes_max=100)


def test_names_are_not_repeated_whole() -> None:
    """A hostile name does not fill a log line."""
    with pytest.raises(BadRequest) as caught:
        check_name("queue", "x" * 1_000_000)
    assert len(caught.value.message) < 200
