"""`taskd schedule preview` without a server: when a timing fires, and why where that is odd."""

import json

import pytest

from unit.cli.fake_client import Taskd

OSLO = ("schedule", "preview", "--cron", "30 2 * * *", "--tz", "Europe/Oslo")


@pytest.mark.parametrize(
    ("gap", "firings"),
    [
        (
            "next",
            [
                ("2026-03-28T01:30:00.000Z", ""),
                ("2026-03-29T01:00:00.000Z", "02:30 does not exist: at the first instant after the gap"),
                ("2026-03-30T00:30:00.000Z", ""),
            ],
        ),
        (
            "skip",
            [
                ("2026-03-28T01:30:00.000Z", ""),
                ("2026-03-30T00:30:00.000Z", ""),
                ("2026-03-31T00:30:00.000Z", ""),
            ],
        ),
        (
            "shift",
            [
                ("2026-03-28T01:30:00.000Z", ""),
                ("2026-03-29T01:30:00.000Z", "02:30 does not exist: later by 1 h"),
                ("2026-03-30T00:30:00.000Z", ""),
            ],
        ),
    ],
)
def test_a_gap_is_told_with_its_reason(taskd: Taskd, gap: str, firings: list[tuple[str, str]]) -> None:
    ended = taskd(*OSLO, "--from", "2026-03-28", "--count", "3", "--gap", gap, "--json")
    assert ended.code == 0
    assert json.loads(ended.out) == [{"at": at, "note": note} for at, note in firings]


def test_a_fold_is_told_with_its_reason(taskd: Taskd) -> None:
    ended = taskd(*OSLO, "--from", "2026-10-25T00:00", "--count", "2", "--fold", "both", "--json")
    assert json.loads(ended.out) == [
        {"at": "2026-10-25T00:30:00.000Z", "note": "02:30 comes twice: the first one"},
        {"at": "2026-10-25T01:30:00.000Z", "note": "02:30 comes twice: the second one"},
    ]


def test_what_a_gap_skips_is_told_to_people_and_to_scripts_that_ask(taskd: Taskd) -> None:
    """`--count` is of firings; without the flag a script sees them alone."""
    words = (*OSLO, "--from", "2026-03-28", "--count", "2", "--gap", "skip")
    _, first, skipped, last = taskd(*words).out.splitlines()
    assert first.startswith("2026-03-28T01:30:00.000Z  Sat 2026-03-28 02:30:00 +0100")
    assert skipped.split(maxsplit=4) == ["-", "Sun", "2026-03-29", "-", "02:30 does not exist: it does not fire"]
    assert last.startswith("2026-03-30T00:30:00.000Z  Mon 2026-03-30 02:30:00 +0200")
    assert len(json.loads(taskd(*words, "--json").out)) == 2
    assert json.loads(taskd(*words, "--json", "--skipped").out) == [
        {"at": "2026-03-28T01:30:00.000Z", "note": "", "skipped": False},
        {"at": "2026-03-29T01:00:00.000Z", "note": "02:30 does not exist: it does not fire", "skipped": True},
        {"at": "2026-03-30T00:30:00.000Z", "note": "", "skipped": False},
    ]


def test_people_see_both_clocks(taskd: Taskd) -> None:
    ended = taskd(*OSLO, "--from", "2026-03-29T00:00", "--count", "1")
    header, row = ended.out.splitlines()
    assert header == "UTC                       EUROPE/OSLO                    NOTE"
    assert row.startswith("2026-03-29T01:00:00.000Z  Sun 2026-03-29 03:00:00 +0200  02:30 does not exist: at the first")


def test_what_has_ended_fires_no_more(taskd: Taskd) -> None:
    ended = taskd("schedule", "preview", "--at", "2020-01-01T00:00Z")
    assert (ended.code, ended.out) == (0, "nothing fires any more\n")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ((), "say when: --cron LINE, --every TIME or --at INSTANT"),
        (("--cron", "0 0 30 2 *"), "names no day that there is"),
        (("--cron", "0 0 1--100000000 * *"), "cron field '1--100000000'"),
        (("--cron", "x" * 10_000), "10000 characters; one has at most 256"),
        (("--every", "0"), "exactly one of the three"),
        (("--cron", "@daily", "--tz", "Mars/Olympus"), "time zone 'Mars/Olympus' is unknown"),
        (("--cron", "@daily", "--from", "soon"), "'soon' is no instant"),
        (("--cron", "@daily", "--start", "2026-02-01", "--end", "2026-01-01"), "ends before it starts"),
        (("--cron", "@daily", "--gap", "jump"), "'jump' is not one of"),
        (("--cron", "@daily", "--start", "0001-01-01T00:00+14:00"), "UTC milliseconds"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(taskd: Taskd, words: tuple[str, ...], complaint: str) -> None:
    ended = taskd("schedule", "preview", *words)
    assert ended.code == 2
    assert complaint in ended.complaint
