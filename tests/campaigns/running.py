"""Runs the cases of a campaign, and writes down what they come to."""

import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

from campaigns.report import Found, Report, read_report, write_report

Case = Callable[[int, Path, Found], None]
"""Plays a case by its number in an empty folder; what it finds it notes, and an exception is a violation too."""


def run_anew(name: str, case: Case, numbers: Iterable[int]) -> Report:
    """Play cases whatever is known; the report is written unless there is one that knows more."""
    before = read_report(name)
    return _play(name, case, numbers, Report(commit=before.commit), writes=set(before.seeds) <= set(numbers))


def run_cases(
    name: str, case: Case, numbers: Iterable[int], *, seconds: float = float("inf"), until_broken: bool = False
) -> Report:
    """Play cases until all are played or the time is over; return what is known of the commit now.

    Args:
        name: Of the campaign, and so of its report.
        case: Plays one.
        numbers: Which; those that the report knows already are not played again.
        seconds: No case begins later.
        until_broken: None is played after one that has broken a promise.
    """
    report = read_report(name)
    return _play(name, case, numbers, report, writes=True, seconds=seconds, until_broken=until_broken)


def _play(
    name: str,
    case: Case,
    numbers: Iterable[int],
    report: Report,
    *,
    writes: bool,
    seconds: float = float("inf"),
    until_broken: bool = False,
) -> Report:
    known = set(report.seeds)
    began_s = time.perf_counter()
    for number in numbers:
        if number in known:
            continue
        if time.perf_counter() - began_s > seconds or (until_broken and report.violations):
            break
        case_began_s = time.perf_counter()
        report.add(run_case(name, case, number))
        report.seeds.append(number)
        report.wall_s += time.perf_counter() - case_began_s
        if writes:
            write_report(name, report)
    return report


def run_case(name: str, case: Case, number: int) -> Found:
    """Play one case."""
    found = Found()
    home = Path(tempfile.mkdtemp(prefix=f"taskd-{name}-{number}-"))
    try:
        case(number, home, found)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what the campaign was run for
        found.violations.append(_place(error))
    finally:
        shutil.rmtree(home, ignore_errors=True)
    again = f"make prove CAMPAIGN={name} FROM={number} TO={number}"
    found.violations = [f"{violation} | {again}" for violation in found.violations]
    return found


def _place(error: BaseException) -> str:
    """Say in one line what happened, and where."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    said = str(error) or (frames[-1].line if frames else "") or ""
    return f"{type(error).__name__} at {where}: {' '.join(said.split())[:300]}"
