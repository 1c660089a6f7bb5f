"""An editor knows what a task takes and what it returns: mypy accepts the right, and refuses each wrong line."""

import re
from pathlib import Path

import pytest
from mypy import api

PROGRAM = """
from contextvars import ContextVar
from typing import assert_type

from taskd import App, Child, MapItem, NodeRef, Resources, Retry, TaskdError
from taskd import TaskHandle, WorkflowRun, as_completed, current
from taskd.client.task import AsyncTask, SyncTask
from taskd.middleware import Carry, ReportErrors
from taskd.testing import LocalServer, Recorded, StartServer, inline, recording, server

app = App()


@app.task
def thumbnail(path: str, size: int = 256) -> str:
    return path


@app.task(queue="images", retry=Retry(max_attempts=5, base=1.0, max=300.0))
def measure(path: str) -> tuple[int, int]:
    return 1, 2


@app.task(resources=Resources(cpu=2, memory="1GiB") | Resources(gpu="a100:2", license=1), labels={"zone": ["a", "b"]})
def train(rate: float) -> float:
    return rate


@app.task(batch=100, wait=0.05)
def embed(texts: list[str]) -> list[tuple[float, float]]:
    return [(0.0, 0.0) for _ in texts]


@app.task(batch=100, queue="gpu")
def check(texts: list[str]) -> list[int | Exception]:
    return [1]


@app.task(batch=100)
async def aembed(texts: list[str]) -> list[float]:
    return [0.0]


@app.task
async def fetch(url: str) -> bytes:
    return b""


@app.task(priority=3)
async def crawl(*urls: str, depth: int) -> list[str]:
    return []


def plain() -> None:
    assert_type(thumbnail("a.png"), str)
    assert_type(thumbnail.submit("a.png", size=64), TaskHandle[str])
    assert_type(thumbnail.submit("a.png").result(timeout=30), str)
    assert_type(thumbnail.options(priority=9, delay=60, key="k").submit("b.png"), TaskHandle[str])
    assert_type(measure.submit("a.png").result(), tuple[int, int])
    assert_type(measure.map(["a", "b"]), list[TaskHandle[tuple[int, int]]])
    assert_type(fetch.submit("u").result(), bytes)
    assert_type(crawl.submit("u", "v", depth=2).result(), list[str])
    assert_type(train.options(labels=["cores>=8"], prefers={"disk=ssd": 5}, min_life=60).submit(0.1), TaskHandle[float])
    assert_type(embed.submit("a text"), TaskHandle[tuple[float, float]])
    assert_type(embed.map(["a", "b"]), list[TaskHandle[tuple[float, float]]])
    assert_type(check.submit("a").result(), int)
    assert_type(aembed.submit("a").result(), float)
    assert_type(app.handle("x").result(), object)
    for handle in as_completed(measure.map(["a"])):
        assert_type(handle.result(), tuple[int, int])
    mixed: list[TaskHandle[object]] = [thumbnail.submit("a"), fetch.submit("u")]
    for one in as_completed(mixed, timeout=5):
        assert_type(one, TaskHandle[object])


def parents() -> None:
    me = current()
    child = me.spawn(thumbnail, "a.png", size=64)
    assert_type(child, Child[str])
    assert_type(child.result(), str)
    assert_type(me.wait([me.spawn(fetch.options(priority=1), "u")]), list[bytes])
    assert_type(me.wait([child], return_errors=True), list[str | TaskdError])
    assert_type(me.wait(), list[object])


def flows() -> None:
    with app.workflow("report", policy="fail_fast") as wf:
        raw = fetch.node("u", compensate=measure, after=[], may_fail=True)
        assert_type(raw, NodeRef[bytes])
        sizes = measure.node.map(["a", "b"], in_flight=5, only_if=raw.equals(b"x"))
        assert_type(sizes, NodeRef[list[tuple[int, int]]])
        assert_type(thumbnail.options(priority=1).node(raw, size=sizes), NodeRef[str])
        assert_type(wf.value(3), NodeRef[int])
        again = crawl.node.with_(name="again", compensate=lambda ref: fetch.node(ref))("u", depth=raw)
        wf.on_failure(again, wf.sleep(3), wf.signal("go", timeout=5))
    run = wf.submit()
    assert_type(run, WorkflowRun)
    assert_type(run.result(raw), bytes)
    assert_type(run.result(sizes, timeout=3), list[tuple[int, int]])
    assert_type(run.result("by name"), object)
    assert_type(run.partial(sizes), list[MapItem[tuple[int, int]]])
    assert_type(app.workflow_run("x").wait(), str)


async def aflows() -> None:
    with app.workflow("report") as wf:
        raw = fetch.node("u")
    run = await wf.asubmit()
    assert_type(await run.aresult(raw), bytes)
    assert_type(await run.await_(), str)


def in_tests(taskd_server: StartServer) -> None:
    app.middleware(Carry(ContextVar[str]("user")), ReportErrors(print))
    assert_type(taskd_server(app, concurrency=2), LocalServer)
    with server(app, real_time=True) as local, inline(app), recording(app) as recorded:
        assert_type(local, LocalServer)
        assert_type(recorded.of(thumbnail), list[Recorded])


async def in_a_loop() -> None:
    assert_type(await fetch("u"), bytes)
    assert_type(await thumbnail.asubmit("a.png"), TaskHandle[str])
    assert_type(await (await fetch.asubmit("u")).aresult(), bytes)
    assert_type(await crawl.amap(["u"]), list[TaskHandle[list[str]]])
    assert_type(await (await thumbnail.asubmit("a")).acancel(), str)
    async for handle in as_completed([await fetch.asubmit("u")]):
        assert_type(await handle.aresult(), bytes)
"""

WRONG = {
    "thumbnail.submit(1)": r'Argument 1 to "submit" .* incompatible type "int"; expected "str"',
    'thumbnail.submit("a", "b")': r'Argument 2 to "submit" .* incompatible type "str"; expected "int"',
    'thumbnail.submit("a", siez=64)': r'Unexpected keyword argument "siez" for "submit"',
    "thumbnail.submit()": r'Missing positional argument "path" in call to "submit"',
    "thumbnail.options(priority=1).submit(1)": r'Argument 1 to "submit" .* incompatible type "int"',
    "measure.submit(2.5)": r'Argument 1 to "submit" .* incompatible type "float"',
    'fetch.submit(b"u")': r'Argument 1 to "submit" .* incompatible type "bytes"',
    'crawl.submit("u")': r'Missing named argument "depth"',
    "thumbnail(5)": r'Argument 1 to "__call__" .* incompatible type "int"',
    'number: int = thumbnail.submit("a").result()': r'Incompatible types in assignment \(expression has type "str"',
    'size: str = measure.submit("a").result()': r'Incompatible types .* type "tuple\[int, int\]"',
    'body: str = fetch.submit("u").result()': r'Incompatible types in assignment \(expression has type "bytes"',
    "thumbnail.map(5)": r'Argument 1 to "map" .* incompatible type "int"',
    'thumbnail.options(queue=5).submit("a")': r'Argument "queue" to "options" .* incompatible type "int"',
    "current().spawn(thumbnail, 1)": r'Argument 2 to "spawn" .* incompatible type "int"; expected "str"',
    "app.task(retry=3)": r"No overload variant",
    "train.options(resources=2)": r'Argument "resources" to "options" .* incompatible type "int"',
    "train.options(labels=[2])": r'List item 0 has incompatible type "int"; expected "str"',
}


def check(tmp_path: Path, source: str) -> list[str]:
    """Return what mypy, as strict as it gets, says of a program."""
    program = tmp_path / "program.py"
    program.write_text(source)
    config = tmp_path / "mypy.ini"
    config.write_text("[mypy]\nstrict = true\n")
    out, problems, _ = api.run(
        ["--config-file", str(config), "--cache-dir", str(Path(".mypy_cache")), "--no-error-summary", str(program)]
    )
    assert problems == ""
    return [re.sub(r"^.*?program\.py:(\d+): ", r"\1: ", line) for line in out.splitlines()]


def test_a_right_program_is_accepted_and_every_type_is_known(tmp_path: Path) -> None:
    assert check(tmp_path, PROGRAM) == []


@pytest.mark.timeout(300)
def test_each_wrong_line_is_refused_for_its_reason(tmp_path: Path) -> None:
    first = len(PROGRAM.splitlines()) + 1
    said = check(tmp_path, PROGRAM + "\n".join(WRONG) + "\n")
    errors = [line for line in said if ": error:" in line]
    assert [int(line.split(":")[0]) for line in errors] == list(range(first, first + len(WRONG)))
    for line, reason in zip(errors, WRONG.values(), strict=True):
        assert re.search(reason, line), line
