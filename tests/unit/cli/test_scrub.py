import json

import pytest

from taskd.cli.scrub import OTHER, SECRET, TEXT, Scrubber

TOKEN = "taskd_admin_abcdefghijkl_Xq3vR8sT1uW5yZ7aB9cD2eF4gH6jK0mN_0badcafe"
AT = "2026-11-29T16:00:00.123456Z"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"token {TOKEN}.", f"token taskd_admin_abcdefghijkl_{SECRET}."),
        ("taskd-join-AbC_123-xyz", f"taskd-join-{SECRET}"),
        ("taskd://tok@db.example:7070?ca=/x", f"taskd://db.example:7070/{SECRET}"),
        ("postgres://ann:p@ss/w0rd@db/shop", f"postgres://db/{SECRET}"),
        ("https://hooks.example/T0/B1/abc?x=1 ", f"https://hooks.example/{SECRET} "),
        ("http://127.0.0.1:7071 is ready", "http://127.0.0.1:7071 is ready"),
        ("see http://[::1]:7071.", "see http://[::1]:7071"),
        ("Authorization: Bearer abc.def", f"Authorization: {SECRET}"),
        ("bearer abcdef123", f"bearer {SECRET}"),
        ('{"db_password": "hunter2", "port": 1}', f'{{"db_password": {SECRET}, "port": 1}}'),
        ("API_KEY='a b c' x", f"API_KEY={SECRET} x"),
        ("-----BEGIN EC PRIVATE KEY-----\nMHc\nAQ==\n-----END EC PRIVATE KEY-----\nrest", f"{SECRET}\nrest"),
        ("cut -----BEGIN PRIVATE KEY-----\nMHc", f"cut {SECRET}"),
        ("AKIAIOSFODNN7EXAMPLE and wJalrXUtnFEMI/K7MDENGbPxRfiCYEXAMPLEKEY", f"{SECRET} and wJalrXUtnFEMI/{SECRET}"),
        ("task 01989d8e-0000-7abc-8def-0123456789ab of shop.thumbnail", None),
        ("test_what_helps_is_in_it0 in taskd-debug-20261129", None),
        ("12,345 MiB free at /var/lib/taskd, good for 364 days", None),
    ],
)
def test_text_keeps_what_is_no_secret(text: str, left: str | None) -> None:
    assert Scrubber().text(text) == (text if left is None else left)


def test_secrets_that_are_known_go_wherever_they_stand() -> None:
    scrubber = Scrubber(["correct horse", "", "abc"])
    assert scrubber.text("the correct horse of abc") == f"the {SECRET} of abc"
    assert scrubber.document({"a correct horse": ["correct horse", 1, None, {"b": True}]}) == {
        f"a {SECRET}": [SECRET, 1, None, {"b": True}]
    }


def test_a_json_line_keeps_names_and_numbers() -> None:
    line = {
        "task": "01989d8e-0000-7abc-8def-0123456789ab",
        "attempt": 2,
        "error": "ValueError: hunter2",
        "level": "warning",
    }
    left = json.loads(Scrubber().log(json.dumps({**line, "event": "attempt_failed", "timestamp": AT})))
    assert left == {**line, "error": TEXT, "event": "attempt_failed", "timestamp": AT}


def test_a_line_for_people_keeps_the_same() -> None:
    line = (
        f"{AT} [\x1b[33mwarning\x1b[0m  ] attempt_failed      attempt=2 error='it said \\'x=1\\' hunter2' task='shop'"
    )
    assert Scrubber().log(line) == f"{AT} [warning] attempt_failed attempt=2 error={TEXT} task=shop\n"


def test_a_reason_is_kept_where_taskd_gave_it() -> None:
    ours = json.dumps({"event": "server_away", "reason": "nobody answers at 127.0.0.1:7070"})
    theirs = json.dumps({"event": "worker_not_started", "reason": "KeyError: hunter2"})
    assert "nobody answers" in Scrubber().log(ours)
    assert json.loads(Scrubber().log(theirs))["reason"] == TEXT


def test_a_library_may_say_anything() -> None:
    left = json.loads(Scrubber().log(json.dumps({"event": "GET hunter2", "logger": "urllib3"})))
    assert left == {"event": TEXT, "logger": "urllib3"}


@pytest.mark.parametrize(
    "event", ["paid with 4242424242", "GET /reset?code=hunter2", "Hunter", "x" * 9 + "=1", "a b" * 9]
)
def test_what_happened_is_told_in_words_of_taskd(event: str) -> None:
    assert json.loads(Scrubber().log(json.dumps({"event": event}))) == {"event": TEXT}
    assert json.loads(Scrubber().log(json.dumps({"event": "agent in quarantine"}))) == {"event": "agent in quarantine"}


def test_of_a_traceback_the_way_is_left() -> None:
    traceback = [
        "Traceback (most recent call last):",
        '  File "/srv/shop.py", line 3, in charge',
        '    raise ValueError("hunter2")',
        "shop.DeclinedError: hunter2",
        "  + Exception Group Traceback (most recent call last):",
        '  |   File "/srv/a.py", line 1, in <module>',
        "  | ExceptionGroup: hunter2",
        "hunter2",
    ]
    assert Scrubber().log("\n".join(traceback)).splitlines() == [
        "Traceback (most recent call last):",
        '  File "/srv/shop.py", line 3, in charge',
        OTHER,
        "shop.DeclinedError",
        OTHER,
        '  |   File "/srv/a.py", line 1, in <module>',
        "  | ExceptionGroup",
        OTHER,
    ]


@pytest.mark.parametrize("line", ["{", "{}", "[1]", '{"event": 3}', "{" * 100_000, "\x00\xff", f"{AT} hunter2"])
def test_what_only_looks_like_a_line_of_ours_is_left_out(line: str) -> None:
    assert Scrubber().log(line) == f"{OTHER}\n"
