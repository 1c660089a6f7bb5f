"""What tasks print, log and emit: read live and later, whoever was killed meanwhile."""

import asyncio
import datetime as dt
import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import trio

from e2e.house import House, house, wait_until
from taskd import App, OutputLine
from taskd_protocol.errors import BadRequest

SHOP = '''
import asyncio, logging, os, subprocess, sys, threading, time
from taskd import App, current

app = App()
log = logging.getLogger("shop.till")

@app.task
def speak():
    """Say something in every way there is."""
    print("printed")
    print("to stderr", file=sys.stderr)
    os.write(1, b"past Python\\n")
    subprocess.run(["sh", "-c", "echo from a child; echo its error >&2; echo by name > /dev/stderr"], check=True)
    thread = threading.Thread(target=lambda: (print("in a thread"), log.info("logged in a thread")))
    thread.start()
    thread.join()
    log.info("logged %s", "once", extra={"order": 7})
    log.debug("too low")
    try:
        1 / 0
    except ZeroDivisionError:
        log.exception("it failed")
    ctx = current()
    ctx.log("said", level="warning", place="shop")
    for n in range(3):
        ctx.progress(n + 1, 3, f"step {n + 1}")
        ctx.emit({"part": n})
    sys.stdout.write("no newline at the end")

@app.task
def quick(n):
    print("line of", n)

@app.task
def silent(n):
    return n

@app.task
def raw(n):
    os.write(1, b"raw of %d\\n" % n)
    time.sleep(0.001)

@app.task
def dies():
    print("last words")
    sys.stdout.flush()
    os.kill(os.getpid(), 9)

@app.task
async def aspeak(name):
    for n in range(3):
        print(name, n)
        print("half of", name, end="")
        await asyncio.sleep(0.01)
        print(" and half")
        log.info("async %s %s", name, n)
        await asyncio.to_thread(print, "thread of", name)
    print("unfinished", end="")
    current().emit(name)

@app.task
def lines(count, seconds=0.0, start=0):
    """Say numbered lines, in both outputs, and records."""
    for n in range(start, count):
        print("out %d" % n)
        print("err %d" % n, file=sys.stderr)
        log.info("log %d", n)
        if seconds:
            time.sleep(seconds)

@app.task
def talk(path):
    """Say numbered lines in both outputs, and records, until the file is there; return how many."""
    n = 0
    while not os.path.exists(path):
        lines(n + 1, 0.002, n)
        n += 1
    return n

@app.task
def flood(count):
    text = "x" * 99
    for n in range(count):
        print(text)

@app.task
def nasty():
    print("\\x1b]0;owned\\x07\\x1b[2Jcleared \\x1b[31mred\\x1b[0m \\x00\\xff" )
    sys.stdout.buffer.write(b"\\xff\\xfe binary\\n")

@app.task
def gated(path):
    """Emit numbers, the first before the file is there."""
    for n in range(4):
        current().emit(n)
        while not os.path.exists(path):
            time.sleep(0.02)

@app.task
def steps():
    for n in range(4):
        current().progress(n / 4, f"step {n}")
        current().emit(n)
        time.sleep(0.3)
    return "done"
'''


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A server and an agent for tests that kill neither."""
    with house(tmp_path_factory.mktemp("shop")) as home:
        (home.work / "shop.py").write_text(SHOP)
        home.serve()
        home.start("agent", "shop", "--processes", "2", "--concurrency", "20")
        yield home


@pytest.fixture
def home(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path) as home:
        (home.work / "shop.py").write_text(SHOP)
        yield home


def app_of(home: House) -> App:
    profile = home.profile()
    ca = home.home / "ca.pem"
    ca.write_text(profile["ca_pem"])
    return App(f"taskd://{profile['token']}@{profile['address']}?ca={quote(str(ca))}")


def logs(home: House, task_id: str, *words: str) -> list[dict[str, object]]:
    return list(json.loads(home.ask("task", "logs", task_id, "--json", *words)))


def texts(lines: list[dict[str, object]], stream: str) -> list[object]:
    return [line["text"] for line in lines if line["stream"] == stream]


def done(home: House, *words: str) -> str:
    """Submit a task and wait for its end; return its id."""
    task_id = home.ask("submit", *words)
    home.run("task", "wait", task_id)
    return task_id


def said(lines: Iterable[OutputLine], stream: str) -> list[str]:
    return [line.text for line in lines if line.stream == stream]


def test_everything_that_an_attempt_says_is_its_own(shop: House) -> None:
    task_id = done(shop, "shop.speak")
    lines = logs(shop, task_id)
    assert texts(lines, "stdout") == ["printed", "past Python", "from a child", "in a thread", "no newline at the end"]
    assert texts(lines, "stderr") == ["to stderr", "its error", "by name"]
    records = [line for line in lines if line["stream"] == "log"]
    assert [(line["level"], line["logger"], str(line["text"]).partition("\n")[0]) for line in records] == [
        ("INFO", "shop.till", "logged in a thread"),
        ("INFO", "shop.till", "logged once"),
        ("ERROR", "shop.till", "it failed"),
        ("WARNING", "shop.speak", "said"),
    ]
    assert "ZeroDivisionError" in str(records[2]["text"])
    assert records[1]["fields"] == {"order": "7"}
    trace = shop.task(task_id)["trace_id"]
    assert all(str(trace) in str(record["traceparent"]) for record in records[1:])


def test_what_attempts_print_is_told_apart_however_short_they_are(shop: House) -> None:
    """Hundreds in one batch of one worker, some of which print past Python, and most nothing."""
    app = app_of(shop)
    tasks = {name: app.task(name=f"shop.{name}")(_stub) for name in ("quick", "raw", "silent")}
    kinds = [("quick", "raw", "silent", "silent")[n % 4] for n in range(400)]
    handles = [tasks[kind].submit(n) for n, kind in enumerate(kinds)]
    for handle in handles:
        handle.result(timeout=60)
    expected = {"quick": "line of {}", "raw": "raw of {}"}
    for n, (kind, handle) in enumerate(zip(kinds, handles, strict=True)):
        assert said(handle.logs(), "stdout") == ([expected[kind].format(n)] if kind in expected else []), (n, kind)
    app.client.close()


def test_coroutines_that_run_together_are_told_apart(shop: House) -> None:
    app = app_of(shop)
    speak = app.task(name="shop.aspeak")(_stub)
    handles = [speak.submit(f"c{n}") for n in range(10)]
    for n, handle in enumerate(handles):
        handle.result(timeout=60)
        name = f"c{n}"
        lines = list(handle.logs())
        per_step = [[f"{name} {k}", f"half of {name} and half", f"thread of {name}"] for k in range(3)]
        assert said(lines, "stdout") == [line for step in per_step for line in step] + ["unfinished"]
        assert said(lines, "log") == [f"async {name} {k}" for k in range(3)]
        assert [emitted.value for emitted in handle.stream()] == [name]
    app.client.close()


def test_the_last_words_of_a_worker_that_dies_are_kept(shop: House) -> None:
    task_id = done(shop, "shop.dies", "--max-attempts", "1")
    assert texts(logs(shop, task_id), "stdout") == ["last words"]


def test_values_and_lines_are_read_live_from_a_cursor_and_by_time(shop: House) -> None:
    app = app_of(shop)
    gate = shop.work / "gate"
    handle = app.task(name="shop.gated")(_stub).submit(str(gate))
    values = handle.stream(timeout=30)
    first = next(values)
    assert (first.value, first.attempt) == (0, 1)
    assert handle.state() == "running"
    gate.touch()
    assert [value.value for value in values] == [1, 2, 3]
    assert [value.value for value in handle.stream(since=first.cursor)] == [1, 2, 3]
    talk = app.task(name="shop.lines")(_stub).submit(100)
    lines = list(talk.logs(follow=True, timeout=30))
    for stream, word in (("stdout", "out"), ("stderr", "err"), ("log", "log")):
        assert said(lines, stream) == [f"{word} {n}" for n in range(100)]
    for at in (0, 57, 150, len(lines) - 1):
        assert list(talk.logs(since=lines[at].cursor)) == lines[at + 1 :]
    assert list(talk.logs(since=dt.timedelta(hours=1))) == lines
    assert list(talk.logs(since=lines[-1].at + dt.timedelta(seconds=60))) == []
    assert list(talk.logs(attempt=2)) == []
    with pytest.raises(BadRequest, match="no cursor"):
        talk.logs(since="yesterday")

    async def read() -> list[OutputLine]:
        return [line async for line in talk.logs()]

    assert asyncio.run(read()) == trio.run(read) == lines
    app.client.close()


def test_a_flood_is_cut_and_the_cut_is_marked_with_its_count(shop: House) -> None:
    """What is there and what the marks count is all that was said."""
    task_id = done(shop, "shop.flood", "[200000]")
    lines = logs(shop, task_id)
    kept = texts(lines, "stdout")
    assert set(kept) == {"x" * 99}
    left_out = [int(str(text).split()[1].replace(",", "")) for text in texts(lines, "cut")]
    assert left_out
    assert len(kept) + sum(left_out) == 200_000
    assert len(kept) * 100 >= 4 * 1024 * 1024


def test_a_terminal_is_shown_what_it_must_not_obey(shop: House) -> None:
    task_id = done(shop, "shop.nasty")
    raw = subprocess.run(
        [*shop.program, "task", "logs", task_id], env=shop.env, cwd=shop.work, capture_output=True, check=True
    ).stdout
    assert raw.endswith(b"\xff\xfe binary\n")
    assert b"\x1b]0;owned\x07" in raw
    shown = on_terminal(shop, "task", "logs", task_id)
    assert b"\x1b[31mred\x1b[0m" in shown
    assert "��cleared".encode() in shown
    assert not any(bad in shown for bad in (b"\x1b]", b"\x1b[2J", b"\x07", b"\x00", b"\xff"))
    assert b"[##" in on_terminal(shop, "submit", "shop.steps", "--wait")


def test_logs_are_followed_on_the_command_line(shop: House) -> None:
    task_id = shop.ask("submit", "shop.lines", "[20, 0.05]")
    follower = shop.start("task", "logs", task_id, "-f")
    assert [follower.read_line() for _ in range(20)] == [f"out {n}" for n in range(20)]
    assert follower.process.wait(30) == 0
    assert shop.ask("task", "logs", task_id, "--since", "1h").splitlines()[-1] == "out 19"
    assert json.loads(shop.ask("task", "logs", task_id, "-f", "--json").splitlines()[0])["cursor"] == "0.0"


@pytest.mark.parametrize("victim", ["server", "agent"])
def test_no_line_is_lost_or_doubled_when_one_is_killed(home: House, victim: str) -> None:
    """The server's attempts go on; the agent's are tried again, and each has what it said."""
    server = home.serve()
    where = home.profile()["address"]
    agent = home.start("agent", "shop", "--processes", "4")
    enough = home.work / "enough"
    ids = [home.ask("submit", "shop.talk", json.dumps([str(enough)])) for _ in range(4)]
    wait_until(lambda: all(logs(home, task_id) for task_id in ids))
    if victim == "server":
        server.end(signal.SIGKILL)
        home.start("server", "--listen", where, "--http", "127.0.0.1:0")
    else:
        agent.end(signal.SIGKILL)
        home.start("agent", "shop", "--processes", "4")
    last = "1" if victim == "server" else "2"
    wait_until(lambda: home.run("task", "ls").returncode == 0)
    before = {task_id: len(logs(home, task_id, "--attempt", last)) for task_id in ids}
    wait_until(lambda: all(len(logs(home, task_id, "--attempt", last)) > before[task_id] for task_id in ids))
    enough.touch()
    for task_id in ids:
        count = int(home.ask("task", "wait", task_id, "--timeout", "55s"))
        assert home.task(task_id)["attempt"] == int(last)
        lines = logs(home, task_id, "--attempt", last)
        for stream, word in (("stdout", "out"), ("stderr", "err"), ("log", "log")):
            assert texts(lines, stream) == [f"{word} {n}" for n in range(count)]


def on_terminal(home: House, *words: str) -> bytes:
    """Run `taskd WORDS…` on a terminal; return what that was sent."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*home.program, *words], env=home.env, cwd=home.work, stdin=theirs, stdout=theirs, stderr=theirs
    ) as running:
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 65_536):
                shown += piece
        except OSError:  # its last process has closed it
            pass
        os.close(ours)
        assert running.wait(60) == 0
    return shown


def _stub(*args: object) -> object:
    raise AssertionError(args)
