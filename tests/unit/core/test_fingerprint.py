"""Fingerprints: what is the same failure seen again, and what is another one."""

import time

import pytest

from taskd.core.fingerprint import MESSAGE_CHARS, fingerprint_of, normalised, place_of
from taskd_protocol.task import Failure

TRACEBACK = """Traceback (most recent call last):
  File "/srv/venv/lib/python3.12/site-packages/taskd/agent/worker/call.py", line 88, in call
    return function(*args)
  File "/srv/app-v{version}/shop/images.py", line {line}, in thumbnail
    return resize(path)
  File "/srv/venv/lib/python3.12/site-packages/PIL/Image.py", line 3218, in open
    raise UnidentifiedImageError(message)
"""


def raised(message: str, *, kind: str = "app.Bad", version: int = 1, line: int = 7) -> Failure:
    return Failure("task.raised", message, kind, TRACEBACK.format(version=version, line=line))


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("no row 42 of 1,204 at 12:30", "no row <number> of <number> at <number>"),
        ("object at 0x7f12ab", "object at <hex>"),
        ("commit deadbeef01 is gone", "commit <hex> is gone"),
        ("user 0197c1a0-7d3c-7c4e-9f00-0123456789ab", "user <uuid>"),
        ("can't open 'a b.png' or \"c\"", "can't open <text> or <text>"),
        ("can't, won't, don't", "can't, won't, don't"),
        ("missing /var/lib/x.png here", "missing <path> here"),
        ("see https://example.org/a?b=1 now", "see <path> now"),
        ("read data/in.csv, then stop", "read <path>, then stop"),
        ("decade facade added", "decade facade added"),
        ("", ""),
    ],
)
def test_what_varies_from_task_to_task_is_replaced(message: str, expected: str) -> None:
    """Numbers, hexadecimal, UUIDs, quoted text and paths do not tell failures apart; words do."""
    assert normalised(message) == expected


def test_the_place_is_the_last_frame_of_the_users_own_code() -> None:
    """Libraries below it and the worker above it are passed over; line numbers and folders are not looked at."""
    assert place_of(TRACEBACK.format(version=1, line=7)) == "images.py:thumbnail"
    assert place_of('  File "/usr/lib/python3.12/json/decoder.py", line 3, in decode\n') == "decoder.py:decode"
    assert place_of('  | File "C:\\app\\jobs.py", line 3, in <module>\n') == "jobs.py:<module>"
    assert place_of("") == place_of("no traceback at all") == ""


def test_the_same_failure_has_one_fingerprint_and_another_has_another() -> None:
    """Type, place and message decide; where nothing was raised, the code stands for the type."""
    one = fingerprint_of(raised("no row 1"))
    assert len(one) == 16
    assert one == fingerprint_of(raised("no row 2", version=9, line=99))
    assert one != fingerprint_of(raised("no column 1"))
    assert one != fingerprint_of(raised("no row 1", kind="app.Worse"))
    assert one != fingerprint_of(Failure("task.raised", "no row 1", "app.Bad"))
    assert fingerprint_of(Failure("worker.killed", "x")) != fingerprint_of(Failure("worker.exited", "x"))
    assert fingerprint_of(raised("\ud800")) == fingerprint_of(raised("\ud800"))


@pytest.mark.parametrize("message", ["a." * 5_000, "'" * 9_999, "a/" * 5_000, "f" * 9_999, "-" * 9_999, "1," * 5_000])
def test_a_strangers_text_costs_a_bounded_time(message: str) -> None:
    """Only the beginning of a message is looked at, in a time that no text makes long."""
    begun = time.thread_time()
    assert normalised(message) == normalised(message[:MESSAGE_CHARS])
    assert time.thread_time() - begun < 0.5
