"""Middleware between real processes: a user id goes from submitter to task, errors of attempts go to a reporter."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.house import House, house, wait_until

MODULE = """
import asyncio
from contextvars import ContextVar
from pathlib import Path

from taskd import App, Retry
from taskd.middleware import AttemptError, Carry, ReportErrors

user: ContextVar[str] = ContextVar("user")


def report(what: AttemptError) -> None:
    with Path("errors.txt").open("a") as errors:
        print(what.context.name, what.context.attempt, user.get("nobody"), repr(what.error), file=errors)


app = App(middleware=[Carry(user), ReportErrors(report)])


@app.task
def whose() -> str:
    return user.get("nobody")


@app.task
async def later() -> str:
    await asyncio.sleep(0)
    return user.get("nobody")


@app.task
async def child() -> str:
    return await (await whose.asubmit()).aresult()


@app.task(retry=Retry(max_attempts=2, base=0.01))
def fail() -> None:
    raise LookupError("no such order")
"""

SUBMITTER = """
import shop
from taskd import TaskFailed

handles = [shop.whose.submit(), shop.later.submit()]
shop.user.set("u-1")
handles += [shop.whose.submit(), shop.later.submit(), shop.child.submit()]
print(*[handle.result(30) for handle in handles])
try:
    shop.fail.submit().result(30)
except TaskFailed as failed:
    print(failed.type, failed.attempt, "middleware" in failed.traceback)
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path / "home") as made:
        (made.work / "shop.py").write_text(MODULE)
        (made.work / "submitter.py").write_text(SUBMITTER)
        yield made


def test_user_and_errors_cross_the_processes(home: House) -> None:
    """Sync, async, and what a task submits: each knows whose it is. Each failed attempt is reported, where it ran."""
    home.serve("--data-dir", "one")
    home.start("agent", "shop", "--processes", "1")
    submitter = subprocess.run(
        [sys.executable, "submitter.py"],
        env=home.env,
        cwd=home.work,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert submitter.returncode == 0, submitter.stderr
    assert submitter.stdout.splitlines() == ["nobody nobody u-1 u-1 u-1", "builtins.LookupError 2 False"]
    errors = home.work / "errors.txt"
    line = "shop.fail {} u-1 LookupError('no such order')"
    assert wait_until(errors.read_text).splitlines() == [line.format(1), line.format(2)]
