"""What is live, as people see it: on a narrow terminal, without colours, cut off by a pipe, ended by Ctrl-C."""

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from e2e.house import PATIENCE_S, House, house, wait_until

MODULE = """
import os, time
from taskd import App, current

app = App()

@app.task
def add(a, b=0):
    return a + b

@app.task
def steps(path):
    while not os.path.exists(path):
        current().progress(0.25, 1, "longer than its line, and wide: \N{PACKAGE}" * 3)
        time.sleep(0.05)
"""

NARROW = 40


class Terminal:
    """A terminal of 40 columns, and a command that runs on it."""

    def __init__(self, home: House, *words: str, env: Mapping[str, str] | None = None) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, NARROW, 0, 0))
        self.process = subprocess.Popen(
            [*home.program, *words],
            env={**home.env, "TERM": "xterm-256color", **(env or {})},
            cwd=home.work,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        self.shown = ""

    def see(self, text: str) -> None:
        """Wait for a text."""
        while text not in self.shown:
            ready, _, _ = select.select([self._ours], [], [], PATIENCE_S)
            assert ready, f"no {text!r} in {self.shown!r}"
            self.shown += os.read(self._ours, 65_536).decode(errors="replace")

    def end(self, number: signal.Signals | None = None) -> int:
        """Send it a signal; return its exit code, with all that it has shown read."""
        if number is not None:
            self.process.send_signal(number)
        try:
            while piece := os.read(self._ours, 65_536):
                self.shown += piece.decode(errors="replace")
        except OSError:  # it has closed it
            pass
        os.close(self._ours)
        return self.process.wait(PATIENCE_S)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A user with a server and an agent."""
    with house(tmp_path_factory.mktemp("terminals") / "home") as made:
        (made.work / "shop.py").write_text(MODULE)
        made.serve()
        made.start("agent", "shop", "--name", "a1", "--processes", "1")
        wait_until(lambda: made.agents().get("a1", {}).get("state") == "live")
        yield made


def test_top_is_live_and_ends_well(home: House) -> None:
    """By Ctrl-C, which is its end; in a pipe no line is broken."""
    screen = Terminal(home, "top", "--every", "0.2")
    screen.see("AGENT")
    screen.see("a1")
    assert screen.end(signal.SIGINT) == 0
    assert "Traceback" not in screen.shown
    text = wait_until(lambda: said if "up to" in (said := home.ask("top")) else "")
    assert [line for line in text.splitlines() if "scheduled," in line and "blocked," in line and "running" in line]
    assert all(line == line.rstrip() for line in text.splitlines())
    assert "\x1b" not in text


def test_progress_keeps_to_its_line(home: House, tmp_path: Path) -> None:
    """However long its message; and Ctrl-C ends the wait, not with a traceback."""
    gate = tmp_path / "gate"
    screen = Terminal(home, "submit", "shop.steps", json.dumps([str(gate)]), "--wait")
    screen.see("25%")
    assert screen.end(signal.SIGINT) == 130
    gate.touch()
    assert "Traceback" not in screen.shown
    drawn = [part.replace("\x1b[K", "").strip("\r\n^C") for part in screen.shown.split("\r") if "%" in part]
    assert all(len(part) + part.count("\N{PACKAGE}") < NARROW for part in drawn), drawn


def test_a_workflow_is_watched_on_one_line(home: House) -> None:
    words = "\n\n".join(f'[nodes.n{number}]\ncommand = ["true"]' for number in range(3))
    (home.work / "flow.toml").write_text(f'name = "{"long" * 20}"\n\n{words}\n')
    screen = Terminal(home, "workflow", "watch", home.ask("workflow", "submit", "flow.toml"))
    assert screen.end() == 0
    drawn = [part.replace("\x1b[K", "").strip("\r\n") for part in screen.shown.split("\r")]
    assert max(map(len, drawn)) < NARROW


def test_watch_has_no_colours_when_asked_not_to(home: House) -> None:
    """And ends as a shell expects when its reader has gone, or by Ctrl-C."""
    home.ask("submit", "shop.add", "[1]", "--wait")
    plain = Terminal(home, "watch", "--after", "0", env={"NO_COLOR": "1"})
    plain.see("task.succeeded")
    assert plain.end(signal.SIGINT) == 130
    assert "\x1b" not in plain.shown
    assert "Traceback" not in plain.shown
    coloured = Terminal(home, "watch", "--after", "0")
    coloured.see("task.succeeded")
    coloured.end(signal.SIGINT)
    assert "\x1b[32m" in coloured.shown
    watching = home.start("watch", "--after", "0")
    assert watching.read_line()
    assert watching.process.stdout is not None
    watching.process.stdout.close()
    wait_until(lambda: home.ask("submit", "shop.add", "[1]") and watching.process.poll() is not None)
    assert watching.process.returncode == 141
    assert "Traceback" not in watching.log.read_text()
