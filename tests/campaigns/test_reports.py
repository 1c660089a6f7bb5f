"""Reports add up case by case, and are compared with the goal without mercy."""

from pathlib import Path

import msgspec
import psutil
import pytest

import check_goal
from campaigns import report as reports
from campaigns.catalogue import Campaign
from campaigns.report import Report
from campaigns.running import run_anew, run_cases
from e2e.house import words_of

GOAL = check_goal.Goal("a test", {"pr": 4, "nightly": 4, "release": 9}, ops=2, faults={"cut": 1}, reached=["rare"])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(reports, "FOLDER", tmp_path)
    monkeypatch.setattr(check_goal, "REPORTS", tmp_path)
    set_commit(monkeypatch, "c0ffee")
    return tmp_path


def set_commit(monkeypatch: pytest.MonkeyPatch, commit: str) -> None:
    monkeypatch.setattr(reports, "current_commit", lambda: commit)


X = Campaign("campaigns.trial", 30)


def shortfalls(tier: check_goal.Tier, report: Report, commit: str = "c0ffee") -> list[str]:
    known = msgspec.convert(msgspec.to_builtins(report), check_goal.Report)
    return list(check_goal.shortfalls(GOAL, tier, known, commit))


def test_what_was_played_is_not_played_again() -> None:
    """Each case counts once, in whatever pieces a campaign is played."""
    assert run_cases("x", X, range(2)).seeds == [0, 1]
    report = run_cases("x", X, range(3))
    assert (report.seeds, report.ops, report.faults, report.reached) == ([0, 1, 2], 6, {"cut": 3}, {"rare": 1})
    assert run_cases("x", X, range(9), seconds=-1).seeds == [0, 1, 2]


def test_a_violation_is_a_line_that_plays_it_again() -> None:
    [line] = run_cases("x", X, [3]).violations
    assert line.startswith("case 3: AssertionError at trial.py:")
    assert line.endswith(": it is lost | make prove CAMPAIGN=x FROM=3 TO=3")


def test_a_case_that_hangs_breaks_a_promise_and_the_next_is_played() -> None:
    """It is ended with all that it has started; so is one that takes its process with it."""
    report = run_cases("x", Campaign("campaigns.trial", 2), [4, 5, 6, 7])
    assert report.seeds == [4, 5, 6, 7]
    hung, gone = report.violations
    assert hung.startswith("case 5: had not ended after 2 s: KeyboardInterrupt at subprocess.py:")
    assert gone.startswith("case 6: took its process with it, which ended with 9 | ")
    assert not [process for process in psutil.process_iter() if words_of(process) == ["sleep", "987654"]]


def test_cases_that_are_played_at_once_add_up() -> None:
    told: list[str] = []
    report = run_cases("x", X, range(4), at_once=3, tell=told.append)
    assert (sorted(report.seeds), report.ops, report.faults) == ([0, 1, 2, 3], 8, {"cut": 4})
    assert told == [f"x: {line}" for line in report.violations]


def test_a_test_plays_anew_and_takes_nothing_away() -> None:
    """A report that knows more stays as it is."""
    assert run_anew("x", X, range(2)).ops == 4
    assert run_anew("x", X, range(2)).ops == 4
    run_cases("x", X, range(3))
    assert run_anew("x", X, range(2)).seeds == [0, 1]
    assert reports.read_report("x").seeds == [0, 1, 2]


@pytest.mark.parametrize("commit", ["decade", "", "c0ffee+"])
def test_a_report_counts_for_its_own_commit(commit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is added to that of another one, of a changed tree, or of none."""
    set_commit(monkeypatch, commit)
    assert run_cases("x", X, range(2)).seeds == [0, 1]
    set_commit(monkeypatch, "c0ffee" if commit == "decade" else commit)
    assert run_cases("x", X, [2]).seeds == [2]


def test_the_goal_is_met_or_it_is_said_why_not() -> None:
    full = Report(commit="c0ffee", seeds=[0, 1, 2, 4], ops=8, faults={"cut": 4}, reached={"rare": 1})
    assert shortfalls("nightly", full) == []
    for change, tier, told in (
        ({"commit": "decade"}, "pr", "is of decade, not of c0ffee"),
        ({"commit": "c0ffee+"}, "pr", "is of c0ffee+, not of c0ffee"),
        ({}, "release", "5 cases are missing"),
        ({"ops": 7}, "pr", "7 operations are fewer than 8"),
        ({"faults": {"cut": 3}}, "pr", "3 faults of kind 'cut' are fewer than 4"),
        ({"reached": {}}, "nightly", "never reached: rare"),
        ({"reached": {"rare": 1, "other": 0}}, "nightly", "never reached: other"),
        ({"violations": ["lost"]}, "pr", "lost"),
    ):
        assert shortfalls(tier, msgspec.structs.replace(full, **change)) == [told]  # type: ignore[arg-type]
    assert shortfalls("pr", msgspec.structs.replace(full, reached={"rare": 0})) == []
    changed = msgspec.structs.replace(full, commit="c0ffee+")
    assert shortfalls("pr", changed, "c0ffee+") == ["is of no commit: the tree was changed since"]


def test_a_missing_report_is_no_proof() -> None:
    missing = check_goal.judge("x", GOAL, "pr", "c0ffee")
    assert missing.short == ["there is no report"]
    run_cases("x", X, [0, 1, 2, 4])
    known = check_goal.judge("x", GOAL, "pr", "c0ffee")
    assert known.short == []
    head, *lines = check_goal.table([known, missing])
    assert [line.split() for line in lines] == [
        ["x", "4", "of", "4", "8", "4", known.row[4], "yes", "a", "test"],
        ["x", "0", "of", "4", "no", "a", "test"],
        ["there", "is", "no", "report"],
    ]
    assert head.index("what is played") == lines[0].index("a test") == lines[1].index("a test")
