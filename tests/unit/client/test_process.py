"""Processes: forks, exits, and what a client must not do to either."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from taskd_protocol.connection_messages import Hello
from taskd_protocol.messages import Wait
from unit.client.faces import wait_until
from unit.client.fake_server import FakeServer

PREAMBLE = """
import os, sys, threading, time, multiprocessing
from taskd import App
app = App(os.environ["TASKD_URL"])
echo = app.task(name="t")(lambda number: number)
"""


def run(server: FakeServer, script: str, *, timeout_s: float = 30) -> subprocess.CompletedProcess[str]:
    """Run a program in its own process, where every warning but that of forking with threads is an error."""
    return subprocess.run(
        [
            sys.executable,
            "-X",
            "dev",
            "-W",
            "error",
            "-W",
            "default:This process:DeprecationWarning",
            "-c",
            PREAMBLE + script,
        ],
        env={"TASKD_URL": server.url, "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )


def hellos(server: FakeServer) -> list[Hello]:
    with server.lock:
        return [message for message in server.received if isinstance(message, Hello)]


@pytest.mark.parametrize(
    "script",
    [
        "",
        "echo.submit(1)",
        "print(echo.submit(1).result())",
        "app.client",
        "handles = echo.map(range(3000)); handles[0].result()",
        "app.close(); echo.submit(1); app.close(); app.close()",
        "import atexit; atexit.register(lambda: print(echo.submit(1).result()))",
    ],
)
def test_a_program_ends_without_a_word(server: FakeServer, script: str) -> None:
    """Closed or not, nothing is printed and nothing hangs."""
    done = run(server, script)
    assert (done.returncode, done.stderr) == (0, "")
    wait_until(lambda: not server.peers)


def test_a_program_ends_while_a_thread_still_waits(server: FakeServer) -> None:
    server.run = lambda _spec: None
    done = run(
        server,
        """
handle = echo.submit(1)
def wait():
    try:
        handle.result()
    except Exception as error:
        print(error)
threading.Thread(target=wait, daemon=True).start()
""",
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_program_ends_while_its_server_is_away(server: FakeServer) -> None:
    url_taken = server.url
    server.stop()
    done = run(
        server,
        """
try:
    echo.submit(1)
except Exception as error:
    print(error.code)
""",
    )
    assert url_taken == server.url
    assert (done.returncode, done.stdout, done.stderr) == (0, "connection.refused\n", "")


def test_waiting_can_be_interrupted(server: FakeServer) -> None:
    """Ctrl-C while a result is awaited ends the program as it ends any other."""
    server.run = lambda _spec: None
    program = subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + "handle = echo.submit(1)\nprint('waiting', flush=True)\nhandle.result()"],
        env={"TASKD_URL": server.url, "PATH": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: any(isinstance(message, Wait) for message in list(server.received)))
    program.send_signal(signal.SIGINT)
    _, errors = program.communicate(timeout=30)
    assert program.returncode == -signal.SIGINT
    assert errors.strip().splitlines()[-1] == "KeyboardInterrupt"


FORK = """
first = echo.submit(1)
assert first.result() == 1
open_handle = echo.submit(2)
child = os.fork()
if child == 0:
    status = 1
    try:
        assert echo.submit(3).result(timeout=20) == 3      # a task of its own
        assert open_handle.result(timeout=20) == 2         # what its parent submitted
        assert first.result() == 1                         # what was known already
        status = 0
    finally:
        HOW(status)
assert os.waitpid(child, 0)[1] == 0, "the child failed"
assert echo.submit(4).result(timeout=20) == 4
assert open_handle.result(timeout=20) == 2
"""


@pytest.mark.parametrize("how", ["os._exit", "sys.exit"])
@pytest.mark.parametrize("transport", ["server", "secure"])
def test_a_forked_child_speaks_on_a_connection_of_its_own(
    request: pytest.FixtureRequest, transport: str, how: str
) -> None:
    """The parent's connection stays up through the child's life and its end, with no byte of the child on it."""
    server = request.getfixturevalue(transport)
    done = run(server, FORK.replace("HOW", how))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "Traceback" not in done.stderr
    parent, child = hellos(server)
    assert parent.boot_id != child.boot_id
    assert len(server.tasks) == 4


def test_forks_in_the_midst_of_submits_neither_hang_nor_lose(server: FakeServer) -> None:
    """A child that is forked while other threads hold whatever they hold can submit at once."""
    done = run(
        server,
        """
stop = threading.Event()
counts = [0] * 3
def submit(index):
    while not stop.is_set():
        echo.map(range(50)); counts[index] += 50
threads = [threading.Thread(target=submit, args=(index,)) for index in range(3)]
echo.submit(0)
for thread in threads: thread.start()
for _ in range(10):
    child = os.fork()
    if child == 0:
        handles = echo.map(range(20))
        ok = [handle.result(timeout=20) for handle in handles] == list(range(20))
        os._exit(0 if ok else 1)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
for thread in threads: thread.join()
print(sum(counts) + 10 * 20 + 1)
""",
        timeout_s=100,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert len(server.tasks) == int(done.stdout)
    assert len(hellos(server)) == 11


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_pool_of_processes_submits(server: FakeServer, tmp_path: Path, method: str) -> None:
    program = tmp_path / "pool_program.py"
    program.write_text(
        PREAMBLE
        + """
def submit(number):
    return echo.submit(number).result(timeout=20)
if __name__ == "__main__":
    assert submit(0) == 0
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
        assert pool.map(submit, range(20)) == list(range(20))
    assert submit(1) == 1
"""
    )
    done = subprocess.run(
        [sys.executable, program, method],
        env={"TASKD_URL": server.url, "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert len(server.tasks) == 22
